"""What every probe promises, native and scripted, and every platform's file."""

import math
import os
import select
import sys
import time

import pytest

from idle_sense import Probes, Reading
from idle_sense.platform import current
from idle_sense.probes.aside import Aside
from idle_sense.probes.bundle import FACTS, native_probes
from idle_sense.testing import ScriptedProbes


@pytest.fixture(params=["native", "scripted"])
def probes(request: pytest.FixtureRequest):
    made = native_probes() if request.param == "native" else ScriptedProbes().probes
    yield made
    made.close()


@pytest.mark.parametrize("fact", FACTS)
def test_a_reading_has_a_value_or_says_why_not_and_what_would_help(probes: Probes, fact: str) -> None:
    probe = getattr(probes, fact)
    for _ in range(3):
        reading = probe.read(time.monotonic())
        assert isinstance(reading, Reading)
        assert reading.source
        assert reading.age_s >= 0
        if reading.value is None:
            assert reading.problem
            assert reading.advice or not reading.tells


@pytest.mark.parametrize("fact", FACTS)
def test_a_capability_is_honest_about_how_far_it_was_tried(probes: Probes, fact: str) -> None:
    probe = getattr(probes, fact)
    probe.read(time.monotonic())
    capability = probe.capability()
    assert capability.probe
    assert capability.back_end
    assert capability.verified in ("native", "emulated", "signature-only")
    if not capability.serves:
        assert capability.advice or capability.back_end == "none" or isinstance(probe, Aside)


@pytest.mark.parametrize("fact", FACTS)
def test_what_is_waited_for_are_open_descriptors_that_a_look_silences(probes: Probes, fact: str) -> None:
    probe = getattr(probes, fact)
    probe.listen(lambda: None)
    for _ in range(3):
        probe.read(time.monotonic())
    for fileno in probe.filenos():
        os.fstat(fileno)
    deadline_s = time.monotonic() + 20
    while select.select(list(probe.filenos()), [], [], 0)[0]:
        assert time.monotonic() < deadline_s, "it stays readable whatever is read"
        probe.read(time.monotonic())
        time.sleep(0.05)


@pytest.mark.parametrize("fact", FACTS)
def test_words_can_be_asked_before_the_first_reading(probes: Probes, fact: str) -> None:
    probe = getattr(probes, fact)
    assert all(sentence.endswith(".") for sentence in probe.describe())
    assert probe.capability().probe


@pytest.mark.parametrize("fact", FACTS)
def test_a_probe_may_be_closed_twice_and_unread(probes: Probes, fact: str) -> None:
    probe = getattr(probes, fact)
    probe.close()
    probe.close()


def test_seats_and_terminals_tell_times_that_make_sense(probes: Probes) -> None:
    for seat in probes.seats.read(time.monotonic()).value or ():
        assert seat.name
        assert seat.idle_s.value is None or (math.isfinite(seat.idle_s.value) and seat.idle_s.value >= 0)
    for terminal in probes.terminals.read(time.monotonic()).value or ():
        assert terminal.name
        assert terminal.idle_s >= 0


def test_the_system_tells_processor_times_that_grow() -> None:
    system = current()
    busy_s, all_s = system.cpu_times_s()
    assert 0 <= busy_s <= all_s
    deadline_s = time.monotonic() + 30
    while True:
        later_busy_s, later_all_s = system.cpu_times_s()
        assert later_busy_s >= busy_s
        assert later_all_s >= all_s
        if later_all_s > all_s:
            break
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_the_system_knows_this_process_and_not_one_that_cannot_be() -> None:
    system = current()
    own = system.process(os.getpid())
    assert own is not None
    assert own.parent == os.getppid()
    assert own.cpu_s >= 0
    assert system.process(2**22 + 1) is None


def test_the_system_has_the_name_that_python_gives_it() -> None:
    names = {"linux": "linux", "darwin": "macos", "win32": "windows"}
    assert current().name == names[sys.platform]
