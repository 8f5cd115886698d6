"""The owner comes first: what the agent does to its attempts when its machine is, or is no longer, its own to lend."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from idle_accelerator.core.share import Turn, User, fitting
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.resources import Resources
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
    share: Resources | None = None
    """All guests together may run on no more than this, while the owner is there; None: on all that is lent."""
    leave: Reason | None = None
    """What may not run is not to be frozen but to go: this machine will not be lent for long. Says nothing while ``lent``."""


@dataclass(frozen=True, kw_only=True)
class GuestState:
    """One attempt in the agent's hands."""

    key: str
    job_id: str
    state: AttemptState
    suspended_since_s: float | None
    vacating_since_s: float | None
    grace_s: float
    needs: Requirements | None = None
    """None: nothing that counts."""
    process: str = ""
    """What it shares with other attempts in the hands of one warm process; empty: it has one of its own."""
    began_s: float | None = None
    """When it began to run, monotonic; None: nothing of it runs yet."""

    @property
    def stops(self) -> bool:
        """False: it holds a graphics card, where freezing stops no kernel and frees no memory. It must go instead."""
        return self.needs is None or not self.needs.gpus


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
    guests = list(guests)
    room = _room(owner, guests)
    for guest in guests:
        allowed = _allowed(owner, guest) and (room is None or guest.key in room)
        instruction = _for_guest(owner, guest, allowed=allowed, now_s=now_s, vacate_after_s=vacate_after_s)
        if instruction is not None:
            instructions.append(instruction)
    urgency = {Action.FREEZE: 0, Action.KILL: 1, Action.REJECT: 2, Action.VACATE: 3, Action.THAW: 4}
    return sorted(instructions, key=lambda item: urgency[item.action])


def _allowed(owner: OwnerState, guest: GuestState) -> bool:
    return owner.lent and (owner.lent_jobs is None or guest.job_id in owner.lent_jobs)


def _room(owner: OwnerState, guests: Sequence[GuestState]) -> frozenset[str] | None:
    """Keys of those that find room in the owner's share; None: there is no share to keep to."""
    if owner.share is None or not owner.lent:
        return None
    leaving: set[str] = set()
    while True:
        room = fitting(owner.share, _users(owner, guests, leaving))
        # What cannot stand still and finds no room is told to go, and takes its place until it has.
        going = {
            guest.key
            for guest in guests
            if guest.state is AttemptState.RUNNING
            and not guest.stops
            and guest.key not in leaving
            and not (_allowed(owner, guest) and guest.key in room)
        }
        if not going:
            return room - leaving
        leaving |= going


def _users(owner: OwnerState, guests: Iterable[GuestState], leaving: Collection[str]) -> Iterator[User]:
    """Who would use the share. Those whose job may not run at all take no room of it but to leave."""
    for guest in guests:
        if guest.needs is None:
            continue
        leaves = guest.key in leaving or guest.state is AttemptState.VACATING
        if (leaves and guest.began_s is not None) or (not leaves and _allowed(owner, guest)):
            yield User(
                key=guest.key,
                process=guest.process or guest.key,
                needs=guest.needs,
                turn=Turn.LEAVING if leaves else _TURNS[guest.state],
                began_s=guest.began_s or 0.0,
            )


_TURNS: Mapping[AttemptState, Turn] = {
    AttemptState.RUNNING: Turn.RUNNING,
    AttemptState.STAGING: Turn.STARTING,
    AttemptState.SUSPENDED: Turn.STANDING,
    AttemptState.LEASED: Turn.WAITING,
}


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
    if owner.leave is not None and state in (AttemptState.RUNNING, AttemptState.SUSPENDED):
        return Instruction(key=guest.key, action=Action.VACATE, reason=owner.leave)
    if state is AttemptState.RUNNING:
        action = Action.FREEZE if guest.stops else Action.VACATE
        return Instruction(key=guest.key, action=action, reason=owner.reason)
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
