"""What Linux and macOS share: a session per guest, signals to groups, pipes, the wait for the end.

Each system brings its own ``Tree``, which finds the processes of a guest, and its own exit watch.
"""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import IO, Final, Protocol

from idle_accelerator.agent.host import keeper
from idle_accelerator.agent.host.types import (
    FreezeFailed,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Launch,
    SpawnFailed,
)

if sys.platform == "win32":
    raise ImportError("This file is for Linux and macOS.")

FREEZE_LIMIT_S: Final = 1.0
_GROUP_LIMIT_S: Final = 0.1
"""What does not stand still by then waits inside the kernel, and is stopped before it leaves that, as all else then is, by a signal."""
KILL_LIMIT_S: Final = 30.0
LEFTOVER_LIMIT_S: Final = 10.0
_LEFTOVER_POLL_S: Final = 0.002
_LEFTOVER_LOOKS: Final = 3
_HALT_TO_KILL_S: Final = 0.05
_STREAM_LIMIT_BYTES: Final = 256 * 1024
_POLL_MIN_S: Final = 0.000_5
_POLL_MAX_S: Final = 0.05
_POLL_FOR_MAIN_S: Final = 0.01
_MAXRSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of a guest's tree that has not ended."""

    pid: int
    group: int
    halted: bool
    """It executes no further instruction by itself: stopped, dying, or with a stop or kill pending, which
    precedes its next instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One look at a guest's tree."""

    members: list[Member]
    """Those that have not ended; the main process among them until it has."""
    complete: bool
    """False when something of the tree ended meanwhile: what that had forked just before may be missing here.
    So a complete walk without members proves that none was alive when it began, and one whose members
    are all halted that nothing else ran."""


class Whole(Protocol):
    """What the kernel itself keeps together: most of a tree, mostly all of it."""

    def begin_freeze(self) -> None:
        """As ``freeze``, without waiting."""
        ...

    def freeze(self, limit_s: float) -> bool:
        """Stop all of it; True when the kernel says that it stands still, False when it did not within the time."""
        ...

    def thaw(self) -> None: ...

    def kill(self) -> None:
        """Have all of it die, frozen or not. Whether that has happened is to be looked at."""
        ...

    def pids(self) -> set[int]:
        """Those in it that have not ended."""
        ...

    def ran_out_of_memory(self) -> bool:
        """See ``types.GuestExit.out_of_memory``."""
        ...


class Tree(Protocol):
    """The processes that descend from one guest's main process. One file per system implements it."""

    record: GuestRecord

    @property
    def group(self) -> Whole | None:
        """Where the system has it."""
        ...

    @property
    def metered(self) -> str | None:
        """See ``types.Guest.cgroup``."""
        ...

    def walk(self, still: Collection[int] = ()) -> Walk:
        """Look for all processes, and collect ended orphans that the system has handed to this program. ``still`` are known to be
        halted, and not looked at for that."""
        ...

    def usage(self) -> GuestUsage: ...

    @property
    def orphans_cpu_s(self) -> float:
        """CPU time of the orphans collected so far."""
        ...

    @property
    def orphans_max_rss(self) -> int:
        """Peak resident memory of the largest orphan collected so far, in the unit of ru_maxrss."""
        ...

    def close(self) -> None:
        """The guest is over: forget it."""
        ...


