"""From probes to snapshots: which probe is asked when, what that costs, and which events may call for a look."""

import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from idle_sense.clock import Clock
from idle_sense.facts import Reading
from idle_sense.probes.bundle import FACTS, Probe, Probes
from idle_sense.types import Capability, Snapshot

EVENTS_PER_TICK = 10
"""So many looks beyond the regular ones may one probe's events call for between two of these: a descriptor that is never
drained, or a device that never rests, costs a bounded amount and is seen at the regular look."""

T = TypeVar("T")


class Sampler:
    """Takes snapshots. One thread at a time."""

    def __init__(self, probes: Probes, clock: Clock) -> None:
        self._probes = probes
        self._clock = clock
        self._held = {fact: _Held(getattr(probes, fact), fact) for fact in FACTS}
        self._before: tuple[float, float, float] | None = None

    def snapshot(self, *, only: Collection[str] | None = None, paused_until_s: float | None) -> Snapshot:
        """``only``: the facts that are said to have changed; the rest is as it was read last, and older."""
        clock = self._clock
        now_s, wall_s, suspended_s = clock.monotonic_s(), clock.wall_s(), clock.suspended_s()
        slept_s = jumped_s = 0.0
        if self._before is not None:
            passed_s = now_s - self._before[0]
            slept_s = max(0.0, suspended_s - self._before[2])
            jumped_s = wall_s - self._before[1] - passed_s
            # Monotonic time runs on in sleep on some systems and stops on others.
            if abs(jumped_s - slept_s) < abs(jumped_s):
                jumped_s -= slept_s
        self._before = (now_s, wall_s, suspended_s)
        afresh = slept_s >= 1.0
        readings: dict[str, Any] = {
            fact: held.at(now_s, afresh=afresh or (only is not None and fact in only), held=only is not None)
            for fact, held in self._held.items()
        }
        return Snapshot(
            now_s=now_s,
            local=_local(wall_s),
            paused_for_s=None if paused_until_s is None else max(0.0, paused_until_s - now_s),
            slept_s=slept_s,
            jumped_s=jumped_s,
            **readings,
        )

    def filenos(self) -> dict[int, str]:
        """The fact that each file descriptor belongs to."""
        return {fileno: fact for fact, held in self._held.items() for fileno in held.filenos()}

    def capabilities(self) -> tuple[Capability, ...]:
        return tuple(held.capability() for held in self._held.values())

    def close(self) -> None:
        self._probes.close()


def local_time(clock: Clock) -> datetime:
    """The time of day where the machine stands."""
    return _local(clock.wall_s())


def _local(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, tz=UTC).astimezone()


class _Held(Generic[T]):
    """The last reading of a probe, which is asked again only when that is worth its cost."""

    def __init__(self, probe: Probe[T], fact: str) -> None:
        self._probe = probe
        self._fact = fact
        self._reading: Reading[T] | None = None
        self._read_at_s = 0.0
        self._cost_ns = 0
        self._looks = 0

    def at(self, now_s: float, *, afresh: bool, held: bool) -> Reading[T]:
        """``afresh``: it has changed, or all may have. ``held``: it is not this one's turn."""
        age_s = now_s - self._read_at_s
        if self._reading is not None and not afresh and (held or 0 <= age_s < self._probe.every_s - 0.05):
            return self._reading.aged(age_s)
        began_ns = time.perf_counter_ns()
        try:
            self._reading = self._probe.read(now_s)
        except Exception as error:  # noqa: BLE001 - a probe that fails is a fact about the machine, not the watch's end
            self._reading = Reading[T].missing(
                self._fact, f"{type(error).__name__}: {error}", "see idle-sense doctor"
            )
        cost_ns = time.perf_counter_ns() - began_ns
        if self._looks == 1:
            # The first look imports and opens what later ones only use.
            self._cost_ns = 0
        self._cost_ns += cost_ns
        self._looks += 1
        self._read_at_s = now_s
        return self._reading

    def filenos(self) -> Collection[int]:
        try:
            return self._probe.filenos()
        except Exception:  # noqa: BLE001 - as above; its next reading says what is wrong
            return ()

    def capability(self) -> Capability:
        told = self._probe.capability()
        cost_us = told.cost_us
        if cost_us is None and self._looks:
            cost_us = round(self._cost_ns / max(1, self._looks - 1) / 1000.0, 1)
        tells = self._reading is None or self._reading.value is not None or self._reading.tells
        return told.completed(event=told.event or bool(self.filenos()), cost_us=cost_us, tells=tells)


class Turnstile:
    """Which events may call for a look before the next regular one."""

    def __init__(self) -> None:
        self._let_in: dict[str, int] = {}
        self._shut: set[int] = set()
        self._suspected: set[int] = set()

    def tick(self) -> None:
        """A regular look: everybody may call again."""
        self._let_in.clear()
        self._shut.clear()
        self._suspected.clear()

    def open(self, filenos: dict[int, str]) -> dict[int, str]:
        """Those worth waiting for."""
        return {
            fileno: fact
            for fileno, fact in filenos.items()
            if fileno not in self._shut and self._let_in.get(fact, 0) < EVENTS_PER_TICK
        }

    def let_in(self, facts: Iterable[str]) -> frozenset[str]:
        """Those that have not called too often; counted."""
        allowed = frozenset(fact for fact in facts if self._let_in.get(fact, 0) < EVENTS_PER_TICK)
        for fact in allowed:
            self._let_in[fact] = self._let_in.get(fact, 0) + 1
        return allowed

    def looked(self, at: Collection[int], readable: Collection[int]) -> None:
        """``readable`` of the descriptors ``at`` which it was just looked are so still. Once, something has come meanwhile; twice
        in a row, nobody drains it, and it is not waited for until the next regular look."""
        self._shut |= self._suspected.intersection(readable)
        self._suspected = self._suspected.difference(at).union(readable)
