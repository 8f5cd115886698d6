"""The rules one by one, and the scripted matrix: what happens on the machine × what the verdict must be."""

import dataclasses
from collections.abc import Callable

import pytest

from idle_sense import (
    InvalidPolicy,
    Monitor,
    Policy,
    Power,
    Severity,
    State,
)
from idle_sense.facts import MemoryUse
from idle_sense.sentences import CHINESE, ENGLISH
from idle_sense.testing import ScriptedClock, ScriptedProbes

GIB = 1 << 30


class Machine:
    """A monitor on a scripted machine whose owner has been away for a day."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = ScriptedClock()
        self.probes = ScriptedProbes()
        self.monitor = Monitor(policy or Policy.desktop(), clock=self.clock, probes=self.probes.probes)

    def run(self, seconds: float, *, step_s: float = 1.0) -> list[State]:
        states: list[State] = []
        for _ in range(round(seconds / step_s)):
            self.probes.pass_time(self.clock, step_s)
            states.append(self.monitor.check().state)
        return states

    def settle(self) -> None:
        self.monitor.check()
        assert self.run(1200)[-1] is State.IDLE

    @property
    def codes(self) -> tuple[str, ...]:
        return self.monitor.check().codes


def type_on_the_keyboard(machine: Machine) -> None:
    machine.probes.input_idle_s = 0.0


def type_in_a_terminal(machine: Machine) -> None:
    machine.probes.terminals = {"pts/0": 0.0}


def plug_a_display_out(machine: Machine) -> None:
    machine.probes.input_idle_s = None


def wake_from_sleep(machine: Machine) -> None:
    machine.clock.sleep_machine(3600)


def lose_the_display_server(machine: Machine) -> None:
    machine.probes.failing = {"input"}


def lose_the_terminals(machine: Machine) -> None:
    machine.probes.failing = {"terminals"}


def hang_the_display_server(machine: Machine) -> None:
    machine.probes.ages_s = {"input": 3.5}


def break_a_probe(machine: Machine) -> None:
    machine.probes.raising = {"load": OSError("no /proc/stat")}


def take_the_memory(machine: Machine) -> None:
    machine.probes.memory = MemoryUse(total_bytes=16 * GIB, available_bytes=GIB // 2)


def stall_for_memory(machine: Machine) -> None:
    machine.probes.memory = MemoryUse(total_bytes=16 * GIB, available_bytes=8 * GIB, stalled_ratio=0.5)


def pull_the_plug(machine: Machine) -> None:
    machine.probes.power = Power(battery=True, on_mains=False)


def hide_the_plug(machine: Machine) -> None:
    machine.probes.power = Power(battery=True, on_mains=None)


@pytest.mark.parametrize(
    ("event", "code", "severity"),
    [
        (type_on_the_keyboard, "input.recent", Severity.HARD),
        (type_in_a_terminal, "terminal.recent", Severity.HARD),
        (plug_a_display_out, "session.changed", Severity.HARD),
        (wake_from_sleep, "session.woke", Severity.HARD),
        (lose_the_display_server, "probe.missing", Severity.HARD),
        (lose_the_terminals, "probe.missing", Severity.HARD),
        (hang_the_display_server, "probe.stale", Severity.HARD),
        (break_a_probe, "probe.missing", Severity.SOFT),
        (take_the_memory, "memory.short", Severity.SOFT),
        (stall_for_memory, "memory.stalled", Severity.SOFT),
        (pull_the_plug, "power.battery", Severity.POLICY),
        (hide_the_plug, "probe.missing", Severity.POLICY),
    ],
)
def test_an_idle_machine_is_busy_with_the_very_next_sample(
    event: Callable[[Machine], None], code: str, severity: Severity
) -> None:
    machine = Machine()
    machine.settle()
    event(machine)
    verdict = machine.monitor.check()
    assert verdict.state is State.BUSY
    assert [(reason.code, reason.severity) for reason in verdict.reasons] == [(code, severity)]


def test_a_machine_in_use_is_lent_exactly_after_five_minutes_without_input() -> None:
    machine = Machine()
    machine.probes.input_idle_s = 0.0
    machine.monitor.check()
    states = machine.run(310)
    assert states[:299] == [State.BUSY] * 299
    assert states[300:] == [State.IDLE] * 10


def test_input_is_told_with_its_age_and_its_limit() -> None:
    machine = Machine()
    machine.probes.input_idle_s = 4.0
    (reason,) = machine.monitor.check().reasons
    assert reason.sentence == "in use (key or mouse 4 s ago on :0); lent after 5 min without input"


def test_a_key_in_a_terminal_is_told_as_a_key() -> None:
    machine = Machine()
    machine.probes.input_idle_s = None
    machine.probes.terminals = {"pts/3": 4.0}
    (reason,) = machine.monitor.check().reasons
    assert reason.sentence == "in use (key pressed 4 s ago in terminal pts/3); lent after 5 min without input"


def test_the_first_verdict_never_is_idle_however_long_the_owner_was_away() -> None:
    for policy in (Policy.desktop(), Policy.server(), Policy.lab()):
        machine = Machine(policy)
        machine.probes.others_ratio = None
        verdict = machine.monitor.check()
        assert verdict.state is State.SETTLING
        assert verdict.codes == ("settling.measuring",)


def test_without_a_display_the_watch_itself_must_last_as_long_as_the_input_limit() -> None:
    machine = Machine()
    machine.probes.input_idle_s = None
    assert machine.monitor.check().codes == ("settling.unattended",)
    states = machine.run(301)
    assert states[:299] == [State.SETTLING] * 299
    assert states[-1] is State.IDLE
    assert "idle.terminal" in machine.codes


def test_a_terminal_that_was_closed_counts_as_used_until_the_limit_is_over() -> None:
    machine = Machine()
    machine.probes.input_idle_s = None
    machine.settle()
    machine.probes.terminals = {"pts/0": 0.0}
    machine.monitor.check()
    machine.probes.terminals = {}
    states = machine.run(301)
    assert states[:299] == [State.BUSY] * 299
    assert states[-1] is State.IDLE


def test_a_terminal_that_only_exists_keeps_nothing_busy() -> None:
    machine = Machine()
    machine.probes.terminals = {"pts/0": 7200.0}
    machine.settle()


def test_a_server_is_not_asked_about_keyboards_and_terminals() -> None:
    machine = Machine(Policy.server())
    machine.probes.failing = {"input", "terminals"}
    machine.monitor.check()
    assert machine.run(6)[-1] is State.IDLE
    assert "idle.unattended" in machine.codes


def test_setting_the_wall_clock_makes_an_idle_machine_settle_anew() -> None:
    for by_s in (3600.0, -3600.0):
        machine = Machine()
        machine.settle()
        machine.clock.set_wall(by_s)
        assert machine.monitor.check().state is State.SETTLING
        assert machine.run(11)[-1] is State.IDLE


def test_a_server_that_woke_settles_anew() -> None:
    machine = Machine(Policy.server())
    machine.settle()
    machine.clock.sleep_machine(3600)
    assert machine.monitor.check().state is State.SETTLING


def test_load_of_others_has_two_thresholds() -> None:
    machine = Machine()
    machine.settle()
    machine.probes.others_ratio = 0.6
    assert State.BUSY in machine.run(5)
    machine.probes.others_ratio = 0.2
    assert set(machine.run(300)) == {State.BUSY}, "between the thresholds the latch holds"
    machine.probes.others_ratio = 0.1
    states = machine.run(120)
    assert states[10] is State.BUSY
    assert states[-1] is State.IDLE


def test_a_short_spike_of_a_background_program_passes() -> None:
    machine = Machine()
    machine.settle()
    for _ in range(20):
        machine.probes.others_ratio = 1.0
        assert machine.run(1) == [State.IDLE]
        machine.probes.others_ratio = 0.02
        assert set(machine.run(19)) == {State.IDLE}


def test_a_load_that_is_no_number_counts_as_full() -> None:
    machine = Machine()
    machine.settle()
    machine.probes.others_ratio = float("nan")
    assert State.BUSY in machine.run(5)


def test_memory_stays_short_until_clearly_more_is_free() -> None:
    machine = Machine()
    machine.settle()
    for free, short in ((1.9, False), (1.0, True), (1.5, True), (1.9, True), (2.0, False), (1.5, False)):
        machine.probes.memory = MemoryUse(total_bytes=16 * GIB, available_bytes=int(free * GIB))
        assert machine.monitor.check().memory_short is short, free


def test_the_grace_doubles_after_each_false_start_up_to_its_cap() -> None:
    machine = Machine(dataclasses.replace(Policy.server(), grace_s=10, grace_cap_s=60, calm_s=1e6))
    machine.settle()
    waits: list[int] = []
    for _ in range(5):
        machine.probes.power = Power(battery=True, on_mains=False)
        machine.run(1)
        machine.probes.power = Power(battery=True, on_mains=True)
        waits.append(machine.run(200, step_s=1.0).index(State.IDLE))
        # Back to the very start of this idle period, so that the next disturbance comes early in it.
        machine.probes.power = Power(battery=True, on_mains=False)
        machine.run(1)
        machine.probes.power = Power(battery=True, on_mains=True)
        while machine.monitor.check().state is not State.IDLE:
            machine.run(1)
    assert waits == sorted(waits)
    assert waits[0] <= 11
    assert 58 <= waits[-1] <= 61


def test_a_long_idle_time_forgives_false_starts() -> None:
    machine = Machine(dataclasses.replace(Policy.server(), grace_s=10, grace_cap_s=60, calm_s=100))
    machine.settle()
    for _ in range(3):
        machine.probes.power = Power(battery=True, on_mains=False)
        machine.run(1)
        machine.probes.power = Power(battery=True, on_mains=True)
        while machine.monitor.check().state is not State.IDLE:
            machine.run(1)
    machine.run(200)
    machine.probes.power = Power(battery=True, on_mains=False)
    machine.run(1)
    machine.probes.power = Power(battery=True, on_mains=True)
    assert machine.run(12)[-1] is State.IDLE


def test_a_repaired_probe_needs_the_grace_again() -> None:
    machine = Machine()
    machine.settle()
    machine.probes.failing = {"memory"}
    machine.run(30)
    machine.probes.failing = set()
    assert machine.monitor.check().state is State.SETTLING
    assert machine.run(11)[-1] is State.IDLE


def test_a_battery_may_be_lent_by_policy() -> None:
    machine = Machine(dataclasses.replace(Policy.desktop(), lend_on_battery=True))
    machine.probes.power = Power(battery=True, on_mains=False)
    machine.settle()


def test_the_age_of_a_state_grows_until_the_state_changes() -> None:
    machine = Machine()
    machine.settle()
    before_s = machine.monitor.check().since_s
    machine.run(5)
    assert machine.monitor.check().since_s == pytest.approx(before_s + 5)
    machine.probes.input_idle_s = 0.0
    assert machine.monitor.check().since_s == 0.0


def test_reasons_come_with_the_gravest_first() -> None:
    machine = Machine()
    machine.probes.power = Power(battery=True, on_mains=False)
    machine.probes.memory = MemoryUse(total_bytes=GIB, available_bytes=1)
    machine.probes.input_idle_s = 1.0
    severities = [reason.severity for reason in machine.monitor.check().reasons]
    assert severities == [Severity.HARD, Severity.SOFT, Severity.POLICY]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_idle_s": -1.0}, "input_idle_s"),
        ({"grace_s": float("nan")}, "grace_s"),
        ({"grace_s": "ten"}, "grace_s"),
        ({"grace_s": True}, "grace_s"),
        ({"watch_input": "no"}, "watch_input"),
        ({"name": 1}, "name"),
        ({"cpu_busy_ratio": 1.5}, "cpu_busy_ratio"),
        ({"cpu_free_ratio": 0.9}, "cpu_free_ratio"),
        ({"grace_s": 1000.0}, "grace_s"),
    ],
)
def test_a_policy_without_sense_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        dataclasses.replace(Policy.desktop(), **changes)
    assert caught.value.field == field
    assert caught.value.hint


def test_both_languages_know_the_same_codes_with_the_same_parameters() -> None:
    import string

    assert ENGLISH.keys() == CHINESE.keys()
    for code, english in ENGLISH.items():
        fields = [
            {field for _, field, _, _ in string.Formatter().parse(text) if field}
            for text in (english, CHINESE[code])
        ]
        assert fields[0] == fields[1], code


def test_codes_have_the_form_that_other_programs_rely_on() -> None:
    import re

    for code in ENGLISH:
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code)