class System(Protocol):
    """What an operating system's file gives to ``spawn``."""

    def environment(self, launch: Launch) -> tuple[dict[str, str], str]:
        """The guest's environment, and the brand in it, if brands travel so on this system."""
        ...

    def branding(self, brand: str) -> AbstractContextManager[None]:
        """Around the start: marks the new process, where brands travel otherwise than by the environment."""
        ...

    def adopt(self, pid: int, launch: Launch, brand: str) -> Tree:
        """Called at once after the start: lowers the priority. Raises OSError when the process cannot be seen."""
        ...

    def watch_exit(self, pid: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back in the running loop when the process has ended, without collecting it. Returns what cancels."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process of this program that has begun, and this program's ends of its pipes."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None
    popen: "subprocess.Popen[bytes] | None" = None


class PosixGuest:
    """A guest on Linux or macOS. See ``types.Guest`` for what each call promises."""

    def __init__(self, started: Started, tree: Tree, system: System) -> None:
        self.pid: Final = started.pid
        self.record: Final = tree.record
        self.job: Final = None
        self.cgroup: Final = tree.metered
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._popen = started.popen
        self._tree = tree
        self._over = False
        self._signalled = False
        """Some of it was stopped by a signal, which ``thaw`` has to undo."""
        self._clearing = asyncio.Lock()
        self._cleared = False
        """The main process has ended and nothing else lived: so nothing can come any more."""
        self._exited = asyncio.Event()
        self._cancel_watch = system.watch_exit(self.pid, self._exited.set)
        self._end = asyncio.create_task(self._until_end(), name=f"guest {self.pid}")

    def begin_freeze(self) -> None:
        if not self._over and self._tree.group is not None:
            self._tree.group.begin_freeze()

    def freeze(self) -> None:
        if self._over:
            return
        group = self._tree.group
        frozen = group is not None and group.freeze(_GROUP_LIMIT_S)
        if not frozen:
            self._signalled = True
            signal_group(self.pid, signal.SIGSTOP)
        if not self._halt(FREEZE_LIMIT_S, group.pids() if group is not None and frozen else set()):
            raise FreezeFailed(pid=self.pid, waited_s=FREEZE_LIMIT_S)

    def thaw(self) -> None:
        if self._over:
            return
        group = self._tree.group
        if group is not None:
            group.thaw()
        if group is None or self._signalled:
            self._signalled = False
            signal_all(self._tree.walk().members, signal.SIGCONT)

    def notify_vacate(self) -> None:
        if not self._over:
            signal_group(self.pid, signal.SIGTERM)

    async def kill(self) -> None:
        if not self._over:
            await self._clear()
        await self.wait()

    async def wait(self) -> GuestExit:
        return await asyncio.shield(self._end)

    def usage(self) -> GuestUsage:
        if self._over:
            return GuestUsage(cpu_s=0.0, rss_bytes=0, processes=0)
        return self._tree.usage()

    def _halt(self, limit_s: float, still: Collection[int] = ()) -> bool:
        """Stop members until a complete walk finds nothing that runs; False when the tree outruns this. ``still`` are stopped already.

        Signals go to whole groups, because the kernel hands a group's signal also to a child that is
        being forked at that moment; a signal to one process would miss it.
        """
        deadline = monotonic() + limit_s
        while True:
            walk = self._tree.walk(still)
            running = [member for member in walk.members if not member.halted]
            if walk.complete and not running:
                return True
            if running:
                self._signalled = True
                signal_all(running, signal.SIGSTOP)
            if monotonic() > deadline:
                return False

    async def _clear(self) -> None:
        """Kill every member and return when none is left. Raises KillFailed."""
        async with self._clearing:
            if not self._cleared:
                await self._kill_all()
                self._cleared = True

    async def _kill_all(self) -> None:
        began = monotonic()
        pause_s = _POLL_MIN_S
        first = True
        group = self._tree.group
        while True:
            walk = self._tree.walk()
            inside = set[int]() if group is None else group.pids()
            if walk.complete and not walk.members and not inside:
                return
            if group is not None and inside:
                group.kill()
                walk = self._tree.walk(inside)
            alone = first and len(walk.members) == 1
            if not alone and not all(member.halted for member in walk.members):
                # What forks is stopped first, so that one round of kills then finds all of it. (A single process
                # mostly has nothing to hide; if it just forked, the next round does as here.)
                self._halt(_HALT_TO_KILL_S)
                walk = self._tree.walk()
            first = False
            signal_all(walk.members, signal.SIGKILL)
            if monotonic() - began > KILL_LIMIT_S:
                raise KillFailed(pids=tuple(member.pid for member in walk.members), waited_s=KILL_LIMIT_S)
            await self._pause(pause_s if walk.members else 0)
            pause_s = min(pause_s * 2, _POLL_MAX_S)

    async def _pause(self, pause_s: float) -> None:
        """Until the main process has ended, or, once it has, for this time."""
        if self._exited.is_set() or not pause_s:
            await asyncio.sleep(pause_s)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause_s, _POLL_FOR_MAIN_S)):
                    await self._exited.wait()

    async def _until_end(self) -> GuestExit:
        try:
            await self._exited.wait()
            # The main process stays a zombie until the rest is gone: so its pid, which names its group
            # and session, cannot pass to a stranger meanwhile.
            await self._clear()
            return self._collect()
        finally:
            self._cancel_watch()

    def _collect(self) -> GuestExit:
        self._over = True
        usage: resource.struct_rusage | None
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            code, usage = None, None
        else:
            code = os.waitstatus_to_exitcode(status)
        if self._popen is not None:
            # It would else take it for a child that still runs, and collect whoever has the pid next.
            self._popen.returncode = 0 if code is None else code
        if self.stdin is not None:
            self.stdin.close()
        group = self._tree.group
        out_of_memory = group is not None and group.ran_out_of_memory()
        self._tree.close()
        keeper.KEEPER.drop(self.record)
        return GuestExit(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            cpu_s=None if usage is None else usage.ru_utime + usage.ru_stime + self._tree.orphans_cpu_s,
            max_rss_bytes=None
            if usage is None
            else max(usage.ru_maxrss, self._tree.orphans_max_rss) * _MAXRSS_UNIT_BYTES,
            out_of_memory=out_of_memory,
        )


