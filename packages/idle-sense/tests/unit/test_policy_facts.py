"""The rules of every further fact: sessions, calls, media, the screen, graphics processors, traffic, heat, hours, networks."""

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from idle_sense import (
    Calls,
    GpuUse,
    Media,
    MemoryUse,
    Monitor,
    Network,
    Policy,
    QuietHours,
    Screen,
    Session,
    Severity,
    State,
    Thermal,
    Traffic,
)
from idle_sense.probes.bundle import FACTS
from idle_sense.testing import ScriptedClock, ScriptedProbes

DESK = Session(name="2 of anna on seat0", user="anna", remote=False, active=True, locked=False)
AWAY = dataclasses.replace(DESK, locked=True)
SSH = Session(name="9 of anna from 10.0.0.7", user="anna", remote=True, active=True, locked=None)
FURTHER = [fact for fact in FACTS if fact not in ("seats", "terminals", "load", "memory")]
MB = 1e6


class Machine:
    """A monitor on a scripted machine whose owner has been away for a day."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = ScriptedClock()
        self.probes = ScriptedProbes()
        self.probes.sessions = (DESK,)
        self.monitor = Monitor(policy or Policy.desktop(), clock=self.clock, probes=self.probes.probes)

    def run(self, seconds: float) -> list[State]:
        states: list[State] = []
        for _ in range(round(seconds)):
            self.probes.pass_time(self.clock, 1.0)
            states.append(self.monitor.check().state)
        return states

    def settle(self) -> "Machine":
        self.monitor.check()
        assert self.run(700)[-1] is State.IDLE
        return self

    def busy_after(self, limit_s: int = 60) -> int:
        """Looks until it is busy."""
        return self.looks_until(State.BUSY, limit_s)

    def idle_after(self, limit_s: int = 1500) -> int:
        return self.looks_until(State.IDLE, limit_s)

    def looks_until(self, state: State, limit_s: int) -> int:
        for count in range(1, limit_s + 1):
            if self.run(1) == [state]:
                return count
        raise AssertionError(f"not {state} within {limit_s} s")

    @property
    def codes(self) -> tuple[str, ...]:
        return self.monitor.check().codes


def change(machine: Machine, **facts: object) -> None:
    for name, value in facts.items():
        assert hasattr(machine.probes, name)
        setattr(machine.probes, name, value)


@pytest.mark.parametrize(
    ("facts", "code", "severity"),
    [
        ({"sessions": (DESK, SSH)}, "session.began", Severity.HARD),
        ({"sessions": ()}, "session.ended", Severity.HARD),
        ({"calls": Calls(microphones=("meeting",))}, "call.microphone", Severity.HARD),
        ({"calls": Calls(cameras=("meeting",))}, "call.camera", Severity.HARD),
        ({"screen": Screen(fullscreen=(":0",))}, "screen.fullscreen", Severity.SOFT),
        ({"media": Media(inhibitors=("player",))}, "media.inhibitor", Severity.SOFT),
        (
            {"memory": MemoryUse(total_bytes=100, available_bytes=90, short=True)},
            "memory.short",
            Severity.SOFT,
        ),
        ({"thermal": Thermal(hottest_c=93.0)}, "heat.hot", Severity.POLICY),
        ({"thermal": Thermal(hottest_c=None, pressure="heavy")}, "heat.slowed", Severity.POLICY),
        ({"network": Network(metered=True)}, "network.metered", Severity.POLICY),
    ],
)
def test_an_idle_machine_is_busy_with_the_very_next_sample(
    facts: dict[str, object], code: str, severity: Severity
) -> None:
    machine = Machine().settle()
    change(machine, **facts)
    verdict = machine.monitor.check()
    assert verdict.state is State.BUSY
    assert [(reason.code, reason.severity) for reason in verdict.reasons] == [(code, severity)]


@pytest.mark.parametrize("fact", FURTHER)
def test_what_fails_or_is_old_is_busy_and_what_was_never_told_decides_nothing(fact: str) -> None:
    name = "input" if fact == "seats" else fact
    for harm in ("failing", "ages_s"):
        machine = Machine().settle()
        if harm == "failing":
            machine.probes.failing = {name}
        else:
            machine.probes.ages_s = {name: 1000.0}
        verdict = machine.monitor.check()
        assert verdict.state is State.BUSY
        assert verdict.codes == ("probe.missing" if harm == "failing" else "probe.stale",)
        assert verdict.reasons[0].params["advice"]
    machine = Machine()
    change(machine, **{fact: None})
    machine.settle()


@pytest.mark.parametrize("fact", ["seats", "terminals", "load", "memory"])
def test_a_basic_fact_that_nobody_tells_is_busy_all_the_same(fact: str) -> None:
    from idle_sense import Memory, Reading, decide

    machine = Machine().settle()
    snapshot = machine.monitor.snapshot
    assert snapshot is not None
    untold = dataclasses.replace(snapshot, **{fact: Reading.untold("test", "no way to tell")})
    assert decide(untold, Policy.desktop(), Memory())[0].codes == ("probe.missing",)


def test_a_screen_that_is_unlocked_is_a_sign_of_its_owner() -> None:
    machine = Machine()
    machine.probes.sessions = (AWAY,)
    machine.settle()
    machine.probes.sessions = (DESK,)
    verdict = machine.monitor.check()
    assert verdict.codes == ("session.unlocked",)
    states = machine.run(301)
    assert states[:299] == [State.BUSY] * 299
    assert states[-1] is State.IDLE


def test_locking_the_screen_is_no_sign_and_no_reason() -> None:
    machine = Machine().settle()
    machine.probes.sessions = (AWAY,)
    assert set(machine.run(30)) == {State.IDLE}


def test_a_session_that_comes_to_the_foreground_is_a_sign() -> None:
    machine = Machine()
    machine.probes.sessions = (DESK, dataclasses.replace(DESK, name="5 of bob on seat0", active=False))
    machine.settle()
    machine.probes.sessions = (DESK, dataclasses.replace(DESK, name="5 of bob on seat0", active=True))
    assert machine.codes == ("session.changed",)


def test_an_ssh_session_that_ended_is_a_sign_and_one_that_stays_quiet_is_none() -> None:
    machine = Machine()
    machine.probes.sessions = (DESK, SSH)
    machine.settle()
    machine.probes.sessions = (DESK,)
    (reason,) = machine.monitor.check().reasons
    assert reason.code == "session.ended"
    assert "9 of anna from 10.0.0.7" in reason.sentence


def test_a_call_lasts_as_long_as_its_microphone_is_open_and_leaves_somebody_behind() -> None:
    machine = Machine().settle()
    machine.probes.calls = Calls(microphones=("meeting",))
    machine.run(3600)
    assert machine.codes == ("call.microphone",)
    machine.probes.calls = Calls()
    machine.run(30)
    (reason,) = machine.monitor.check().reasons
    assert reason.sentence == "a call ended 30 s ago; lent after 5 min without input"
    assert 265 <= machine.idle_after() <= 271


def test_a_program_that_the_owner_names_is_no_call_no_sound_and_no_wish() -> None:
    machine = Machine(dataclasses.replace(Policy.desktop(), ignore_programs=("guard",)))
    machine.probes.calls = Calls(cameras=("guard",))
    machine.probes.media = Media(playing=("guard",), inhibitors=("guard",))
    machine.settle()
    machine.probes.calls = Calls(cameras=("guard", "meeting"))
    (reason,) = machine.monitor.check().reasons
    assert reason.value == "meeting"


def test_a_notification_is_no_film_and_a_film_is_one_within_seconds() -> None:
    machine = Machine().settle()
    for _ in range(5):
        machine.probes.media = Media(playing=("chime",))
        assert set(machine.run(1)) == {State.IDLE}
        machine.probes.media = Media()
        assert set(machine.run(30)) == {State.IDLE}
    machine.probes.media = Media(playing=("player",))
    assert machine.busy_after() <= 3
    assert machine.codes == ("media.playing",)


def test_a_pause_between_two_songs_does_not_make_it_idle() -> None:
    machine = Machine().settle()
    machine.probes.media = Media(playing=("player",))
    machine.run(60)
    for _ in range(20):
        machine.probes.media = Media()
        assert set(machine.run(4)) == {State.BUSY}
        machine.probes.media = Media(playing=("player",))
        assert set(machine.run(30)) == {State.BUSY}


def test_what_a_lock_screen_covers_is_watched_by_nobody() -> None:
    machine = Machine()
    machine.probes.sessions = (AWAY,)
    machine.probes.screen = Screen(fullscreen=(":0",))
    machine.settle()
    machine.probes.sessions = (dataclasses.replace(DESK, locked=None),)
    assert "screen.fullscreen" in machine.codes, "where nobody tells of locks, what fills the screen counts"


@pytest.mark.parametrize(
    ("busy", "between", "free", "code"),
    [
        (
            {"gpus": (GpuUse(name="card0", others_ratio=0.6), GpuUse(name="card1", others_ratio=0.0))},
            {"gpus": (GpuUse(name="card0", others_ratio=0.15), GpuUse(name="card1", others_ratio=0.0))},
            {"gpus": (GpuUse(name="card0", others_ratio=0.05), GpuUse(name="card1", others_ratio=0.0))},
            "load.gpu",
        ),
        (
            {"traffic": Traffic(disk_bytes_per_s=90 * MB, network_bytes_per_s=0.0)},
            {"traffic": Traffic(disk_bytes_per_s=20 * MB, network_bytes_per_s=0.0)},
            {"traffic": Traffic(disk_bytes_per_s=5 * MB, network_bytes_per_s=0.0)},
            "load.disk",
        ),
        (
            {"traffic": Traffic(disk_bytes_per_s=0.0, network_bytes_per_s=30 * MB)},
            {"traffic": Traffic(disk_bytes_per_s=0.0, network_bytes_per_s=5 * MB)},
            {"traffic": Traffic(disk_bytes_per_s=0.0, network_bytes_per_s=1 * MB)},
            "load.network",
        ),
    ],
)
def test_a_quantity_has_two_thresholds_and_holds_between_them(
    busy: dict[str, object], between: dict[str, object], free: dict[str, object], code: str
) -> None:
    machine = Machine()
    change(machine, **between)
    machine.settle()
    change(machine, **busy)
    assert machine.busy_after() <= 5
    assert machine.codes == (code,)
    change(machine, **between)
    assert set(machine.run(300)) == {State.BUSY}
    change(machine, **free)
    assert 10 < machine.idle_after() <= 120


@pytest.mark.parametrize(
    "gpu",
    [
        GpuUse(name="0", others_ratio=None),
        GpuUse(name="0", others_ratio=None, asleep=True),
        GpuUse(name="0", others_ratio=0.9, asleep=True),
    ],
)
def test_a_graphics_processor_that_sleeps_or_tells_nothing_keeps_nothing_busy(gpu: GpuUse) -> None:
    machine = Machine()
    machine.probes.gpus = (gpu,)
    machine.settle()


def test_the_reason_names_the_graphics_processor_that_is_used_most() -> None:
    machine = Machine()
    machine.probes.gpus = (GpuUse(name="small", others_ratio=0.3), GpuUse(name="big", others_ratio=0.8))
    machine.run(3)
    (reason,) = machine.monitor.check().reasons
    assert reason.params["gpu"] == "big"


def test_rates_that_are_not_told_decide_nothing_and_one_that_is_no_number_counts_as_full() -> None:
    machine = Machine()
    machine.probes.traffic = Traffic(disk_bytes_per_s=None, network_bytes_per_s=None)
    machine.settle()
    machine.probes.traffic = Traffic(disk_bytes_per_s=float("nan"), network_bytes_per_s=None)
    assert machine.busy_after() <= 30


@pytest.mark.parametrize(
    ("limit_c", "hot_c"), [(None, 92.0), (105.0, 92.0), (90.0, 85.0), (float("nan"), 92.0)]
)
def test_heat_is_held_against_the_sensors_own_limit_too_and_must_clearly_go(
    limit_c: float | None, hot_c: float
) -> None:
    machine = Machine().settle()
    for celsius, busy in (
        (hot_c - 0.5, False),
        (hot_c, True),
        (hot_c - 11.5, True),
        (hot_c - 12.5, False),
        (hot_c - 0.5, False),
    ):
        machine.probes.thermal = Thermal(hottest_c=celsius, limit_c=limit_c, sensor="package")
        assert ("heat.hot" in machine.codes) is busy, celsius


def test_a_battery_a_metered_network_may_be_lent_by_policy() -> None:
    machine = Machine(dataclasses.replace(Policy.desktop(), lend_on_metered=True))
    machine.probes.network = Network(metered=True)
    machine.settle()
    machine.probes.failing = {"network"}
    assert set(machine.run(3)) == {State.IDLE}


def test_a_server_ignores_what_tells_of_people_and_heeds_the_rest() -> None:
    machine = Machine(Policy.server())
    machine.probes.failing = {"input", "terminals", "sessions", "calls", "media", "screen"}
    machine.settle()
    machine.probes.gpus = (GpuUse(name="0", others_ratio=1.0),)
    assert machine.busy_after() <= 5
    machine.probes.gpus = ()
    machine.idle_after()
    machine.monitor.pause()
    assert machine.codes == ("pause.set",)


WEDNESDAY = datetime(2026, 11, 25, 12, 0)  # noqa: DTZ001 - a time of day


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("09:00-17:00", ["We 09:00", "Su 16:59"], ["We 08:59", "We 17:00"]),
        ("22:00-07:00", ["We 22:00", "Th 00:00", "Mo 06:59"], ["We 21:59", "We 07:00"]),
        ("mon-fri 09:00-17:00", ["Mo 12:00", "Fr 12:00"], ["Sa 12:00", "Su 12:00"]),
        ("fri,sat 22:00-07:00", ["Fr 23:00", "Sa 06:00", "Su 06:59"], ["Fr 06:00", "Su 22:30", "Mo 06:00"]),
        ("sat-mon 00:00-24:00", ["Sa 00:00", "Su 12:00", "Mo 23:59"], ["Tu 00:00", "Fr 23:59"]),
    ],
)
def test_quiet_hours_cover_days_of_the_week_and_midnight(
    text: str, inside: list[str], outside: list[str]
) -> None:
    hours = QuietHours.parse(text)
    assert str(hours) == text
    for moments, expected in ((inside, True), (outside, False)):
        for moment in moments:
            day = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"].index(moment[:2])
            at = datetime.fromisoformat(f"2026-11-23T{moment[3:]}:00") + timedelta(days=day)
            assert hours.contain(at) is expected, moment


def test_several_quiet_hours_hold_at_once_and_end_by_themselves() -> None:
    policy = dataclasses.replace(
        Policy.desktop(), quiet_hours=(QuietHours.parse("22:00-07:00"), QuietHours.parse("12:00-13:00"))
    )
    machine = Machine(policy)
    start = datetime(2026, 11, 25, 11, 30).astimezone()
    machine.clock._wall_s = start.timestamp()
    machine.settle()
    states = machine.run(2 * 3600)
    minutes = [index // 60 for index, state in enumerate(states) if state is State.BUSY]
    from_minute = 30 - 700 // 60
    assert set(minutes) <= set(range(from_minute - 1, from_minute + 61))
    assert len(minutes) == pytest.approx(3600, abs=2)


def test_quiet_hours_without_a_clock_are_busy() -> None:
    from idle_sense import Memory, decide

    hours = QuietHours.parse("02:00-02:01")
    policy = dataclasses.replace(Policy.server(), quiet_hours=(hours,))
    machine = Machine(policy).settle()
    assert machine.monitor.snapshot is not None
    verdict, _ = decide(dataclasses.replace(machine.monitor.snapshot, local=None), policy, Memory())
    assert verdict.codes == ("probe.missing",)


def disturb(machine: Machine) -> None:
    machine.probes.power = dataclasses.replace(machine.probes.power, battery=True, on_mains=False)
    machine.run(1)
    machine.probes.power = dataclasses.replace(machine.probes.power, battery=True, on_mains=True)


def test_a_machine_gets_idle_at_most_twice_in_ten_minutes_and_says_so() -> None:
    machine = Machine()
    machine.monitor.check()
    began = machine.idle_after()
    disturb(machine)
    second = began + machine.idle_after()
    disturb(machine)
    states = machine.run(600)
    third = states.index(State.IDLE)
    assert second < 60
    assert 600 - 60 <= third <= 601
    assert states[third:] == [State.IDLE] * (600 - third)
    machine = Machine()
    machine.monitor.check()
    machine.idle_after()
    disturb(machine)
    machine.idle_after()
    disturb(machine)
    machine.run(90)
    (reason,) = machine.monitor.check().reasons
    assert reason.code == "settling.pace"
    assert reason.sentence.startswith("quiet, but it was idle twice in the last 10 min already")


@pytest.mark.parametrize("harm", [lambda m: m.clock.set_wall(7200.0), lambda m: m.clock.set_wall(-7200.0)])
def test_a_clock_that_is_set_moves_the_quiet_hours_and_nothing_else(harm: Callable[[Machine], None]) -> None:
    machine = Machine().settle()
    harm(machine)
    assert machine.monitor.check().state is State.SETTLING
    assert State.BUSY not in machine.run(600)
