"""Linux's /proc: one scan of all processes, and the brand that a guest's processes carry.

/proc/PID/task/TID/children would name descendants directly, but skips some when their siblings end meanwhile
(proc(5)), and not every kernel has it. A scan reads one line for each process of the machine: 2.5 µs each.
"""

import contextlib
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PF_EXITING: Final = 0x4
_STAT_BYTES: Final = 1024
_STOPPED: Final = (b"T", b"t")
_ENDED: Final = (b"Z", b"X")
_HALTING: Final = 1 << 8 | 1 << 18
"""SIGKILL and SIGSTOP in the masks of /proc/PID/status."""


class Process:
    """One line of /proc/PID/stat, as it was when it was read (proc(5) numbers the fields from 3 here)."""

    __slots__ = ("_fields", "parent", "pid")

    def __init__(self, pid: int, line: bytes) -> None:
        self.pid: Final = pid
        # The name in brackets may hold spaces and brackets itself.
        self._fields: Final = line[line.rindex(b")") + 2 :].split()
        self.parent: Final = int(self._fields[1])

    @property
    def group(self) -> int:
        return int(self._fields[2])

    @property
    def session(self) -> int:
        return int(self._fields[3])

    @property
    def nice(self) -> int:
        return int(self._fields[16])

    @property
    def started(self) -> str:
        """The boot and the tick of it in which the process began: equal for no two processes that share a pid."""
        return f"{boot_id()}:{int(self._fields[19])}"

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more; it waits to be collected. (A main thread that ended before its
        fellow threads looks like a zombie too, and is none.)"""
        return self._fields[0] in _ENDED and int(self._fields[17]) <= 1

    @property
    def halted(self) -> bool:
        """See ``posix.Member.halted``."""
        state, threads = self._fields[0], int(self._fields[17])
        if state in _STOPPED:
            return True
        if state in _ENDED and threads > 1:
            return _threads_stopped(self.pid)
        return bool(int(self._fields[6]) & _PF_EXITING and threads <= 1) or _halt_pending(self.pid)

    @property
    def cpu_s(self) -> float:
        """Its own time and that of children that it has waited for."""
        return sum(map(int, self._fields[11:15])) / _TICKS_PER_S

    @property
    def rss_bytes(self) -> int:
        return int(self._fields[21]) * _PAGE_BYTES


def read(pid: int) -> Process | None:
    """The process as it is now; None when there is none. Raises OSError when that cannot be told (too many open files)."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return Process(pid, os.read(descriptor, _STAT_BYTES))
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)


def scan() -> Mapping[int, list[Process]]:
    """All processes, also ended ones that nobody has collected, by their parents' pids."""
    children: dict[int, list[Process]] = defaultdict(list)
    for name in os.listdir("/proc"):  # noqa: PTH208  # 20 µs instead of 300
        if name.isdecimal() and (process := read(int(name))) is not None:
            children[process.parent].append(process)
    return children


def descend(children: Mapping[int, list[Process]], roots: Iterable[Process]) -> list[Process]:
    """The roots and everything below them, each once."""
    found = {process.pid: process for process in roots}
    queue = list(found.values())
    while queue:
        for child in children.get(queue.pop().pid, ()):
            if child.pid not in found:
                found[child.pid] = child
                queue.append(child)
    return list(found.values())


def brand_of(pid: int) -> str:
    """The brand that a process carries: its soft limit RLIMIT_RTTIME. Empty when it has ended or has none."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    except ProcessLookupError:
        return ""
    except PermissionError:  # it changed its user (setuid); this file is readable to all
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
            line = next(line for line in lines if line.startswith("Max realtime timeout"))
            value = line.split()[3]
            return value if value.isdecimal() else ""
        return ""
    return "" if soft == resource.RLIM_INFINITY else str(soft)


@cache
def boot_id() -> str:
    """Another one after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _threads_stopped(pid: int) -> bool:
    """For a process whose main thread has ended: its state is that of the others."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            stat = (thread / "stat").read_bytes()
            if stat[stat.rindex(b")") + 2 :].split()[0] not in _STOPPED + _ENDED:
                return False
    return True


def _halt_pending(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith((b"SigPnd:", b"ShdPnd:")) and int(line[7:], 16) & _HALTING:
                return True
    return False
