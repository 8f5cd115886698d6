"""The attempt machine: which moves there are, who may make them, and what an end costs."""

import pytest

from idle_accelerator.core.attempt import (
    LOST_CAP,
    TRANSITIONS,
    Mover,
    TaskCharge,
    accepts_report,
    after_attempt,
    check_move,
    may_move,
)
from idle_accelerator.errors import InvalidTransition
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, AttemptState, TaskState

S = AttemptState
NOTHING = TaskCharge(failures=0, losses=0)
TABLE = """
LEASED    → STAGING | REJECTED | CANCELLED | LOST
STAGING   → RUNNING | VACATING | FAILED | LOST
RUNNING   → SUSPENDED | VACATING | SUCCEEDED | FAILED | LOST
SUSPENDED → RUNNING | VACATING | FAILED | LOST
VACATING  → VACATED | CANCELLED | SUCCEEDED | FAILED | LOST
"""


def documented() -> dict[AttemptState, set[AttemptState]]:
    table: dict[AttemptState, set[AttemptState]] = {state: set() for state in S}
    for line in TABLE.strip().splitlines():
        before, after = line.split("→")
        table[S(before.strip())] = {S(word.strip()) for word in after.split("|")}
    return table


def test_the_moves_are_the_documented_ones() -> None:
    assert {before: set(after) for before, after in TRANSITIONS.items()} == documented()


def test_the_scheduler_writes_only_lost_and_withdrawn_leases() -> None:
    written = {(before, after) for before in S for after in S if may_move(before, after, Mover.SCHEDULER)}
    assert written == {(live, S.LOST) for live in LIVE_ATTEMPT_STATES} | {(S.LEASED, S.CANCELLED)}


def test_every_move_has_exactly_one_mover() -> None:
    for before, afters in TRANSITIONS.items():
        for after in afters:
            assert may_move(before, after, Mover.AGENT) != may_move(before, after, Mover.SCHEDULER)


def test_a_forbidden_move_says_who_wanted_what() -> None:
    check_move(S.LEASED, S.STAGING, Mover.AGENT)
    with pytest.raises(InvalidTransition) as caught:
        check_move(S.RUNNING, S.LOST, Mover.AGENT)
    assert (caught.value.before, caught.value.after, caught.value.mover) == (S.RUNNING, S.LOST, Mover.AGENT)


@pytest.mark.parametrize(
    ("stored", "reported", "accepted"),
    [
        (S.LEASED, S.SUCCEEDED, True),
        (S.LEASED, S.SUSPENDED, True),
        (S.RUNNING, S.STAGING, False),
        (S.RUNNING, S.RUNNING, True),
        (S.SUSPENDED, S.SUCCEEDED, True),
        (S.VACATING, S.RUNNING, False),
        (S.STAGING, S.REJECTED, False),
        (S.SUCCEEDED, S.FAILED, False),
        (S.LOST, S.SUCCEEDED, False),
        (S.RUNNING, S.LOST, False),
        (S.LEASED, S.CANCELLED, True),
    ],
)
def test_a_report_may_leave_out_moves_but_not_go_back(
    stored: AttemptState, reported: AttemptState, accepted: bool
) -> None:
    assert accepts_report(stored, reported) is accepted


def test_the_retry_budget_is_spent_by_failures_alone() -> None:
    why = reason("task.exit_code", exit_code=1)
    charge = NOTHING
    for end in (S.REJECTED, S.VACATED, S.LOST, S.CANCELLED):
        move = after_attempt(end, why, charge, retries=0, cancel_wanted=False)
        assert move.state is TaskState.QUEUED
        assert move.charge.failures == 0
    first = after_attempt(S.FAILED, why, charge, retries=1, cancel_wanted=False)
    assert first.state is TaskState.QUEUED
    second = after_attempt(S.FAILED, why, first.charge, retries=1, cancel_wanted=False)
    assert (second.state, second.charge.failures, second.reason) == (TaskState.FAILED, 2, why)


def test_losses_have_a_cap_of_their_own_whatever_the_retries() -> None:
    charge = NOTHING
    for count in range(1, LOST_CAP):
        move = after_attempt(S.LOST, None, charge, retries=1000, cancel_wanted=False)
        assert move.state is TaskState.QUEUED
        charge = move.charge
        assert charge.losses == count
    last = after_attempt(S.LOST, None, charge, retries=1000, cancel_wanted=False)
    assert last.state is TaskState.FAILED
    assert last.reason is not None
    assert last.reason.code == "attempts.lost_cap"


def test_a_success_counts_even_when_it_was_to_be_cancelled() -> None:
    assert (
        after_attempt(S.SUCCEEDED, None, NOTHING, retries=0, cancel_wanted=True).state is TaskState.SUCCEEDED
    )


@pytest.mark.parametrize("end", sorted(set(S) - LIVE_ATTEMPT_STATES - {S.SUCCEEDED}))
def test_whatever_else_ends_after_a_cancel_is_cancelled_and_charges_nothing(end: AttemptState) -> None:
    move = after_attempt(end, None, NOTHING, retries=5, cancel_wanted=True)
    assert (move.state, move.charge) == (TaskState.CANCELLED, NOTHING)


@pytest.mark.parametrize("state", sorted(LIVE_ATTEMPT_STATES))
def test_a_live_state_is_no_end(state: AttemptState) -> None:
    with pytest.raises(ValueError, match="not an end"):
        after_attempt(state, None, NOTHING, retries=0, cancel_wanted=False)
