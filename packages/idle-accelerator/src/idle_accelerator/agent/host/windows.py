"""Windows: a job object for each guest. What a process in a job starts is in the job, and cannot leave it.

A guest starts suspended, enters its job, and only then runs. The kernel kills all processes of a job when its last handle
closes, that is, also when the agent crashes; so no keeper is needed. There is no documented freeze of a job: each of
its processes is suspended (NtSuspendProcess), until a look at the job finds no other.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from ctypes import c_uint32
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

import psutil

from idle_accelerator.agent.host import jobobject
from idle_accelerator.agent.host.types import (
    FreezeFailed,
    Guest,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Launch,
    Mechanism,
    SpawnFailed,
    Verified,
)

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

VERIFIED: Final[Verified] = "signature-only"

FREEZE_LIMIT_S: Final = 1.0
KILL_LIMIT_S: Final = 30.0
LEFTOVER_LIMIT_S: Final = 10.0
_POLL_S: Final = 0.005
_STREAM_LIMIT_BYTES: Final = 256 * 1024
_CREATE_SUSPENDED: Final = 0x4
_PROCESS_ALL_ACCESS: Final = 0x1FFFFF
_SUSPEND_RESUME: Final = 0x800
_SYNCHRONIZE: Final = 0x100000
_INFINITE: Final = 0xFFFFFFFF
_IO_PRIORITY: Final = 33


class WindowsGuest:
    """A guest on Windows. See ``types.Guest`` for what each call promises."""

    def __init__(self, process: "Process", handle: int, job: jobobject.Job, record: GuestRecord) -> None:
        self.pid: Final = process.pid
        self.record: Final = record
        self.job: Final = record.brand
        self.cgroup: Final = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._process = process
        self._handle = handle
        self._job = job
        self._suspended: dict[int, int] = {}
        """Handles of the processes that were suspended, by pid. An open handle keeps the pid from being used again."""
        self._over = False
        self._killed = False
        self._exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        _watch(handle, loop, self._exited)
        self._end = loop.create_task(self._until_end(), name=f"guest {self.pid}")

    def begin_freeze(self) -> None:
        """Nothing: processes of a job object are suspended one by one."""

    def freeze(self) -> None:
        if self._over:
            return
        deadline = monotonic() + FREEZE_LIMIT_S
        while new := [pid for pid in self._job.pids() if pid not in self._suspended]:
            for pid in new:
                handle = jobobject.kernel32().OpenProcess(_SUSPEND_RESUME | _SYNCHRONIZE, False, pid)
                if handle:  # else it has ended meanwhile
                    jobobject.ntdll().NtSuspendProcess(handle)
                    self._suspended[pid] = handle
            if monotonic() > deadline:
                raise FreezeFailed(pid=self.pid, waited_s=FREEZE_LIMIT_S)

    def thaw(self) -> None:
        for handle in self._suspended.values():
            jobobject.ntdll().NtResumeProcess(handle)
            jobobject.kernel32().CloseHandle(handle)
        self._suspended.clear()

    def notify_vacate(self) -> None:
        if not self._over:
            # Reaches it when both share a console; the file named by IDLE_VACATE_FILE reaches it always.
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.CTRL_BREAK_EVENT)

    async def kill(self) -> None:
        if not self._over:
            self._killed = True
            await self._clear()
        await self.wait()

    async def wait(self) -> GuestExit:
        return await asyncio.shield(self._end)

    def usage(self) -> GuestUsage:
        if self._over:
            return GuestUsage(cpu_s=0.0, rss_bytes=0, processes=0)
        rss_bytes = 0
        for pid in self._job.pids():
            with contextlib.suppress(psutil.Error):
                rss_bytes += psutil.Process(pid).memory_info().rss
        return GuestUsage(cpu_s=self._job.cpu_s, rss_bytes=rss_bytes, processes=self._job.live)

    async def _clear(self) -> None:
        """Kill everything in the job and return when it is empty. Raises KillFailed."""
        deadline = monotonic() + KILL_LIMIT_S
        while self._job.live:
            self._job.terminate()
            if monotonic() > deadline:
                raise KillFailed(pids=tuple(self._job.pids()), waited_s=KILL_LIMIT_S)
            await asyncio.sleep(_POLL_S)

    async def _until_end(self) -> GuestExit:
        await self._exited.wait()
        await self._clear()
        code = self._process.wait()
        self._over = True
        killed = self._killed and code & 0xFFFFFFFF == jobobject.KILLED_CODE
        ended = GuestExit(
            exit_code=None if killed else code,
            signal=9 if killed else None,
            cpu_s=self._job.cpu_s,
            max_rss_bytes=self._job.peak_bytes,
        )
        for handle in self._suspended.values():
            jobobject.kernel32().CloseHandle(handle)
        self._suspended.clear()
        if self.stdin is not None:
            self.stdin.close()
        jobobject.kernel32().CloseHandle(self._handle)
        self._job.close()
        return ended


class Process(Protocol):
    """A started program, as ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> Any: ...
    @property
    def stdout(self) -> Any: ...
    @property
    def stderr(self) -> Any: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


Start = Callable[[Launch, Path], Process]
"""Starts a program suspended, with pipes that the event loop can wait for. Raises OSError, ValueError."""


