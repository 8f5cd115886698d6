"""Linux: guests that are made by a template process instead of started anew. See ``template``."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from idle_accelerator.agent.host import cgroups, linux, posix, priority, probing, procfs, reserve, template
from idle_accelerator.agent.host.types import Guest, GuestRecord, Launch, SpawnFailed

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_LOG: Final = logging.getLogger(__name__)
_READY_LIMIT_S: Final = 30.0
_RETRY_AFTER_S: Final = 30.0
_REST_AFTER_S: Final = 60.0
"""Template and reserve end when nothing was started for so long: an agent at rest holds no extra processes."""
_OPTIONS: Final = {True: ("-I",), False: ("-ISXutf8",)}
"""Of the interpreter: with a program to load, and without."""
_MOST_TEXT: Final = 1024 * 1024
"""Characters of arguments and environment that are handed on."""
_LAST_WORDS_BYTES: Final = 64 * 1024
_LOCALE: Final = ("LANG", "LC_ALL", "LC_CTYPE")
"""What an interpreter reads at its start even when isolated (-I): a template serves one combination of them."""
_READ_AT_EXEC: Final = ("LD_", "GLIBC_", "MALLOC_")
"""Variables that the loader and the C library read before any program runs, so that a fork cannot follow them."""


class Forker:
    """Starts guests by templates, one for each Python program and one for all other programs, and plainly where that does not serve."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}
        self._not_before: dict[tuple[str, ...], float] = {}

    async def spawn(self, launch: Launch) -> Guest:
        """See ``types.Forker``."""
        return await self._uninterrupted(self._by_template(launch, _key(launch)))

    async def start(self, launch: Launch) -> Guest:
        """See ``types.Forker``."""
        return await self._uninterrupted(self._by_template(launch, _key_of_any(launch)))

    async def _uninterrupted(self, spawning: Coroutine[Any, Any, Guest]) -> Guest:
        starting = asyncio.create_task(spawning)
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
        probing.homes().close()

    async def _by_template(self, launch: Launch, key: tuple[str, ...] | None) -> Guest:
        if key is None or time.monotonic() < self._not_before.get(key, 0.0):
            return await linux.spawn(launch)
        used = self._templates.get(key)
        if used is None:
            program = key[0]
            locale = {name: launch.env[name] for name in _LOCALE if name in launch.env} if program else {}
            used = self._templates[key] = _Template(
                program, locale, nice=launch.nice, limited=linux.is_limited(launch)
            )
        try:
            started, system, brand = await used.fork(launch)
        except reserve.TemplateFailed as failure:
            if not isinstance(failure, reserve.CannotBecome):  # a plain start tells that best
                _LOG.warning("%s is started without its template: %s", launch.argv[0], failure)
            self._not_before[key] = time.monotonic() + failure.retry_after_s
            return await linux.spawn(launch)
        try:
            return await posix.supervise(started, launch, brand, system)
        except BaseException:
            system.abandon()
            raise


