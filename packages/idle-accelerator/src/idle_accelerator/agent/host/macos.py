"""macOS: finding every process of a guest by libproc.

macOS has no subreaper: an orphan becomes launchd's child. What a walk finds is therefore remembered, each walk
finds (1) the main process and what is remembered, (2) what descends from them, (3) what is in their sessions, and (4) children of
launchd whose environment carries the guest's brand. A process escapes which leaves its session, loses its parent and wipes its
environment within one second, between two looks; so does one that hands its work to a service of the machine.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import select
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import psutil

from idle_accelerator.agent.host import posix
from idle_accelerator.agent.host.types import Guest, GuestRecord, GuestUsage, Launch, Mechanism, Verified

if sys.platform != "darwin":
    raise ImportError("This file is for macOS.")

VERIFIED: Final[Verified] = "signature-only"

_BRAND_VARIABLE: Final = "IDLE_GUEST_BRAND"
_LOWEST_NICE: Final = 19
_PRIO_DARWIN_PROCESS: Final = 4
_PRIO_DARWIN_BG: Final = 0x1000
"""setpriority(2): the background band, with throttled disk access."""
_PROC_PIDTBSDINFO: Final = 3
_WITH_ENDED: Final = 1
_BSDINFO: Final = struct.Struct("=12I16s32s5Ii2Q")
"""struct proc_bsdinfo of <sys/proc_info.h>."""
_IN_EXIT: Final = 0x4
_STOPPED: Final = 4
_ZOMBIE: Final = 5
_CTL_KERN: Final = 1
_KERN_PROCARGS2: Final = 49
_LAUNCHD: Final = 1
_UPKEEP_EVERY_S: Final = 1.0


async def spawn(launch: Launch) -> Guest:
    """Start a program as a guest; it runs on return. Raises SpawnFailed."""
    return await posix.spawn(launch, System())


def found_mechanisms() -> tuple[Mechanism, ...]:
    """See ``host.mechanisms``."""
    return (
        Mechanism(purpose="freeze", how="SIGSTOP to each process"),
        Mechanism(purpose="kill", how="SIGKILL to each process"),
        Mechanism(purpose="cpu", how="nice 20 and the background band"),
        Mechanism(
            purpose="share", how="", lacking="macOS gives no quota of processors to a group of processes."
        ),
        Mechanism(purpose="disk", how="throttled by the background band"),
        Mechanism(purpose="memory", how="", lacking="macOS limits the memory of single processes only."),
        Mechanism(
            purpose="processes",
            how="",
            lacking="macOS counts the processes of a user, the owner's among them.",
        ),
    )


def kill_leftovers(records: Iterable[GuestRecord]) -> int:
    """Kill what still runs of the recorded guests of an agent that has ended; returns how many processes
    that were. Raises KillFailed when some do not die within 10 s."""
    families = [_Family(record) for record in records]

    def find() -> posix.Leftovers:
        processes = _processes()
        found = {process.pid: process for family in families for process in family.find(processes)}
        others = {process.group for process in processes if process.pid not in found and not process.ended}
        return posix.Leftovers(members=[process.as_member() for process in found.values()], shared=others)

    return posix.kill_leftovers(find) if families else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    pid: int
    parent: int
    group: int
    session: int
    user: int
    started: str
    """Seconds and microseconds of the calendar: equal for no two processes that share a pid."""
    ended: bool
    halted: bool

    def as_member(self) -> posix.Member:
        return posix.Member(pid=self.pid, group=self.group, halted=self.halted)


class _Family:
    """One guest's processes, remembered from walk to walk."""

    def __init__(self, record: GuestRecord) -> None:
        self._brand = record.brand
        self._known = {(record.pid, record.started)}
        self._strangers: set[tuple[int, str]] = set()
        """Children of launchd that were looked at and carry another brand or none."""

    def find(self, processes: list[_Process]) -> list[_Process]:
        """The live ones among all processes of the machine."""
        children: dict[int, list[_Process]] = defaultdict(list)
        by_session: dict[int, list[_Process]] = defaultdict(list)
        for process in processes:
            children[process.parent].append(process)
            by_session[process.session].append(process)
        queue = [process for process in processes if self._is_root(process)]
        found: dict[int, _Process] = {}
        while queue:
            process = queue.pop()
            if process.pid not in found and process.session != os.getsid(0):
                found[process.pid] = process
                queue += children[process.pid] + by_session[process.session]
        live = [process for process in found.values() if not process.ended]
        self._known |= {(process.pid, process.started) for process in live}
        return live

    def _is_root(self, process: _Process) -> bool:
        identity = (process.pid, process.started)
        if identity in self._known:
            return True
        if process.parent != _LAUNCHD or process.user != os.getuid() or identity in self._strangers:
            return False
        if self._brand and f"{_BRAND_VARIABLE}={self._brand}".encode() in _environment(process.pid):
            return True
        self._strangers.add(identity)
        return False


