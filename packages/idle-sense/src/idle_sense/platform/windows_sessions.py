"""Who is logged on to Windows, where from, and whether the session is locked (wtsapi32.h).

Questions about sessions are answered by a service (the local session manager), so they are asked aside.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

from idle_sense.facts import Reading, Session
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.platform.windows_numbers import (
    WTS_SESSIONSTATE_LOCK,
    WTS_SESSIONSTATE_UNLOCK,
    WTSActive,
    WTSSessionInfoEx,
)
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.platform.windows_structures import (
    RTL_OSVERSIONINFOW,
    WTS_SESSION_INFOW,
    WTSINFOEX_LEVEL1_W,
    WTSINFOEXW,
    text,
)
from idle_sense.types import Verified

SESSIONS_EVERY_S = 5.0
OTHERS_EVERY_S = 2.0
"""Of the input in other sessions, which must not be older than a policy's ``input_fresh_s``."""
FLAGS_REVERSED_IN = (6, 1)
"""Windows 7 and Server 2008 R2 have WTS_SESSIONSTATE_LOCK and …_UNLOCK the wrong way round (documented with WTSINFOEX)."""


class LogOn(NamedTuple):
    """One session, as Windows tells it."""

    session: int
    station: str
    """``Console``, ``RDP-Tcp#12``; empty: nobody is connected to it."""
    user: str
    """Empty: nobody has logged on in it, as at the log-on screen."""
    active: bool
    """Its user sees its screen."""
    locked: bool | None
    idle_s: float | None
    """Since the last input. None: not told, as for most consoles."""

    @property
    def remote(self) -> bool:
        return self.station not in ("", "Console", "Services")

    @property
    def name(self) -> str:
        return f"session {self.session} of {self.user}{' by remote desktop' if self.remote else ''}"


def idle_of_times(last_input: int, now: int) -> float | None:
    """Seconds between two FILETIMEs (100 ns). None where Windows keeps no time of last input, as for some consoles."""
    return None if last_input <= 0 or now < last_input else (now - last_input) / 1e7


def lock_of(flags: int, version: tuple[int, int]) -> bool | None:
    """WTSINFOEX's SessionFlags; ``version``: major and minor of Windows."""
    if flags not in (WTS_SESSIONSTATE_LOCK, WTS_SESSIONSTATE_UNLOCK):
        return None
    return (flags == WTS_SESSIONSTATE_LOCK) != (version == FLAGS_REVERSED_IN)


def log_on_of(told: WTSINFOEX_LEVEL1_W, version: tuple[int, int]) -> LogOn:
    return LogOn(
        session=told.SessionId,
        station=text(told.WinStationName),
        user=text(told.UserName),
        active=told.SessionState == WTSActive,
        locked=lock_of(told.SessionFlags, version),
        idle_s=idle_of_times(told.LastInputTime, told.CurrentTime),
    )


def sessions_of(log_ons: Iterable[LogOn]) -> tuple[Session, ...]:
    """Those in which somebody has logged on."""
    return tuple(
        Session(
            name=one.name,
            user=one.user,
            remote=one.remote,
            active=one.active,
            locked=one.locked,
        )
        for one in log_ons
        if one.user
    )


class LogOnTable(WindowsProbe[tuple[LogOn, ...]]):
    """All sessions but that of the services."""

    fact = "sessions"
    back_end = "WTSSessionInfoEx"
    verified: ClassVar[Verified] = "signature-only"
    topic = Topic.SESSIONS
    every_s = OTHERS_EVERY_S

    def __init__(self, ask: Callable[[], tuple[LogOn, ...]], events: Events | None = None) -> None:
        super().__init__(events)
        self._ask = ask

    def look(self, now_s: float) -> Reading[tuple[LogOn, ...]]:
        del now_s
        return Reading(value=self._ask(), source=self.back_end)


class WindowsSessions(WindowsProbe[tuple[Session, ...]]):
    """A ``Probe``: who is logged on."""

    fact = "sessions"
    back_end = "WTSSessionInfoEx"
    verified: ClassVar[Verified] = "signature-only"
    topic = Topic.SESSIONS
    every_s = SESSIONS_EVERY_S

    def __init__(self, ask: Callable[[], tuple[LogOn, ...]], events: Events | None = None) -> None:
        super().__init__(events)
        self._ask = ask

    def look(self, now_s: float) -> Reading[tuple[Session, ...]]:
        del now_s
        return Reading(value=sessions_of(self._ask()), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Who is logged on, here or by remote desktop, and whether the screen is locked.",)


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    def version() -> tuple[int, int]:
        """Of Windows itself; other calls tell what the program's manifest asks for."""
        info = RTL_OSVERSIONINFOW(dwOSVersionInfoSize=ctypes.sizeof(RTL_OSVERSIONINFOW))
        libraries.ntdll().RtlGetVersion(ctypes.byref(info))
        return info.dwMajorVersion, info.dwMinorVersion

    def log_ons() -> tuple[LogOn, ...]:
        """Raises OSError."""
        wts = libraries.wtsapi32()
        first = ctypes.c_void_p()
        count = ctypes.c_uint32()
        libraries.checked(wts.WTSEnumerateSessionsW(None, 0, 1, ctypes.byref(first), ctypes.byref(count)))
        try:
            array = WTS_SESSION_INFOW * count.value
            numbers = (
                [] if first.value is None else [one.SessionId for one in array.from_address(first.value)]
            )
        finally:
            wts.WTSFreeMemory(first)
        found = [_log_on(number, version()) for number in numbers if number != 0]
        return tuple(one for one in found if one is not None)

    def _log_on(session: int, of_version: tuple[int, int]) -> LogOn | None:
        """None: it has ended meanwhile, or is one that waits for connections. Raises OSError."""
        wts = libraries.wtsapi32()
        found = ctypes.c_void_p()
        length = ctypes.c_uint32()
        if not wts.WTSQuerySessionInformationW(
            None, session, WTSSessionInfoEx, ctypes.byref(found), ctypes.byref(length)
        ):
            return None
        try:
            if found.value is None or length.value < ctypes.sizeof(WTSINFOEXW):
                return None
            told = WTSINFOEXW.from_address(found.value)
            return log_on_of(told.Data, of_version) if told.Level == 1 else None
        finally:
            wts.WTSFreeMemory(found)
