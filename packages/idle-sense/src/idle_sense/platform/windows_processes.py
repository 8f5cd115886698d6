"""Processes, processors and memory of Windows, without a scan of all processes but for the children of guests.

processthreadsapi.h, sysinfoapi.h, memoryapi.h; a process's parent by NtQueryInformationProcess (winternl.h).
What a process's children spent is lost to its parent when they end, unlike elsewhere: short-lived ones count as the owner's,
unless they are in a job object that was added (``windows_jobs``).
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from idle_sense.facts import MemoryUse
from idle_sense.platform.windows_structures import PROCESSENTRY32W, text
from idle_sense.probes.guests import ProcessInfo

TICKS_PER_S = 10_000_000
SCAN_EVERY_S = 5.0
"""Windows keeps no list of a process's children: one scan of all processes in this time serves all questions."""


class Program(NamedTuple):
    """One line of a scan."""

    pid: int
    parent: int
    name: str
    """Of its file, without folder: ``Teams.exe``."""


def busy_and_all_s(idle: int, kernel: int, user: int) -> tuple[float, float]:
    """Of GetSystemTimes' three FILETIMEs. Kernel time includes idle time."""
    all_s = (kernel + user) / TICKS_PER_S
    return max(0.0, all_s - idle / TICKS_PER_S), all_s


class Scans:
    """What the last scan of all processes saw; a new one when that is older than ``SCAN_EVERY_S``."""

    def __init__(self, scan: Callable[[], list[Program]], now: Callable[[], float] = time.monotonic) -> None:
        self._scan = scan
        self._now = now
        self._at_s: float | None = None
        self._programs: list[Program] = []
        self._children: dict[int, list[int]] = {}

    def programs(self) -> list[Program]:
        """Raises OSError."""
        if self._at_s is None or not 0 <= self._now() - self._at_s < SCAN_EVERY_S:
            self._programs = self._scan()
            self._at_s = self._now()
            self._children = {}
            for one in self._programs:
                self._children.setdefault(one.parent, []).append(one.pid)
        return self._programs

    def children(self, pid: int) -> list[int]:
        """Raises OSError."""
        self.programs()
        return self._children.get(pid, [])


def is_child(child: ProcessInfo | None, parent: ProcessInfo) -> bool:
    """Not one whose parent has ended and whose parent's number went to another: Windows leaves the old number in place."""
    return child is not None and child.started >= parent.started


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries
    from idle_sense.platform.windows_numbers import (
        PROCESS_QUERY_LIMITED_INFORMATION,
        SYNCHRONIZE,
        TH32CS_SNAPPROCESS,
        WAIT_TIMEOUT,
        LowMemoryResourceNotification,
    )
    from idle_sense.platform.windows_structures import MEMORYSTATUSEX, PROCESS_BASIC_INFORMATION

    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _TOLD_BASICS = 0
    """ProcessBasicInformation."""

    def process(pid: int) -> ProcessInfo | None:
        """None: it has ended, or may not be asked, as processes of other users. The dead whose handle somebody keeps are gone
        as well."""
        kernel = libraries.kernel32()
        handle = kernel.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE, False, pid)
        if not handle:
            return None
        try:
            if kernel.WaitForSingleObject(handle, 0) != WAIT_TIMEOUT:
                return None
            created, ended, in_kernel, in_user = (ctypes.c_uint64() for _ in range(4))
            if not kernel.GetProcessTimes(
                handle,
                ctypes.byref(created),
                ctypes.byref(ended),
                ctypes.byref(in_kernel),
                ctypes.byref(in_user),
            ):
                return None
            basics = PROCESS_BASIC_INFORMATION()
            status = libraries.ntdll().NtQueryInformationProcess(
                handle, _TOLD_BASICS, ctypes.byref(basics), ctypes.sizeof(basics), None
            )
        finally:
            kernel.CloseHandle(handle)
        return ProcessInfo(
            pid=pid,
            parent=0 if status < 0 else basics.InheritedFromUniqueProcessId,
            session=0,
            terminal=0,
            started=created.value / TICKS_PER_S,
            threads=1,
            cpu_s=(in_kernel.value + in_user.value) / TICKS_PER_S,
            inherited_s=0.0,
        )

    def scan() -> list[Program]:
        """Raises OSError."""
        kernel = libraries.kernel32()
        snapshot = kernel.CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0)
        if snapshot in (None, _INVALID_HANDLE):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            return list(_entries(snapshot))
        finally:
            kernel.CloseHandle(snapshot)

    def _entries(snapshot: int) -> Iterator[Program]:
        kernel = libraries.kernel32()
        entry = PROCESSENTRY32W(dwSize=ctypes.sizeof(PROCESSENTRY32W))
        more = kernel.Process32FirstW(snapshot, ctypes.byref(entry))
        while more:
            yield Program(entry.th32ProcessID, entry.th32ParentProcessID, text(entry.szExeFile))
            more = kernel.Process32NextW(snapshot, ctypes.byref(entry))

    def program_name(pid: int) -> str:
        """Of the file that runs, without folder; empty where it is not told."""
        kernel = libraries.kernel32()
        handle = kernel.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, False, pid)
        if not handle:
            return ""
        try:
            path = (ctypes.c_uint16 * 1024)()
            length = ctypes.c_uint32(len(path))
            told = kernel.QueryFullProcessImageNameW(handle, 0, path, ctypes.byref(length))
        finally:
            kernel.CloseHandle(handle)
        return text(path).rpartition("\\")[2] if told else ""

    def cpu_times_s() -> tuple[float, float]:
        """(busy, all) over all processors. Raises OSError."""
        idle, in_kernel, in_user = (ctypes.c_uint64() for _ in range(3))
        libraries.checked(
            libraries.kernel32().GetSystemTimes(
                ctypes.byref(idle), ctypes.byref(in_kernel), ctypes.byref(in_user)
            )
        )
        return busy_and_all_s(idle.value, in_kernel.value, in_user.value)

    class Memory:
        """What is free, and whether Windows calls it short (its own measure, by which drivers and caches shrink)."""

        def __init__(self) -> None:
            self._short = libraries.kernel32().CreateMemoryResourceNotification(LowMemoryResourceNotification)

        def use(self) -> MemoryUse:
            """Raises OSError."""
            kernel = libraries.kernel32()
            status = MEMORYSTATUSEX(dwLength=ctypes.sizeof(MEMORYSTATUSEX))
            libraries.checked(kernel.GlobalMemoryStatusEx(ctypes.byref(status)))
            short = ctypes.c_int32()
            told = self._short and kernel.QueryMemoryResourceNotification(self._short, ctypes.byref(short))
            return MemoryUse(
                total_bytes=status.ullTotalPhys,
                available_bytes=status.ullAvailPhys,
                short=bool(short.value) if told else None,
            )

    def children(scans: Scans, of: ProcessInfo) -> Iterable[int]:
        """Raises OSError."""
        return [pid for pid in scans.children(of.pid) if is_child(process(pid), of)]