class _Template:
    """The agent's side of one template process and its reserve. The template starts at the first request, the reserve
    is made after it, and both anew should they have died. Unused for a minute, they end until the next."""

    def __init__(self, program: str, env: Mapping[str, str], *, nice: bool, limited: bool) -> None:
        """``program`` is empty where reserves become what the launch names. ``nice``: it makes reserves at the lowest priority, which
        the guests that come of them keep. ``limited``: with groups that can be limited."""
        self._program = program
        self._env = env
        self._nice = nice
        self._limited = limited
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reserve: reserve.Reserve | None = None
        self._turn = asyncio.Lock()
        """Held while the template is asked for something."""
        self._restocking: asyncio.Task[None] | None = None
        self._used_at_s = 0.0
        self._rest: asyncio.TimerHandle | None = None
        self._closed = False

    async def fork(self, launch: Launch) -> tuple[posix.Started, linux.System, str]:
        """A guest, ready to be supervised, and its brand. Raises reserve.TemplateFailed, and then nothing of it lives."""
        self._stay()
        becomes_another = not self._program
        with reserve.Files(launch) as files:
            try:
                used = self._take() or await self._make_in_turn()
                try:
                    await used.launch(launch, files, becomes_another=becomes_another)
                except (EOFError, ConnectionError):  # somebody has killed it
                    used = await self._make_in_turn()
                    await used.launch(launch, files, becomes_another=becomes_another)
            except (OSError, EOFError) as error:
                raise reserve.TemplateFailed(f"it does not answer ({error!r}).") from error
            if self._restocking is None and not self._closed:
                self._restocking = asyncio.create_task(self._restock(), name=f"reserve of {self._program}")
            return files.keep(used.pid), used.system, used.brand

    async def close(self) -> None:
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        if self._restocking is not None:
            self._restocking.cancel()
            await asyncio.gather(self._restocking, return_exceptions=True)
        async with self._turn:
            self._end()

    def _take(self) -> reserve.Reserve | None:
        taken, self._reserve = self._reserve, None
        return taken if taken is not None and taken.lives else None

    async def _make_in_turn(self) -> reserve.Reserve:
        async with self._turn:
            return self._take() or await self._make_or_again()

    async def _restock(self) -> None:
        """Make the next reserve."""
        try:
            async with self._turn:
                if self._reserve is None or not self._reserve.lives:
                    self._reserve = await self._make_or_again()
        except (OSError, EOFError, reserve.TemplateFailed) as failure:
            # Whoever needs it next makes it, or hears why not.
            _LOG.info("there is no reserve of %s: %s", self._program, failure)
        finally:
            self._restocking = None

    async def _make_or_again(self) -> reserve.Reserve:
        try:
            return await self._make()
        except (EOFError, ConnectionError):  # somebody has killed the template
            return await self._make()

    async def _make(self) -> reserve.Reserve:
        """Raises OSError, EOFError or reserve.TemplateFailed, and then nothing of it lives."""
        channel = await self._open_channel()
        group = linux.make_group(nice=self._nice, limited=self._limited)
        system = linux.System(group)  # from here on orphans come to this program
        brand = linux.new_brand() if group is None else group.name
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            async with asyncio.timeout(reserve.ANSWER_LIMIT_S):
                with theirs, contextlib.ExitStack() as opened:
                    doors = [] if group is None else group.open_doors(opened)
                    order = template.MAKE.pack(int(brand), group is not None and group.version == cgroups.NEW)
                    # The buffer is empty, since every request is answered before the next: this takes all of it.
                    socket.send_fds(channel, [order], [theirs.fileno(), *doors])
                pid, number, outside = template.MADE.unpack(
                    await reserve.receive(channel, template.MADE.size)
                )
            reserve.refuse(number)
            if outside:
                # It is found by its tree and brand alone.
                _LOG.warning("a guest has no group: %s", os.strerror(outside))
                system.leave()
            return reserve.Reserve(pid, system, brand, ours)
        except BaseException as error:
            ours.close()
            if not isinstance(error, reserve.TemplateFailed):
                # Whatever it was about to make is not to live, and its next answer would be to this request.
                self._end()
            _sweep(brand)
            system.abandon()
            raise

    async def _open_channel(self) -> socket.socket:
        if self._closed:
            raise reserve.TemplateFailed("the sandbox was closed meanwhile.")
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
                await asyncio.to_thread(priority.lower_session, self._process.pid)
            async with asyncio.timeout(_READY_LIMIT_S):
                await reserve.receive(ours, len(template.READY))
        except (OSError, EOFError) as error:
            said = self._last_words()
            self._end()
            raise reserve.TemplateFailed(
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
            [
                *(sys.executable, *_OPTIONS[bool(self._program)], template.__file__, str(channel)),
                *([self._program] if self._program else []),
            ],
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
    settings = (str(launch.nice), str(linux.is_limited(launch)))
    return (program, *settings, *(launch.env.get(name, "") for name in _LOCALE))


def _key_of_any(launch: Launch) -> tuple[str, ...] | None:
    """The same for starts of any program. Without groups they gain nothing by a template."""
    if (
        probing.found().places.tree is None
        or not launch.argv
        or not launch.cwd.is_dir()
        or len(launch.descriptors) > template.MOST_FILES - 3
        or any("=" in name or not name for name in launch.env)
        or "\0" in (text := "".join((*launch.argv, *launch.env, *launch.env.values())))
        or len(text) > _MOST_TEXT
        or sys.getfilesystemencoding() != "utf-8"
    ):
        return None
    return ("", str(launch.nice), str(linux.is_limited(launch)))


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
