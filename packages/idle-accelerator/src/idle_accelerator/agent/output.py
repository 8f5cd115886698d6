"""A task's output on its way to the scheduler: in pieces, with what is too much left out, and the gap told by offsets."""

import asyncio
from collections.abc import Callable
from typing import Literal

from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.ids import AttemptRef

Stream = Literal["stdout", "stderr"]
PIECE_BYTES = 128 * 1024
FLUSH_EVERY_S = 0.5
KEPT_BYTES = 1024 * 1024
READ_LIMIT_BYTES_S = 64 * 1024 * 1024
"""More than this a second is not read: a task that floods its output is slowed down, not the machine."""


class StreamPump:
    """Reads one pipe of one attempt until its end, and hands on pieces at most twice a second."""

    def __init__(
        self, ref: AttemptRef, stream: Stream, reader: asyncio.StreamReader, emit: Callable[[LogChunk], None]
    ) -> None:
        self._ref = ref
        self._stream: Stream = stream
        self._reader = reader
        self._emit = emit
        self._pending = bytearray()
        self._offset = 0
        """Of the first pending byte."""

    async def run(self) -> None:
        """Until the pipe ends; the last piece stays here for ``rest``."""
        flusher = asyncio.create_task(self._flush_regularly())
        try:
            while data := await self._reader.read(256 * 1024):
                self._pending += data
                surplus = len(self._pending) - KEPT_BYTES
                if surplus > 0:
                    del self._pending[:surplus]
                    self._offset += surplus
                await asyncio.sleep(len(data) / READ_LIMIT_BYTES_S if len(data) > PIECE_BYTES else 0)
        finally:
            flusher.cancel()

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            for chunk in self._cut():
                self._emit(chunk)

    def rest(self) -> tuple[LogChunk, ...]:
        """What has not been handed on yet."""
        return tuple(self._cut())

    def _cut(self) -> list[LogChunk]:
        chunks = cut(self._ref, self._stream, self._offset, bytes(self._pending))
        self._offset += len(self._pending)
        self._pending.clear()
        return chunks


def cut(ref: AttemptRef, stream: Stream, offset: int, data: bytes) -> list[LogChunk]:
    """Bytes of a stream as pieces that fit into a request."""
    return [
        LogChunk(
            job_id=ref.job_id,
            task_index=ref.task_index,
            epoch=ref.epoch,
            stream=stream,
            offset=offset + start,
            data=data[start : start + PIECE_BYTES],
        )
        for start in range(0, len(data), PIECE_BYTES)
    ]
