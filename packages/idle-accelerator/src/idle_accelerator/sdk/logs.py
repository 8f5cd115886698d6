"""A task's output, as it is and as it comes."""

import asyncio
from typing import Literal

from idle_accelerator.sdk.feed import HELD_S
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.wire.jobs import LogPage, TaskDetail, TaskView
from idle_accelerator.wire.states import TERMINAL_TASK_STATES

LogStream = Literal["stdout", "stderr"]
_BETWEEN_ATTEMPTS_S = 1.0


async def log_page(
    transport: Transport,
    job_id: str,
    task: int,
    stream: LogStream,
    *,
    offset: int,
    epoch: int | None,
    wait_s: float,
) -> LogPage:
    answer = await transport.get(
        f"/v1/jobs/{job_id}/tasks/{task}/logs",
        params={"stream": stream, "offset": offset, "epoch": epoch, "wait_s": wait_s},
        held_s=wait_s,
        patience_s=transport.wait_patience_s if wait_s else None,
    )
    return answer.read(LogPage)


async def whole_log(
    transport: Transport, job_id: str, task: int, stream: LogStream, epoch: int | None
) -> bytes:
    """All that is kept of one attempt's output; the newest attempt's if ``epoch`` is None."""
    parts: list[bytes] = []
    offset = 0
    while True:
        page = await log_page(transport, job_id, task, stream, offset=offset, epoch=epoch, wait_s=0.0)
        if not page.data:
            return b"".join(parts)
        parts.append(page.data)
        offset = page.next_offset
        epoch = page.epoch or None


class LogTail:
    """Output of a task as it comes, attempt after attempt, until the task has ended."""

    def __init__(self, transport: Transport, job_id: str, task: int, stream: LogStream) -> None:
        self._transport = transport
        self._job_id = job_id
        self._task = task
        self._stream: LogStream = stream
        self._first: int | None = None
        """The attempt to begin with: the newest one when this began, or the one after nothing."""
        self._epoch: int | None = None
        self._offset = 0
        self._over = False

    async def next_pieces(self) -> tuple[bytes, ...]:
        """At least one piece; none at the end."""
        if self._first is None:
            self._first = max(1, (await self._task_now()).epoch)
        while not self._over:
            page = await log_page(
                self._transport,
                self._job_id,
                self._task,
                self._stream,
                offset=self._offset,
                epoch=self._epoch,
                wait_s=HELD_S,
            )
            if self._epoch is None and page.epoch > self._first:
                # It and perhaps others came and went between two looks.
                self._epoch = self._first
                continue
            if page.data:
                self._epoch, self._offset = page.epoch or None, page.next_offset
                return (page.data,)
            if page.finished:
                await self._go_on(page.epoch)
        return ()

    async def _go_on(self, finished_epoch: int) -> None:
        """After an attempt's end: to the next attempt, or to the end."""
        task = await self._task_now()
        if task.epoch > finished_epoch:
            # Those in between are read as well, so that nothing that was written is skipped.
            self._epoch, self._offset = finished_epoch + 1, 0
        elif task.state in TERMINAL_TASK_STATES:
            self._over = True
        else:
            await asyncio.sleep(_BETWEEN_ATTEMPTS_S)

    async def _task_now(self) -> TaskView:
        answer = await self._transport.get(f"/v1/jobs/{self._job_id}/tasks/{self._task}")
        return answer.read(TaskDetail).task
