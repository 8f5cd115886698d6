"""What a forecast rests on, and what the past teaches it."""

import math
from datetime import datetime, timedelta

import pytest

from idle_sense.forecast import fit, forecast, judged
from idle_sense.habits import (
    AGE_EDGES_S,
    AGES,
    CELLS,
    LONGEST_S,
    Habits,
    cells,
    faded,
    second_of_week,
    watched,
)
from idle_sense.rates import PRIOR_SCALE_S, PRIOR_SHAPE

MONDAY = datetime.fromisoformat("2026-11-02T00:00")


def nightly(days: int, *, returns_at: float = 9.1, returned: bool = True) -> Habits:
    """Idle from 18:00 on, until the owner comes in the morning; on workdays and at weekends alike."""
    habits = Habits()
    length_s = (24 - 18 + returns_at) * 3600.0
    for day in range(days):
        began = MONDAY + timedelta(days=day, hours=18)
        habits = watched(habits, local=began, from_age_s=0.0, to_age_s=length_s, ended=returned)
        habits = faded(habits, 86400.0)
    return habits


def test_a_machine_without_a_past_gets_the_published_weibull_and_says_so() -> None:
    told = forecast(fit(Habits()), local=MONDAY, age_s=0.0, horizons_s=(600.0, 7200.0, 86400.0))
    assert (told.basis, told.periods) == ("prior", 0)
    assert "nothing is known of this one" in " ".join(told.sentences)
    for horizon_s, probability in told.stays:
        assert probability == pytest.approx(math.exp(-((horizon_s / PRIOR_SCALE_S) ** PRIOR_SHAPE)), abs=0.01)


def test_the_basis_grows_with_the_history() -> None:
    assert fit(nightly(3)).basis == "mixed"
    assert fit(nightly(60)).basis == "history"
    told = forecast(fit(nightly(60)), local=MONDAY, age_s=0.0)
    assert told.periods == 60
    assert "rests on 60 idle periods of this machine" in told.sentences


def test_the_longer_nobody_was_there_the_longer_nobody_comes_as_far_as_is_known() -> None:
    model = fit(Habits())
    p50_s = [forecast(model, local=MONDAY, age_s=age_s).p50_s for age_s in (0.0, 600.0, 3600.0, 36000.0)]
    assert p50_s == sorted(p50_s)
    assert p50_s[0] < p50_s[-1] / 5


def test_who_comes_at_nine_every_day_is_expected_at_nine() -> None:
    model = fit(nightly(60))
    evening = forecast(
        model, local=MONDAY.replace(hour=20), age_s=7200.0, horizons_s=(8 * 3600.0, 15 * 3600.0)
    )
    morning = forecast(
        model, local=MONDAY.replace(hour=8, minute=30), age_s=14.5 * 3600.0, horizons_s=(7200.0,)
    )
    assert evening.stays[0][1] > 0.9
    assert evening.stays[1][1] < 0.4
    assert morning.stays[0][1] < 0.2


def test_a_machine_that_is_switched_off_teaches_that_it_stayed_idle_until_then_and_no_more() -> None:
    """Three hours of idleness and then off, every day: nobody ever came back, so nobody is expected in these hours."""
    habits = Habits()
    for day in range(40):
        began = MONDAY + timedelta(days=day, hours=18)
        habits = watched(habits, local=began, from_age_s=0.0, to_age_s=10800.0, ended=False)
    told = forecast(fit(habits), local=MONDAY.replace(hour=18), age_s=0.0, horizons_s=(10800.0,))
    assert told.stays[0][1] > 0.8
    assert (told.basis, told.periods) == ("prior", 0), "no period was seen to end"


def test_new_habits_replace_old_ones() -> None:
    habits = nightly(60, returns_at=9.0)
    for day in range(60, 160):
        began = MONDAY + timedelta(days=day, hours=18)
        habits = watched(habits, local=began, from_age_s=0.0, to_age_s=9 * 3600.0, ended=True)
        habits = faded(habits, 86400.0)
    night = forecast(fit(habits), local=MONDAY.replace(hour=2), age_s=8 * 3600.0, horizons_s=(7200.0,))
    assert night.stays[0][1] < 0.5, "it is now used from three in the morning on"


