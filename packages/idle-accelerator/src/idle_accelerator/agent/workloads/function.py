"""The agent's side of a function's warm process: one process of one job, fed with calls in order."""

import asyncio
import contextlib
import json
import sys
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

import idle_accelerator
from idle_accelerator.agent.environments import Held
from idle_accelerator.agent.sandbox import (
    FIRST_INPUT_LIMIT_BYTES,
    Guest,
    GuestExit,
    GuestNetwork,
    GuestSpec,
    KillFailed,
    Sandbox,
    SpawnFailed,
)
from idle_accelerator.agent.workloads import frames, places
from idle_accelerator.agent.workloads.contract import give_notice
from idle_accelerator.agent.workloads.conversation import (
    STREAMS,
    Call,
    Conversation,
    Output,
    Returned,
)
from idle_accelerator.agent.workloads.shared_files import SharedFiles
from idle_accelerator.errors import IdleError, TooLarge

__all__ = ["Call", "FunctionHost", "HostDied", "Output", "Returned"]

PROGRAM: Final = Path(__file__).with_name("function_guest.py")
_IN_ENVIRONMENT: Final = Path(__file__).with_name("function_in_environment.py")
_READ_BYTES: Final = 256 * 1024
_WRITE_BYTES: Final = 64 * 1024
_PIPE_END_S: Final = 2.0
"""How long the end of the pipe is waited for after the end of the process, or the reverse."""
_CLOSE_S: Final = 5.0
_SAID_LIMIT_BYTES: Final = 4000


class HostDied(IdleError):
    """The process has ended, and all that it said has been handed out."""

    code: ClassVar[str] = "host_died"

    def __init__(self, message: str, *, hint: str | None, ended: GuestExit, blamed: Call | None) -> None:
        super().__init__(message, hint=hint)
        self.exit = ended
        self.blamed = blamed
        """The call to charge with it: the one that ran. None when the agent had the process end, or when it left by itself between two
        calls. All others that are pending are innocent, and may be given to another process."""


