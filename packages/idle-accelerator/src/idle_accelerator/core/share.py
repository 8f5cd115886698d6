"""Which guests fit into a share of the machine. Pure, and stable: asked again with what it has answered, it answers the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.resources import Resources

_CPU_GRAIN: Final = 1e-6
"""Below this a difference in cores is rounding."""


class Turn(IntEnum):
    """Who is asked first for a place."""

    LEAVING = 0
    """Runs until it has left or its grace is over: it takes its place whatever the share is."""
    RUNNING = 1
    STARTING = 2
    STANDING = 3
    """Frozen: it goes on only where those that run leave room, so that nobody is frozen for it."""
    WAITING = 4
    """Not begun: it takes no place yet, and may stay while it would fit into the whole share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One attempt that would use the share."""

    key: str
    process: str
    """Attempts with the same one take one place together: a warm process does one after the other."""
    needs: Requirements
    turn: Turn
    began_s: float


def fitting(share: Resources, users: Iterable[User]) -> frozenset[str]:
    """Keys of those that may run. Among those that run the oldest come first, so that the newest give way."""
    left = [share.cpus, float(share.memory_bytes), float(share.gpus)]
    may: dict[str, bool] = {}
    keys: set[str] = set()
    for user in sorted(users, key=lambda user: (user.turn, user.began_s, user.key)):
        wanted = (user.needs.cpus, float(user.needs.memory_bytes), float(user.needs.gpus))
        if user.turn is Turn.WAITING:
            whole = (share.cpus, float(share.memory_bytes), float(share.gpus))
            if may.get(user.process, False) or _fits(whole, wanted):
                keys.add(user.key)
            continue
        if user.process not in may:
            may[user.process] = user.turn is Turn.LEAVING or _fits(left, wanted)
            if may[user.process]:
                left = [there - taken for there, taken in zip(left, wanted, strict=True)]
        if may[user.process]:
            keys.add(user.key)
    return frozenset(keys)


def _fits(left: Iterable[float], wanted: Iterable[float]) -> bool:
    # What asks for nothing of a kind does not mind that others have taken too much of it.
    return all(not need or need <= there + _CPU_GRAIN for there, need in zip(left, wanted, strict=True))
