"""Events: what calls for a look before its time, what that look reads, and what cannot make the watch spin."""

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from idle_sense import Monitor, Policy, Reading, State, Verdict
from idle_sense.facts import Seat
from idle_sense.sampling import EVENTS_PER_TICK
from idle_sense.testing import ScriptedClock, ScriptedProbe, ScriptedProbes

if sys.platform == "win32":
    pytest.skip("pipes are not waited for on Windows", allow_module_level=True)


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.002)


class Keyboard:
    """A seat that writes a byte to a pipe for each key, and takes it with each look."""

    def __init__(self) -> None:
        self.clock = ScriptedClock()
        self.probes = ScriptedProbes()
        self.reads, self.writes = os.pipe()
        os.set_blocking(self.reads, False)
        self.drains = True
        self.looks: list[str] = []
        self.probes.input_idle_s = 86400.0
        for fact, probe in self._probes():
            answer = probe._answer
            probe._answer = lambda fact=fact, answer=answer: (self.looks.append(fact), answer())[1]
        self.seats = self.probes.probes.seats
        assert isinstance(self.seats, ScriptedProbe)
        self.seats._answer = self._look
        self.seats.filenos_now = (self.reads,)
        self.monitor = Monitor(Policy.desktop(), clock=self.clock, probes=self.probes.probes)
        self.heard: list[Verdict] = []
        self.monitor.on_change(self.heard.append)

    def _probes(self) -> Iterator[tuple[str, ScriptedProbe]]:
        from idle_sense.probes.bundle import FACTS

        for fact in FACTS:
            probe = getattr(self.probes.probes, fact)
            assert isinstance(probe, ScriptedProbe)
            yield fact, probe

    def _look(self) -> Reading[tuple[Seat, ...]]:
        self.looks.append("seats")
        if self.drains:
            try:
                if os.read(self.reads, 4096):
                    self.probes.input_idle_s = 0.0
            except BlockingIOError:
                pass
        return self.probes._reading("input", self.probes._seats())

    def press(self) -> None:
        os.write(self.writes, b"k")

    def rest(self) -> list[str]:
        """What is looked at in a while in which no time passes."""
        self.looks.clear()
        time.sleep(0.3)
        return list(self.looks)

    def close(self) -> None:
        self.monitor.close()
        os.close(self.writes)
        os.close(self.reads)


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    made = Keyboard()
    made.monitor.start()
    eventually(lambda: len(made.heard) == 1)
    made.rest()
    yield made
    made.close()


def test_a_key_is_heard_of_without_any_time_passing_and_only_its_probe_is_asked(keyboard: Keyboard) -> None:
    assert keyboard.heard[-1].state is State.SETTLING
    assert keyboard.rest() == []
    keyboard.press()
    eventually(lambda: keyboard.heard[-1].state is State.BUSY)
    assert keyboard.heard[-1].codes == ("input.recent",)
    assert set(keyboard.looks) == {"seats"}


def test_facts_that_were_not_asked_again_are_older(keyboard: Keyboard) -> None:
    keyboard.clock._monotonic_s += 0.5  # less than the next regular look is away
    keyboard.press()
    eventually(lambda: keyboard.heard[-1].state is State.BUSY)
    snapshot = keyboard.monitor.snapshot
    assert snapshot is not None
    assert snapshot.load.age_s == pytest.approx(0.5)
    assert snapshot.seats.age_s == 0.0


def test_a_descriptor_that_stays_readable_is_left_alone_until_the_next_regular_look(
    keyboard: Keyboard,
) -> None:
    keyboard.drains = False
    keyboard.press()
    eventually(lambda: keyboard.looks.count("seats") == 2)
    assert keyboard.rest() == [], "once more, since something may have come meanwhile; then no more"
    keyboard.clock.advance(1.0)
    eventually(lambda: keyboard.looks.count("load") == 1)
    time.sleep(0.3)
    assert keyboard.looks.count("seats") == 3, "the regular look, and the two that it calls for"


