"""The loop: whom it tells what, and what cannot stop it."""

import dataclasses
import threading
import time
from collections.abc import Callable

import pytest

from idle_sense import Monitor, Policy, State, Verdict
from idle_sense.testing import ScriptedClock, ScriptedProbes


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.005)


class Watched:
    """A started monitor on a scripted machine, and what a listener heard."""

    def __init__(self) -> None:
        self.clock = ScriptedClock()
        self.probes = ScriptedProbes()
        self.monitor = Monitor(Policy.server(), clock=self.clock, probes=self.probes.probes)
        self.heard: list[Verdict] = []

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes, and the watch has looked."""
        before = self.monitor.snapshot
        self.clock.advance(seconds)
        eventually(lambda: self.monitor.snapshot is not before)


def test_a_listener_hears_the_state_at_the_start_and_each_change_of_it() -> None:
    watched = Watched()
    watched.monitor.on_change(watched.heard.append)
    with watched.monitor:
        eventually(lambda: [verdict.state for verdict in watched.heard] == [State.SETTLING])
        for _ in range(6):
            watched.tick()
        eventually(lambda: watched.heard[-1].state is State.IDLE)
        watched.probes.failing = {"memory"}
        watched.tick()
        eventually(lambda: watched.heard[-1].state is State.BUSY)
        assert len(watched.heard) == 3


def test_a_listener_that_comes_late_hears_the_present_state() -> None:
    watched = Watched()
    with watched.monitor:
        watched.tick()
        late: list[Verdict] = []
        watched.monitor.on_change(late.append)
        eventually(lambda: [verdict.state for verdict in late] == [State.SETTLING])


def test_a_listener_hears_of_a_new_reason_though_the_state_stays() -> None:
    watched = Watched()
    watched.probes.failing = {"memory"}
    watched.monitor.on_change(watched.heard.append)
    with watched.monitor:
        eventually(lambda: len(watched.heard) == 1)
        watched.tick()
        watched.probes.ages_s = {"load": 60.0}
        watched.tick()
        eventually(lambda: watched.heard[-1].codes == ("probe.missing", "probe.stale"))
        assert len(watched.heard) == 2


def test_a_listener_that_raises_ends_neither_the_watch_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()

    def broken(_verdict: Verdict) -> None:
        raise RuntimeError("a listener's own mistake")

    watched.monitor.on_change(broken)
    watched.monitor.on_change(watched.heard.append)
    with watched.monitor:
        eventually(lambda: len(watched.heard) == 1)
        watched.probes.failing = {"memory"}
        watched.tick()
        eventually(lambda: watched.heard[-1].state is State.BUSY)
    assert "a listener's own mistake" in caplog.text


def test_a_probe_that_raises_is_a_reason_and_not_the_end() -> None:
    watched = Watched()
    watched.probes.raising = {"load": ZeroDivisionError("no processors")}
    watched.monitor.on_change(watched.heard.append)
    with watched.monitor:
        eventually(lambda: bool(watched.heard))
        (reason,) = watched.heard[0].reasons
        assert "ZeroDivisionError: no processors" in reason.sentence
        watched.probes.raising = {}
        watched.tick()
        eventually(lambda: watched.heard[-1].state is State.SETTLING)


def test_a_sample_that_fails_as_a_whole_is_told_as_busy(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.monitor.on_change(watched.heard.append)
    with watched.monitor:
        eventually(lambda: len(watched.heard) == 1)

        def broken() -> float:
            raise ValueError("a clock without hands")

        watched.clock.wall_s = broken  # type: ignore[method-assign]
        watched.clock.advance(1.0)
        eventually(lambda: watched.heard[-1].state is State.BUSY)
    assert "a clock without hands" in watched.heard[-1].reasons[0].sentence
    assert "a sample failed" in caplog.text


def test_becoming_attentive_takes_effect_at_once() -> None:
    watched = Watched()
    with watched.monitor:
        watched.tick()
        before = watched.monitor.snapshot
        watched.monitor.attentive = True
        eventually(lambda: watched.monitor.snapshot is not before)
        before = watched.monitor.snapshot
        watched.clock.advance(0.1)
        eventually(lambda: watched.monitor.snapshot is not before)


def test_close_ends_the_thread_and_the_probes() -> None:
    watched = Watched()
    with watched.monitor:
        eventually(lambda: watched.monitor.snapshot is not None)
    assert not any(thread.name == "idle-sense" for thread in threading.enumerate())
    assert watched.probes.probes.load.closed  # type: ignore[attr-defined]


def test_a_probe_is_not_asked_more_often_than_it_is_worth() -> None:
    clock, probes = ScriptedClock(), ScriptedProbes()
    asked: list[str] = []
    for name in ("seats", "load"):
        probe = getattr(probes.probes, name)
        read = probe.read
        probe.read = lambda now_s, name=name, read=read: (asked.append(name), read(now_s))[1]
    probes.probes.load.every_s = 1.0  # type: ignore[misc]
    monitor = Monitor(Policy.desktop(), clock=clock, probes=probes.probes)
    for _ in range(21):
        monitor.check()
        clock.advance(0.1)
    assert asked.count("seats") == 21
    assert asked.count("load") == 3


def test_a_reading_that_is_kept_grows_older() -> None:
    clock, probes = ScriptedClock(), ScriptedProbes()
    probes.probes.load.every_s = 1.0  # type: ignore[misc]
    monitor = Monitor(Policy.desktop(), clock=clock, probes=probes.probes)
    monitor.check()
    clock.advance(0.5)
    monitor.check()
    assert monitor.snapshot is not None
    assert monitor.snapshot.load.age_s == pytest.approx(0.5)


def test_monotonic_time_that_runs_on_in_sleep_is_no_jump_of_the_clock() -> None:
    """Windows and macOS: three clocks move together."""
    clock, probes = ScriptedClock(), ScriptedProbes()
    monitor = Monitor(Policy.desktop(), clock=clock, probes=probes.probes)
    monitor.check()
    clock.sleep_machine(3600)
    clock._monotonic_s += 3600
    monitor.check()
    assert monitor.snapshot is not None
    assert monitor.snapshot.slept_s == 3600
    assert monitor.snapshot.jumped_s == pytest.approx(0.0)


def test_words_are_true_though_nothing_was_looked_at_before() -> None:
    from idle_sense.platform.displays import Displays, Places
    from idle_sense.probes.input import InputProbe

    class NoDisplay:
        def seats(self, _guests: object) -> Displays:
            nowhere = "/nonexistent"
            return Displays(environ={}, places=Places(nowhere, nowhere, nowhere, nowhere, ()))

    scripted = ScriptedProbes().probes
    probes = dataclasses.replace(scripted, seats=InputProbe(NoDisplay(), scripted.guests))  # type: ignore[arg-type]
    monitor = Monitor(Policy.desktop(), clock=ScriptedClock(), probes=probes)
    assert (
        "This machine has no display, so there is no keyboard or mouse that could be watched."
        in monitor.describe()
    )


def test_describe_says_what_counts_under_the_policy() -> None:
    probes = ScriptedProbes()
    desktop = Monitor(Policy.desktop(), clock=ScriptedClock(), probes=probes.probes).describe()
    server = Monitor(Policy.server(), clock=ScriptedClock(), probes=probes.probes).describe()
    assert "Idle after 5 min without any of these." in desktop
    assert any("nobody sits here" in sentence for sentence in server)
    assert not any("Scripted input" in sentence for sentence in server)
