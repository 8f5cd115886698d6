"""Linux: guests that are forked from a template process instead of started anew. See ``template``."""

import asyncio
import contextlib
import json
import logging
import os
import signal
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
_REST_AFTER_S: Final = 60.0
"""Template and reserve end when nothing was started for so long: an agent at rest holds no extra processes."""
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
        """End the templates and reserves. Guests live on; a later ``spawn`` makes new ones."""
        templates = list(self._templates.values())
        self._templates.clear()
        self._not_before.clear()
        for each in templates:
            await each.close()

    async def _spawn(self, launch: Launch) -> Guest:
        key = _key(launch)
        if key is None or time.monotonic() < self._not_before.get(key, 0.0):
            return await linux.spawn(launch)
        system = linux.System()  # from here on orphans come to this program
        _, _, program = launch.argv
        used = self._templates.get(key)
        if used is None:
            locale = {name: launch.env[name] for name in _LOCALE if name in launch.env}
            used = self._templates[key] = _Template(program, locale, nice=launch.nice)
        try:
            started, brand = await used.fork(launch)
        except _TemplateFailed as failure:
            _LOG.warning("%s is started without its template: %s", program, failure)
            self._not_before[key] = time.monotonic() + failure.retry_after_s
            return await linux.spawn(launch)
        return await posix.supervise(started, launch, brand, system)


