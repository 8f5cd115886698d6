"""A slow probe keeps nobody waiting, and a hung one grows old."""

import threading

from idle_sense import Capability, Reading
from idle_sense.probes.aside import Aside


class Slow:
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

    def describe(self) -> tuple[str, ...]:
        return ()

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
