"""Linux: guests that are forked from a template process instead of started anew. See ``template``."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self

from idle_accelerator.agent.host import linux, posix, procfs, template
from idle_accelerator.agent.host.types import Guest, GuestRecord, Launch, SpawnFailed

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_LOG: Final = logging.getLogger(__name__)
_READY_LIMIT_S: Final = 30.0
_ANSWER_LIMIT_S: Final = 10.0
_RETRY_AFTER_S: Final = 30.0
_LAST_WORDS_BYTES: Final = 64 * 1024
_LOCALE: Final = ("LANG", "LC_ALL", "LC_CTYPE")
"""What an interpreter reads at its start even when isolated (-I): a template serves one combination of them."""
_READ_AT_EXEC: Final = ("LD_", "GLIBC_", "MALLOC_")
"""Variables that the loader and the C library read before any program runs, so that a fork cannot follow them."""


class _TemplateFailed(Exception):
    """No guest came of this request: start it plainly."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Forker:
    """Starts guests by templates, one for each program, and plainly where that does not serve."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}
        self._not_before: dict[tuple[str, ...], float] = {}

    async def spawn(self, launch: Launch) -> Guest:
        """As ``linux.spawn``. Raises SpawnFailed."""
        starting = asyncio.create_task(self._spawn(launch))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The template may be forking already: a guest that nobody holds would run on.
            with contextlib.suppress(SpawnFailed):
                await (await starting).kill()
            raise

    async def close(self) -> None:
        """End the templates. Guests live on; a later ``spawn`` makes new ones."""
        templates = list(self._templates.values())
        self._templates.clear()
        self._not_before.clear()
        for each in templates:
            await each.close()

    async def _spawn(self, launch: Launch) -> Guest:
        key = _key(launch)
        if key is None or time.monotonic() < self._not_before.get(key, 0.0):
            return await linux.spawn(launch)
        system = linux.System()
        env, brand = system.environment(launch)
        _, _, program = launch.argv
        used = self._templates.setdefault(
            key, _Template(program, {name: env[name] for name in _LOCALE if name in env})
        )
        try:
            started = await used.fork(launch, env, brand)
        except _TemplateFailed as failure:
            _LOG.warning("%s is started without its template: %s", program, failure)
            self._not_before[key] = time.monotonic() + failure.retry_after_s
            return await linux.spawn(launch)
        return await posix.supervise(started, launch, brand, system)


class _Template:
    """The agent's side of one template process, which starts at the first request, and anew should it have died."""

    def __init__(self, program: str, env: Mapping[str, str]) -> None:
        self._program = program
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._turn = asyncio.Lock()

    async def fork(self, launch: Launch, env: Mapping[str, str], brand: str) -> posix.Started:
        """A guest, ready to be supervised. Raises _TemplateFailed, and then nothing of it lives."""
        request = json.dumps({"brand": brand, "cwd": str(launch.cwd), "env": env}).encode()
        async with self._turn:
            try:
                try:
                    return await self._request(launch, request, brand)
                except (EOFError, ConnectionError):  # somebody has killed it
                    return await self._request(launch, request, brand)
            except (OSError, EOFError) as error:
                raise _TemplateFailed(f"it does not answer ({error!r}).") from error

    async def _request(self, launch: Launch, request: bytes, brand: str) -> posix.Started:
        channel = await self._open_channel()
        with _Streams(launch) as streams:
            try:
                async with asyncio.timeout(_ANSWER_LIMIT_S):
                    # The buffer is empty, since every request is answered before the next: this takes all of it.
                    socket.send_fds(channel, [template.REQUEST.pack(len(request))], streams.theirs)
                    await asyncio.get_running_loop().sock_sendall(channel, request)
                    answer = await _receive(channel, template.ANSWER.size)
            except BaseException:
                # Whatever it was about to make is not to live, and its next answer would be to this request.
                self._end()
                _sweep(brand)
                raise
            pid, number = template.ANSWER.unpack(answer)
            if number:
                raise _TemplateFailed(f"it cannot fork: {os.strerror(number)}.")
            return streams.keep(pid)

    async def close(self) -> None:
        async with self._turn:
            self._end()

    async def _open_channel(self) -> socket.socket:
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self._end()
        ours, theirs = socket.socketpair()
        self._channel = ours
        ours.setblocking(False)
        try:
            with theirs:
                self._process = self._launch(theirs.fileno())
            async with asyncio.timeout(_READY_LIMIT_S):
                await _receive(ours, len(template.READY))
        except (OSError, EOFError) as error:
            said = self._last_words()
            self._end()
            raise _TemplateFailed(
                f"it did not load ({error!r}): {said}", retry_after_s=_RETRY_AFTER_S
            ) from error
        except asyncio.CancelledError:
            self._end()
            raise
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return ours

    def _launch(self, channel: int) -> "subprocess.Popen[bytes]":
        # Pipes, so that the interpreter's three stream objects are what a guest needs. No more than what
        # a program's loading prints may pass through them.
        return subprocess.Popen(
            [sys.executable, "-I", template.__file__, str(channel), self._program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(self._env),
            pass_fds=(channel,),
            start_new_session=True,
        )

    def _last_words(self) -> str:
        """The last line that a template has written to stderr, or nothing."""
        if self._process is None or self._process.stderr is None:
            return ""
        os.set_blocking(self._process.stderr.fileno(), False)
        raw = self._process.stderr.read(_LAST_WORDS_BYTES) or b""
        return raw.decode(errors="replace").strip().rpartition("\n")[2]

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with self._process:  # closes what is open of its pipes, and waits
                self._process.kill()
            self._process = None


class _Streams:
    """Three streams of a guest to be. On exit the guest's ends are closed, and this program's too unless kept."""

    def __init__(self, launch: Launch) -> None:
        self.theirs: list[int] = []
        self._ours: list[IO[bytes] | None] = []
        try:
            for kind, mode in ((launch.stdin, "wb"), (launch.stdout, "rb"), (launch.stderr, "rb")):
                if kind == "null":
                    self.theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                    self._ours.append(None)
                else:
                    reading, writing = os.pipe()
                    theirs, ours = (reading, writing) if mode == "wb" else (writing, reading)
                    self.theirs.append(theirs)
                    self._ours.append(open(ours, mode, buffering=0))  # noqa: SIM115, PTH123
        except OSError as error:
            self.__exit__()
            raise _TemplateFailed(f"there are no pipes for it: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        for pipe in self._ours:
            if pipe is not None:
                pipe.close()

    def keep(self, pid: int) -> posix.Started:
        stdin, stdout, stderr = self._ours
        self._ours = []
        return posix.Started(pid=pid, stdin=stdin, stdout=stdout, stderr=stderr)


def _key(launch: Launch) -> tuple[str, ...] | None:
    """Which template serves this launch; None when only a plain start gives what it asks for, or its error."""
    match launch.argv:
        case (executable, "-I", program) if executable == sys.executable:
            pass
        case _:
            return None
    names_and_values = "".join(launch.env) + "".join(launch.env.values())
    if (
        not launch.cwd.is_dir()
        or not Path(program).is_absolute()
        or any(name.startswith(_READ_AT_EXEC) or "=" in name or not name for name in launch.env)
        or "\0" in names_and_values
    ):
        return None
    return (program, *(launch.env.get(name, "") for name in _LOCALE))


async def _receive(channel: socket.socket, size: int) -> bytes:
    raw = b""
    while len(raw) < size:
        piece = await asyncio.get_running_loop().sock_recv(channel, size - len(raw))
        if not piece:
            raise EOFError("its socket was closed")
        raw += piece
    return raw


def _sweep(brand: str) -> None:
    """Kill and collect what a template had begun to make when it failed."""
    linux.kill_leftovers([GuestRecord(pid=0, started=procfs.boot_id(), brand=brand)])
    for process in procfs.scan().get(os.getpid(), ()):
        if procfs.brand_of(process.pid) == brand:
            os.waitpid(process.pid, 0)
