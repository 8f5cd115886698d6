"""Linux: /proc, pressure stall information, boot clock. Verified natively."""

import os
import sys
import time
from collections.abc import Iterable

from idle_sense.facts import (
    Calls,
    GpuUse,
    Media,
    MemoryUse,
    Network,
    Power,
    Screen,
    Session,
    Thermal,
    Traffic,
)
from idle_sense.platform.container import Container
from idle_sense.platform.displays import Displays
from idle_sense.platform.meminfo import Memory
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.bundle import Probe
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import Verified

assert sys.platform == "linux", "this is Linux's file"  # noqa: S101 - tells type checkers as well


class Linux:
    name = "linux"
    verified: Verified = "native"

    def __init__(self, *, proc: str = "/proc") -> None:
        self._proc = proc
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
        self._displays: Displays | None = None
        """Of the last call of ``seats``: their connections tell also what is on the screen."""
        self._container = Container()
        self._memory = Memory(proc=self._proc, container=self._container)

    def suspended_s(self) -> float:
        """clock_gettime(2): CLOCK_BOOTTIME runs on in sleep, CLOCK_MONOTONIC does not."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC))

    def cpu_times_s(self) -> tuple[float, float]:
        """proc(5), /proc/stat: user nice system idle iowait irq softirq steal …"""
        fields = [int(field) for field in self._text("stat").split(b"\n", 1)[0].split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = fields
        busy = user + nice + system + irq + softirq
        return busy * self._tick_s, (busy + idle + iowait + steal) * self._tick_s

    def confined_cpu_times_s(self) -> tuple[float, float] | None:
        return self._container.cpu_times_s()

    def memory(self) -> MemoryUse:
        use = self._memory.read()
        if use is not None:
            return use
        from idle_sense.platform import portable  # noqa: PLC0415 - only on kernels older than 3.14

        return portable.memory()

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
            inherited_s=sum(int(field) for field in fields[13:15]) * self._tick_s,
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
        self._displays = Displays(is_guest=lambda pid: guests.contains(pid, self))
        return self._displays

    def terminals(self) -> Terminals:
        return Terminals.linux(self)

    def sessions(self, guests: GuestLedger) -> Probe[tuple[Session, ...]]:
        del guests
        from idle_sense.platform.logins import Logins  # noqa: PLC0415 - only where it is used

        return Logins()

    def traffic(self, guests: GuestLedger) -> Probe[Traffic] | None:
        from idle_sense.probes.traffic import TrafficProbe  # noqa: PLC0415 - as all that only monitors need

        return TrafficProbe(self, guests, proc=self._proc)

    def gpus(self, guests: GuestLedger) -> Probe[tuple[GpuUse, ...]]:
        from idle_sense.platform.gpus_linux import LinuxGpus  # noqa: PLC0415 - only where it is used
        from idle_sense.probes.gpu import GpuProbe  # noqa: PLC0415

        return GpuProbe(LinuxGpus(), guests, self)

    def calls(self, guests: GuestLedger) -> Probe[Calls]:
        from idle_sense.probes.calls import linux_calls  # noqa: PLC0415 - only where it is used

        return linux_calls(guests, self)

    def media(self, guests: GuestLedger) -> Probe[Media]:
        from idle_sense.probes.media import linux_media  # noqa: PLC0415 - only where it is used

        return linux_media(guests, self)

    def screen(self, guests: GuestLedger) -> Probe[Screen]:
        from idle_sense.probes.screen import ScreenProbe  # noqa: PLC0415 - only where it is used

        displays = self._displays or self.seats(guests)
        return ScreenProbe(displays.screen)

    def power(self) -> Probe[Power] | None:
        from idle_sense.probes.power import LinuxPowerProbe  # noqa: PLC0415

        return LinuxPowerProbe()

    def thermal(self) -> Probe[Thermal] | None:
        from idle_sense.probes.thermal import ThermalProbe  # noqa: PLC0415

        return ThermalProbe()

    def network(self) -> Probe[Network] | None:
        from idle_sense.probes.network import NetworkManagerProbe  # noqa: PLC0415

        return NetworkManagerProbe()

    def _text(self, name: str) -> bytes:
        with open(f"{self._proc}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - half the cost of Path.open, in the loop
            return file.read()