class _Template:
    """The agent's side of one template process and its reserve. The template starts at the first request, the reserve
    is made after it, and both anew should they have died. Unused for a minute, they end until the next."""

    def __init__(self, program: str, env: Mapping[str, str], *, nice: bool) -> None:
        """``nice``: it makes reserves at the lowest priority, which the guests that come of them keep."""
        self._program = program
        self._env = env
        self._nice = nice
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reserve: _Reserve | None = None
        self._turn = asyncio.Lock()
        """Held while the template is asked for something."""
        self._restocking: asyncio.Task[None] | None = None
        self._used_at_s = 0.0
        self._rest: asyncio.TimerHandle | None = None
        self._closed = False

    async def fork(self, launch: Launch) -> tuple[posix.Started, str]:
        """A guest, ready to be supervised, and its brand. Raises _TemplateFailed, and then nothing of it lives."""
        text = json.dumps({"cwd": str(launch.cwd), "env": dict(launch.env)}).encode()
        request = template.LAUNCH.pack(len(text)) + text
        self._stay()
        with _Streams(launch) as streams:
            try:
                reserve = self._take() or await self._make_in_turn()
                try:
                    await reserve.launch(request, streams.theirs)
                except (EOFError, ConnectionError):  # somebody has killed it
                    reserve = await self._make_in_turn()
                    await reserve.launch(request, streams.theirs)
            except (OSError, EOFError) as error:
                raise _TemplateFailed(f"it does not answer ({error!r}).") from error
            if self._restocking is None and not self._closed:
                self._restocking = asyncio.create_task(self._restock(), name=f"reserve of {self._program}")
            return streams.keep(reserve.pid), reserve.brand

    async def close(self) -> None:
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        if self._restocking is not None:
            self._restocking.cancel()
            await asyncio.gather(self._restocking, return_exceptions=True)
        async with self._turn:
            self._end()

    def _take(self) -> "_Reserve | None":
        taken, self._reserve = self._reserve, None
        return taken if taken is not None and taken.lives else None

    async def _make_in_turn(self) -> "_Reserve":
        async with self._turn:
            return self._take() or await self._make_or_again()

    async def _restock(self) -> None:
        """Make the next reserve."""
        try:
            async with self._turn:
                if self._reserve is None or not self._reserve.lives:
                    self._reserve = await self._make_or_again()
        except (OSError, EOFError, _TemplateFailed) as failure:
            # Whoever needs it next makes it, or hears why not.
            _LOG.info("there is no reserve of %s: %s", self._program, failure)
        finally:
            self._restocking = None

    async def _make_or_again(self) -> "_Reserve":
        try:
            return await self._make()
        except (EOFError, ConnectionError):  # somebody has killed the template
            return await self._make()

    async def _make(self) -> "_Reserve":
        """Raises OSError, EOFError or _TemplateFailed, and then nothing of it lives."""
        channel = await self._open_channel()
        brand = linux.new_brand()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                with theirs:
                    # The buffer is empty, since every request is answered before the next: this takes all of it.
                    socket.send_fds(channel, [template.MAKE.pack(int(brand))], [theirs.fileno()])
                pid, number = template.MADE.unpack(await _receive(channel, template.MADE.size))
            _refuse(number)
            return _Reserve(pid, brand, ours)
        except BaseException as error:
            ours.close()
            if not isinstance(error, _TemplateFailed):
                # Whatever it was about to make is not to live, and its next answer would be to this request.
                self._end()
            _sweep(brand)
            raise

    async def _open_channel(self) -> socket.socket:
        if self._closed:
            raise _TemplateFailed("the sandbox was closed meanwhile.")
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self._end()
        ours, theirs = socket.socketpair()
        self._channel = ours
        ours.setblocking(False)
        try:
            with theirs:
                self._process = self._launch(theirs.fileno())
            if self._nice:
                linux.lower(self._process.pid)
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

    def _stay(self) -> None:
        """It is used now: put its end off."""
        loop = asyncio.get_running_loop()
        self._used_at_s = loop.time()
        if self._rest is None and not self._closed:
            self._rest = loop.call_later(_REST_AFTER_S, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._used_at_s + _REST_AFTER_S - loop.time()
        if self._turn.locked():
            left_s = _REST_AFTER_S
        if left_s > 0:
            self._rest = loop.call_later(left_s, self._look)
        else:
            self._rest = None
            self._end()

    def _end(self) -> None:
        if self._reserve is not None:
            self._reserve.end()
            self._reserve = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with self._process:  # closes what is open of its pipes, and waits
                self._process.kill()
            _collect_session(self._process.pid)
            self._process = None


class _Reserve:
    """A guest to be. It has loaded the program, carries its brand, is a child of this program and in a session of
    its own; it has no stream, directory or environment yet, and waits for them on its socket."""

    def __init__(self, pid: int, brand: str, line: socket.socket) -> None:
        self.pid: Final = pid
        self.brand: Final = brand
        self._line = line
        self.lives = True
        self._cancel_watch = linux.System().watch_exit(pid, self.end)

    async def launch(self, request: bytes, streams: list[int]) -> None:
        """Let it be a guest. Raises OSError, EOFError or _TemplateFailed, and then it does not live."""
        self._cancel_watch()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                sent = socket.send_fds(self._line, [request], streams)
                if sent < len(request):
                    await loop.sock_sendall(self._line, memoryview(request)[sent:])
                (number,) = template.TAKEN.unpack(await _receive(self._line, template.TAKEN.size))
            _refuse(number)
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
                    if mode == "wb" and launch.first_input:
                        os.write(ours, launch.first_input)
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
    return (program, str(launch.nice), *(launch.env.get(name, "") for name in _LOCALE))


def _refuse(number: int) -> None:
    """Raises _TemplateFailed for an errno other than 0."""
    if number:
        raise _TemplateFailed(f"it cannot fork: {os.strerror(number)}.")


async def _receive(channel: socket.socket, size: int) -> bytes:
    raw = b""
    while len(raw) < size:
        piece = await asyncio.get_running_loop().sock_recv(channel, size - len(raw))
        if not piece:
            raise EOFError("its socket was closed")
        raw += piece
    return raw


def _collect_session(template: int) -> None:
    """Kill and collect what stood between a template and a reserve when the template died: it was in its session."""
    for process in procfs.scan().get(os.getpid(), ()):
        if process.session == template:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)


def _sweep(brand: str) -> None:
    """Kill and collect what a template had begun to make when it failed."""
    linux.kill_leftovers([GuestRecord(pid=0, started=procfs.boot_id(), brand=brand)])
    for process in procfs.scan().get(os.getpid(), ()):
        if procfs.brand_of(process.pid) == brand:
            os.waitpid(process.pid, 0)
