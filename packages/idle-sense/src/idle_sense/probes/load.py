"""Fact: how much of the processors other programs use: all that is busy, less this program and its guests."""

from typing import NamedTuple

from idle_sense.facts import Load, Reading
from idle_sense.platform.facade import System
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability

SHORTEST_S = 0.25
"""Processor time is counted in steps of 10 ms: over less than this, a ratio would be noise."""


class _Times(NamedTuple):
    at_s: float
    busy_s: float
    all_s: float
    guests_s: float
    confined: tuple[float, float] | None


class LoadProbe(Polled):
    """In a container with a share of the machine, what others use of that share counts as well as what they use of all."""

    every_s = 1.0

    def __init__(self, system: System, guests: GuestLedger) -> None:
        self._system = system
        self._guests = guests
        self._before: _Times | None = None
        self._last: Load = Load(others_ratio=None)
        self._confined = False

    def read(self, now_s: float) -> Reading[Load]:
        before = self._before
        if before is not None and 0 <= now_s - before.at_s < SHORTEST_S:
            return self._reading(now_s - before.at_s)
        # Guests first: what they do between the two looks then counts as the owner's, not the other way round.
        guests_s = self._guests.spent_s(self._system)
        busy_s, all_s = self._system.cpu_times_s()
        times = _Times(now_s, busy_s, all_s, guests_s, self._system.confined_cpu_times_s())
        if before is not None and all_s == before.all_s:
            # Counters that stand still say nothing: what was known grows old.
            return self._reading(max(0.0, now_s - before.at_s), "the system's processor times stand still")
        self._before = times
        if before is None:
            return self._reading(0.0)
        ratio = _others_ratio(before, times)
        if ratio is None:
            return self._reading(max(0.0, now_s - before.at_s), "the system's processor times went backwards")
        self._last = Load(others_ratio=ratio)
        return self._reading(0.0)

    def capability(self) -> Capability:
        share = " and of the container's share" if self._confined else ""
        return Capability(
            probe="load",
            back_end=f"processor times of {self._system.name}{share}, less our guests'",
            verified=self._system.verified,
            serves=True,
        )

    def describe(self) -> tuple[str, ...]:
        return ("How much of the processors other programs use; the work of guests does not count.",)

    def _reading(self, age_s: float, problem: str = "") -> Reading[Load]:
        advice = "look at what virtualises this machine's /proc/stat" if problem else ""
        self._confined = self._before is not None and self._before.confined is not None
        return Reading(
            value=self._last, source=self._system.name, age_s=age_s, problem=problem, advice=advice
        )


def _others_ratio(before: _Times, now: _Times) -> float | None:
    """None: the counters began anew in between."""
    guests_s = now.guests_s - before.guests_s
    passed_s = now.all_s - before.all_s
    if passed_s <= 0:
        return None
    ratio = (now.busy_s - before.busy_s - guests_s) / passed_s
    if before.confined is not None and now.confined is not None:
        allowed_s = now.confined[1] - before.confined[1]
        if allowed_s > 0:
            ratio = max(ratio, (now.confined[0] - before.confined[0] - guests_s) / allowed_s)
    return min(1.0, max(0.0, ratio))