async def spawn(launch: Launch, system: System) -> PosixGuest:
    """Start a program in a session of its own, with umask 077 and no open file but its three streams.

    Raises SpawnFailed.
    """
    env, brand = system.environment(launch)
    with system.branding(brand):
        process = _start(launch, env)
    if process.stdin is not None and launch.first_input:
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            process.stdin.write(launch.first_input)
    started = Started(
        pid=process.pid, stdin=process.stdin, stdout=process.stdout, stderr=process.stderr, popen=process
    )
    return await supervise(started, launch, brand, system)


async def supervise(started: Started, launch: Launch, brand: str, system: System) -> PosixGuest:
    """Make a guest of a process that has just begun in a session of its own. Raises SpawnFailed, and then it is dead."""
    try:
        tree = system.adopt(started.pid, launch, brand)
        keeper.KEEPER.add(tree.record)
        guest = PosixGuest(started, tree, system)
    except BaseException as error:
        signal_group(started.pid, signal.SIGKILL)
        _, status = os.waitpid(started.pid, 0)  # noqa: ASYNC222  # it has just been killed
        if started.popen is not None:
            started.popen.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (started.stdin, started.stdout, started.stderr):
            if pipe is not None:
                pipe.close()
        if isinstance(error, OSError):
            raise SpawnFailed(
                f"The started program cannot be supervised: {error.strerror or error}.",
                hint="See that /proc is mounted and that this user may have more open files and processes (ulimit -n, -u).",
                field=None,
            ) from error
        raise
    try:
        if started.stdin is not None:
            guest.stdin = await _writer(started.stdin)
        if started.stdout is not None:
            guest.stdout = await _reader(started.stdout)
        if started.stderr is not None:
            guest.stderr = await _reader(started.stderr)
    except BaseException:
        await asyncio.shield(guest.kill())
        raise
    return guest


