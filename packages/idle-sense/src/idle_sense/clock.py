"""The clocks that the monitor reads; tests bring their own (``idle_sense.testing.ScriptedClock``)."""

import time
from collections.abc import Collection
from typing import Protocol

from idle_sense.doorbell import Doorbell


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Never set, only runs; whether it runs during sleep is the system's affair."""
        ...

    def wall_s(self) -> float:
        """The time of day, as it may be set: seconds since 1970, UTC."""
        ...

    def suspended_s(self) -> float:
        """How long the machine has slept since it started; 0.0 where the system does not tell."""
        ...

    def wait(self, bell: Doorbell, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
        """Until ``bell`` rings, one of ``filenos`` is readable, or the time is over. Returns those that are readable."""
        ...


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    def suspended_s(self) -> float:
        from idle_sense import platform  # noqa: PLC0415 - the system's own file only where it is used

        return platform.current().suspended_s()

    def wait(self, bell: Doorbell, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
        return bell.wait(filenos, timeout_s)
