"""The owner comes first: what the agent does to its attempts when its machine is, or is no longer, its own to lend."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState

DEFAULT_VACATE_AFTER_S = 600.0
DEFAULT_GRACE_S = 5.0


class Action(StrEnum):
    FREEZE = "freeze"
    THAW = "thaw"
    VACATE = "vacate"
    KILL = "kill"
    REJECT = "reject"


@dataclass(frozen=True, kw_only=True)
class OwnerState:
    """What the owner and idle-sense say now."""

    lent: bool
    """Guests may run: idle, or lent by the owner's word."""
    lent_jobs: frozenset[str] | None
    """Only these jobs may run, by the owner's word; None means all. Says nothing when ``lent`` is false."""
    reason: Reason
    """Why guests may not run; unused while ``lent`` and ``lent_jobs`` is None."""
    memory_short: bool
    """The owner needs memory: frozen guests must go, since freezing frees none."""


@dataclass(frozen=True, kw_only=True)
class GuestState:
    """One attempt in the agent's hands."""

    key: str
    job_id: str
    state: AttemptState
    suspended_since_s: float | None
    vacating_since_s: float | None
    grace_s: float


@dataclass(frozen=True, kw_only=True)
class Instruction:
    key: str
    action: Action
    reason: Reason


def reclaim(
    owner: OwnerState,
    guests: Iterable[GuestState],
    *,
    now_s: float,
    vacate_after_s: float = DEFAULT_VACATE_AFTER_S,
) -> list[Instruction]:
    """What to do now, by (owner's state, each guest, monotonic now). Freezes come first: they are what the owner waits for."""
    instructions: list[Instruction] = []
    for guest in guests:
        allowed = owner.lent and (owner.lent_jobs is None or guest.job_id in owner.lent_jobs)
        instruction = _for_guest(owner, guest, allowed=allowed, now_s=now_s, vacate_after_s=vacate_after_s)
        if instruction is not None:
            instructions.append(instruction)
    urgency = {Action.FREEZE: 0, Action.KILL: 1, Action.REJECT: 2, Action.VACATE: 3, Action.THAW: 4}
    return sorted(instructions, key=lambda item: urgency[item.action])


def next_deadline_s(
    guests: Iterable[GuestState], *, vacate_after_s: float = DEFAULT_VACATE_AFTER_S
) -> float | None:
    """When ``reclaim`` must be asked again though nothing happens; None if never. Monotonic seconds."""
    deadlines: list[float] = []
    for guest in guests:
        if guest.state is AttemptState.SUSPENDED and guest.suspended_since_s is not None:
            deadlines.append(guest.suspended_since_s + vacate_after_s)
        if guest.state is AttemptState.VACATING and guest.vacating_since_s is not None:
            deadlines.append(guest.vacating_since_s + guest.grace_s)
    return min(deadlines, default=None)


def _for_guest(
    owner: OwnerState, guest: GuestState, *, allowed: bool, now_s: float, vacate_after_s: float
) -> Instruction | None:
    state = guest.state
    if state is AttemptState.VACATING:
        since = guest.vacating_since_s if guest.vacating_since_s is not None else now_s
        return (
            Instruction(key=guest.key, action=Action.KILL, reason=owner.reason)
            if now_s >= since + guest.grace_s
            else None
        )
    if allowed:
        return (
            Instruction(key=guest.key, action=Action.THAW, reason=owner.reason)
            if state is AttemptState.SUSPENDED
            else None
        )
    if state in (AttemptState.LEASED, AttemptState.STAGING):
        return Instruction(
            key=guest.key,
            action=Action.REJECT if state is AttemptState.LEASED else Action.VACATE,
            reason=owner.reason,
        )
    if owner.memory_short and state in (AttemptState.RUNNING, AttemptState.SUSPENDED):
        return Instruction(key=guest.key, action=Action.VACATE, reason=reason("memory.pressure"))
    if state is AttemptState.RUNNING:
        return Instruction(key=guest.key, action=Action.FREEZE, reason=owner.reason)
    if (
        state is AttemptState.SUSPENDED
        and guest.suspended_since_s is not None
        and now_s >= guest.suspended_since_s + vacate_after_s
    ):
        return Instruction(
            key=guest.key,
            action=Action.VACATE,
            reason=reason("owner.returned_long", suspended_s=round(now_s - guest.suspended_since_s)),
        )
    return None
