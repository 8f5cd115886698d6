"""Two thresholds and a memory between them, so that noise does not flap."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Latch:
    """A soft signal's past."""

    on: bool = False
    smoothed: float | None = None
    """Follows the signal quickly: decides when the latch closes."""
    calm: float | None = None
    """Follows it slowly: decides when it opens, so that noise does not hold it closed."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    busy: float
    """The quick average closes the latch from here on."""
    free: float
    """The slow one opens it when it is not above this."""
    smoothing_s: float
    """Time constants of the two."""
    easing_s: float


def averaged(before: Latch, value: float, passed_s: float, limits: Thresholds) -> Latch:
    """The latch after ``passed_s`` in which the signal was ``value``. What is no number counts as above all thresholds."""
    if not math.isfinite(value):
        value = max(1.0, limits.busy)
    smoothed = _smoothed(before.smoothed, value, passed_s, limits.smoothing_s)
    calm = _smoothed(before.calm, value, passed_s, limits.easing_s)
    on = calm > limits.free if before.on else smoothed >= limits.busy
    if on and not before.on:
        # The slow average must not open what the quick one has just closed.
        calm = max(calm, smoothed)
    return Latch(on=on, smoothed=smoothed, calm=calm)


def present(before: Latch, *, there: bool, passed_s: float, smoothing_s: float, easing_s: float) -> Latch:
    """A latch for what is either there or not: the share of time that it was."""
    limits = Thresholds(busy=0.25, free=0.15, smoothing_s=smoothing_s, easing_s=easing_s)
    return averaged(before, 1.0 if there else 0.0, passed_s, limits)


def _smoothed(before: float | None, value: float, passed_s: float, constant_s: float) -> float:
    """Exponential smoothing over uneven steps; the first value stands for itself."""
    if before is None or constant_s == 0:
        return value
    return before + (1.0 - math.exp(-passed_s / constant_s)) * (value - before)
