"""A job's function on this machine: its code, its packed arguments, and what its returns become."""

import asyncio
import contextlib
import mmap
from dataclasses import dataclass
from typing import cast

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.link import Link
from idle_accelerator.agent.outputs import Changed, store
from idle_accelerator.agent.workloads.function import Call, Returned
from idle_accelerator.agent.workloads.stored_result import NoResult, StoredResult
from idle_accelerator.agent.workspace import BlobCache, InputMissing
from idle_accelerator.errors import IdleError, InvalidInput, StorageFull, Unavailable
from idle_accelerator.wire import packing
from idle_accelerator.wire.exchange import AttemptReport
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Function
from idle_accelerator.wire.payload import INLINE_LIMIT_BYTES, Payload, inline_payload
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState


@dataclass(frozen=True, kw_only=True)
class FunctionCode:
    """Never opened here: both are pickles of a stranger."""

    code: bytes
    arguments: bytes
    """wire.packing; a large pack is mapped from its file, not read."""

    @classmethod
    async def load(cls, function: Function, cache: BlobCache) -> "FunctionCode":
        """Raises InputMissing, or Unavailable."""
        return cls(
            code=await _content("function", function.code, cache),
            arguments=await _content("arguments", function.arguments, cache),
        )

    def call(self, ref: AttemptRef) -> Call:
        """Raises InputMissing when the job has no arguments for this task."""
        try:
            arguments = packing.item(self.arguments, ref.task_index)
        except IdleError as error:
            raise InputMissing("arguments", error.message) from error
        return Call(index=ref.task_index, epoch=ref.epoch, arguments=arguments)


async def _content(name: str, payload: Payload, cache: BlobCache) -> bytes:
    if payload.blob is None:
        return payload.inline or b""
    try:
        path = await cache.get(payload.blob)
    except IdleError as error:
        if isinstance(error, Unavailable | StorageFull):
            raise
        raise InputMissing(name, error.message) from error
    with path.open("rb") as file:
        # A mapping reads and slices as bytes do; it stays valid when the cache removes the file.
        return cast("bytes", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


async def outcome_of(returned: Returned, attempt: Attempt, link: Link) -> AttemptReport:
    """The report of a call that came back. A large result is on the scheduler's disk by then; one that cannot be read fails the call.

    Raises Unavailable or StorageFull while that cannot be.
    """
    usage = attempt.usage().model_copy(update={"wall_s": max(0.0, returned.wall_s)})
    if returned.error is not None:
        why = reason("task.exception", type_name=returned.error.type_name)
        return _end(attempt, AttemptState.FAILED, why, usage=usage, error=returned.error)
    if returned.refused is not None or returned.result is None:
        detail = (returned.refused or "nothing came back")[:1000]
        return _end(attempt, AttemptState.FAILED, reason("task.result_refused", detail=detail), usage=usage)
    try:
        result = await _payload(returned.result, link)
    except (NoResult, Changed, InvalidInput) as problem:
        why = reason("task.result_unreadable", detail=(str(problem) or "it was still written to")[:1000])
        return _end(attempt, AttemptState.FAILED, why, usage=usage)
    return _end(
        attempt,
        AttemptState.SUCCEEDED,
        None,
        usage=usage,
        exit_code=0,
        encoding=returned.encoding,
        result=result,
    )


def _end(attempt: Attempt, state: AttemptState, why: Reason | None, **values: object) -> AttemptReport:
    return AttemptReport.model_validate(
        {
            "job_id": attempt.ref.job_id,
            "task_index": attempt.ref.task_index,
            "epoch": attempt.ref.epoch,
            "state": state,
            "reason": why,
            **values,
        }
    )


async def _payload(result: bytes | StoredResult, link: Link) -> Payload:
    if isinstance(result, bytes) and len(result) <= INLINE_LIMIT_BYTES:
        return inline_payload(result)
    if isinstance(result, bytes):
        digest = await link.store_bytes(result)
        return Payload(blob=digest, size_bytes=len(result))
    with await asyncio.to_thread(result.open) as file:
        digest = await store(link, file, result.size_bytes)
    with contextlib.suppress(
        OSError
    ):  # The process may have removed it by now; what it left goes with the workspace.
        await asyncio.to_thread(result.unlink)
    return Payload(blob=digest, size_bytes=result.size_bytes)
