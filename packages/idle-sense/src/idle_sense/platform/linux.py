"""Linux: /proc, pressure stall information, boot clock. Verified natively."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from idle_sense.platform import portable
from idle_sense.platform.displays import Displays
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import MemoryUse, Verified

assert sys.platform == "linux", "this is Linux's file"  # noqa: S101 - tells type checkers as well


class Linux:
    name = "linux"
    verified: Verified = "native"

    def __init__(self, *, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")

    def suspended_s(self) -> float:
        """clock_gettime(2): CLOCK_BOOTTIME runs on in sleep, CLOCK_MONOTONIC does not."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC))

    def cpu_times_s(self) -> tuple[float, float]:
        """proc(5), /proc/stat: user nice system idle iowait irq softirq steal …"""
        fields = [int(field) for field in self._text("stat").split(b"\n", 1)[0].split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = fields
        busy = user + nice + system + irq + softirq
        return busy * self._tick_s, (busy + idle + iowait + steal) * self._tick_s

    def memory(self) -> MemoryUse:
        """proc(5), /proc/meminfo (MemAvailable) and /proc/pressure/memory (``some avg10``, where the kernel has it)."""
        kilobytes: dict[bytes, int] = {}
        for line in self._text("meminfo").split(b"\n", 4)[:4]:
            name, _, rest = line.partition(b":")
            if name in (b"MemTotal", b"MemAvailable"):
                kilobytes[name] = int(rest.split()[0])
        if len(kilobytes) < 2:
            return portable.memory()
        return MemoryUse(
            total_bytes=kilobytes[b"MemTotal"] * 1024,
            available_bytes=kilobytes[b"MemAvailable"] * 1024,
            stalled_ratio=self._stalled_ratio(),
        )

    def _stalled_ratio(self) -> float | None:
        try:
            some = self._text("pressure/memory").split(b"\n", 1)[0]
        except OSError:
            # Built without it, or switched off (psi=0): MemAvailable alone decides.
            return None
        return float(some.partition(b"avg10=")[2].split()[0]) / 100.0

    def process(self, pid: int) -> ProcessInfo | None:
        """proc(5), /proc/PID/stat; the name in parentheses may hold anything, so fields are counted from the last one."""
        try:
            raw = self._text(f"{pid}/stat")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        fields = raw[raw.rindex(b")") + 2 :].split()
        # The kernel packs a terminal's device number as (minor high | major | minor low).
        packed = int(fields[4])
        terminal = os.makedev((packed >> 8) & 0xFFF, (packed & 0xFF) | ((packed >> 12) & 0xFFF00))
        return ProcessInfo(
            pid=pid,
            parent=int(fields[1]),
            session=int(fields[3]),
            terminal=terminal,
            started=float(fields[19]),
            threads=int(fields[17]),
            cpu_s=sum(int(field) for field in fields[11:15]) * self._tick_s,
        )

    def children(self, process: ProcessInfo) -> Iterable[int]:
        """proc(5), /proc/PID/task/TID/children: a thread's own, so that no scan of all processes is needed."""
        folder = f"{self._proc}/{process.pid}/task"
        try:
            threads = [str(process.pid)] if process.threads == 1 else os.listdir(folder)  # noqa: PTH208 - in the loop
            found: list[int] = []
            for thread in threads:
                found += [int(child) for child in self._text(f"{process.pid}/task/{thread}/children").split()]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ()
        return found

    def seats(self, guests: GuestLedger) -> Displays:
        return Displays(is_guest=lambda pid: guests.contains(pid, self))

    def terminals(self) -> Terminals:
        return Terminals.linux(self)

    def _text(self, name: str) -> bytes:
        with open(f"{self._proc}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - half the cost of Path.open, in the loop
            return file.read()
