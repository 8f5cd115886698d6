"""The owner's word goes before idle-sense, and every answer has its reason."""

from pathlib import Path

import pytest

from idle_accelerator.agent import control
from idle_accelerator.agent.availability import Availability, HeldWord, availability
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.reasons import reason, render
from idle_sense import Reason as SensedReason
from idle_sense import Severity, State, Verdict

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