class System:
    """What ``posix.spawn`` asks of macOS."""

    def environment(self, launch: Launch) -> tuple[dict[str, str], str]:
        brand = secrets.token_hex(16)
        return {**launch.env, _BRAND_VARIABLE: brand}, brand

    @contextlib.contextmanager
    def branding(self, brand: str) -> Generator[None]:  # noqa: ARG002  # the environment carries it
        yield

    def adopt(self, pid: int, launch: Launch, brand: str) -> posix.Tree:
        process = _read(pid)
        if process is None:
            raise ProcessLookupError(pid)
        tree = _Tree(GuestRecord(pid=pid, started=process.started, brand=brand), nice=launch.nice)
        tree.upkeep()
        return tree

    def watch_exit(self, pid: int, callback: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        queue = select.kqueue()
        event = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
        )
        try:
            queue.control([event], 0)
        except ProcessLookupError:  # it has ended already
            queue.close()
            handle = loop.call_soon(callback)
            return handle.cancel

        def cancel() -> None:
            if not queue.closed:
                loop.remove_reader(queue.fileno())
                queue.close()

        def ended() -> None:
            cancel()
            callback()

        loop.add_reader(queue.fileno(), ended)
        return cancel


class _Tree:
    """The processes of one guest."""

    def __init__(self, record: GuestRecord, *, nice: bool) -> None:
        self.record: Final = record
        self.group: Final = None
        self.metered: Final = None
        self._family = _Family(record)
        self._nice = nice
        self._lowered: set[tuple[int, str]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def orphans_cpu_s(self) -> float:
        return 0.0

    @property
    def orphans_max_rss(self) -> int:
        return 0

    def walk(self, still: Collection[int] = ()) -> posix.Walk:  # noqa: ARG002  # there are no groups
        """Orphans are launchd's to collect: of their ends this program learns nothing."""
        return posix.Walk(
            members=[process.as_member() for process in self._family.find(_processes())], complete=True
        )

    def usage(self) -> GuestUsage:
        cpu_s, rss_bytes = 0.0, 0
        live = self._family.find(_processes())
        for process in live:
            with contextlib.suppress(psutil.Error):
                seen = psutil.Process(process.pid)
                times = seen.cpu_times()
                cpu_s += times.user + times.system
                rss_bytes += seen.memory_info().rss
        return GuestUsage(cpu_s=cpu_s, rss_bytes=rss_bytes, processes=len(live))

    def upkeep(self) -> None:
        """Remember what there is, and lower what is new. Repeats itself until ``close``."""
        for process in self._family.find(_processes()):
            identity = (process.pid, process.started)
            if self._nice and identity not in self._lowered:
                self._lowered.add(identity)
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_NICE)
                with contextlib.suppress(OSError):
                    os.setpriority(_PRIO_DARWIN_PROCESS, process.pid, _PRIO_DARWIN_BG)
        self._timer = asyncio.get_running_loop().call_later(_UPKEEP_EVERY_S, self.upkeep)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _processes() -> list[_Process]:
    """All processes of the machine that this user may see."""
    room = _libc().proc_listallpids(None, 0) + 64
    pids = (ctypes.c_int * room)()
    count = _libc().proc_listallpids(pids, ctypes.sizeof(pids))
    return [process for pid in pids[: max(count, 0)] if (process := _read(pid)) is not None]


def _read(pid: int) -> _Process | None:
    raw = ctypes.create_string_buffer(_BSDINFO.size)
    size = _libc().proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(_WITH_ENDED), raw, len(raw))
    if size != len(raw):
        return None
    try:
        session = os.getsid(pid)
    except OSError:  # it has ended
        session = -pid
    values = _BSDINFO.unpack(raw.raw)
    flags, status, parent, user = values[0], values[1], values[4], values[5]
    group, seconds, microseconds = values[15], values[20], values[21]
    return _Process(
        pid=pid,
        parent=parent,
        group=group,
        session=session,
        user=user,
        started=f"{seconds}.{microseconds:06}",
        ended=status == _ZOMBIE,
        halted=status == _STOPPED or bool(flags & _IN_EXIT),
    )


def _environment(pid: int) -> bytes:
    """The process's arguments and environment, as one block. Empty where the system does not show it."""
    name = (ctypes.c_int * 3)(_CTL_KERN, _KERN_PROCARGS2, pid)
    raw = ctypes.create_string_buffer(os.sysconf("SC_ARG_MAX"))
    size = ctypes.c_size_t(len(raw))
    if _libc().sysctl(name, 3, raw, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return b""
    return raw.raw[: size.value]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("/usr/lib/libSystem.B.dylib", use_errno=True)