class FunctionHost:
    """One warm process of one job in one slot. All calls are made in one event loop; ``receive`` by one task at a time."""

    def __init__(self, guest: Guest, workspace: Path, conversation: Conversation, files: SharedFiles) -> None:
        """For ``start`` alone."""
        if guest.stdin is None or guest.stdout is None or guest.stderr is None:
            raise SpawnFailed(
                "The sandbox gave no pipes.", hint="This is a defect of the sandbox.", field=None
            )
        self.guest: Final = guest
        self.workspace: Final = workspace
        self._stdin = guest.stdin
        self._stdout = guest.stdout
        self._conversation = conversation
        self._files = files
        self._unsent: deque[bytes] = deque()
        self._to_send = asyncio.Event()
        self._asked = False
        """The agent wants it to end."""
        self._closing = False
        self._broken: str | None = None
        """Why the agent stopped it."""
        self._death: HostDied | None = None
        self._reading: asyncio.Future[bytes] | None = None
        self._ended = asyncio.ensure_future(guest.wait())
        self._said = asyncio.create_task(_tail(guest.stderr), name=f"stderr of {guest.pid}")
        self._sending = asyncio.create_task(self._send_all(), name=f"calls for {guest.pid}")
        self._deadline: asyncio.Task[None] | None = None
        self._ended.add_done_callback(lambda _: self._sending.cancel())
        # For a host that is dropped without asking how it ended.
        weakref.finalize(self, files.close)

    @classmethod
    async def start(
        cls,
        *,
        sandbox: Sandbox,
        workspace: Path,
        env: Mapping[str, str],
        code: bytes,
        results: Literal["data", "pickle"],
        job_id: str,
        task_count: int,
        grace_s: float,
        clean_cwd: bool = False,
        memory_bytes: int | None = None,
        environment: Held | None = None,
        network: GuestNetwork | None = None,
        devices: tuple[Path, ...] = (),
    ) -> "FunctionHost":
        """Start the process; the function itself is opened with the first call. ``code`` is its pickle.

        ``env`` is complete (see ``contract.task_environment``); the job's identity in it is set from the arguments here.
        ``clean_cwd``: after each call, what it left in the workspace is removed, and what stood there at the start stays.
        ``memory_bytes``: no more for the process and what it starts; None is no limit. ``network``, ``devices``: see ``GuestSpec``.
        ``environment``: by its Python, in the place of the agent's.
        Raises SpawnFailed, TooLarge, or OSError when the workspace takes no files.
        """
        setup = json.dumps({"results": results, "clean_cwd": clean_cwd}).encode()
        first = _frame(frames.SETUP, len(setup).to_bytes(4, "little") + setup, code, field="function")
        fits = sum(map(len, first)) <= FIRST_INPUT_LIMIT_BYTES
        places.make(workspace)
        files = SharedFiles(workspace)
        try:
            guest = await sandbox.start_forked(
                GuestSpec(
                    argv=(sys.executable, "-I", str(PROGRAM))
                    if environment is None
                    else _within(environment),
                    workspace=workspace,
                    env={
                        **env,
                        "IDLE_JOB_ID": job_id,
                        "IDLE_TASK_COUNT": str(task_count),
                        "IDLE_GRACE_S": f"{grace_s:g}",
                    },
                    stdin="pipe",
                    stdout="pipe",
                    stderr="pipe",
                    first_input=b"".join(first) if fits else b"",
                    memory_bytes=memory_bytes,
                    read_only=() if environment is None else environment.read_only,
                    network=network,
                    devices=devices,
                )
            )
        except BaseException:
            files.close()
            files.workspace.close()
            raise
        host = cls(guest, workspace, Conversation(files.workspace, results), files)
        if not fits:
            host._enqueue(first)
        return host

    @property
    def pending(self) -> tuple[Call, ...]:
        """Sent and not returned, in order; the first is the one that runs."""
        return tuple(self._conversation.pending)

    def send(self, calls: Sequence[Call]) -> None:
        """Queue calls: the process runs them one at a time, in order. Raises TooLarge, and then none was queued."""
        parts: list[bytes] = []
        for call in calls:
            parts += _frame(
                frames.CALL, frames.CALL_BODY.pack(call.index, call.epoch), call.arguments, field="arguments"
            )
        self._conversation.pending.extend(calls)
        self._enqueue(parts)

    async def receive(self) -> list[Returned | Output]:
        """What has come; at least one event. May be cancelled and called again.

        Raises HostDied when the process has ended and all was handed out, and again at each later call.
        """
        while self._death is None:
            chunk = await self._read()
            events = self._conversation.hear(chunk) if chunk else await self._finish()
            if self._conversation.nonsense is not None and self._death is None:
                await self._stop(self._conversation.nonsense)
                self._died()
            self._watch_close()
            if events:
                return events
        raise self._death

    def close(self) -> None:
        """Let the process end when it has done what it was sent; ``receive`` then tells of its end.

        One that still lives some seconds after its last call is killed.
        """
        self._asked = self._closing = True
        self._to_send.set()
        self._watch_close()

    def notify_vacate(self) -> None:
        """The vacate file appears and SIGTERM comes. The running call may finish, if it does so before somebody kills it; then the process leaves."""
        self._asked = True
        give_notice(self.workspace)
        self.guest.notify_vacate()
        if not self._conversation.pending:
            self.close()

    async def kill(self) -> None:
        """Kill the process and all that it started. Replies of calls that it had finished still come by ``receive``. Raises KillFailed."""
        self._asked = True
        await self.guest.kill()

    def let_go(self) -> None:
        """It has ended, and nothing that it returned is to be read any more."""
        self._files.workspace.close()

    async def _read(self) -> bytes:
        """The next bytes; empty at the end of the pipe, or of the process. May be cancelled and called again."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._stdout.read(_READ_BYTES))
        await asyncio.wait({self._reading, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if not self._reading.done():
            # The process is gone; its pipe is not empty yet, or is held open by what escaped.
            await asyncio.wait({self._reading}, timeout=_PIPE_END_S)
        reading, self._reading = self._reading, None
        if reading.done():
            return reading.result()
        reading.cancel()
        return b""

    async def _finish(self) -> list[Returned | Output]:
        """The pipe is at its end: the rest stands in the shared files."""
        if not self._ended.done():
            await asyncio.wait({self._ended}, timeout=_PIPE_END_S)
        if not self._ended.done():
            await self._stop("it closed its pipe to the agent")
        await self._ended
        await asyncio.wait({self._said}, timeout=_PIPE_END_S)
        events = self._conversation.hear_rest(self._files.replies())
        if self._conversation.pending:
            running = self._conversation.pending[0]
            for number, name in STREAMS.items():
                events += self._files.unsent_output(
                    running,
                    name,
                    position=self._conversation.positions[number],
                    offset=self._conversation.offsets[number],
                )
        self._died()
        return events

    async def _stop(self, why: str) -> None:
        self._broken = why
        await self.guest.kill()
        await self._ended

    def _died(self) -> None:
        ended, conversation = self._ended.result(), self._conversation
        said = self._said.result() if self._said.done() and not self._said.cancelled() else ""
        # One that leaves at each start is blamed on somebody, or it would be started for ever.
        innocent = self._asked or (conversation.left and conversation.returned > 0)
        message = "The function's process ended " + (
            f"with exit status {ended.exit_code}" if ended.signal is None else f"by signal {ended.signal}"
        )
        if self._broken is not None:
            message += f", stopped by the agent because {self._broken}"
        self._death = HostDied(
            f"{message}. It said: {said}" if said else f"{message}.",
            hint=None if innocent else "A crash in native code, os._exit, or too little memory does this.",
            ended=ended,
            blamed=conversation.pending[0] if conversation.pending and not innocent else None,
        )
        self._files.close()
        self._said.cancel()
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch_close(self) -> None:
        if (
            self._closing
            and self._deadline is None
            and self._death is None
            and not self._conversation.pending
        ):
            self._deadline = asyncio.create_task(self._end_in_time(), name=f"close {self.guest.pid}")

    async def _end_in_time(self) -> None:
        await asyncio.wait({self._ended}, timeout=_CLOSE_S)
        if not self._ended.done():
            # KillFailed: whoever waits for the guest hears it.
            with contextlib.suppress(KillFailed):
                await self.guest.kill()

    def _enqueue(self, parts: Sequence[bytes]) -> None:
        self._unsent.extend(parts)
        self._to_send.set()

    async def _send_all(self) -> None:
        """Hand the process as much as its pipe takes, and no more."""
        # ConnectionError: the process is gone, and receive tells of it.
        try:
            with contextlib.suppress(ConnectionError):
                while self._unsent or not self._closing:
                    await self._to_send.wait()
                    self._to_send.clear()
                    while self._unsent:
                        await self._write(self._next_batch())
        finally:
            self._stdin.close()

    async def _write(self, batch: bytes) -> None:
        # A slice at a time, since the transport copies what the pipe does not take.
        view = memoryview(batch)
        for start in range(0, len(view), _WRITE_BYTES):
            self._stdin.write(view[start : start + _WRITE_BYTES])
            await self._stdin.drain()

    def _next_batch(self) -> bytes:
        batch: list[bytes] = []
        size = 0
        while self._unsent and size < _WRITE_BYTES:
            batch.append(self._unsent.popleft())
            size += len(batch[-1])
        return batch[0] if len(batch) == 1 else b"".join(batch)


def _within(environment: Held) -> tuple[str, ...]:
    """The same program by the environment's Python, told where this program and cloudpickle lie, of which the environment knows nothing."""
    import cloudpickle  # noqa: PLC0415  # agents without such jobs do not need it

    lent = (Path(idle_accelerator.__file__).parent, Path(cloudpickle.__file__).parent)
    return (str(environment.python), "-I", str(_IN_ENVIRONMENT), *map(str, lent))


def _frame(kind: int, start: bytes, rest: bytes, *, field: str) -> list[bytes]:
    """In parts, so that long ones are not copied."""
    length = len(start) + len(rest)
    if length > frames.SENT_LIMIT_BYTES:
        raise TooLarge(
            f"{length} bytes are more than a process can be given at once.",
            field=field,
            hint="Give large data as input files.",
        )
    head = frames.HEAD.pack(length, kind) + start
    return [b"".join((head, rest))] if len(rest) < _WRITE_BYTES else [head, rest]


async def _tail(reader: asyncio.StreamReader) -> str:
    """The end of what is read until the end."""
    kept = b""
    while chunk := await reader.read(_READ_BYTES):
        kept = (kept + chunk)[-_SAID_LIMIT_BYTES:]
    return kept.decode(errors="replace").strip()