def test_forecasts_that_promised_too_much_are_corrected() -> None:
    """A record that says: what was foretold with a half always came true sooner. The median moves down."""
    plain, ranks = Habits(), (3.0,) * 10 + (0.0,) * 10
    eager = Habits(young_ranks=tuple(40 * share for share in ranks))
    assert (
        forecast(fit(eager), local=MONDAY, age_s=0.0).p50_s
        < forecast(fit(plain), local=MONDAY, age_s=0.0).p50_s / 2
    )
    assert forecast(fit(eager), local=MONDAY, age_s=LONGEST_S / 2) == forecast(
        fit(plain), local=MONDAY, age_s=LONGEST_S / 2
    ), "that record was of young periods"


def test_an_outcome_counts_once_in_the_record_seen_or_unseen() -> None:
    model = fit(Habits())
    seen = judged(Habits(), model, began=MONDAY, length_s=300.0, ended=True)
    unseen = judged(Habits(), model, began=MONDAY, length_s=300.0, ended=False)
    assert sum(seen.young_ranks) == pytest.approx(1.0)
    assert sum(unseen.young_ranks) == pytest.approx(1.0)
    assert unseen.young_ranks[-1] > 0.0, "it may still last long"
    assert seen.old_ranks == unseen.old_ranks == (0.0,) * 20


def test_a_clock_set_by_years_erases_nothing() -> None:
    habits = nightly(30)
    assert faded(habits, 1e12).weight > habits.weight * 0.8
    assert faded(habits, -5.0) == habits
    assert faded(habits, math.nan) == habits


def test_an_hour_that_a_clock_change_leaves_out_or_repeats_is_as_the_wall_shows_it() -> None:
    """29 March 2026 in Berlin: no 2:30. Two periods of the same length, before and after, land where the clock was."""
    before = watched(
        Habits(), local=datetime.fromisoformat("2026-03-29T01:00"), from_age_s=0.0, to_age_s=600.0, ended=True
    )
    after = watched(
        before, local=datetime.fromisoformat("2026-03-29T03:00"), from_age_s=0.0, to_age_s=600.0, ended=True
    )
    assert sum(after.exposure_s) == pytest.approx(1200.0)
    assert sum(after.ends) == 2.0


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_confidence_that_makes_no_sense_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidences"):
        forecast(fit(Habits()), local=MONDAY, age_s=0.0, confidences=(confidence,))


@pytest.mark.parametrize("horizon_s", [-1.0, math.nan])
def test_a_horizon_that_makes_no_sense_is_refused(horizon_s: float) -> None:
    with pytest.raises(ValueError, match="horizons"):
        forecast(fit(Habits()), local=MONDAY, age_s=0.0, horizons_s=(horizon_s,))


def test_seconds_for_a_confidence_are_there_when_asked_for() -> None:
    told = forecast(fit(Habits()), local=MONDAY, age_s=0.0, confidences=(0.8,))
    assert told.p10_s < told.lasts_s(0.8) < told.p50_s
    with pytest.raises(KeyError):
        told.lasts_s(0.7)


def test_a_machine_that_is_not_idle_is_told_of_as_if_it_became_so() -> None:
    told = forecast(fit(Habits()), local=MONDAY, age_s=0.0, idle=False)
    assert told.sentences[0].startswith("not idle now")


def test_cells_share_out_all_of_the_time_and_wrap_at_the_week() -> None:
    sunday_night_s = second_of_week(datetime.fromisoformat("2026-11-08T23:50"))
    found = list(cells(sunday_night_s, 0.0, 3600.0, (5, 6)))
    assert sum(seconds for _, seconds in found) == pytest.approx(3600.0)
    assert all(0 <= cell < CELLS for cell, _ in found)
    rows = [cell // AGES for cell, _ in found]
    assert rows[0] == 95, "the last half-hour of a rest day"
    assert rows[-1] == 1, "and Monday's second"
    assert found[0][0] % AGES == 0
    assert AGE_EDGES_S[found[-1][0] % AGES] <= 3600.0


def test_rest_days_may_be_others() -> None:
    friday = datetime.fromisoformat("2026-11-06T12:00")
    habits = watched(Habits(rest_days=(4, 5)), local=friday, from_age_s=0.0, to_age_s=60.0, ended=True)
    assert habits.ends.index(1.0) // AGES == 48 + 24
