"""What one machine's past says of its idle periods, kept in a few KB. Pure: no clock, no randomness, no files.

The sketch is a table, half-hour of the day by age of the idle period, for workdays and for rest days. Each cell holds how long
the machine was idle there, and how often that ended: the exposures and occurrences of survival analysis (Andersen, Borgan,
Gill, Keiding, Statistical Models Based on Counting Processes, 1993, chapter VI), which are all that a model with piecewise
constant rates needs to know. Where the end is not known (the machine was switched off, the period still goes on), there is time
without an end, as censoring asks for. A period cut in two, at midnight or by a restart, adds up to the same table. Old counts
fade, so that it forgets, and never outgrows itself.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

AGE_EDGES_S = tuple(
    60.0 * minutes for minutes in (0, 2, 5, 10, 20, 40, 80, 160, 320, 640, 960, 1440, 2880, 5760)
)
"""Where the age classes of idle periods begin; the last one has no end."""
AGES = len(AGE_EDGES_S)
SLOT_S = 1800.0
SLOTS = 48
"""Half-hours of a day, local time."""
ROWS = 2 * SLOTS
"""Half-hours of workdays, then those of rest days."""
CELLS = ROWS * AGES
RANKS = 20
"""Classes of the record of past forecasts: how often the truth fell into which twentieth of what was foretold."""
REST_DAYS = (5, 6)
"""Saturday and Sunday, as ``datetime.weekday`` counts."""

HALF_LIFE_S = 35 * 86400.0
"""Watched time after which what was seen counts half."""
LONGEST_S = 14 * 86400.0
"""No forecast looks further, and no stretch of idleness counts as longer."""
_DAY_S = 86400.0
_WEEK_S = 604800.0


@dataclass(frozen=True, kw_only=True)
class Habits:
    """The sketch. Start with ``Habits()``; every change makes a new one."""

    exposure_s: tuple[float, ...] = (0.0,) * CELLS
    """Idle time seen, faded; cell ``row * AGES + age class``."""
    ends: tuple[float, ...] = (0.0,) * CELLS
    """How often it ended there because the owner was back, faded."""
    young_ranks: tuple[float, ...] = (0.0,) * RANKS
    """Where the truth fell in past forecasts for young idle periods, faded; see ``idle_sense.forecast.judged``."""
    old_ranks: tuple[float, ...] = (0.0,) * RANKS
    """The same for idle periods that were old already."""
    evidence: tuple[float, float] = (0.0, 0.0)
    """How much better the rhythm foretold idle periods than none would have, while they were young and while they were old: in
    nats, faded."""
    periods: int = 0
    """Idle periods that were seen to end, ever."""
    weight: float = 0.0
    """The same, faded: what a forecast rests on."""
    watched_s: float = 0.0
    """How long the machine was watched, idle or not, ever."""
    rest_days: tuple[int, ...] = REST_DAYS
    """Days with a rhythm of their own, Monday = 0."""


def watched(habits: Habits, *, local: datetime, from_age_s: float, to_age_s: float, ended: bool) -> Habits:
    """An idle period was seen to grow from ``from_age_s`` to ``to_age_s``; then it ``ended`` because the owner was back, or else
    nothing is known of what came next. ``local``: the local time at ``from_age_s``, as clocks on the wall show it.

    Ages that make no sense (not finite, negative, running backwards) change nothing.
    """
    sensible = math.isfinite(from_age_s) and math.isfinite(to_age_s) and 0 <= from_age_s <= to_age_s
    if not sensible:
        return habits
    exposure_s = list(habits.exposure_s)
    week_s = second_of_week(local)
    length_s = min(to_age_s - from_age_s, LONGEST_S)
    last = cell_at(local, from_age_s, habits.rest_days)
    for cell, seconds in cells(week_s, from_age_s, length_s, habits.rest_days):
        exposure_s[cell] += seconds
        last = cell
    if not ended:
        return dataclasses.replace(habits, exposure_s=tuple(exposure_s))
    ends = list(habits.ends)
    ends[last] += 1.0
    return dataclasses.replace(
        habits,
        exposure_s=tuple(exposure_s),
        ends=tuple(ends),
        periods=habits.periods + 1,
        weight=habits.weight + 1.0,
    )


def faded(habits: Habits, seconds: float) -> Habits:
    """``seconds`` of watching went by, idle or not: what was seen before counts less. Time is the watcher's own, so that a
    clock set to another year erases nothing; at most a week at once."""
    if not (math.isfinite(seconds) and seconds > 0):
        return habits
    seconds = min(seconds, _WEEK_S)
    keep = 0.5 ** (seconds / HALF_LIFE_S)
    return dataclasses.replace(
        habits,
        exposure_s=_times(habits.exposure_s, keep),
        ends=_times(habits.ends, keep),
        young_ranks=_times(habits.young_ranks, keep),
        old_ranks=_times(habits.old_ranks, keep),
        evidence=(habits.evidence[0] * keep, habits.evidence[1] * keep),
        weight=habits.weight * keep,
        watched_s=habits.watched_s + seconds,
    )


def _times(values: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple([value * factor for value in values])


def second_of_week(local: datetime) -> float:
    """Since Monday 0:00, as clocks on the wall show it; whatever zone it has is left aside."""
    seconds = local.hour * 3600 + local.minute * 60 + local.second
    return local.weekday() * _DAY_S + seconds + local.microsecond / 1e6


def age_class(age_s: float) -> int:
    """The position in ``AGE_EDGES_S`` of the class that an idle period of this age is in."""
    found = 0
    for position, edge_s in enumerate(AGE_EDGES_S):
        if age_s < edge_s:
            break
        found = position
    return found


def cells(
    week_s: float, age_s: float, length_s: float, rest_days: Sequence[int]
) -> Iterator[tuple[int, float]]:
    """The cells that an idle period of that age passes through from that second of the week on, and how long it is in each."""
    age = age_class(age_s)
    slot = int(week_s // SLOT_S)
    to_slot_s = SLOT_S - week_s % SLOT_S
    to_age_s = _to_next(age, age_s)
    first = _first_cell(slot, rest_days)
    left_s = length_s
    while left_s > 0:
        step_s = min(to_slot_s, to_age_s, left_s)
        yield first + age, step_s
        left_s -= step_s
        to_slot_s -= step_s
        to_age_s -= step_s
        if to_slot_s <= 0:
            slot += 1
            to_slot_s = SLOT_S
            first = _first_cell(slot, rest_days)
        if to_age_s <= 0:
            age += 1
            to_age_s = _to_next(age, AGE_EDGES_S[age])


def cell_at(local: datetime, age_s: float, rest_days: Sequence[int]) -> int:
    """The cell that an idle period of that age is in at that local time."""
    return _first_cell(int(second_of_week(local) // SLOT_S), rest_days) + age_class(age_s)


def _first_cell(slot: int, rest_days: Sequence[int]) -> int:
    day, of_day = divmod(slot, SLOTS)
    return (of_day + (SLOTS if day % 7 in rest_days else 0)) * AGES


def _to_next(age: int, age_s: float) -> float:
    return AGE_EDGES_S[age + 1] - age_s if age + 1 < AGES else math.inf
