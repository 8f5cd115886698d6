"""The rates at which owners come back to an idle machine, fitted to its habits. Pure.

A rate is the product of an age factor (the longer nobody was there, the less likely somebody comes in the next minute) and a
time factor (half-hour of the day, workday or rest day), each piecewise constant: a log-linear Poisson model, fitted by iterative
proportional scaling. Young idle periods, the pauses, have time factors of their own, and so have old ones, whose owner left for
the day. Every factor is shrunk to a coarser one, as if one or two ends more had been seen there (gamma priors): to the same
half-hour of all days, then to both young and old, then to none; the age factors to a Weibull distribution with shape 0.55, amid
the 0.45 to 0.66 that are published for idle workstations. A machine without a past gets that Weibull alone.

That the lengths of a machine's own idle periods foretell the residual one, given its age, and that the time of day helps, is
RIPPP: Wyckoff, Jeong, Johnson, Finding Idle Work Periods on Networks of Workstations, NYU TR1998-761. Some machines have no
rhythm, and for them the time factors are noise: so there is a version without them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from idle_sense.habits import AGE_EDGES_S, AGES, LONGEST_S, RANKS, ROWS, SLOTS, Habits

PRIOR_SHAPE = 0.55
PRIOR_SCALE_S = 3600.0
"""Of the Weibull distribution that stands for machines in general: median 31 min, mean 102 min."""
OLD_CLASS = 7
"""Idle periods from this age class on (160 min) are old: whoever left is gone, not at lunch."""
LEVEL_PRIOR = 2.0
AGE_PRIOR = 2.0
TIME_PRIOR = 1.0
"""Ends that each factor is shrunk by."""
DOUBTS = (1.0, -3.0)
"""How many nats of evidence the rhythm of young and of old periods has to bring until it counts as much as a model without one:
most owners sleep at night, so that of old periods is believed in from the start."""
RANK_PRIOR = 30.0
"""Forecasts as good as their model says, that the recalibration starts with."""
ROUNDS = 6
"""Of scaling, stopped early: on little history more would move single probabilities, by up to 0.07, and foretell no better."""
OWN_HISTORY = 30.0
"""Idle periods from which on a forecast rests on the machine itself."""

Basis = Literal["prior", "mixed", "history"]
"""What a forecast rests on: published figures of other machines alone; on both; on this machine's own periods."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What ``fit`` makes of the habits."""

    rates: tuple[float, ...]
    """Ends a second, for each cell."""
    plain_rates: tuple[float, ...]
    """The same without regard to the time of day, for each age class."""
    rhythm: tuple[float, float]
    """The weight of ``rates`` against ``plain_rates``, 0 to 1, while a period is young and while it is old."""
    young: tuple[float, ...]
    """For a foretold probability to end of 0, 1/RANKS, ... 1: how often it did. Of forecasts for young periods."""
    old: tuple[float, ...]
    rest_days: tuple[int, ...]
    basis: Basis
    periods: int


def fit(habits: Habits) -> Model:
    """A few milliseconds; worth keeping until the habits change."""
    prior = _prior_rates()
    exposure = _rows(habits.exposure_s)
    ends = _rows(habits.ends)
    used = [row for row in range(ROWS) if any(exposure[row])]
    ends_of_age = [sum(column) for column in zip(*ends, strict=True)]
    exposure_of_age = [sum(column) for column in zip(*exposure, strict=True)]
    expected = sum(seconds * rate for seconds, rate in zip(exposure_of_age, prior, strict=True))
    level = (sum(ends_of_age) + LEVEL_PRIOR) / (expected + LEVEL_PRIOR)
    base = [level * rate for rate in prior]
    spans = (slice(0, OLD_CLASS), slice(OLD_CLASS, AGES))
    seen = [[sum(row[span]) for row in ends] for span in spans]
    ages = base
    factors = [[1.0] * ROWS for _ in spans]
    for _ in range(ROUNDS):
        due = [[0.0] * ROWS for _ in spans]
        for row in used:
            weighted = [seconds * rate for seconds, rate in zip(exposure[row], ages, strict=True)]
            for kind, span in enumerate(spans):
                due[kind][row] = sum(weighted[span])
        factors = _time_factors(seen, due)
        weights = [0.0] * AGES
        for row in used:
            for kind, span in enumerate(spans):
                factor = factors[kind][row]
                for age in range(AGES)[span]:
                    weights[age] += exposure[row][age] * factor
        ages = [
            rate * (count + AGE_PRIOR) / (rate * weight + AGE_PRIOR)
            for rate, count, weight in zip(base, ends_of_age, weights, strict=True)
        ]
    young, old = factors
    return Model(
        plain_rates=tuple(
            rate * (count + AGE_PRIOR) / (rate * seconds + AGE_PRIOR)
            for rate, count, seconds in zip(base, ends_of_age, exposure_of_age, strict=True)
        ),
        rhythm=(_weight(habits.evidence[0] - DOUBTS[0]), _weight(habits.evidence[1] - DOUBTS[1])),
        rates=tuple(
            rate * (old if age >= OLD_CLASS else young)[row]
            for row in range(ROWS)
            for age, rate in enumerate(ages)
        ),
        young=_turned_out(habits.young_ranks),
        old=_turned_out(habits.old_ranks),
        rest_days=habits.rest_days,
        basis="prior" if habits.weight <= 0 else "mixed" if habits.weight < OWN_HISTORY else "history",
        periods=habits.periods,
    )


def _rows(values: Sequence[float]) -> list[Sequence[float]]:
    return [values[start : start + AGES] for start in range(0, ROWS * AGES, AGES)]


def _prior_rates() -> list[float]:
    """The Weibull distribution's mean rate in each age class."""
    edges = [(edge_s / PRIOR_SCALE_S) ** PRIOR_SHAPE for edge_s in (*AGE_EDGES_S, LONGEST_S)]
    widths_s = [high - low for low, high in pairwise((*AGE_EDGES_S, LONGEST_S))]
    return [(high - low) / width_s for (low, high), width_s in zip(pairwise(edges), widths_s, strict=True)]


def _time_factors(seen: Sequence[Sequence[float]], due: Sequence[Sequence[float]]) -> list[list[float]]:
    """For young and for old periods, each row's factor: ends seen by ends due, shrunk from the coarse to the fine."""
    seen_all = [sum(kinds) for kinds in zip(*seen, strict=True)]
    due_all = [sum(kinds) for kinds in zip(*due, strict=True)]
    common = _shrunk(seen_all, due_all, [1.0] * ROWS)
    return [_shrunk(ends, expected, common) for ends, expected in zip(seen, due, strict=True)]


def _shrunk(seen: Sequence[float], due: Sequence[float], start: Sequence[float]) -> list[float]:
    """``start`` corrected for each half-hour of all days, then for its workdays and rest days apart."""
    factors = list(start)
    for slot in range(SLOTS):
        rows = (slot, slot + SLOTS)
        both = _ratio(sum(seen[row] for row in rows), sum(start[row] * due[row] for row in rows))
        for row in rows:
            factors[row] = start[row] * both * _ratio(seen[row], start[row] * both * due[row])
    return factors


def _ratio(seen: float, due: float) -> float:
    return (seen + TIME_PRIOR) / (due + TIME_PRIOR)


def _weight(nats: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, nats))))


def _turned_out(ranks: Sequence[float]) -> tuple[float, ...]:
    total = sum(ranks) + RANK_PRIOR
    shares = list(accumulate((count + RANK_PRIOR / RANKS) / total for count in ranks))
    return (0.0, *shares[:-1], 1.0)
