"""Graphics processors: what a back end reads of them, and what that says about others than our guests.

A back end (``GpuReader``) delivers samples: of each whole device, and of the programs on it. ``use_between`` turns two of them
into the share of others; it is pure, and the same for every system. It never takes off more than is known to be guests':

- no guest on the device: all of its work is others';
- every program that may be on it is seen and timed: others' share is the sum of theirs, on the engine that they use most;
- else guests' share cannot be told from others': nothing is taken off, and our own guests count as others.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from idle_sense.errors import SenseError
from idle_sense.facts import GpuUse
from idle_sense.types import Verified

QUIET_RATIO = 0.05
"""A device that works for less than this share of the time is not worth asking whose work it is."""


class GpuUnreadable(SenseError):
    """A graphics processor that should tell how busy it is does not: counts as busy. ``hint`` says what would mend it."""


@dataclass(frozen=True, kw_only=True)
class EngineTime:
    """Two counters that only grow: the share between two looks is the growth of one divided by that of the other."""

    busy: float
    whole: float
    """In the same unit: seconds of the clock times the number of equal engines, or the engine's own cycles."""


@dataclass(frozen=True, kw_only=True)
class ProgramUse:
    """What one program does on one device."""

    pid: int
    ratios: Mapping[str, float] = field(default_factory=dict[str, float])
    """By engine, 0 to 1, where the driver tells shares."""
    times: Mapping[str, EngineTime] = field(default_factory=dict[str, EngineTime])
    """Where it tells counters: by the engine, a space, and what no other counter of that engine and device is called, as
    ``gfx 17``. A counter that two programs share has one name in both, and is counted once."""
    timed: bool = True
    """False: it holds the device, and the driver does not tell how much it works there."""
    used_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """One look at one device."""

    name: str
    at_s: float
    """Monotonic, when it was taken."""
    asleep: bool = False
    busy_ratio: float | None = None
    """The device's own measure, all programs together, 0 to 1."""
    idle_times: Mapping[str, EngineTime] = field(default_factory=dict[str, EngineTime])
    """By part of the device: how long it was **idle** (``busy``) of how long it was there (``whole``)."""
    upper_bound: bool = False
    """The device's own measure says more than its engines work, as where it counts power states: what programs do together,
    where all of them are seen, is nearer to the truth."""
    used_bytes: int | None = None
    programs: tuple[ProgramUse, ...] | None = None
    """None: not looked at."""
    complete: bool = False
    """``programs`` are all that may be on the device."""
    tells: bool = True
    """False: its driver has no way to tell how busy it is, and never had."""


