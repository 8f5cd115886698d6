"""How attempts end: who is to blame, and that nothing which a task made is lost on its way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.sandbox import Guest, GuestExit, KillFailed
from idle_accelerator.agent.workloads.function import HostDied, Returned
from idle_accelerator.errors import StorageFull, Unavailable
from idle_accelerator.wire.checkpoints import GO_ON_ELSEWHERE
from idle_accelerator.wire.exchange import AttemptReport
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState

T = TypeVar("T")
_log = logging.getLogger(__name__)
_STORE_RETRY_S = 5.0
_STATUSES = frozenset(str(status) for status in GO_ON_ELSEWHERE)


async def patiently(attempt: Attempt, store: Callable[[], Awaitable[T]]) -> T:
    """What a task made is kept until the scheduler has it, however long that is away or out of room.

    Raises what ``store`` raises for other reasons, or when nobody waits for the attempt any more.
    """
    while True:
        try:
            return await store()
        except (Unavailable, StorageFull) as error:
            if attempt.stale:
                raise
            _log.warning("what %s made waits for the scheduler: %s", attempt.ref, error.message)
            await asyncio.sleep(_STORE_RETRY_S)


async def kill_guest(guest: Guest) -> None:
    """On return none of it lives, or the log says what the kernel does not let go."""
    try:
        await guest.kill()
    except KillFailed as error:
        _log.error("%s %s", error.message, error.hint)


def ended_by_us(attempt: Attempt) -> AttemptReport:
    """VACATED or CANCELLED with the reason that it was given; REJECTED where it had not begun."""
    if attempt.state is AttemptState.LEASED:
        return attempt.report(AttemptState.REJECTED, attempt.vacate_reason)
    state = AttemptState.CANCELLED if attempt.cancelled else AttemptState.VACATED
    return attempt.report(state, attempt.vacate_reason).model_copy(update={"usage": attempt.usage()})


def why_killed(ended: GuestExit, spec: JobSpec) -> Reason | None:
    """None for a task that ended by itself."""
    limit_bytes = spec.requirements.memory_bytes
    if ended.out_of_memory and limit_bytes:
        return reason("task.out_of_memory", limit_bytes=limit_bytes)
    return None if ended.signal is None else reason("task.signal", signal=ended.signal)


def exit_status(returned: Returned) -> int | None:
    """What a function left with by SystemExit; None for any other end."""
    error = returned.error
    if error is None or error.type_name != "SystemExit" or error.text not in _STATUSES:
        return None
    return int(error.text)


def death_reason(death: HostDied, spec: JobSpec) -> Reason:
    ended = death.exit
    killed = why_killed(ended, spec)
    if killed is not None:
        return killed
    exit_code = ended.exit_code if ended.exit_code is not None else -1
    return reason("task.host_died", exit_code=exit_code, detail=f"{death.message} {death.hint or ''}"[:1000])
