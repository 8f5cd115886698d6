"""A guest in bubblewrap, as it is seen from outside: bwrap's reports, its monitor, and the processes within."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

from idle_accelerator.agent.host import procfs
from idle_accelerator.agent.sandbox.around import Around, as_told, without
from idle_accelerator.agent.sandbox.types import (
    Guest,
    GuestExit,
    GuestNetwork,
    GuestUsage,
    SpawnFailed,
)

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

PROGRAM: Final = "bwrap"
ARGUMENTS: Final = "--args"
WRAPPERS: Final = 2
"""Processes of bwrap's own."""
_LOOK_EVERY_S: Final = 0.001
_BEGIN_LIMIT_S: Final = 10.0
_NOTICE_RETRY_S: Final = 0.005
_REPORT_BYTES: Final = 4096


class Reports:
    """What bwrap tells of a sandbox, one JSON object in a line; they come in pieces."""

    def __init__(self, descriptor: int) -> None:
        """Closes it at the end."""
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._said = b""
        self._init: int | None = None

    def init(self) -> int | None:
        """The pid of the first process of the new pid namespace, which is reported as soon as it is made."""
        if self._init is None:
            self._init = next((told["child-pid"] for told in self._hear() if "child-pid" in told), None)
        return self._init

    def program_ended(self) -> bool:
        """An exit code is told only of a program that was started."""
        return any("exit-code" in told for told in self._hear())

    def call_when_more(self, callback: Callable[[], None]) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, callback)

    def call_no_more(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def close(self) -> None:
        self._hear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _hear(self) -> list[dict[str, int]]:
        with contextlib.suppress(BlockingIOError):
            while self._descriptor is not None and (piece := os.read(self._descriptor, _REPORT_BYTES)):
                self._said += piece
        return [json.loads(line) for line in self._said.split(b"\n")[:-1]]


class Inside(Around):
    """A guest whose main process, as ``host`` sees it, is bwrap's monitor."""

    def __init__(self, outer: Guest, reports: Reports, network: GuestNetwork | None) -> None:
        super().__init__(outer)
        self._network = network
        self._reports = reports
        self._init: procfs.Process | None = None
        self._woken = asyncio.Event()
        self._ending = asyncio.ensure_future(outer.wait())
        self._ending.add_done_callback(lambda _: self._close())
        self._retry: asyncio.TimerHandle | None = None

    async def begin(self, gate: int, limits: Mapping[int, tuple[int, int]]) -> None:
        """Let the program start, and return when it has taken bwrap's place, or has ended.

        The limits are set on the namespace's init, from which the program comes: set outside, they would bind what
        makes the sandbox, and count what is the owner's. By then the guest is in its control group, too.
        Raises SpawnFailed when bwrap could not make the sandbox, and then nothing of it lives.
        """
        deadline_s = asyncio.get_running_loop().time() + _BEGIN_LIMIT_S
        self._reports.call_when_more(self._woken.set)
        try:
            await self._until(
                lambda: self._find_init() is not None, look_every_s=_BEGIN_LIMIT_S, deadline_s=deadline_s
            )
        finally:
            self._reports.call_no_more()
        if self._init is not None:
            for limit, values in limits.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(self._init.pid, limit, values)
            if self._network is not None:
                await self._network.attach(self._init.pid)
                deadline_s = asyncio.get_running_loop().time() + _BEGIN_LIMIT_S
            os.write(gate, b"\0")
            # Nobody tells of that: it is looked for.
            await self._until(self._has_begun, look_every_s=_LOOK_EVERY_S, deadline_s=deadline_s)
        if self._ending.done() and not self._reports.program_ended():
            ended = await self._ending
            said = b"" if self.stderr is None else await self.stderr.read()
            if ended.signal is not None and not said:
                return  # somebody has killed it in this moment; there is nothing wrong with the sandbox
            detail = said.decode(errors="replace").strip().removeprefix(f"{PROGRAM}: ")
            raise SpawnFailed(
                f"The sandbox could not be made: {detail or f'{PROGRAM} said nothing'}.",
                hint="Ask the machine itself what it allows: idlectl doctor",
                field=None,
            )

    async def _until(self, truth: Callable[[], bool], *, look_every_s: float, deadline_s: float) -> None:
        """Or until the end. Raises SpawnFailed when it takes too long."""
        loop = asyncio.get_running_loop()
        while not self._ending.done() and not truth():
            self._woken.clear()
            timer = loop.call_later(look_every_s, self._woken.set)
            await self._woken.wait()
            timer.cancel()
            if loop.time() > deadline_s:
                raise SpawnFailed(
                    f"{PROGRAM} did not make its sandbox within {_BEGIN_LIMIT_S:.0f} s.",
                    hint="See whether the machine is overloaded, and try it by hand: bwrap --ro-bind / / true",
                    field=None,
                )

    def freeze(self) -> None:
        self._outer.freeze()
        if self._network is not None:
            self._network.hold()

    def thaw(self) -> None:
        self._outer.thaw()
        if self._network is not None:
            self._network.go()

    def notify_vacate(self) -> None:
        """SIGTERM to the program's group inside. The monitor, which would die of it, is spared; the init, which has no
        handler, does not hear it: that is how the kernel treats the first process of a pid namespace."""
        if self._ending.done():
            return
        init = self._find_init()
        if init is not None and _is_still(init) and _program_of(init.pid) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(init.pid, signal.SIGTERM)
            return
        # It is being made at this moment: the group is not there yet.
        self._retry = asyncio.get_running_loop().call_later(_NOTICE_RETRY_S, self.notify_vacate)

    async def kill(self) -> None:
        await self._outer.kill()

    async def wait(self) -> GuestExit:
        return as_told(await self._outer.wait())

    def usage(self) -> GuestUsage:
        """bwrap's own two processes are no part of it, but for the memory that they take."""
        return without(self._outer.usage(), WRAPPERS)

    def _has_begun(self) -> bool:
        init = self._find_init()
        program = None if init is None else _program_of(init.pid)
        if program is None:
            return False
        try:
            words = _read(f"/proc/{program}/cmdline").split(b"\0")
        except OSError:  # it has ended, and so has begun
            return True
        return words[1:2] != [ARGUMENTS.encode()]

    def _find_init(self) -> procfs.Process | None:
        if self._init is None:
            pid = self._reports.init()
            self._init = None if pid is None else procfs.read(pid)
        return self._init

    def _close(self) -> None:
        self._woken.set()
        self._reports.close()
        if self._network is not None:
            self._network.close()
        if self._retry is not None:
            self._retry.cancel()


def _is_still(process: procfs.Process) -> bool:
    now = procfs.read(process.pid)
    return now is not None and now.started == process.started


def _read(path: str) -> bytes:
    """The beginning of a file that is looked at each millisecond. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _REPORT_BYTES)
    finally:
        os.close(descriptor)


def _program_of(init: int) -> int | None:
    """The first child of the namespace's init; None before there is one."""
    try:
        pids = _read(f"/proc/{init}/task/{init}/children").split()
        return int(pids[0]) if pids else None
    except ProcessLookupError:
        return None
    except OSError:  # a kernel without that file
        return next((child.pid for child in procfs.scan().get(init, ())), None)
