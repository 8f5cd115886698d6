"""The clocks that the monitor reads; tests bring their own (``idle_sense.testing.ScriptedClock``)."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Never set, only runs; whether it runs during sleep is the system's affair."""
        ...

    def wall_s(self) -> float:
        """The time of day, as it may be set."""
        ...

    def suspended_s(self) -> float:
        """How long the machine has slept since it started; 0.0 where the system does not tell."""
        ...

    def wait(self, wake: threading.Event, timeout_s: float) -> None:
        """Until ``wake`` is set or the time is over."""
        ...


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    def suspended_s(self) -> float:
        from idle_sense import platform  # noqa: PLC0415 - the system's own file only where it is used

        return platform.current().suspended_s()

    def wait(self, wake: threading.Event, timeout_s: float) -> None:
        wake.wait(timeout_s)