def test_what_comes_during_a_look_is_looked_at_without_waiting_for_the_next(keyboard: Keyboard) -> None:
    def typed_meanwhile() -> Reading[tuple[Seat, ...]]:
        reading = keyboard._look()
        if len(keyboard.looks) % 2:
            keyboard.press()
        return reading

    keyboard.seats._answer = typed_meanwhile
    keyboard.looks.clear()
    for count in (2, 4, 6):
        keyboard.press()
        eventually(lambda count=count: keyboard.looks.count("seats") == count)


def test_a_descriptor_that_was_closed_does_not_make_the_watch_spin(keyboard: Keyboard) -> None:
    gone, _ = pipe = os.pipe()
    for fileno in pipe:
        os.close(fileno)
    keyboard.drains = False
    keyboard.seats.filenos_now = (keyboard.reads, gone)
    keyboard.clock.advance(1.0)
    eventually(lambda: "load" in keyboard.looks)
    assert len(keyboard.rest()) <= 2


@pytest.mark.parametrize("by", ["descriptor", "wake"])
def test_a_device_that_never_rests_calls_for_a_bounded_number_of_looks(keyboard: Keyboard, by: str) -> None:
    wake = keyboard.seats.wake
    assert wake is not None
    call = keyboard.press if by == "descriptor" else wake
    keyboard.looks.clear()
    for count in range(1, EVENTS_PER_TICK + 1):
        call()
        eventually(lambda count=count: keyboard.looks.count("seats") == count)
    for _ in range(20):
        call()
        time.sleep(0.01)
    assert keyboard.looks.count("seats") == EVENTS_PER_TICK
    keyboard.clock.advance(1.0)
    eventually(lambda: keyboard.looks.count("load") == 1)
    before = keyboard.looks.count("seats")
    call()
    eventually(lambda: keyboard.looks.count("seats") == before + 1)


def test_a_probe_with_a_thread_of_its_own_wakes_the_watch_and_is_the_only_one_asked(
    keyboard: Keyboard,
) -> None:
    calls = keyboard.probes.probes.calls
    assert isinstance(calls, ScriptedProbe)
    from idle_sense import Calls

    keyboard.probes.calls = Calls(microphones=("meeting",))
    assert keyboard.rest() == []
    assert calls.wake is not None
    calls.wake()
    eventually(lambda: keyboard.heard[-1].state is State.BUSY)
    assert keyboard.heard[-1].codes == ("call.microphone",)
    assert set(keyboard.looks) == {"calls"}


def test_what_another_threads_look_finds_is_told_to_listeners_at_once(keyboard: Keyboard) -> None:
    keyboard.seats.filenos_now = ()
    keyboard.monitor.check()
    keyboard.probes.input_idle_s = 0.0
    assert keyboard.monitor.check().state is State.BUSY
    eventually(lambda: keyboard.heard[-1].state is State.BUSY)


def test_after_sleep_everything_is_asked_anew_though_monotonic_time_stood_still(keyboard: Keyboard) -> None:
    load = keyboard.probes.probes.load
    load.every_s = 100.0  # type: ignore[misc]
    keyboard.monitor.check()
    keyboard.looks.clear()
    keyboard.monitor.check()
    assert "load" not in keyboard.looks
    keyboard.clock.sleep_machine(3600)
    keyboard.monitor.check()
    assert "load" in keyboard.looks


def test_capabilities_tell_events_from_polls_and_what_a_look_costs(keyboard: Keyboard) -> None:
    seats, terminals, *_ = keyboard.monitor.capabilities()
    assert (seats.event, terminals.event) == (True, False)
    assert seats.cost_us is not None
    assert seats.cost_us > 0


def test_a_probe_whose_descriptors_cannot_be_told_is_polled(keyboard: Keyboard) -> None:
    def broken() -> tuple[int, ...]:
        raise OSError("the display ended")

    keyboard.seats.filenos = broken  # type: ignore[method-assign]
    keyboard.press()
    keyboard.clock.advance(1.0)
    eventually(lambda: keyboard.heard[-1].state is State.BUSY)