async def spawn(launch: Launch, *, start: Start | None = None, locked: bool = False) -> Guest:
    """Start a program as a guest; it runs on return. ``locked`` keeps it from the desktop. Raises SpawnFailed."""
    program = _find_program(launch)
    brand = f"idle-guest-{secrets.token_hex(16)}"
    job = None
    try:
        job = jobobject.Job.create(
            brand,
            nice=launch.nice,
            memory_bytes=launch.memory_bytes,
            processes=launch.processes,
            locked=locked,
        )
        process = (start or _start)(launch, program)
    except (OSError, ValueError) as error:
        if job is not None:
            job.close()
        raise SpawnFailed(
            f"{launch.argv[0]} could not be started: {getattr(error, 'strerror', None) or error}.",
            hint="See that it is a program for this system, and that its arguments and environment are not too long.",
        ) from error
    try:
        handle = jobobject.checked(jobobject.kernel32().OpenProcess(_PROCESS_ALL_ACCESS, False, process.pid))
        job.take(handle)
        record = GuestRecord(
            pid=process.pid, started=str(psutil.Process(process.pid).create_time()), brand=brand
        )
        guest = WindowsGuest(process, handle, job, record)
    except (OSError, psutil.Error) as error:
        process.kill()
        job.close()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise SpawnFailed(
            f"The started program cannot be supervised: {error}.",
            hint="See that the agent itself may use job objects on this machine.",
            field=None,
        ) from error
    try:
        if process.stdin is not None:
            guest.stdin = await _writer(process.stdin)
            guest.stdin.write(launch.first_input)
        if process.stdout is not None:
            guest.stdout = await _reader(process.stdout)
        if process.stderr is not None:
            guest.stderr = await _reader(process.stderr)
        if launch.nice:
            lowest = c_uint32(0)
            jobobject.ntdll().NtSetInformationProcess(
                handle, _IO_PRIORITY, ctypes.byref(lowest), ctypes.sizeof(lowest)
            )
            jobobject.spare_power(handle)
        jobobject.ntdll().NtResumeProcess(handle)
    except BaseException:
        await asyncio.shield(guest.kill())
        raise
    return guest


def found_mechanisms() -> tuple[Mechanism, ...]:
    """See ``host.mechanisms``."""
    return (
        Mechanism(purpose="freeze", how="NtSuspendProcess for each process of the job object"),
        Mechanism(purpose="kill", how="TerminateJobObject"),
        Mechanism(purpose="cpu", how="IDLE_PRIORITY_CLASS and EcoQoS"),
        Mechanism(
            purpose="share", how="", lacking="Guests have job objects of their own, and none that holds all."
        ),
        Mechanism(purpose="disk", how="IoPriorityVeryLow"),
        Mechanism(purpose="memory", how="JobMemoryLimit of the job object"),
        Mechanism(purpose="processes", how="ActiveProcessLimit of the job object"),
    )


def kill_leftovers(records: Iterable[GuestRecord]) -> int:
    """Kill what still runs of the recorded guests of an agent that has ended; returns how many processes
    that were: more than none only where something else kept a handle of their job. Raises KillFailed."""
    killed = 0
    for record in records:
        job = jobobject.Job.find(record.brand) if record.brand else None
        if job is None:
            continue
        try:
            killed += len(job.pids())
            job.terminate()
            deadline = monotonic() + LEFTOVER_LIMIT_S
            while job.live:
                if monotonic() > deadline:
                    raise KillFailed(pids=tuple(job.pids()), waited_s=LEFTOVER_LIMIT_S)
                threading.Event().wait(_POLL_S)
        finally:
            job.close()
    return killed


def _find_program(launch: Launch) -> Path:
    """CreateProcess would look in the agent's folder and PATH, not in the guest's."""
    if not launch.argv:
        raise SpawnFailed("The command is empty.", hint="Give a program and its arguments.")
    if not launch.cwd.is_dir():
        raise SpawnFailed(
            f"The working directory {launch.cwd} does not exist.", hint="Make it first.", field="workspace"
        )
    program = launch.argv[0]
    if "/" in program or "\\" in program:
        found = shutil.which(str(launch.cwd / program))
    else:
        path = next((value for name, value in launch.env.items() if name.upper() == "PATH"), "")
        found = shutil.which(program, path=path)
    if found is None:
        raise SpawnFailed(
            f"There is no program {program!r} on this machine.",
            hint="Install it, or give its full path; the search follows PATH in the task's environment.",
            missing_program=program,
        )
    return Path(found)


def _start(launch: Launch, program: Path) -> "subprocess.Popen[bytes]":
    """A process that does not run yet, with pipes that the event loop can wait for."""
    from asyncio import windows_utils  # noqa: PLC0415  # cannot be imported elsewhere

    streams = {"null": subprocess.DEVNULL, "pipe": subprocess.PIPE}
    flags = _CREATE_SUSPENDED | subprocess.CREATE_NEW_PROCESS_GROUP
    if not jobobject.kernel32().GetConsoleWindow():
        # Without the agent's console a program would open a window of its own.
        flags |= subprocess.CREATE_NO_WINDOW
    return windows_utils.Popen(
        [str(program), *launch.argv[1:]],
        stdin=streams[launch.stdin],
        stdout=streams[launch.stdout],
        stderr=streams[launch.stderr],
        cwd=launch.cwd,
        env=dict(launch.env),
        creationflags=flags,
    )


def _watch(handle: int, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Set the event when the process has ended. The guest keeps the handle open for as long."""

    def wait() -> None:
        jobobject.kernel32().WaitForSingleObject(handle, _INFINITE)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, name="exit of a guest", daemon=True).start()


async def _reader(pipe: object) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_STREAM_LIMIT_BYTES, loop=loop)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe)
    return reader


async def _writer(pipe: object) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
