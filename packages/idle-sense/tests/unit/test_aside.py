"""A slow probe keeps nobody waiting, and a hung one grows old."""

import os
import select
import threading
import time

from idle_sense import Capability, Reading
from idle_sense.probes.aside import Aside
from idle_sense.probes.bundle import Polled


class Slow(Polled):
    """Answers when let."""

    every_s = 1.0

    def __init__(self) -> None:
        self.let = threading.Event()
        self.looks = 0

    def read(self, now_s: float) -> Reading[int]:
        self.looks += 1
        self.let.wait(30)
        return Reading(value=self.looks, source="slow")

    def capability(self) -> Capability:
        return Capability(probe="slow", back_end="slow", verified="native", serves=True)

    def close(self) -> None:
        self.let.set()


def test_a_probe_that_never_answers_is_missing_and_asked_only_once() -> None:
    slow, now = Slow(), [0.0]
    aside = Aside(slow, every_s=1.0, now=lambda: now[0])
    for _ in range(5):
        assert aside.read(0.0).value is None
        now[0] += 10.0
    assert slow.looks == 1
    assert not aside.capability().serves
    slow.close()


def test_the_last_answer_grows_old_while_the_next_hangs() -> None:
    slow, now = Slow(), [0.0]
    slow.let.set()
    aside = Aside(slow, every_s=1.0, now=lambda: now[0])
    aside.read(0.0)
    assert aside._done.wait(20)
    slow.let.clear()
    now[0] = 5.0
    aside.read(0.0)
    now[0] = 200.0
    reading = aside.read(0.0)
    assert (reading.value, reading.age_s) == (1, 200.0)
    slow.close()


def test_a_slow_probe_that_raises_is_missing() -> None:
    class Broken(Slow):
        def read(self, now_s: float) -> Reading[int]:
            raise OSError("no such battery")

    aside = Aside(Broken(), every_s=1.0)
    aside.read(0.0)
    assert aside._done.wait(20)
    assert "no such battery" in aside.read(0.0).problem


def test_a_descriptor_that_gets_readable_calls_for_a_look_before_its_time() -> None:
    reads, writes = os.pipe()
    looks: list[bytes] = []

    class Told(Polled):
        def read(self, now_s: float) -> Reading[int]:
            if looks or select.select([reads], [], [], 0)[0]:
                looks.append(os.read(reads, 100))
            else:
                looks.append(b"")
            return Reading(value=len(looks), source="told")

        def capability(self) -> Capability:
            return Capability(probe="told", back_end="told", verified="native", serves=True)

        def filenos(self) -> tuple[int, ...]:
            return (reads,)

    aside = Aside(Told(), every_s=1000.0)
    aside.read(0.0)
    assert aside._done.wait(20)
    assert aside.read(0.0).value == 1, "nothing has come, and a look is not due"
    assert aside.filenos() == (reads,)
    os.write(writes, b"!")
    aside.read(0.0)
    assert aside._done.wait(20)
    assert aside.read(0.0).value == 2
    assert looks == [b"", b"!"]
    os.close(reads)
    os.close(writes)


def test_a_look_that_finds_something_else_wakes_the_monitor_and_one_that_does_not_lets_it_sleep() -> None:
    found, woken = [1, 1, 2], []

    class Finder(Slow):
        def read(self, now_s: float) -> Reading[int]:
            return Reading(value=found.pop(0), source="finder")

    aside = Aside(Finder(), every_s=0.0)
    aside.listen(lambda: woken.append(len(found)))
    for _ in range(3):
        aside.read(0.0)
        assert aside._done.wait(20)
        deadline_s = time.monotonic() + 20
        while any(thread.name == "idle-sense-aside" for thread in threading.enumerate()):
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
    assert woken == [2, 0]


def test_closing_during_a_look_closes_the_probe_when_the_look_ends() -> None:
    closed = threading.Event()

    class Closing(Slow):
        def close(self) -> None:
            closed.set()

    slow = Closing()
    aside = Aside(slow, every_s=1.0)
    aside.read(0.0)
    aside.close()
    assert not closed.is_set()
    slow.let.set()
    assert closed.wait(20)
    aside.read(0.0)
    assert slow.looks == 1, "no look is begun any more"


def test_a_probe_that_hears_of_a_change_is_asked_again_before_its_time() -> None:
    class Told(Slow):
        stir = staticmethod(lambda: None)

        def listen(self, wake) -> None:
            self.stir = wake

    told, woken = Told(), []
    told.let.set()
    aside = Aside(told, every_s=1000.0, now=lambda: 0.0)
    aside.listen(lambda: woken.append(1))
    aside.read(0.0)
    assert aside._done.wait(20)
    aside.read(0.0)
    assert told.looks == 1
    told.stir()
    assert woken
    aside.read(0.0)
    assert aside._done.wait(20)
    assert told.looks == 2
    aside.read(0.0)
    assert told.looks == 2
    aside.close()