class GpuReader(Protocol):
    """One system's way to its graphics processors. Called from one thread at a time, which may be kept waiting."""

    @property
    def name(self) -> str:
        """Of the back ends in use, such as ``NVML 550.54, amdgpu``."""
        ...

    @property
    def verified(self) -> Verified: ...

    @property
    def advice(self) -> str:
        """What to do for a better answer; empty where there is nothing better."""
        ...

    def samples(self) -> tuple[GpuSample, ...]:
        """Every device, cheaply; ``programs`` only where they cost nothing more. A device is not woken to be asked: what was
        known before, with its old ``at_s``, is given for one that is being let to fall asleep.

        Raises GpuUnreadable.
        """
        ...

    def programs(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        """The same samples, with programs wherever these can be told. Raises GpuUnreadable."""
        ...

    def describe(self) -> tuple[str, ...]: ...

    def close(self) -> None: ...


def whole_ratio(before: GpuSample | None, after: GpuSample) -> float | None:
    """How busy the whole device was, 0 to 1: by its own measure now, and by its counters since ``before``. None: not told."""
    if after.asleep:
        return 0.0
    found: list[float] = []
    if after.busy_ratio is not None:
        found.append(_bounded(after.busy_ratio))
    if before is not None and not before.asleep:
        for part, now in after.idle_times.items():
            then = before.idle_times.get(part)
            idle = None if then is None else _share(then, now)
            if idle is not None:
                found.append(1.0 - idle)
    return max(found, default=None)


def programs_ratio(
    before: GpuSample | None, after: GpuSample, of: Callable[[ProgramUse], bool]
) -> float | None:
    """How busy those programs keep the engine that they use most, 0 to 1. None: nothing to compare with yet.

    Of a counter that was not there before it is not known when it counted: it is taken to have worked all of the time, rather
    too much than too little. ``with_starts`` spares most programs that.
    """
    engines: dict[str, float] = {}
    earlier = {} if before is None else _times(before.programs or ())
    counted: set[str] = set()
    for program in filter(of, after.programs or ()):
        for engine, ratio in program.ratios.items():
            engines[engine] = engines.get(engine, 0.0) + _bounded(ratio)
        for counter, now in program.times.items():
            if counter in counted:
                continue
            counted.add(counter)
            then = earlier.get(counter)
            share = _share(then, now) if then is not None else float(now.busy > 0)
            if share is None or before is None:
                return None
            engine = counter.partition(" ")[0]
            engines[engine] = engines.get(engine, 0.0) + share
    return min(1.0, max(engines.values(), default=0.0))


def use_between(before: GpuSample | None, after: GpuSample, is_guest: Callable[[int], bool]) -> GpuUse:
    """Others' use of a device between two looks; ``before`` None: the first."""
    if after.asleep:
        return GpuUse(name=after.name, others_ratio=0.0, asleep=True)
    whole = whole_ratio(before, after)
    if after.programs is None:
        return GpuUse(name=after.name, others_ratio=whole, others_bytes=after.used_bytes)
    guests = {program.pid for program in after.programs if is_guest(program.pid)}
    others = [program for program in after.programs if program.pid not in guests]
    theirs = programs_ratio(before, after, lambda program: program.pid not in guests)
    exact = after.complete and all(program.timed for program in others)
    if exact and (guests or after.upper_bound or whole is None):
        ratio = theirs
    elif whole is not None:
        ratio = whole
    elif after.idle_times:
        # Counters, seen for the first time.
        ratio = None
    else:
        # Nobody tells how much work is done there, nor that all of it is guests'.
        ratio = 1.0
    return GpuUse(name=after.name, others_ratio=ratio, others_bytes=_others_bytes(after, guests, others))


def lacks_start(before: GpuSample | None, after: GpuSample) -> bool:
    """Whether a program has a counter that was not seen before, so that a second look a moment later tells more."""
    earlier = {} if before is None else _times(before.programs or ())
    return any(counter not in earlier for counter in _times(after.programs or ()))


def with_starts(before: GpuSample | None, middle: GpuSample) -> GpuSample:
    """``before``, and the counters that ``middle`` saw first."""
    if before is None:
        return middle
    known = _times(before.programs or ())
    added: list[ProgramUse] = []
    for program in middle.programs or ():
        fresh = {counter: time for counter, time in program.times.items() if counter not in known}
        if fresh:
            added.append(ProgramUse(pid=program.pid, times=fresh))
    return dataclasses.replace(before, programs=(*(before.programs or ()), *added))


def _times(programs: Iterable[ProgramUse]) -> dict[str, EngineTime]:
    return {counter: time for program in programs for counter, time in program.times.items()}


def _share(then: EngineTime, now: EngineTime) -> float | None:
    """None: no time passed, or the counter began anew."""
    whole = now.whole - then.whole
    if not whole > 0:
        return None
    # A driver may show less than before for a moment (drm-usage-stats, Linux): that is no work, and no error.
    return _bounded((now.busy - then.busy) / whole)


def _bounded(ratio: float) -> float:
    return min(1.0, max(0.0, ratio)) if math.isfinite(ratio) else 1.0


def _others_bytes(after: GpuSample, guests: set[int], others: list[ProgramUse]) -> int | None:
    """What the device counts, less what guests are known to hold; else the sum of what others hold."""
    if after.used_bytes is not None:
        held = [program.used_bytes or 0 for program in after.programs or () if program.pid in guests]
        return max(0, after.used_bytes - sum(held))
    told = [program.used_bytes for program in others if program.used_bytes is not None]
    return sum(told) if told else None
