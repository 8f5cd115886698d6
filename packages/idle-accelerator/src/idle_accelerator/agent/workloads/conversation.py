"""What a function's process said, read as the word of a stranger: bounded, in order, and about calls that it was given.

Nothing here unpickles, follows a name that came from the process, or keeps more than one frame of it.
"""

import math
from collections import deque
from dataclasses import dataclass
from struct import error as StructError  # noqa: N812  # 'error' says nothing where it is caught
from typing import Final, Literal

from idle_accelerator.agent.folders import Folder
from idle_accelerator.agent.workloads import frames, places
from idle_accelerator.agent.workloads.stored_result import NoResult, StoredResult
from idle_accelerator.wire.payload import RemoteError

Encoding = Literal["data", "pickle"]
StreamName = Literal["stdout", "stderr"]
_ENCODINGS: Final[dict[int, Encoding]] = {frames.DATA: "data", frames.PICKLE: "pickle"}
STREAMS: Final[dict[int, StreamName]] = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}
_U64_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One task's call of the job's function."""

    index: int
    """Of the task."""
    epoch: int
    arguments: bytes
    """The pickled ``(args, kwargs)``; never opened here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A call is over. One of ``result``, ``error`` and ``refused`` is set."""

    index: int
    epoch: int
    wall_s: float
    """As the process says; frozen time counts."""
    encoding: Encoding | None = None
    result: bytes | StoredResult | None = None
    """Encoded as ``encoding`` says. A long one is a file of the workspace."""
    error: RemoteError | None = None
    """The function raised."""
    exit_code: int | None = None
    """With ``error``: the function called ``sys.exit`` with this number."""
    refused: str | None = None
    """Why the value that the function returned could not be sent: a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes that a call wrote, at most 256 KiB. A gap to the piece before it means that what lay between was dropped."""

    index: int
    epoch: int
    stream: StreamName
    offset: int
    data: bytes


class Nonsense(Exception):
    """The process broke the rules of the conversation. The text says how."""


class Conversation:
    """Reads frames in the order in which they were sent."""

    def __init__(self, workspace: Folder, results: Encoding) -> None:
        self.pending: deque[Call] = deque()
        """Sent and not returned, in order; the first is the one that runs."""
        self.nonsense: str | None = None
        """How the process broke the rules."""
        self.left = False
        """The process said that it leaves because it was told to vacate."""
        self.returned = 0
        """Calls so far."""
        self.positions: dict[int, int] = dict.fromkeys(STREAMS, 0)
        """By stream: where in its file the output begins that has not been sent."""
        self.offsets: dict[int, int] = dict.fromkeys(STREAMS, 0)
        """By stream: the same within what the running call has written."""
        self._workspace = workspace
        self._results: Encoding = results
        self._unread = b""

    def hear(self, chunk: bytes) -> list[Returned | Output]:
        """What is whole by now. A bad frame ends the conversation: then ``nonsense`` is set, and nothing after it is heard."""
        if self.nonsense is not None:
            return []
        buffer = self._unread + chunk if self._unread else chunk
        events: list[Returned | Output] = []
        position = 0
        while position + frames.HEAD.size <= len(buffer):
            length, kind = frames.HEAD.unpack_from(buffer, position)
            start = position + frames.HEAD.size
            if length > frames.ANSWER_LIMIT_BYTES:
                self.nonsense = f"it announced a frame of {length} bytes"
                break
            if start + length > len(buffer):
                break
            position = start + length
            try:
                event = self._event(kind, buffer[start:position])
            except (StructError, IndexError):
                self.nonsense = f"it sent a frame of kind {kind} that is too short"
                break
            except Nonsense as nonsense:
                self.nonsense = str(nonsense)
                break
            if event is not None:
                events.append(event)
        self._unread = buffer[position:]
        return events

    def hear_rest(self, replies: bytes) -> list[Returned | Output]:
        """After the end: replies that were gathered and not sent, as the shared file has them. What was heard before is left out."""
        self._unread = b""
        events: list[Returned | Output] = []
        try:
            (length,) = frames.REPLIES_HEAD.unpack_from(replies)
        except StructError:
            return events
        gathered = replies[frames.REPLIES_HEAD.size :][:length]
        position = 0
        while position + frames.HEAD.size <= len(gathered):
            size, _ = frames.HEAD.unpack_from(gathered, position)
            end = position + frames.HEAD.size + size
            events += self.hear(gathered[position:end])
            position = end
            # Told before, as the process was killed while it was sending.
            self.nonsense = None
            self._unread = b""
        return events

    def _event(self, kind: int, body: bytes) -> Returned | Output | None:
        if kind == frames.OUTPUT:
            return self._output(body)
        if kind == frames.SHRUNK:
            self.positions[self._stream(body[0])] = 0
            return None
        if kind == frames.LEAVING:
            self.left = True
            return None
        if kind not in (frames.RETURNED, frames.STORED, frames.RAISED, frames.REFUSED):
            raise Nonsense(f"it sent a frame of unknown kind {kind}")
        index, epoch, wall_s = frames.ENDED_BODY.unpack_from(body)
        self._check_running(index, epoch)
        if not 0 <= wall_s < math.inf:
            raise Nonsense(f"it said that a call took {wall_s} s")
        event = self._ended(kind, index, epoch, wall_s, body[frames.ENDED_BODY.size :])
        self.pending.popleft()
        self.returned += 1
        self.offsets = dict.fromkeys(STREAMS, 0)
        return event

    def _ended(self, kind: int, index: int, epoch: int, wall_s: float, rest: bytes) -> Returned:
        if kind == frames.RETURNED:
            return Returned(
                index=index, epoch=epoch, wall_s=wall_s, encoding=self._encoding(rest[0]), result=rest[1:]
            )
        if kind == frames.STORED:
            encoding = self._encoding(rest[0])
            stored = self._stored(index, epoch, int.from_bytes(rest[1:9], "little"))
            return Returned(index=index, epoch=epoch, wall_s=wall_s, encoding=encoding, result=stored)
        if kind == frames.REFUSED:
            return Returned(index=index, epoch=epoch, wall_s=wall_s, refused=_text(rest, frames.TEXT_LIMIT))
        has_code, code, *lengths = frames.RAISED_BODY.unpack_from(rest)
        ends = [frames.RAISED_BODY.size]
        for length in lengths:
            ends.append(ends[-1] + length)
        if ends[-1] != len(rest):
            raise Nonsense("it sent an exception whose lengths do not fit")
        error = RemoteError(
            type_name=_text(rest[ends[0] : ends[1]], frames.TYPE_NAME_LIMIT),
            text=_text(rest[ends[1] : ends[2]], frames.TEXT_LIMIT),
            traceback_text=_text(rest[ends[2] : ends[3]], frames.TRACEBACK_LIMIT),
        )
        return Returned(
            index=index, epoch=epoch, wall_s=wall_s, error=error, exit_code=code if has_code else None
        )

    def _output(self, body: bytes) -> Output:
        index, epoch, number, offset, position = frames.OUTPUT_BODY.unpack_from(body)
        stream = self._stream(number)
        self._check_running(index, epoch)
        data = body[frames.OUTPUT_BODY.size :]
        if not data or len(data) > frames.OUTPUT_LIMIT_BYTES:
            raise Nonsense(f"it sent {len(data)} bytes of output in a piece")
        if (
            not self.offsets[stream] <= offset < _U64_LIMIT
            or not self.positions[stream] <= position < _U64_LIMIT
        ):
            raise Nonsense("it sent output that goes backwards")
        self.offsets[stream] = offset + len(data)
        self.positions[stream] = position + len(data)
        return Output(index=index, epoch=epoch, stream=STREAMS[stream], offset=offset, data=data)

    def _check_running(self, index: int, epoch: int) -> None:
        first = self.pending[0] if self.pending else None
        if first is None or first.index != index or first.epoch != epoch:
            raise Nonsense(f"it spoke of task {index}, attempt {epoch}, which was not its turn")

    def _stream(self, number: int) -> int:
        if number not in STREAMS:
            raise Nonsense(f"it spoke of a stream {number}")
        return number

    def _encoding(self, number: int) -> Encoding:
        encoding = _ENCODINGS.get(number)
        if encoding is None or encoding != self._results:
            raise Nonsense(f"it sent a result in another form than {self._results}")
        return encoding

    def _stored(self, index: int, epoch: int, size_bytes: int) -> StoredResult:
        stored = StoredResult(
            workspace=self._workspace,
            folder=f"{places.OURS}/{places.RESULTS}",
            name=places.result_name(index, epoch),
            size_bytes=size_bytes,
        )
        try:
            stored.open().close()
        except NoResult as problem:
            raise Nonsense(str(problem)) from problem
        return stored


def _text(raw: bytes, limit: int) -> str:
    return raw.decode(errors="replace")[:limit]