def _start(launch: Launch, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    # No preexec_fn: without one CPython uses vfork, whose cost does not grow with the agent's memory, and
    # no Python code runs in the child between fork and exec.
    if not launch.argv:
        raise SpawnFailed("The command is empty.", hint="Give a program and its arguments.")
    streams = {"null": subprocess.DEVNULL, "pipe": subprocess.PIPE}
    program = launch.argv[0]
    try:
        return subprocess.Popen(
            launch.argv,
            bufsize=0,
            stdin=streams[launch.stdin],
            stdout=streams[launch.stdout],
            stderr=streams[launch.stderr],
            cwd=launch.cwd,
            env=env,
            close_fds=True,
            pass_fds=launch.descriptors,
            start_new_session=True,
            umask=0o077,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        if not launch.cwd.is_dir():
            raise SpawnFailed(
                f"The working directory {launch.cwd} does not exist.",
                hint="Make it first.",
                field="workspace",
            ) from error
        if "/" in program and (launch.cwd / program).exists():
            raise SpawnFailed(
                f"{program} names an interpreter in its first line that this machine does not have.",
                hint="Correct the line that begins with '#!', or name the interpreter in the command.",
            ) from error
        raise SpawnFailed(
            f"There is no program {program!r} on this machine.",
            hint="Install it, or give its full path; the search follows PATH in the task's environment.",
            missing_program=program,
        ) from error
    except PermissionError as error:
        raise SpawnFailed(
            f"{program} may not be run: {error.strerror}.",
            hint="Make it executable (chmod +x), or name its interpreter in the command.",
        ) from error
    except (OSError, ValueError) as error:
        raise SpawnFailed(
            f"{program} could not be started: {getattr(error, 'strerror', None) or error}.",
            hint="See that it is a program of this system's format, and that its arguments and environment are not too long.",
        ) from error


async def _reader(pipe: IO[bytes]) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_STREAM_LIMIT_BYTES, loop=loop)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe)
    return reader


async def _writer(pipe: IO[bytes]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    # A protocol for readers, because it is the public one whose writer can be awaited closed.
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What still lives of guests whose agent has ended."""

    members: list[Member]
    shared: set[int]
    """Groups that hold other processes too. That can be where the agent died in the very moment of a start."""
    killed: frozenset[int] = frozenset()
    """Those that the search has killed already, as the kernel keeps them together."""


def kill_leftovers(find: Callable[[], Leftovers]) -> int:
    """Kill until nothing is found; returns how many processes that were. Raises KillFailed."""
    killed: set[int] = set()
    deadline = monotonic() + LEFTOVER_LIMIT_S
    empty_looks = 0
    # Nobody tells this program of their ends, so a look can miss what moves on; several in a row hardly can.
    while empty_looks < _LEFTOVER_LOOKS:
        found = find()
        killed.update(found.killed)
        if not found.members:
            empty_looks += 1 if killed else _LEFTOVER_LOOKS
            continue
        empty_looks = 0
        killed.update(member.pid for member in found.members)
        if monotonic() > deadline:
            raise KillFailed(pids=tuple(member.pid for member in found.members), waited_s=LEFTOVER_LIMIT_S)
        # What forks is stopped first, so that one round of kills then finds all of it.
        running = [member for member in found.members if not member.halted]
        number = signal.SIGSTOP if running else signal.SIGKILL
        chosen = running or found.members
        signal_all((member for member in chosen if member.group not in found.shared), number)
        for member in chosen:
            if member.group in found.shared:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(member.pid, number)
        sleep(_LEFTOVER_POLL_S)
    return len(killed)


def signal_all(members: Iterable[Member], number: signal.Signals) -> None:
    """Signal the members' groups. A group lies within one session, and a guest's sessions are its own:
    so nobody else is hit. A member that meanwhile moved to a new group is found by the next walk."""
    for group in {member.group for member in members}:
        signal_group(group, number)


def signal_group(group: int, number: signal.Signals) -> None:
    # PermissionError: all that is left in the group are programs that changed their user (setuid).
    if group > 1 and group != os.getpgrp():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
