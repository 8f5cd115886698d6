"""The life of an attempt: which moves there are, who may make each, and what an end costs its task.

The table is the one in docs/reference/attempt-states.md; every state's sentence stands at its name in wire.states.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from idle_accelerator.errors import InvalidTransition
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, AttemptState, TaskState

LOST_CAP = 5
"""Attempts of one task that may be LOST before the task is FAILED: it may be what kills the nodes."""

S = AttemptState

TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = {
    S.LEASED: frozenset({S.STAGING, S.REJECTED, S.CANCELLED, S.LOST}),
    S.STAGING: frozenset({S.RUNNING, S.VACATING, S.FAILED, S.LOST}),
    S.RUNNING: frozenset({S.SUSPENDED, S.VACATING, S.SUCCEEDED, S.FAILED, S.LOST}),
    S.SUSPENDED: frozenset({S.RUNNING, S.VACATING, S.FAILED, S.LOST}),
    S.VACATING: frozenset({S.VACATED, S.CANCELLED, S.SUCCEEDED, S.FAILED, S.LOST}),
    **{end: frozenset[AttemptState]() for end in S if end not in LIVE_ATTEMPT_STATES},
}


class Mover(StrEnum):
    AGENT = "agent"
    SCHEDULER = "scheduler"


def may_move(before: AttemptState, after: AttemptState, mover: Mover) -> bool:
    """Whether ``mover`` may make this single move. The scheduler writes only LOST and LEASED → CANCELLED."""
    if after not in TRANSITIONS[before]:
        return False
    scheduler_writes = after is S.LOST or (before is S.LEASED and after is S.CANCELLED)
    return scheduler_writes == (mover is Mover.SCHEDULER)


def check_move(before: AttemptState, after: AttemptState, mover: Mover) -> None:
    """Raises InvalidTransition when ``mover`` may not make this move."""
    if not may_move(before, after, mover):
        raise InvalidTransition(before=before, after=after, mover=mover)


def _reachable_by_agent() -> Mapping[AttemptState, frozenset[AttemptState]]:
    reach: dict[AttemptState, frozenset[AttemptState]] = {}
    for start in S:
        seen: set[AttemptState] = set()
        frontier = [start]
        while frontier:
            here = frontier.pop()
            for after in TRANSITIONS[here]:
                if after not in seen and may_move(here, after, Mover.AGENT):
                    seen.add(after)
                    frontier.append(after)
        reach[start] = frozenset(seen)
    return reach


_AGENT_REACH = _reachable_by_agent()


def accepts_report(stored: AttemptState, reported: AttemptState) -> bool:
    """Whether a report moves the stored attempt on. A report may leave out moves in between; a repeated or older one changes nothing."""
    return reported in _AGENT_REACH[stored]


@dataclass(frozen=True, kw_only=True)
class TaskCharge:
    """What a task has spent so far."""

    failures: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class TaskMove:
    """What an attempt's end does to its task, written in the same transaction."""

    state: TaskState
    charge: TaskCharge
    reason: Reason | None


def after_attempt(
    end: AttemptState, why: Reason | None, charge: TaskCharge, *, retries: int, cancel_wanted: bool
) -> TaskMove:
    """The task's next state after one of its attempts ended in ``end``.

    Only FAILED spends the retry budget; LOST has its own cap (LOST_CAP); VACATED and REJECTED cost nothing, and nor does a
    CANCELLED that nobody asked for: an agent's word alone cancels no task.
    Raises ValueError when ``end`` is not an end.
    """
    if end in LIVE_ATTEMPT_STATES:
        raise ValueError(f"{end} is not an end")
    if end is S.SUCCEEDED:
        return TaskMove(state=TaskState.SUCCEEDED, charge=charge, reason=why)
    if cancel_wanted:
        return TaskMove(state=TaskState.CANCELLED, charge=charge, reason=reason("task.cancelled"))
    if end is S.FAILED:
        charge = TaskCharge(failures=charge.failures + 1, losses=charge.losses)
        state = TaskState.FAILED if charge.failures > retries else TaskState.QUEUED
        return TaskMove(state=state, charge=charge, reason=why)
    if end is S.LOST:
        charge = TaskCharge(failures=charge.failures, losses=charge.losses + 1)
        if charge.losses >= LOST_CAP:
            return TaskMove(
                state=TaskState.FAILED, charge=charge, reason=reason("attempts.lost_cap", count=charge.losses)
            )
        return TaskMove(state=TaskState.QUEUED, charge=charge, reason=why)
    return TaskMove(state=TaskState.QUEUED, charge=charge, reason=why)
