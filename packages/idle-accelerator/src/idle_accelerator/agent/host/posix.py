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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import IO, Final, Protocol, cast

from idle_accelerator.agent.host.keeper import KEEPER
from idle_accelerator.agent.host.types import (
    FreezeFailed,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Launch,
    SpawnFailed,
)

FREEZE_LIMIT_S: Final = 1.0
KILL_LIMIT_S: Final = 30.0
_STREAM_LIMIT_BYTES: Final = 256 * 1024
_POLL_MIN_S: Final = 0.000_5
_POLL_MAX_S: Final = 0.05
_MAXRSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of a guest's tree that has not ended."""

    pid: int
    group: int
    halted: bool
    """It executes no further instruction by itself: stopped, dying, or with a stop or kill pending, which
    precedes its next instruction."""


class Tree(Protocol):
    """The processes that descend from one guest's main process. One file per system implements it."""

    record: GuestRecord

    def members(self) -> list[Member]:
        """Those that have not ended; the main process among them until it has."""
        ...

    def reap(self) -> None:
        """Collect ended orphans that this program has inherited, if the system hands them over."""
        ...

    def usage(self) -> GuestUsage: ...

    @property
    def orphans_cpu_s(self) -> float:
        """CPU time of the orphans collected so far."""
        ...

    def close(self) -> None:
        """The guest is over: forget it."""
        ...


class System(Protocol):
    """What an operating system's file gives to ``spawn``."""

    def environment(self, launch: Launch) -> tuple[dict[str, str], str]:
        """The guest's environment, and the brand in it, if brands travel so on this system."""
        ...

    def adopt(self, pid: int, launch: Launch, brand: str) -> Tree:
        """Called at once after the start: lowers the priority, marks the process."""
        ...

    def watch_exit(self, pid: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back in the running loop when the process has ended, without collecting it. Returns what cancels."""
        ...


class PosixGuest:
    """A guest on Linux or macOS. See ``types.Guest`` for what each call promises."""

    def __init__(self, process: "subprocess.Popen[bytes]", tree: Tree, system: System) -> None:
        self.pid: Final = process.pid
        self.record: Final = tree.record
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._process = process
        self._tree = tree
        self._over = False
        self._exited = asyncio.Event()
        self._cancel_watch = system.watch_exit(process.pid, self._exited.set)
        self._end = asyncio.create_task(self._until_end(), name=f"guest {process.pid}")

    def freeze(self) -> None:
        if not self._over:
            signal_group(self.pid, signal.SIGSTOP)
            if not self._halt():
                raise FreezeFailed(pid=self.pid, waited_s=FREEZE_LIMIT_S)

    def thaw(self) -> None:
        if not self._over:
            members = self._tree.members()
            signal_all(members, signal.SIGCONT)

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

    def _halt(self) -> bool:
        """Stop members until a whole walk finds nothing that runs; False when the tree outruns this.

        Signals go to whole groups, because the kernel hands a group's signal also to a child that is
        being forked at that moment; a signal to one process would miss it.
        """
        deadline = monotonic() + FREEZE_LIMIT_S
        while running := [member for member in self._tree.members() if not member.halted]:
            signal_all(running, signal.SIGSTOP)
            if monotonic() > deadline:
                return False
        return True

    async def _clear(self) -> None:
        """Kill every member and return when none is left. Raises KillFailed."""
        began = monotonic()
        pause_s = _POLL_MIN_S
        while members := self._tree.members():
            if not all(member.halted for member in members):
                # What forks is stopped first, so that one round of kills then finds all of it.
                self._halt()
                members = self._tree.members()
            signal_all(members, signal.SIGKILL)
            if monotonic() - began > KILL_LIMIT_S:
                raise KillFailed(pids=tuple(member.pid for member in members), waited_s=KILL_LIMIT_S)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _POLL_MAX_S)

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
        self._tree.reap()
        self._over = True
        usage: resource.struct_rusage | None
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            code, usage = None, None
        else:
            code = os.waitstatus_to_exitcode(status)
        # Popen would else take it for a child that still runs, and collect whoever has the pid next.
        self._process.returncode = 0 if code is None else code
        self._tree.close()
        KEEPER.drop(self.record)
        return GuestExit(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            cpu_s=None if usage is None else usage.ru_utime + usage.ru_stime + self._tree.orphans_cpu_s,
            max_rss_bytes=None if usage is None else usage.ru_maxrss * _MAXRSS_UNIT_BYTES,
        )


async def spawn(launch: Launch, system: System) -> PosixGuest:
    """Start a program in a session of its own, with umask 077 and no open file but its three streams.

    Raises SpawnFailed.
    """
    env, brand = system.environment(launch)
    process = _start(launch, env)
    tree = system.adopt(process.pid, launch, brand)
    KEEPER.add(tree.record)
    guest = PosixGuest(process, tree, system)
    try:
        if process.stdin is not None:
            guest.stdin = await _writer(process.stdin)
        if process.stdout is not None:
            guest.stdout = await _reader(process.stdout)
        if process.stderr is not None:
            guest.stderr = await _reader(process.stderr)
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
            start_new_session=True,
            umask=0o077,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        if not launch.cwd.is_dir():
            raise SpawnFailed(
                f"The working directory {launch.cwd} does not exist.", hint="Make it first.", field="workspace"
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
    return asyncio.StreamWriter(cast("asyncio.WriteTransport", transport), protocol, None, loop)


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
