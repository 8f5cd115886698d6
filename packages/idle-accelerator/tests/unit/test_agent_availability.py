"""The owner's word goes before idle-sense, and every answer has its reason."""

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from idle_accelerator.agent import control
from idle_accelerator.agent.availability import (
    NO_RULES,
    PRESENCE,
    Availability,
    HeldWord,
    Rules,
    availability,
)
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.reasons import reason, render
from idle_accelerator.wire.resources import Resources
from idle_sense import Reason as SensedReason
from idle_sense import Severity, State, Verdict
from idle_sense.quiet_hours import QuietHours

JOB = "jaaaaaaaaaaaaaaaa"


def verdict(state: State, *, memory_short: bool = False) -> Verdict:
    why = SensedReason(
        code="input.recent",
        severity=Severity.HARD,
        params={"device": "keyboard", "age_s": 4.0, "limit_s": 300.0},
        source="test",
    )
    return Verdict(state=state, reasons=(why,), memory_short=memory_short, since_s=1.0)


def judged(
    state: State, word: OwnerWord | None = None, *, now_s: float = 0.0, **fields: object
) -> Availability:
    ends_at_s = None if word is None or word.for_s is None else word.for_s
    held = HeldWord(word=word, ends_at_s=ends_at_s)
    plain = {"draining": False, "disk_low": None, **fields}
    return availability(verdict(state), held, now_s=now_s, **plain)  # type: ignore[arg-type]


def test_a_machine_in_use_is_not_lent_and_says_how_to_lend_it() -> None:
    now = judged(State.BUSY)
    assert now.lending == "in_use"
    assert not now.owner.lent
    assert render(now.reasons[-1]) == "to lend it now: idlectl lend --for 10m"


def test_idle_is_lent() -> None:
    now = judged(State.IDLE)
    assert (now.lending, now.owner.lent, now.only_jobs) == ("available", True, None)


def test_settling_is_not_idle_yet() -> None:
    assert not judged(State.SETTLING).owner.lent


def test_lending_by_word_ends_by_itself() -> None:
    word = OwnerWord(kind="lend", for_s=600)
    assert judged(State.BUSY, word, now_s=599).lending == "lent"
    assert judged(State.BUSY, word, now_s=600).lending == "in_use"


def test_a_word_for_one_job_lends_to_no_other() -> None:
    now = judged(State.BUSY, OwnerWord(kind="lend", for_s=60, jobs=(JOB,)))
    assert now.only_jobs == (JOB,)
    assert now.owner.lent_jobs == frozenset({JOB})


def test_pause_beats_idleness() -> None:
    now = judged(State.IDLE, OwnerWord(kind="pause", for_s=None))
    assert (now.lending, now.owner.lent) == ("paused", False)


def test_an_agent_that_stops_takes_nothing_new() -> None:
    assert judged(State.IDLE, draining=True).lending == "draining"


def test_a_full_disk_takes_nothing_new_but_stops_nobody() -> None:
    now = judged(State.IDLE, disk_low=reason("node.disk_low", free_bytes=1024))
    assert (now.lending, now.owner.lent) == ("in_use", True)


def test_a_word_survives_a_restart_and_keeps_its_end(tmp_path: Path) -> None:
    control.give_word(tmp_path, OwnerWord(kind="lend", for_s=600, jobs=(JOB,)))
    given = control.read_word(tmp_path)
    assert given.word == OwnerWord(kind="lend", for_s=600, jobs=(JOB,))
    assert given.left_s(given.given_at_s + 100) == pytest.approx(500)
    assert given.left_s(given.given_at_s + 700) == 0
    assert given.left_s(given.given_at_s - 99999) == 600, "a clock that was set back makes no word longer"


def test_a_word_taken_back_is_none(tmp_path: Path) -> None:
    control.give_word(tmp_path, OwnerWord(kind="pause", for_s=None))
    control.give_word(tmp_path, None)
    assert control.read_word(tmp_path).word is None


def test_a_damaged_word_counts_as_pause(tmp_path: Path) -> None:
    (tmp_path / control.WORD_FILE).write_text('{"word_id": "x", "word": {"kind": "le', encoding="utf-8")
    word = control.read_word(tmp_path).word
    assert word is not None
    assert word.kind == "pause"


def test_lending_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match="--for"):
        OwnerWord(kind="lend", for_s=None)


SHARE = Resources(cpus=3, memory_bytes=4 << 30)
SHARES = Rules(total=Resources(cpus=8, memory_bytes=16 << 30), present=SHARE)


def because(*codes: str, state: State = State.BUSY) -> Verdict:
    reasons = tuple(SensedReason(code=code, severity=Severity.HARD, source="test") for code in codes)
    return Verdict(state=state, reasons=reasons, memory_short=False, since_s=1.0)


def under(rules: Rules, found: Verdict, word: OwnerWord | None = None, **fields: object) -> Availability:
    held = HeldWord(word=word, ends_at_s=None if word is None or word.for_s is None else word.for_s)
    plain = {"now_s": 0.0, "draining": False, "disk_low": None, **fields}
    return availability(found, held, rules=rules, **plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["input.recent", "terminal.recent", "session.unlocked", "call.ended"])
