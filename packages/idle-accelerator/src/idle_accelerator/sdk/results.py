"""What came back from nodes, opened by the trust rule.

Plain data (wire.codec) is opened from any node. A pickle can run code when it is opened, so one is opened only from a node
that the submitter trusts: named in ``trust``, or an agent on this very machine while the scheduler is on it too.
"""

import asyncio
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from idle_accelerator.errors import (
    IdleError,
    InvalidInput,
    NotFound,
    RemoteException,
    TaskCancelled,
    TaskFailed,
    Untrusted,
)
from idle_accelerator.sdk.blobs import Blobs
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.wire.codec import MAX_BYTES, decode
from idle_accelerator.wire.jobs import TaskResult
from idle_accelerator.wire.nodes import NodeView
from idle_accelerator.wire.payload import Payload
from idle_accelerator.wire.states import TaskState

_IN_THREAD_BYTES = 1024 * 1024
"""Larger values are decoded in a thread, so that the event loop goes on."""


class ResultReader:
    def __init__(self, transport: Transport, blobs: Blobs, trust: Iterable[str]) -> None:
        self._transport = transport
        self._blobs = blobs
        self._trust = frozenset(trust)
        self._loopback: dict[str, bool] = {}

    async def value(self, job_id: str, result: TaskResult, dataclasses: Mapping[str, type]) -> Any:
        """What the function returned. Raises what ``failure_of`` gives, or Untrusted, or InvalidInput for damaged data."""
        failure = failure_of(job_id, result)
        if failure is not None:
            raise failure
        if result.result is None or result.encoding is None:
            raise IdleError(
                f"task {result.index} of job {job_id} succeeded without a result.", code="bad_answer"
            )
        if result.encoding == "pickle":
            await self._check_trust(job_id, result)
        raw = await self.content(result.result)
        if len(raw) > _IN_THREAD_BYTES:
            return await asyncio.to_thread(_open, raw, result, dataclasses)
        return _open(raw, result, dataclasses)

    def ready_value(self, result: TaskResult, dataclasses: Mapping[str, type]) -> Any:
        """As value, for results for which ``is_ready`` holds; the quick way."""
        return _open((result.result and result.result.inline) or b"", result, dataclasses)

    async def content(self, payload: Payload) -> bytes:
        if payload.blob is None:
            return payload.inline or b""
        return await self._blobs.read(payload.blob, MAX_BYTES)

    async def _check_trust(self, job_id: str, result: TaskResult) -> None:
        name = result.node_name or result.node_id or "an unknown node"
        if self._trust & {result.node_name, result.node_id} or await self._is_own(result.node_id):
            return
        raise Untrusted(
            f"task {result.index} of job {job_id} ran on {name}, and its result is a pickle: "
            "opening it would let that machine run code here.",
            hint=f"If you trust {name}, say so: Client(trust=[{name!r}]); or submit with results='data'.",
        )

    async def _is_own(self, node_id: str | None) -> bool:
        """Whether the node's agent speaks to the scheduler over loopback, and so do we."""
        if node_id is None or not self._transport.on_loopback:
            return False
        if node_id not in self._loopback:
            try:
                answer = await self._transport.get(f"/v1/nodes/{node_id}")
            except NotFound:
                return False
            self._loopback[node_id] = answer.read(NodeView).loopback
        return self._loopback[node_id]


def is_ready(result: TaskResult) -> bool:
    """Whether its value is plain data that is here already and small."""
    return (
        result.state is TaskState.SUCCEEDED
        and result.encoding == "data"
        and result.result is not None
        and result.result.inline is not None
    )


def failure_of(job_id: str, result: TaskResult) -> TaskFailed | None:
    """The exception that a task's end stands for; None when it succeeded."""
    if result.state is TaskState.SUCCEEDED:
        return None
    sentence = result.reason.sentence if result.reason else result.state.value.lower()
    message = f"task {result.index} of job {job_id}: {sentence.rstrip('.')}."
    where: dict[str, Any] = {"job_id": job_id, "task_index": result.index}
    if result.state is TaskState.CANCELLED:
        return TaskCancelled(message, **where)
    if result.error is not None:
        return RemoteException(
            type_name=result.error.type_name,
            text=result.error.text,
            traceback_text=result.error.traceback_text,
            **where,
        )
    return TaskFailed(
        message, **where, hint=f"Its output: idlectl logs {job_id} --task {result.index} --stderr"
    )


def _open(raw: bytes, result: TaskResult, dataclasses: Mapping[str, type]) -> Any:
    if result.encoding == "data":
        try:
            return decode(raw, dataclasses=dataclasses)
        except InvalidInput as error:
            raise InvalidInput(
                error.message, field=f"result of task {result.index}", hint=error.hint
            ) from error
    try:
        return pickle.loads(raw)  # noqa: S301  # from trusted nodes only: _check_trust
    except Exception as error:
        raise IdleError(
            f"the pickled result of task {result.index} cannot be opened here: {type(error).__name__}: {error}.",
            code="result_unreadable",
            hint="Its classes must be importable here; or submit with results='data'.",
        ) from error
