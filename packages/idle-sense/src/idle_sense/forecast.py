"""How long will an idle machine stay idle? Pure: no clock, no randomness, no files.

``idle_sense.habits`` is what a machine's past says, ``idle_sense.rates`` the model that is fitted to it. The probability to stay
idle follows from the rates of the cells that the period would pass through from now on. The model's two versions, with the
machine's rhythm and without, are averaged by how well each foretold the past (Bayesian model averaging over predictive
likelihoods, as in Dawid, Statistical Theory: The Prequential Approach, JRSS A, 1984), young and old periods apart.

What comes out is recalibrated by where the truth fell in past forecasts: Kuleshov, Fenner, Ermon, Accurate Uncertainties for
Deep Learning Using Calibrated Regression, ICML 2018; ends that were not seen are spread over what is left, as in Efron's
redistribution to the right.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from idle_sense.habits import AGE_EDGES_S, AGES, LONGEST_S, RANKS, Habits, cell_at, cells, second_of_week
from idle_sense.rates import OLD_CLASS, Basis, Model, fit
from idle_sense.sentences import duration

__all__ = ["CONFIDENCES", "HORIZONS_S", "Basis", "Forecast", "Model", "fit", "forecast", "judged"]

HORIZONS_S = (300.0, 1800.0, 7200.0, 28800.0)
"""5 min, 30 min, 2 h, 8 h."""
CONFIDENCES = (0.9, 0.5, 0.1)
"""Of staying idle at least so long: the 10, 50 and 90 % quantiles of the residual time."""

LOUDEST = 3.0
"""Nats that a single idle period can bring, for or against."""
FIRMEST = 4.0
"""Nats at most, for or against, so that what a young model got wrong is soon forgiven."""
JUDGED_YOUNG_S = (0.0, 600.0, 2400.0)
JUDGED_OLD_S = (9600.0, 28800.0, 57600.0, *(86400.0 * day for day in range(1, 14)))
"""Ages at which the forecast for a closed period is compared with what came."""
_Due = tuple[float, float]
"""Ends due: with the rhythm, and without regard to it."""
_Point = tuple[float, _Due, _Due]
"""Seconds from now; what is due until then while the period is young, and while it is old."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How long an idle period lasts from now on. Times are at most 14 days: what is foretold to last longer says 14 days."""

    idle: bool = True
    """False: the machine is not idle now; this is what would hold if it became so now."""
    age_s: float
    """Of the idle period now."""
    stays: tuple[tuple[float, float], ...]
    """Horizons in seconds, as asked, each with the probability that the machine stays idle that long."""
    lasts: tuple[tuple[float, float], ...]
    """Confidences, each with the seconds that the machine stays idle at least with that probability."""
    basis: Basis
    periods: int
    """This machine's own idle periods that were seen to end, and that the forecast rests on."""

    def lasts_s(self, confidence: float) -> float:
        """Seconds that the machine stays idle with that probability: 0.9, 0.5, 0.1, or whatever else was asked for.

        Raises KeyError for a confidence that was not asked for.
        """
        return dict(self.lasts)[confidence]

    @property
    def p10_s(self) -> float:
        """One in ten ends sooner."""
        return self.lasts_s(0.9)

    @property
    def p50_s(self) -> float:
        """Half end sooner."""
        return self.lasts_s(0.5)

    @property
    def p90_s(self) -> float:
        """One in ten lasts longer."""
        return self.lasts_s(0.1)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in English."""
        now = f"idle for {duration(self.age_s)}" if self.idle else "not idle now; if it became so now"
        half, low, high = (duration(self.lasts_s(confidence)) for confidence in (0.5, 0.9, 0.1))
        rests = f"rests on {self.periods} idle periods of this machine"
        if self.basis == "prior":
            rests = "rests on published figures of other machines; nothing is known of this one yet"
        elif self.basis == "mixed":
            rests += ", too few yet, and on published figures of other machines"
        return (
            f"{now}: half of the time it lasts {half} more; 8 times in 10 between {low} and {high}",
            *(f"stays idle for {duration(far_s)}: {share * 100:.0f} %" for far_s, share in self.stays),
            rests,
        )


def forecast(
    model: Model,
    *,
    local: datetime,
    age_s: float,
    horizons_s: Sequence[float] = HORIZONS_S,
    confidences: Sequence[float] = (),
    idle: bool = True,
) -> Forecast:
    """For an idle period of that age at that local time. Horizons beyond 14 days count as 14 days. ``confidences``: above 0
    and below 1, beside 0.9, 0.5 and 0.1.

    Raises ValueError for a confidence or a horizon that makes no sense.
    """
    asked = (*CONFIDENCES, *(value for value in confidences if value not in CONFIDENCES))
    if not all(0 < confidence < 1 for confidence in asked):
        raise ValueError(f"confidences are above 0 and below 1, not {confidences!r}")
    if not all(horizon_s >= 0 for horizon_s in horizons_s):
        raise ValueError(f"horizons are seconds of at least 0, not {horizons_s!r}")
    age_s = age_s if math.isfinite(age_s) and age_s > 0 else 0.0
    told = model.old if age_s >= AGE_EDGES_S[OLD_CLASS] else model.young
    points = _points(model, local, age_s)
    return Forecast(
        idle=idle,
        age_s=age_s,
        stays=tuple(
            (horizon_s, 1.0 - _through(told, _ended(model, points, horizon_s))) for horizon_s in horizons_s
        ),
        lasts=tuple(
            (confidence, _when(model, points, _back(told, 1.0 - confidence))) for confidence in asked
        ),
        basis=model.basis,
        periods=model.periods,
    )


def judged(habits: Habits, model: Model, *, began: datetime, length_s: float, ended: bool) -> Habits:
    """The habits with the record of past forecasts brought up to date by one whole idle period: where its length fell in what
    ``model``, which did not know it yet, would have foretold. ``ended``: False where the true length is only known to be more.
    """
    if not (math.isfinite(length_s) and length_s > 0):
        return habits
    young, old = list(habits.young_ranks), list(habits.old_ranks)
    for ranks, ages_s in ((young, JUDGED_YOUNG_S), (old, JUDGED_OLD_S)):
        for age_s in ages_s:
            if age_s >= length_s:
                break
            left_s = min(length_s - age_s, LONGEST_S)
            due = _due(model, began + timedelta(seconds=age_s), age_s, left_s)
            _rank(ranks, -math.expm1(-_mixed(model, *due)), ended=ended)
    length_s = min(length_s, LONGEST_S)
    evidence = list(habits.evidence)
    for kind, (due, plain) in enumerate(_due(model, began, 0.0, length_s)):
        told = plain - due
        if ended and kind == (length_s >= AGE_EDGES_S[OLD_CLASS]):
            last = cell_at(began + timedelta(seconds=length_s), length_s, model.rest_days)
            told += math.log(model.rates[last] / model.plain_rates[last % AGES])
        told = max(-LOUDEST, min(LOUDEST, told))
        evidence[kind] = max(-FIRMEST, min(FIRMEST, evidence[kind] + told))
    return dataclasses.replace(
        habits, young_ranks=tuple(young), old_ranks=tuple(old), evidence=(evidence[0], evidence[1])
    )


def _due(model: Model, local: datetime, age_s: float, length_s: float) -> tuple[_Due, _Due]:
    """Ends due in that time while the period is young, and while it is old."""
    found = ([0.0, 0.0], [0.0, 0.0])
    for cell, seconds in cells(second_of_week(local), age_s, length_s, model.rest_days):
        age = cell % AGES
        stage = found[age >= OLD_CLASS]
        stage[0] += model.rates[cell] * seconds
        stage[1] += model.plain_rates[age] * seconds
    return (found[0][0], found[0][1]), (found[1][0], found[1][1])


def _mixed(model: Model, young: _Due, old: _Due) -> float:
    """Ends due by both models together: in each stage the weighted mean of the probabilities to last, as such a number."""
    total = 0.0
    for weight, (due, plain) in zip(model.rhythm, (young, old), strict=True):
        least = min(due, plain)
        lasts = weight * math.exp(least - due) + (1.0 - weight) * math.exp(least - plain)
        total += least - math.log(lasts)
    return total


def _rank(ranks: list[float], ended_share: float, *, ended: bool) -> None:
    """Count one outcome in place: a foretold share of periods that would have ended by then."""
    place = min(float(RANKS), ended_share * RANKS)
    own = min(RANKS - 1, int(place))
    left = RANKS - place
    if ended or left <= 0:
        ranks[own] += 1.0
        return
    ranks[own] += (own + 1 - place) / left
    for later in range(own + 1, RANKS):
        ranks[later] += 1.0 / left


def _points(model: Model, local: datetime, age_s: float) -> list[_Point]:
    """At each change of the rates, from now on; in between, ends fall due evenly."""
    passed_s = 0.0
    young, old = [0.0, 0.0], [0.0, 0.0]
    points: list[_Point] = [(0.0, (0.0, 0.0), (0.0, 0.0))]
    for cell, seconds in cells(second_of_week(local), age_s, LONGEST_S, model.rest_days):
        age = cell % AGES
        stage = old if age >= OLD_CLASS else young
        passed_s += seconds
        stage[0] += model.rates[cell] * seconds
        stage[1] += model.plain_rates[age] * seconds
        points.append((passed_s, (young[0], young[1]), (old[0], old[1])))
    return points


def _ended(model: Model, points: Sequence[_Point], horizon_s: float) -> float:
    """The uncalibrated probability that the period has ended by then."""
    position = min(bisect.bisect_left(points, horizon_s, key=lambda point: point[0]), len(points) - 1)
    at_s, young, old = points[position]
    due = _mixed(model, young, old)
    if position and horizon_s < at_s:
        before_s, young, old = points[position - 1]
        before = _mixed(model, young, old)
        due = before + (due - before) * (horizon_s - before_s) / (at_s - before_s)
    return -math.expm1(-due)


def _when(model: Model, points: Sequence[_Point], ended: float) -> float:
    """When the uncalibrated probability to have ended reaches that."""
    wanted = -math.log1p(-ended) if ended < 1 else math.inf
    position = bisect.bisect_left(points, wanted, key=lambda point: _mixed(model, point[1], point[2]))
    if position >= len(points):
        return LONGEST_S
    at_s, young, old = points[position]
    if not position:
        return at_s
    due = _mixed(model, young, old)
    before_s, young, old = points[position - 1]
    before = _mixed(model, young, old)
    return before_s + (at_s - before_s) * (wanted - before) / (due - before)


def _through(told: Sequence[float], share: float) -> float:
    place = min(float(RANKS), max(0.0, share * RANKS))
    low = min(RANKS - 1, int(place))
    return told[low] + (told[low + 1] - told[low]) * (place - low)


def _back(told: Sequence[float], share: float) -> float:
    """The inverse of ``_through``; its steps are never flat, as each rank starts with a share."""
    high = min(RANKS, max(1, bisect.bisect_left(told, share)))
    return (high - 1 + (share - told[high - 1]) / (told[high] - told[high - 1])) / RANKS