def test_while_somebody_is_there_the_share_is_lent_and_says_how_much(code: str) -> None:
    now = under(SHARES, because(code))
    assert (now.lending, now.owner.lent, now.owner.share) == ("lent", True, SHARE)
    assert render(now.reasons[0]) == "in use; lends 3 of 8 cores meanwhile"


@pytest.mark.parametrize(
    "code",
    ["call.microphone", "screen.fullscreen", "media.playing", "load.cpu", "power.battery", "probe.missing"],
)
def test_anything_else_beside_it_takes_the_share_back(code: str) -> None:
    now = under(SHARES, because("input.recent", code))
    assert (now.lending, now.owner.lent) == ("in_use", False)


def test_an_owner_may_keep_the_share_while_music_plays() -> None:
    rules = dataclasses.replace(SHARES, tolerated=(*PRESENCE, "media."))
    assert under(rules, because("input.recent", "media.playing")).owner.share == SHARE
    assert not under(rules, because("input.recent", "call.camera")).owner.lent


def test_the_share_holds_until_the_machine_counts_as_idle() -> None:
    assert under(SHARES, because("settling.grace", state=State.SETTLING)).owner.share == SHARE
    assert under(SHARES, because("idle.input", state=State.IDLE)).owner.share is None


def test_too_little_memory_takes_the_share_back() -> None:
    short = dataclasses.replace(because("input.recent"), memory_short=True)
    assert not under(SHARES, short).owner.lent


def test_the_owners_word_goes_before_the_share() -> None:
    assert under(SHARES, because("input.recent"), OwnerWord(kind="pause", for_s=None)).lending == "paused"
    lent = under(SHARES, because("input.recent"), OwnerWord(kind="lend", for_s=60))
    assert (lent.owner.lent, lent.owner.share) == (True, None)


def test_outside_the_hours_nothing_is_lent_and_guests_leave_at_once() -> None:
    rules = dataclasses.replace(SHARES, hours=(QuietHours.parse("mon-fri 18:00-08:00"),))
    now = under(rules, because("idle.input", state=State.IDLE), open_now=False)
    assert (now.lending, now.owner.lent) == ("in_use", False)
    assert now.owner.leave == reason("owner.hours")
    assert render(now.reasons[0]) == "not lent at this hour; lent during: mon-fri 18:00-08:00"
    by_word = under(rules, because("input.recent"), OwnerWord(kind="lend", for_s=60), open_now=False)
    assert by_word.owner.lent, "the owner's word goes before their hours"


def test_on_battery_guests_leave_at_once_unless_the_owner_says_freeze() -> None:
    assert under(NO_RULES, because("power.battery")).owner.leave == reason("owner.battery")
    rules = dataclasses.replace(NO_RULES, on_battery="freeze")
    assert under(rules, because("power.battery")).owner.leave is None
    assert under(NO_RULES, because("input.recent")).owner.leave is None


def test_what_the_first_input_will_do_is_known_before() -> None:
    idle = because("idle.input", state=State.IDLE)
    stopped = under(NO_RULES, idle).if_returned
    assert stopped is not None
    assert not stopped.lent
    shared = under(SHARES, idle).if_returned
    assert shared is not None
    assert shared.share == SHARE
    assert under(NO_RULES, idle, OwnerWord(kind="lend", for_s=60)).if_returned is None
    assert under(NO_RULES, because("input.recent")).if_returned is None
    assert under(dataclasses.replace(NO_RULES, watches_input=False), idle).if_returned is None
    assert under(NO_RULES, idle, draining=True).if_returned is None


ZONES = ["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "UTC"]


@pytest.mark.parametrize("zone", ZONES)
def test_hours_are_those_of_the_wall_clock_where_the_machine_stands(zone: str) -> None:
    rules = dataclasses.replace(NO_RULES, hours=(QuietHours.parse("mon-fri 18:00-08:00"),))
    place = ZoneInfo(zone)
    friday = datetime(2026, 3, 27, tzinfo=place)
    assert not rules.open_at(friday.replace(hour=17, minute=59))
    assert rules.open_at(friday.replace(hour=18))
    saturday = friday + timedelta(days=1)
    assert rules.open_at(saturday.replace(hour=7, minute=59)), "over midnight, begun on Friday"
    assert not rules.open_at(saturday.replace(hour=8))
    assert not rules.open_at(saturday.replace(hour=23))
    assert not rules.open_at((saturday + timedelta(days=1)).replace(hour=3))


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, 22, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC)),
    ],
)
def test_a_night_with_a_clock_change_is_open_and_closed_once(zone: str, first: datetime) -> None:
    rules = dataclasses.replace(NO_RULES, hours=(QuietHours.parse("22:00-06:00"),))
    place = ZoneInfo(zone)
    told = [
        rules.open_at((first + timedelta(minutes=minute)).astimezone(place))
        for minute in range(0, 24 * 60, 5)
    ]
    assert sum(before != after for before, after in itertools.pairwise(told)) == 2


def test_without_hours_lending_is_always_allowed() -> None:
    assert NO_RULES.open_at(datetime(2026, 1, 1, tzinfo=UTC))
