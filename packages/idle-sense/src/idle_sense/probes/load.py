"""Fact: how much of the processors other programs use: all that is busy, less this program and its guests."""

from idle_sense.platform.facade import System
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability, Load, Reading

SHORTEST_S = 0.25
"""Processor time is counted in steps of 10 ms: over less than this, a ratio would be noise."""


class LoadProbe:
    every_s = 1.0

    def __init__(self, system: System, guests: GuestLedger) -> None:
        self._system = system
        self._guests = guests
        self._before: tuple[float, float, float, float] | None = None
        self._last: Load = Load(others_ratio=None)

    def read(self, now_s: float) -> Reading[Load]:
        if self._before is not None and 0 <= now_s - self._before[0] < SHORTEST_S:
            return Reading(value=self._last, source=self._system.name, age_s=now_s - self._before[0])
        # Guests first: what they do between the two looks would else count as the owner's.
        guests_s = self._guests.spent_s(self._system)
        busy_s, all_s = self._system.cpu_times_s()
        before, self._before = self._before, (now_s, busy_s, all_s, guests_s)
        if before is not None and all_s > before[2]:
            others_s = (busy_s - before[1]) - (guests_s - before[3])
            self._last = Load(others_ratio=min(1.0, max(0.0, others_s / (all_s - before[2]))))
        return Reading(value=self._last, source=self._system.name)

    def capability(self) -> Capability:
        return Capability(
            probe="load",
            back_end=f"processor times of {self._system.name}, less our guests' trees",
            verified=self._system.verified,
            serves=True,
        )

    def describe(self) -> tuple[str, ...]:
        return ("How much of the processors other programs use; the work of guests does not count.",)

    def close(self) -> None:
        """Holds nothing."""
