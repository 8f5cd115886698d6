"""What programs ask of a monitor: wait, pause, changes, explain, forecast, guests."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from idle_sense import GuestLedger, Monitor, Policy, State, Verdict
from idle_sense.history import History
from idle_sense.probes.bundle import FACTS, native_probes
from idle_sense.testing import ScriptedClock, ScriptedProbes


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.002)


class Machine:
    def __init__(self, policy: Policy | None = None, history: History | None = None) -> None:
        self.clock = ScriptedClock()
        self.probes = ScriptedProbes()
        self.monitor = Monitor(
            policy or Policy.server(), clock=self.clock, probes=self.probes.probes, history=history
        )

    def run(self, seconds: int) -> Verdict:
        verdict = self.monitor.check()
        for _ in range(seconds):
            self.probes.pass_time(self.clock, 1.0)
            verdict = self.monitor.check()
        return verdict


def test_wait_returns_with_the_verdict_that_says_so() -> None:
    machine = Machine()
    going = True

    def pass_time() -> None:
        while going:
            machine.clock.advance(1.0)
            time.sleep(0.01)

    world = threading.Thread(target=pass_time)
    world.start()
    try:
        verdict = machine.monitor.wait(State.IDLE, timeout_s=30)
    finally:
        going = False
        world.join()
        machine.monitor.close()
    assert verdict is not None
    assert verdict.state is State.IDLE


def test_wait_gives_up_when_the_time_is_over() -> None:
    machine = Machine()
    with machine.monitor:
        assert machine.monitor.wait(State.IDLE, timeout_s=0.05) is None


def test_closing_ends_a_wait() -> None:
    machine = Machine()
    told: list[Verdict | None] = []
    waiter = threading.Thread(target=lambda: told.append(machine.monitor.wait(State.IDLE)))
    waiter.start()
    eventually(lambda: machine.monitor.snapshot is not None)
    machine.monitor.close()
    waiter.join(timeout=20)
    assert told == [None]


def test_the_owners_pause_is_hard_until_they_take_it_back() -> None:
    machine = Machine()
    assert machine.run(10).state is State.IDLE
    machine.monitor.pause()
    verdict = machine.monitor.check()
    assert [(reason.code, reason.severity.value) for reason in verdict.reasons] == [("pause.set", "hard")]
    machine.run(3600)
    machine.monitor.resume()
    assert machine.monitor.check().state is State.SETTLING
    assert machine.run(10).state is State.IDLE


def test_a_pause_for_a_time_says_how_long_it_lasts_and_ends_by_itself() -> None:
    machine = Machine()
    machine.run(10)
    machine.monitor.pause(for_s=60)
    (reason,) = machine.run(20).reasons
    assert reason.sentence == "paused by its owner for another 40 s"
    assert reason.value == 40
    assert machine.run(50).state is State.IDLE
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError):
            machine.monitor.pause(for_s=wrong)


def test_a_pause_is_told_to_a_watch_at_once() -> None:
    machine = Machine()
    heard: list[Verdict] = []
    machine.monitor.on_change(heard.append)
    with machine.monitor:
        eventually(lambda: len(heard) == 1)
        machine.monitor.pause()
        eventually(lambda: heard[-1].codes == ("pause.set",))


def test_changes_come_as_an_async_iterator_that_ends_with_its_reader() -> None:
    async def read() -> list[State]:
        machine = Machine()
        states: list[State] = []
        changes = machine.monitor.changes()
        try:
            async for verdict in changes:
                states.append(verdict.state)
                if len(states) == 1:
                    machine.monitor.pause()
                else:
                    break
        finally:
            await changes.aclose()  # type: ignore[attr-defined]
            await asyncio.to_thread(machine.monitor.close)
        assert machine.monitor._listeners == []
        return states

    assert asyncio.run(asyncio.wait_for(read(), 30)) == [State.SETTLING, State.BUSY]


def test_a_listener_can_leave() -> None:
    machine = Machine()
    heard: list[Verdict] = []
    leave = machine.monitor.on_change(heard.append)
    with machine.monitor:
        eventually(lambda: len(heard) == 1)
        leave()
        leave()
        machine.monitor.pause()
        machine.monitor.wait(State.BUSY, timeout_s=20)
    assert len(heard) == 1


def test_guests_are_kept_in_one_ledger_that_may_be_handed_in() -> None:
    ledger = GuestLedger()
    monitor = Monitor(guests=ledger)
    assert monitor.guests() is ledger
    monitor.close()
    probes = native_probes(ledger)
    assert Monitor(guests=ledger, probes=probes).guests() is ledger
    with pytest.raises(ValueError, match="ledger of their own"):
        Monitor(guests=GuestLedger(), probes=probes)
    probes.close()


def test_an_explanation_tells_every_fact_with_value_limit_source_and_age() -> None:
    machine = Machine(Policy.desktop())
    machine.run(20)
    machine.probes.input_idle_s = 4.0
    machine.probes.terminals = {"pts/1": 9.0, "pts/2": 7200.0}
    machine.probes.media = None
    explanation = machine.monitor.explain()
    busy = {item.reason.code: item for item in explanation.evidence if item.speaks == "busy"}
    assert set(busy) == {"input.recent", "terminal.recent"}, "not only the latest sign of a person"
    assert (busy["input.recent"].reason.value, busy["input.recent"].reason.limit) == (4.0, 300.0)
    assert busy["input.recent"].reason.source == "scripted"
    idle = {item.reason.code for item in explanation.evidence if item.speaks == "idle"}
    assert {"calm.load", "calm.memory", "calm.calls", "calm.terminal", "calm.heat"} <= idle
    nothing = [item for item in explanation.evidence if item.speaks == "nothing"]
    assert [item.fact for item in nothing] == ["media"]
    assert {item.fact for item in explanation.evidence} >= set(FACTS)
    for item in explanation.evidence:
        assert item.sentence != item.reason.code
    assert explanation.sentences[0] == explanation.verdict.reasons[0].sentence
    assert len(set(explanation.sentences)) == len(explanation.sentences)


def test_a_server_says_what_it_does_not_ask_for() -> None:
    machine = Machine()
    machine.run(10)
    unasked = [item.fact for item in machine.monitor.explain().evidence if item.reason.code == "unasked.fact"]
    assert unasked == ["seats", "terminals", "sessions", "calls", "screen", "media"]


def test_a_forecast_rests_on_the_history_that_it_was_given(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    machine = Machine(history=history)
    machine.run(3600)
    told = machine.monitor.forecast((600.0,), confidences=(0.8,))
    assert told.idle
    assert told.age_s == pytest.approx(3600 - 5, abs=3)
    assert told.stays[0][0] == 600.0
    assert told.lasts_s(0.8) > 0
    machine.probes.others_ratio = 1.0
    machine.run(30)
    assert not machine.monitor.forecast().idle
    assert history.close()
    assert history.habits.periods == 1, "the end of the idle period was learned"


def test_without_a_history_the_users_own_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "native", classmethod(lambda cls, name: cls(tmp_path / f"{name}.json")))
    machine = Machine()
    machine.run(3)
    assert machine.monitor.forecast().basis == "prior"
    machine.monitor.close()
    assert (tmp_path / "server.json").exists()
