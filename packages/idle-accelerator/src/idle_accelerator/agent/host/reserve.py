"""Linux: guests to be. Each has its process already and waits for its launch; see ``template``, which makes them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from typing import IO, Final, Self

from idle_accelerator.agent.host import linux, posix, template
from idle_accelerator.agent.host.types import Launch

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

ANSWER_LIMIT_S: Final = 10.0


class TemplateFailed(Exception):
    """No guest came of this request: start it plainly."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class CannotBecome(TemplateFailed):
    """The program of the launch does not start."""


class Files:
    """Three streams of a guest to be, and what else is given to it. On exit the guest's ends of the streams are closed, and this
    program's too unless kept."""

    def __init__(self, launch: Launch) -> None:
        self.numbers: Final = [0, 1, 2, *launch.descriptors]
        """Which the guest is to have for ``theirs``."""
        self._given = launch.descriptors
        self._streams: list[int] = []
        self._ours: list[IO[bytes] | None] = []
        try:
            for kind, mode in ((launch.stdin, "wb"), (launch.stdout, "rb"), (launch.stderr, "rb")):
                if kind == "null":
                    self._streams.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                    self._ours.append(None)
                else:
                    reading, writing = os.pipe()
                    theirs, ours = (reading, writing) if mode == "wb" else (writing, reading)
                    self._streams.append(theirs)
                    self._ours.append(open(ours, mode, buffering=0))  # noqa: SIM115, PTH123
                    if mode == "wb" and launch.first_input:
                        os.write(ours, launch.first_input)
        except OSError as error:
            self.__exit__()
            raise TemplateFailed(f"there are no pipes for it: {error.strerror}.") from error

    @property
    def theirs(self) -> list[int]:
        return [*self._streams, *self._given]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._streams:
            os.close(descriptor)
        for pipe in self._ours:
            if pipe is not None:
                pipe.close()

    def keep(self, pid: int) -> posix.Started:
        stdin, stdout, stderr = self._ours
        self._ours = []
        return posix.Started(pid=pid, stdin=stdin, stdout=stdout, stderr=stderr)


class Reserve:
    """A guest to be. It has loaded the program, carries its brand, is a child of this program, in a session and a control group of
    its own; it has no stream, directory or environment yet, and waits for them on its socket."""

    def __init__(self, pid: int, system: linux.System, brand: str, line: socket.socket) -> None:
        """``system`` knows its group."""
        self.pid: Final = pid
        self.system: Final = system
        self.brand: Final = brand
        self._line = line
        self.lives = True
        self._cancel_watch = system.watch_exit(pid, self.end)

    async def launch(self, launch: Launch, files: Files, *, becomes_another: bool) -> None:
        """Let it be a guest. Raises OSError, EOFError or TemplateFailed, and then it does not live.

        ``becomes_another``: it has loaded no program, and is to become that of the launch.
        """
        values: dict[str, object] = {"cwd": str(launch.cwd), "env": dict(launch.env), "files": files.numbers}
        if becomes_another:
            values["argv"] = launch.argv
        text = json.dumps(values).encode()
        request = template.LAUNCH.pack(len(text)) + text
        self._cancel_watch()
        loop = asyncio.get_running_loop()
        try:
            self.system.limit(launch)
            async with asyncio.timeout(ANSWER_LIMIT_S):
                sent = socket.send_fds(self._line, [request], files.theirs)
                if sent < len(request):
                    await loop.sock_sendall(self._line, memoryview(request)[sent:])
                (number,) = template.TAKEN.unpack(await receive(self._line, template.TAKEN.size))
                if becomes_another and not number:
                    # The other program has not inherited the socket.
                    with contextlib.suppress(EOFError, ConnectionError):
                        (number,) = template.TAKEN.unpack(await receive(self._line, template.TAKEN.size))
                    refuse(number, CannotBecome)
            refuse(number)
        except BaseException:
            self.end()
            raise
        self._line.close()

    def end(self) -> None:
        """Kill and collect it; nothing happens if that was done."""
        if self.lives:
            self.lives = False
            self._cancel_watch()
            self._line.close()
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.system.abandon()


def refuse(number: int, kind: type[TemplateFailed] = TemplateFailed) -> None:
    """Raises TemplateFailed for an errno other than 0."""
    if number:
        raise kind(f"it does not start: {os.strerror(number)}.")


async def receive(channel: socket.socket, size: int) -> bytes:
    raw = b""
    while len(raw) < size:
        piece = await asyncio.get_running_loop().sock_recv(channel, size - len(raw))
        if not piece:
            raise EOFError("its socket was closed")
        raw += piece
    return raw
