"""What a forecast promises whatever a machine's past was."""

import itertools
import math
import random
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idle_sense.forecast import Forecast, fit, forecast, judged
from idle_sense.habits import CELLS, LONGEST_S, Habits, faded, watched
from idle_sense.history_file import decode, encode

MONDAY = datetime.fromisoformat("2026-11-02T00:00")

moments = st.datetimes(MONDAY - timedelta(days=9000), MONDAY + timedelta(days=9000))
lengths = st.one_of(st.floats(0, 3600), st.floats(0, 3 * LONGEST_S), st.sampled_from([0.0, 1800.0, 86400.0]))
periods = st.lists(st.tuples(moments, lengths, st.booleans()), max_size=25)
ages = st.one_of(st.just(0.0), st.floats(0, 2 * LONGEST_S))
garbage = st.one_of(st.sampled_from([math.nan, math.inf, -math.inf, -1.0]), st.floats())


def learned(past: list[tuple[datetime, float, bool]], habits: Habits | None = None) -> Habits:
    habits = habits or Habits()
    model = fit(habits)
    for turn, (began, length_s, ended) in enumerate(past):
        if turn < 20 or turn % 10 == 0:
            model = fit(habits)
        habits = judged(habits, model, began=began, length_s=length_s, ended=ended)
        habits = watched(habits, local=began, from_age_s=0.0, to_age_s=length_s, ended=ended)
        habits = faded(habits, length_s)
    return habits


def sound(told: Forecast) -> None:
    probabilities = [probability for _, probability in told.stays]
    assert all(0.0 <= probability <= 1.0 for probability in probabilities)
    assert probabilities == sorted(probabilities, reverse=True), "longer is never likelier"
    assert 0.0 <= told.p10_s <= told.p50_s <= told.p90_s <= LONGEST_S


@settings(max_examples=60, deadline=None)
@given(periods, moments, ages)
def test_probabilities_fall_with_the_horizon_and_quantiles_rise(
    past: list[tuple[datetime, float, bool]], local: datetime, age_s: float
) -> None:
    horizons_s = (0.0, 1.0, 300.0, 1800.0, 7200.0, 28800.0, 5e5, 1e9)
    told = forecast(fit(learned(past)), local=local, age_s=age_s, horizons_s=horizons_s)
    sound(told)
    assert told.stays[0] == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(periods, moments, ages, st.floats(0.02, 0.98))
