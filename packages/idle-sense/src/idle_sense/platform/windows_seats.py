"""Sessions of Windows as seats: when a key, a button or a mouse was used last. And game controllers, each a seat.

GetLastInputInfo (winuser.h) tells of the session that it is called in, at once and at no cost. Of other sessions that
somebody is at work in, WTSSessionInfoEx tells it, but for most that sit at the machine itself; these count as in use.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable

from idle_sense.facts import Reading, Seat
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.platform.windows_sessions import LogOn
from idle_sense.platform.windows_structures import LASTINPUTINFO
from idle_sense.probes.bundle import Polled, Probe
from idle_sense.types import Verified

SERVICE_ADVICE = "start this program in the user's own session (Task Scheduler, at log-on), not as a service"
OTHERS_FRESH_S = 15.0
"""For longer than this, who else is at work may not stay unknown."""


def idle_since(last_ticks: int, now_ticks: int) -> float:
    """Seconds between two 32-bit millisecond counts, which start again from 0 after 49.7 days.

    The last input may be stamped a tick after the count was read: that is 0, and not 49.7 days.
    """
    passed_ms = (now_ticks - last_ticks) & 0xFFFFFFFF
    return 0.0 if passed_ms >= 0x80000000 else passed_ms / 1000.0


class WindowsSeats(Polled):
    """A ``facade.SeatReader``. The system's calls are handed in, so that the rules run anywhere."""

    name = "sessions"
    verified: Verified = "emulated"

    def __init__(
        self,
        *,
        own_session: int,
        own_idle_s: Callable[[], float],
        log_ons: Probe[tuple[LogOn, ...]],
        events: Events | None = None,
    ) -> None:
        """``own_idle_s`` may raise OSError. ``log_ons`` is one that answers at once; it is closed with this."""
        self._own_session = own_session
        self._own_idle_s = own_idle_s
        self._log_ons = log_ons
        self._events = events
        self._wake: Callable[[], None] | None = None

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        table = self._log_ons.read(now_s)
        told = table.value or ()
        seats: list[Seat] = []
        if self._own_session != 0:
            seats.append(self._own(told))
        seats += self._others(table, told)
        if self._events is not None:
            pads_s = self._events.gamepads.idle_s(now_s)
            seats += [
                Seat(name=name, idle_s=Reading(value=idle_s, source="raw input"))
                for name, idle_s in sorted(pads_s.items())
            ]
        return Reading(value=tuple(seats), source=self.name)

    def describe(self) -> tuple[str, ...]:
        if self._own_session == 0:
            return ("A service sees no keyboard; while nobody is logged on, there is nobody to see.",)
        if self._events is None or Topic.INPUT not in self._events.hears:
            return ("Input is looked for at every sample; game controllers are not seen.",)
        return (
            "Windows tells of input at once, of buttons of game controllers within a quarter of a second.",
        )

    @property
    def advice(self) -> str:
        if self._events is not None and self._events.problem:
            return f"input is polled ({self._events.problem})"
        return ""

    @property
    def event(self) -> bool:
        if self._events is None or self._own_session == 0:
            return False
        return self._wake is None or Topic.INPUT in self._events.hears

    def listen(self, wake: Callable[[], None]) -> None:
        self._log_ons.listen(wake)
        if self._events is not None and self._own_session != 0:
            self._wake = wake
            self._events.subscribe(Topic.INPUT, wake)

    def close(self) -> None:
        self._log_ons.close()
        if self._events is not None and self._wake is not None:
            self._events.unsubscribe(Topic.INPUT, self._wake)
            self._wake = None

    def _own(self, told: Iterable[LogOn]) -> Seat:
        name = next((one.name for one in told if one.session == self._own_session and one.user), "")
        try:
            idle_s = Reading(value=self._own_idle_s(), source="GetLastInputInfo")
        except OSError as error:
            idle_s = Reading[float].missing("GetLastInputInfo", str(error), SERVICE_ADVICE)
        return Seat(name=name or f"session {self._own_session}", idle_s=idle_s)

    def _others(self, table: Reading[tuple[LogOn, ...]], told: Iterable[LogOn]) -> list[Seat]:
        if table.value is None or table.age_s > OTHERS_FRESH_S:
            problem = table.problem or f"Windows has not told for {table.age_s:.0f} s who is at work"
            advice = table.advice or "see that the service LSM (local session manager) answers"
            return [Seat(name="other sessions", idle_s=Reading[float].missing(table.source, problem, advice))]
        return [
            Seat(name=one.name, idle_s=self._other(one, table))
            for one in told
            if one.active and one.user and one.session != self._own_session
        ]

    def _other(self, one: LogOn, table: Reading[tuple[LogOn, ...]]) -> Reading[float]:
        if one.idle_s is not None:
            return Reading(value=one.idle_s, source=table.source, age_s=table.age_s)
        if self._own_session == 0:
            return Reading[float].missing("session 0", "a service cannot see the keyboard", SERVICE_ADVICE)
        advice = "log the other user off, or run this program in that session"
        return Reading[float].missing(table.source, "another user is at work there", advice)


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    def own_session() -> int:
        """The session of this process; 0 is that of services. Raises OSError."""
        session = ctypes.c_uint32()
        kernel = libraries.kernel32()
        libraries.checked(kernel.ProcessIdToSessionId(kernel.GetCurrentProcessId(), ctypes.byref(session)))
        return session.value

    def own_idle_s() -> float:
        """Since the last input in this process's session. Raises OSError."""
        info = LASTINPUTINFO(cbSize=ctypes.sizeof(LASTINPUTINFO))
        libraries.checked(libraries.user32().GetLastInputInfo(ctypes.byref(info)))
        return idle_since(info.dwTime, libraries.kernel32().GetTickCount())
