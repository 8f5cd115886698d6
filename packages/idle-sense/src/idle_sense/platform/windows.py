"""Windows, by ctypes. Tried on Wine as far as that goes; each probe says how far.

What belongs to a session of the desktop (input, the foremost window, microphones) is told only inside it: a service (session
0) sees no keyboard at all.
"""

import sys
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
from idle_sense.platform.windows_seats import WindowsSeats
from idle_sense.platform.windows_sessions import OTHERS_EVERY_S, LogOnTable, WindowsSessions
from idle_sense.probes.bundle import Probe
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import Verified

if TYPE_CHECKING:
    from idle_sense.platform.windows_sound import SoundSession

if sys.platform == "win32":
    import ctypes

    from idle_sense.platform import windows_libraries as libraries
    from idle_sense.platform import windows_processes, windows_seats, windows_sessions, windows_window
    from idle_sense.platform.windows_consent import WATCHED

    class Windows:
        """A ``facade.System``. Each probe's own file and libraries are loaded when the probe is made."""

        name = "windows"
        verified: Verified = "emulated"

        def __init__(self) -> None:
            self._scans = windows_processes.Scans(windows_processes.scan)
            self._memory = windows_processes.Memory()
            self._events = windows_window.events(WATCHED)
            try:
                self._session = windows_seats.own_session()
            except OSError:
                # Not even that is told: no more can be seen than by a service.
                self._session = 0

        def suspended_s(self) -> float:
            """GetTickCount64 runs on in sleep, QueryUnbiasedInterruptTime (100 ns) does not."""
            awake = ctypes.c_uint64()
            kernel = libraries.kernel32()
            if not kernel.QueryUnbiasedInterruptTime(ctypes.byref(awake)):
                return 0.0
            return max(0.0, kernel.GetTickCount64() / 1000.0 - awake.value / 1e7)

        def cpu_times_s(self) -> tuple[float, float]:
            return windows_processes.cpu_times_s()

        def confined_cpu_times_s(self) -> tuple[float, float] | None:
            return None

        def memory(self) -> MemoryUse:
            return self._memory.use()

        def process(self, pid: int) -> ProcessInfo | None:
            return windows_processes.process(pid)

        def children(self, process: ProcessInfo) -> Iterable[int]:
            return windows_processes.children(self._scans, process)

        def seats(self, guests: GuestLedger) -> WindowsSeats:
            del guests  # a guest opens no session
            from idle_sense.probes.aside import Aside  # noqa: PLC0415 - it is imported with the facade in between

            table = LogOnTable(windows_sessions.log_ons, self._events)
            return WindowsSeats(
                own_session=self._session,
                own_idle_s=windows_seats.own_idle_s,
                log_ons=Aside(table, every_s=OTHERS_EVERY_S),
                events=self._events,
            )

        def terminals(self) -> None:
            """Console windows get their keys from the session, and ssh has a session of its own."""
            return

        def sessions(self, guests: GuestLedger) -> Probe[tuple[Session, ...]]:
            del guests  # the same
            return WindowsSessions(windows_sessions.log_ons, self._events)

        def traffic(self, guests: GuestLedger) -> Probe[Traffic]:
            from idle_sense.platform import windows_counters, windows_network  # noqa: PLC0415

            counters = windows_counters.Counters(windows_network.DISKS)
            return windows_network.WindowsTraffic(
                cards=windows_network.cards,
                disk_bytes_per_s=lambda: windows_network.total(counters.read()[0]),
                guests=lambda: len(guests),
                sent_bytes=lambda: guests.sent_bytes,
                close=counters.close,
            )

        def gpus(self, guests: GuestLedger) -> Probe[tuple[GpuUse, ...]]:
            from idle_sense.platform import windows_counters, windows_gpus  # noqa: PLC0415
            from idle_sense.probes.gpu import GpuProbe  # noqa: PLC0415

            counters = windows_counters.Counters(*windows_gpus.PATHS)
            reader = windows_gpus.WindowsGpus(
                read=counters.read, known=lambda: counters.known, close=counters.close
            )
            return GpuProbe(reader, guests, self)

        def calls(self, guests: GuestLedger) -> Probe[Calls]:
            from idle_sense.platform import windows_consent, windows_sound  # noqa: PLC0415

            def recording() -> tuple[str, ...] | None:
                sessions = windows_sound.active_sessions(playing=False)
                return None if sessions is None else self._named(sessions, guests)

            return windows_consent.WindowsCalls(
                uses=windows_consent.uses_of,
                booted=windows_consent.booted,
                running=lambda: {one.name.lower() for one in self._scans.programs()},
                recording=recording,
                events=self._events,
            )

        def media(self, guests: GuestLedger) -> Probe[Media]:
            from idle_sense.platform import windows_power, windows_sound  # noqa: PLC0415

            loud = windows_sound.Loud()

            def playing(now_s: float) -> tuple[str, ...] | None:
                sessions = windows_sound.active_sessions(playing=True)
                return None if sessions is None else self._named(loud.among(sessions, now_s), guests)

            def screen_kept_on() -> bool | None:
                state = windows_power.execution_state()
                return None if state is None else windows_power.keeps_screen_on(state)

            return windows_sound.WindowsMedia(playing=playing, screen_kept_on=screen_kept_on)

        def screen(self, guests: GuestLedger) -> Probe[Screen] | None:
            """A service sees no window."""
            del guests  # a guest has none
            from idle_sense.platform import windows_screen  # noqa: PLC0415

            if self._session == 0:
                return None
            return windows_screen.WindowsScreen(
                seat=f"session {self._session}",
                state=windows_screen.notification_state,
                foremost=windows_screen.foremost,
            )

        def power(self) -> Probe[Power]:
            from idle_sense.platform import windows_power  # noqa: PLC0415

            return windows_power.WindowsPower(windows_power.power_status, self._events)

        def thermal(self) -> Probe[Thermal]:
            from idle_sense.platform import windows_counters, windows_thermal  # noqa: PLC0415

            counters = windows_counters.Counters(windows_thermal.ZONES)
            return windows_thermal.WindowsThermal(lambda: counters.read()[0], counters.close)

        def network(self) -> Probe[Network]:
            from idle_sense.platform import windows_network  # noqa: PLC0415

            return windows_network.WindowsNetwork(windows_network.cost)

        def _named(self, sessions: "Iterable[SoundSession]", guests: GuestLedger) -> tuple[str, ...]:
            from idle_sense.platform import windows_sound  # noqa: PLC0415

            return windows_sound.programs(
                sessions,
                is_guest=lambda pid: guests.contains(pid, self),
                name_of=windows_processes.program_name,
            )
