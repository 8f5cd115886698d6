"""Processes, processors and memory of macOS, as the kernel tells them without a scan of all processes.

libproc.h (proc_pidinfo, proc_pid_rusage, proc_listpids), mach/host_info.h (host_statistics), kern_memorystatus (sysctl).
"""

import ctypes
from collections.abc import Iterable

from idle_sense.facts import MemoryUse
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_structures import (
    HOST_CPU_LOAD_INFO,
    HOST_VM_INFO64,
    PROC_PIDT_SHORTBSDINFO,
    PROC_PIDTBSDINFO,
    PROC_PPID_ONLY,
    RUSAGE_INFO_V4,
    BsdInfo,
    BsdShortInfo,
    HostCpuLoadInfo,
    RusageInfoV4,
    TimebaseInfo,
    VmStatistics64,
)
from idle_sense.probes.guests import ProcessInfo

ALSO_ZOMBIES = 1
"""Argument of proc_pidinfo: the dead that nobody has waited for yet are told as well (xnu, proc_info.c)."""
TICK_S = 0.01
"""Of processor times of the whole machine."""
NO_TERMINAL = (0, 0xFFFFFFFF)
"""e_tdev of a process without controlling terminal: NODEV is -1."""
PRESSURE_WARNING = 2
"""kern.memorystatus_vm_pressure_level: 1 normal, 2 warning, 4 critical (dispatch/source.h, DISPATCH_MEMORYPRESSURE_*)."""


class MacProcesses:
    """Calls into the kernel alone; none of them waits for another process."""

    def __init__(self, frameworks: Frameworks) -> None:
        self._system = frameworks.system
        self._host: int | None = None
        self._tick_s: float | None = None
        self._total_bytes: int | None = None
        self._ticks: tuple[int, ...] | None = None
        self._sums: list[int] = [0, 0, 0, 0]

    def process(self, pid: int) -> ProcessInfo | None:
        """Of other users' processes only the parent is told, unless this program runs as root."""
        info = BsdInfo()
        size = ctypes.sizeof(info)
        if self._system.proc_pidinfo(pid, PROC_PIDTBSDINFO, ALSO_ZOMBIES, ctypes.byref(info), size) != size:
            return self._stranger(pid)
        usage = self.usage(pid)
        inherited_s = (
            0.0 if usage is None else self._seconds(usage.ri_child_user_time + usage.ri_child_system_time)
        )
        return ProcessInfo(
            pid=pid,
            parent=info.pbi_ppid,
            session=max(0, self._system.getsid(pid)),
            terminal=0 if info.e_tdev in NO_TERMINAL else info.e_tdev,
            started=info.pbi_start_tvsec + info.pbi_start_tvusec / 1e6,
            threads=1,
            cpu_s=0.0
            if usage is None
            else self._seconds(usage.ri_user_time + usage.ri_system_time) + inherited_s,
            inherited_s=inherited_s,
        )

    def usage(self, pid: int) -> RusageInfoV4 | None:
        """None: it has ended, or is another user's."""
        usage = RusageInfoV4()
        status = self._system.proc_pid_rusage(pid, RUSAGE_INFO_V4, ctypes.byref(usage))
        return usage if status == 0 else None

    def children(self, process: ProcessInfo) -> Iterable[int]:
        room = 256
        while True:
            pids = (ctypes.c_int32 * room)()
            size = self._system.proc_listpids(PROC_PPID_ONLY, process.pid, pids, ctypes.sizeof(pids))
            if size < ctypes.sizeof(pids) or room >= 1 << 16:
                return [pid for pid in pids[: max(0, size) // 4] if pid > 0]
            room *= 4

    def name(self, pid: int) -> str:
        """Of the program; empty where it is not told."""
        buffer = ctypes.create_string_buffer(65)
        length = self._system.proc_name(pid, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length > 0 else ""

    def cpu_times_s(self) -> tuple[float, float]:
        """(busy, all) since the first call. The kernel's counts have 32 bits, and begin again after a month on 16
        processors: differences are summed up. Raises OSError."""
        load = HostCpuLoadInfo()
        self._statistics("host_statistics", HOST_CPU_LOAD_INFO, load)
        ticks = tuple(load.cpu_ticks)
        if self._ticks is not None:
            passed = [(now - before) & 0xFFFFFFFF for now, before in zip(ticks, self._ticks, strict=True)]
            self._sums = [total + more for total, more in zip(self._sums, passed, strict=True)]
        self._ticks = ticks
        user, system, idle, nice = self._sums
        busy = user + system + nice
        return busy * TICK_S, (busy + idle) * TICK_S

    def memory(self) -> MemoryUse:
        """Used is what Activity Monitor calls so: anonymous pages that cannot be thrown away, wired and compressed ones.
        What is left, file caches among it, programs can get without swapping. Raises OSError."""
        pages = VmStatistics64()
        self._statistics("host_statistics64", HOST_VM_INFO64, pages)
        used = (
            max(0, pages.internal_page_count - pages.purgeable_count)
            + pages.wire_count
            + pages.compressor_page_count
        )
        known = (
            pages.free_count
            + pages.active_count
            + pages.inactive_count
            + pages.wire_count
            + pages.compressor_page_count
        )
        if self._total_bytes is None:
            self._total_bytes = self._number("hw.memsize", ctypes.c_uint64())
        total_bytes = self._total_bytes
        if total_bytes is None or known <= 0:
            raise OSError("macOS does not tell how much memory there is")
        # A share of all pages, so that their size does not matter: a translated program sees pages of 4 KiB, the kernel 16.
        available_bytes = int(total_bytes * max(0.0, 1.0 - used / known))
        level = self._number("kern.memorystatus_vm_pressure_level", ctypes.c_int32())
        return MemoryUse(
            total_bytes=total_bytes,
            available_bytes=available_bytes,
            short=None if level is None else level >= PRESSURE_WARNING,
        )

    def _stranger(self, pid: int) -> ProcessInfo | None:
        info = BsdShortInfo()
        size = ctypes.sizeof(info)
        arguments = (pid, PROC_PIDT_SHORTBSDINFO, ALSO_ZOMBIES, ctypes.byref(info), size)
        if self._system.proc_pidinfo(*arguments) != size:
            return None
        return ProcessInfo(
            pid=pid, parent=info.pbsi_ppid, session=0, terminal=0, started=0.0, threads=1, cpu_s=0.0
        )

    def _seconds(self, ticks: int) -> float:
        if self._tick_s is None:
            base = TimebaseInfo()
            self._system.mach_timebase_info(ctypes.byref(base))
            if not base.numer or not base.denom:
                raise OSError("macOS does not tell how long a tick is")
            self._tick_s = float(base.numer) / float(base.denom) / 1e9
        return ticks * self._tick_s

    def _statistics(self, function: str, flavor: int, into: ctypes.Structure) -> None:
        if self._host is None:
            # Each call hands out one more right to the port: one is kept.
            self._host = self._system.mach_host_self()
        count = ctypes.c_uint32(ctypes.sizeof(into) // 4)
        status = getattr(self._system, function)(self._host, flavor, ctypes.byref(into), ctypes.byref(count))
        if status != 0:
            raise OSError(f"{function} refuses to answer ({status})")

    def _number(self, name: str, into: ctypes.c_int32 | ctypes.c_uint64) -> int | None:
        size = ctypes.c_size_t(ctypes.sizeof(into))
        status = self._system.sysctlbyname(name.encode(), ctypes.byref(into), ctypes.byref(size), None, 0)
        return into.value if status == 0 else None