def test_the_time_for_a_confidence_has_that_probability(
    past: list[tuple[datetime, float, bool]], local: datetime, age_s: float, confidence: float
) -> None:
    """The two ways to ask agree."""
    model = fit(learned(past))
    lasts_s = forecast(model, local=local, age_s=age_s, confidences=(confidence,)).lasts_s(confidence)
    if lasts_s < LONGEST_S:
        ((_, probability),) = forecast(model, local=local, age_s=age_s, horizons_s=(lasts_s,)).stays
        assert probability == pytest.approx(confidence, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(periods, moments, st.floats(1, 2 * 86400), st.floats(0, 1), st.booleans())
def test_a_period_cut_in_two_teaches_the_same(
    past: list[tuple[datetime, float, bool]], began: datetime, length_s: float, share: float, ended: bool
) -> None:
    """At midnight, by a restart, wherever."""
    habits, cut_s = learned(past), length_s * share
    whole = watched(habits, local=began, from_age_s=0.0, to_age_s=length_s, ended=ended)
    first = watched(habits, local=began, from_age_s=0.0, to_age_s=cut_s, ended=False)
    second = watched(
        first, local=began + timedelta(seconds=cut_s), from_age_s=cut_s, to_age_s=length_s, ended=ended
    )
    assert second.exposure_s == pytest.approx(whole.exposure_s, abs=1e-3)
    assert sum(second.ends) == pytest.approx(sum(whole.ends))
    assert (second.periods, second.weight) == (whole.periods, whole.weight)


def test_a_period_cut_at_midnight_forecasts_the_same() -> None:
    whole = pieces = Habits()
    for day in range(1, 60):
        began = MONDAY + timedelta(days=day, hours=20, minutes=15)
        whole = watched(whole, local=began, from_age_s=0.0, to_age_s=43200.0, ended=True)
        midnight_s = (began.replace(hour=0, minute=0) + timedelta(days=1) - began).total_seconds()
        pieces = watched(pieces, local=began, from_age_s=0.0, to_age_s=midnight_s, ended=False)
        pieces = watched(
            pieces,
            local=began + timedelta(seconds=midnight_s),
            from_age_s=midnight_s,
            to_age_s=43200.0,
            ended=True,
        )
    one = forecast(fit(whole), local=MONDAY, age_s=600.0)
    other = forecast(fit(pieces), local=MONDAY, age_s=600.0)
    assert [share for _, share in one.stays] == pytest.approx([share for _, share in other.stays])


@given(moments, garbage, garbage, st.booleans(), garbage)
def test_garbage_neither_raises_nor_poisons(
    local: datetime, from_age_s: float, to_age_s: float, ended: bool, seconds: float
) -> None:
    habits = watched(Habits(), local=local, from_age_s=from_age_s, to_age_s=to_age_s, ended=ended)
    habits = judged(habits, fit(habits), began=MONDAY, length_s=to_age_s, ended=ended)
    habits = faded(habits, seconds)
    sound(forecast(fit(habits), local=local, age_s=from_age_s))


@settings(max_examples=30, deadline=None)
@given(periods)
def test_what_was_learned_survives_the_file(past: list[tuple[datetime, float, bool]]) -> None:
    habits = learned(past)
    again = decode(encode(habits))
    assert again.exposure_s == pytest.approx(habits.exposure_s, rel=1e-6)
    assert again.ends == pytest.approx(habits.ends, rel=1e-6)
    assert again.young_ranks == pytest.approx(habits.young_ranks, rel=1e-6)
    assert again.old_ranks == pytest.approx(habits.old_ranks, rel=1e-6)
    assert (again.periods, again.weight, again.watched_s, again.evidence, again.rest_days) == (
        habits.periods,
        habits.weight,
        habits.watched_s,
        habits.evidence,
        habits.rest_days,
    )


def test_a_million_periods_need_no_more_room_than_a_few() -> None:
    """The table is the whole memory: a million ends in it, counts of many years, are as many numbers as none."""
    chance = random.Random(4)
    habits = learned([(MONDAY + timedelta(hours=7 * turn), 3600.0, True) for turn in range(50)])
    busy = Habits(
        exposure_s=tuple(chance.uniform(0, 2e6) for _ in range(CELLS)),
        ends=tuple(1e6 / CELLS * chance.uniform(0, 2) for _ in range(CELLS)),
        periods=1_000_000,
        weight=1_000_000.0,
        watched_s=1e9,
    )
    later = watched(faded(busy, 600.0), local=MONDAY, from_age_s=0.0, to_age_s=1e5, ended=True)
    assert len(later.exposure_s) == len(later.ends) == CELLS
    assert later.periods == 1_000_001
    sound(forecast(fit(later), local=MONDAY, age_s=0.0))
    assert len(encode(habits)) < 3_000
    assert len(encode(later)) < 16_000, "random numbers in every cell: the most that it can ever be"


def test_old_counts_fade_to_a_bound_however_long_it_goes_on() -> None:
    """One period an hour, for ever: the weight tends to what 35 days of half-life hold, and stays below it."""
    habits = Habits()
    for turn in range(4000):
        habits = watched(
            habits, local=MONDAY + timedelta(hours=turn), from_age_s=0, to_age_s=600.0, ended=True
        )
        habits = faded(habits, 3600.0)
    assert habits.periods == 4000
    assert habits.weight < 35 * 24 / math.log(2)
    assert sum(habits.exposure_s) < 600.0 * 35 * 24 / math.log(2)


def owner(chance: random.Random, weeks: int, from_week: int = 0) -> list[tuple[datetime, float, bool]]:
    """The same rhythm week after week: pauses by day, gone at night and at weekends."""
    past: list[tuple[datetime, float, bool]] = []
    now = MONDAY + timedelta(weeks=from_week)
    while now < MONDAY + timedelta(weeks=from_week + weeks):
        at_work = now.weekday() < 5 and 9 <= now.hour < 17
        if at_work:
            idle_s = chance.weibullvariate(1500, 0.6)
        else:
            morning = now.replace(hour=9, minute=0, second=0) + timedelta(days=now.hour >= 9)
            while morning.weekday() >= 5:
                morning += timedelta(days=1)
            idle_s = (morning - now).total_seconds() + chance.uniform(-1800, 1800)
        idle_s = max(1.0, idle_s)
        past.append((now, idle_s, True))
        now += timedelta(seconds=idle_s + chance.lognormvariate(6.5, 1.0))
    return past


def error(habits: Habits, future: list[tuple[datetime, float, bool]]) -> float:
    """Brier score over the horizons, at the start of each period and in the middle of it."""
    model, squares = fit(habits), []
    for began, length_s, _ in future:
        for age_s in (0.0, length_s / 2):
            told = forecast(model, local=began + timedelta(seconds=age_s), age_s=age_s)
            squares += [(share - (length_s - age_s >= horizon_s)) ** 2 for horizon_s, share in told.stays]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("seed", range(3))
def test_more_history_of_a_steady_owner_does_not_make_forecasts_worse(seed: int) -> None:
    """From nothing to twelve weeks: each doubling of the history costs at most 0.03 of Brier score, what chance may do to
    a young model, and all of it gains at least a fifth of the prior's error."""
    chance = random.Random(seed)
    future = owner(chance, 4, from_week=20)
    past = [learned(owner(random.Random(seed + 100), weeks)) for weeks in (0, 1, 2, 4, 8, 12)]
    errors = [error(habits, future) for habits in past]
    for before, after in itertools.pairwise(errors):
        assert after <= before + 0.03, errors
    assert errors[-1] < errors[0] * 0.8, errors


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_of_a_steady_owner_are_calibrated(seed: int) -> None:
    """Of the idle periods of later weeks, about one in ten is over by the 10 % quantile, half by the median, nine in ten by the
    90 % quantile: within 8 of 100."""
    habits = learned(owner(random.Random(seed), 12))
    model = fit(habits)
    below = [0, 0, 0]
    future = owner(random.Random(seed + 100), 12, from_week=12)
    for began, length_s, _ in future:
        told = forecast(model, local=began, age_s=0.0)
        for place, quantile_s in enumerate((told.p10_s, told.p50_s, told.p90_s)):
            below[place] += length_s <= quantile_s
    shares = [count / len(future) for count in below]
    assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.08)
