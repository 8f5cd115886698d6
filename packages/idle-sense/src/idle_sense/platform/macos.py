"""macOS, by ctypes. Signature-only: written from the headers and tried on a stand-in, not run on macOS.

What needs the window server (other input than the hardware's, windows) is told only inside a log-in session; a daemon of
launchd sees the rest: the hardware's input, sessions and their locks, sound, cameras, power.
"""

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

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
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_processes import MacProcesses
from idle_sense.platform.macos_registry import Registry
from idle_sense.platform.macos_seats import InputTimes, MacSeats
from idle_sense.platform.macos_values import Values
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.bundle import Probe
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import Verified

if TYPE_CHECKING:
    from idle_sense.platform.macos_audio import Audio

__all__ = ["MacOS", "MacSeats"]


class MacOS:
    """A ``facade.System``. Frameworks are loaded when they are first asked, each probe's own file when the probe is made."""

    name = "macos"
    verified: Verified = "signature-only"

    def __init__(self, frameworks: Frameworks | None = None) -> None:
        self._frameworks = frameworks or Frameworks()
        self._values = Values(self._frameworks)
        self._registry = Registry(self._frameworks, self._values)
        self._processes = MacProcesses(self._frameworks)

    def suspended_s(self) -> float:
        """clock_gettime(3): CLOCK_MONOTONIC runs on in sleep, CLOCK_UPTIME_RAW does not."""
        if sys.platform != "darwin":
            return 0.0
        return max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW))

    def cpu_times_s(self) -> tuple[float, float]:
        return self._processes.cpu_times_s()

    def confined_cpu_times_s(self) -> tuple[float, float] | None:
        return None

    def memory(self) -> MemoryUse:
        return self._processes.memory()

    def process(self, pid: int) -> ProcessInfo | None:
        return self._processes.process(pid)

    def children(self, process: ProcessInfo) -> Iterable[int]:
        return self._processes.children(process)

    def seats(self, guests: GuestLedger) -> MacSeats:
        del guests  # a guest opens no session
        times = InputTimes(self._frameworks, self._registry, self._values)
        return MacSeats(registry_idle_s=times.registry_idle_s, event_idle_s=times.event_idle_s)

    def terminals(self) -> Terminals:
        return Terminals.macos(self)

    def sessions(self, guests: GuestLedger) -> Probe[tuple[Session, ...]]:
        del guests  # the same
        from idle_sense.platform.macos_sessions import (  # noqa: PLC0415
            Logins,
            SessionCalls,
            SessionsProbe,
        )

        calls = SessionCalls(self._frameworks, self._registry, self._values)
        return SessionsProbe(
            users=calls.users,
            current=calls.current,
            logins=Logins(self._frameworks).read,
            alive=lambda pid: self._processes.process(pid) is not None,
        )

    def traffic(self, guests: GuestLedger) -> Probe[Traffic]:
        from idle_sense.platform.macos_traffic import (  # noqa: PLC0415
            DiskCount,
            MacDiskUse,
            MacTrafficProbe,
            NetworkCount,
            TrafficCalls,
        )

        disks = DiskCount(self._registry, time.monotonic)
        use = MacDiskUse(self._processes)
        return MacTrafficProbe(
            disk_bytes=disks.bytes,
            network_bytes=NetworkCount(TrafficCalls(self._frameworks).interfaces).bytes,
            guests_disk_bytes=lambda: sum(guests.disk_bytes(self, use)),
            guests=guests,
            close=disks.close,
        )

    def gpus(self, guests: GuestLedger) -> Probe[tuple[GpuUse, ...]]:
        from idle_sense.platform.macos_gpus import MacGpus  # noqa: PLC0415
        from idle_sense.probes.gpu import GpuProbe  # noqa: PLC0415

        return GpuProbe(MacGpus(self._registry), guests, self)

    def calls(self, guests: GuestLedger) -> Probe[Calls]:
        from idle_sense.platform.macos_audio import CameraCalls, MacCallsProbe  # noqa: PLC0415

        cameras = CameraCalls(self._frameworks, self._values)
        return MacCallsProbe(self._audio(guests), cameras.running)

    def media(self, guests: GuestLedger) -> Probe[Media]:
        from idle_sense.platform.macos_audio import MacMediaProbe  # noqa: PLC0415
        from idle_sense.platform.macos_power import PowerCalls  # noqa: PLC0415

        power = PowerCalls(self._frameworks, self._values)
        return MacMediaProbe(self._audio(guests), power.assertions)

    def _audio(self, guests: GuestLedger) -> "Audio":
        from idle_sense.platform.macos_audio import Audio, AudioCalls  # noqa: PLC0415

        calls = AudioCalls(self._frameworks, self._values)
        return Audio(
            devices=calls.devices,
            programs=calls.programs,
            is_guest=lambda pid: guests.contains(pid, self),
            name_of=self._processes.name,
        )

    def screen(self, guests: GuestLedger) -> Probe[Screen]:
        del guests  # a guest has no window
        from idle_sense.platform.macos_screen import MacScreenProbe, ScreenCalls  # noqa: PLC0415

        calls = ScreenCalls(self._frameworks, self._values)
        return MacScreenProbe(displays=calls.displays, windows=calls.windows)

    def power(self) -> Probe[Power]:
        from idle_sense.platform.macos_power import MacPowerProbe, PowerCalls  # noqa: PLC0415

        return MacPowerProbe(PowerCalls(self._frameworks, self._values).power)

    def thermal(self) -> Probe[Thermal]:
        from idle_sense.platform.macos_power import MacThermalProbe, PowerCalls  # noqa: PLC0415

        calls = PowerCalls(self._frameworks, self._values)
        return MacThermalProbe(
            level=calls.thermal_level, speed_limit_percent=calls.speed_limit_percent, close=calls.close
        )

    def network(self) -> Probe[Network]:
        from idle_sense.platform.macos_network import MacNetworkProbe, PathWatch  # noqa: PLC0415

        watch = PathWatch(self._frameworks)
        return MacNetworkProbe(metered=watch.metered, close=watch.close)
