"""One machine's life, told in order: at many moments everybody foretells, and learns only what has come out by then."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idle_sense.forecast import HORIZONS_S, Forecast, fit, forecast, judged
from idle_sense.habits import Habits, faded, watched
from idle_sense.rates import PRIOR_SCALE_S, PRIOR_SHAPE
from idleness.owners import periods
from idleness.rivals import Ages, BaseRate, HourOfWeek, Weibull

if TYPE_CHECKING:
    from datetime import datetime

    from idleness.owners import IdlePeriod, Machine

ASKED_EVERY_S = 1800.0
"""While idle, beside the moment when it becomes so."""
REFIT_S = 6 * 3600.0
"""Ours refits so often once it knows 30 periods; the library does at each period's end."""
BASE, HOUR, WEIBULL, AGES, OURS = "base rate", "hour of week", "Weibull", "RIPPP ages", "ours"
EVERYBODY = (BASE, HOUR, WEIBULL, AGES, OURS)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Does it stay idle that long? And what everybody said."""

    week: int
    at_start: bool
    horizon_s: float
    stayed: bool
    told: tuple[float, ...]
    """In the order of ``EVERYBODY``."""


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Our quantiles, and the residual time that came."""

    week: int
    at_start: bool
    residual_s: float
    returned: bool
    """False: it would have been more."""
    told_s: tuple[float, float, float]


@dataclass(kw_only=True)
class Race:
    questions: list[Question] = field(default_factory=list)
    quantiles: list[Quantiles] = field(default_factory=list)
    unanswered: int = 0
    """Questions whose answer nobody knows: the machine was switched off before."""
    periods: int = 0


class Ours:
    def __init__(self) -> None:
        self._habits = Habits()
        self._model = fit(self._habits)
        self._stale_s = 0.0

    def foretell(self, local: datetime, age_s: float) -> Forecast:
        return forecast(self._model, local=local, age_s=age_s)

    def passes(self, seconds: float) -> None:
        self._habits = faded(self._habits, seconds)
        self._stale_s += seconds

    def learn(self, began: datetime, period: IdlePeriod) -> None:
        habits = judged(
            self._habits, self._model, began=began, length_s=period.length_s, ended=period.returned
        )
        self._habits = watched(
            habits, local=began, from_age_s=0.0, to_age_s=period.length_s, ended=period.returned
        )
        self.passes(period.length_s)
        if self._stale_s >= REFIT_S or self._habits.periods < 30:
            self._model = fit(self._habits)
            self._stale_s = 0.0


def race(machine: Machine, seed: int) -> Race:
    found = Race()
    chance = random.Random(seed)
    base, hours = BaseRate(), HourOfWeek()
    weibull = Weibull(PRIOR_SHAPE, PRIOR_SCALE_S)
    ages = Ages(weibull)
    ours = Ours()
    pending: list[tuple[float, int, float, int, bool]] = []
    before_s = machine.starts_s
    for period in periods(machine):
        end_s = period.began_s + period.length_s
        ours.passes(period.began_s - before_s)
        moments = [period.began_s]
        at_s = period.began_s + chance.uniform(0, ASKED_EVERY_S)
        while at_s < end_s:
            moments.append(at_s)
            at_s += ASKED_EVERY_S
        for at_s in moments:
            while pending and pending[0][0] <= at_s:
                _, _, horizon_s, hour, stayed = heapq.heappop(pending)
                base.learn(horizon_s, stayed)
                hours.learn(horizon_s, hour, stayed)
            local = machine.local(at_s)
            hour = local.weekday() * 24 + local.hour
            age_s, residual_s = at_s - period.began_s, end_s - at_s
            told = ours.foretell(local, age_s)
            week, at_start = int((at_s - machine.starts_s) // 604800), age_s == 0
            found.quantiles.append(
                Quantiles(
                    week=week,
                    at_start=at_start,
                    residual_s=residual_s,
                    returned=period.returned,
                    told_s=(told.p10_s, told.p50_s, told.p90_s),
                )
            )
            for horizon_s, probability in told.stays:
                stayed = residual_s >= horizon_s
                if not stayed and not period.returned:
                    found.unanswered += 1
                    continue
                everybody = (
                    base.foretell(horizon_s),
                    hours.foretell(horizon_s, hour),
                    weibull.foretell(age_s, horizon_s),
                    ages.foretell(age_s, horizon_s),
                    probability,
                )
                found.questions.append(
                    Question(week=week, at_start=at_start, horizon_s=horizon_s, stayed=stayed, told=everybody)
                )
                known_s = at_s + horizon_s if stayed else end_s
                heapq.heappush(pending, (known_s, len(found.questions), horizon_s, hour, stayed))
        ours.learn(machine.local(period.began_s), period)
        for lengths in (weibull, ages):
            lengths.learn(period.length_s, period.returned)
            lengths.fit()
        found.periods += 1
        before_s = end_s
    return found


__all__ = ["EVERYBODY", "HORIZONS_S", "OURS", "Quantiles", "Question", "Race", "race"]
