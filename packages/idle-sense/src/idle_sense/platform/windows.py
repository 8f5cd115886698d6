"""Windows: input of this session and of others, by ctypes. Signature-only: written from the headers, not run on Windows.

GetLastInputInfo sees the session that it is called in, so a service (session 0) sees no keyboard at all.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterable

from idle_sense.platform import portable
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import MemoryUse, Reading, Seat, Verified

WTS_ACTIVE = 0
"""WTS_CONNECTSTATE_CLASS: a user is connected and at work."""
WTS_SESSION_INFO = 24
"""WTS_INFO_CLASS: WTSSessionInfo, a WTSINFOW."""
SERVICE_ADVICE = "start this program in the user's own session (Task Scheduler, at log-on), not as a service"


class LastInputInfo(ctypes.Structure):
    """winuser.h, LASTINPUTINFO. Fixed widths: wintypes.DWORD is wider on other systems."""

    _fields_ = (("size", ctypes.c_uint32), ("ticks", ctypes.c_uint32))


class SessionInfo(ctypes.Structure):
    """wtsapi32.h, WTS_SESSION_INFOW."""

    _fields_ = (("session", ctypes.c_uint32), ("station", ctypes.c_wchar_p), ("state", ctypes.c_int32))


class SessionTimes(ctypes.Structure):
    """wtsapi32.h, WTSINFOW, with the length of its arrays of 2-byte characters."""

    _fields_ = (
        ("state", ctypes.c_int32),
        ("session", ctypes.c_uint32),
        ("incoming_bytes", ctypes.c_uint32),
        ("outgoing_bytes", ctypes.c_uint32),
        ("incoming_frames", ctypes.c_uint32),
        ("outgoing_frames", ctypes.c_uint32),
        ("incoming_compressed", ctypes.c_uint32),
        ("outgoing_compressed", ctypes.c_uint32),
        ("station", ctypes.c_uint16 * 32),
        ("domain", ctypes.c_uint16 * 17),
        ("user", ctypes.c_uint16 * 21),
        ("connected", ctypes.c_int64),
        ("disconnected", ctypes.c_int64),
        ("last_input", ctypes.c_int64),
        ("logged_on", ctypes.c_int64),
        ("now", ctypes.c_int64),
    )


def idle_since(last_ticks: int, now_ticks: int) -> float:
    """Seconds between two 32-bit millisecond counts, which start again from 0 after 49.7 days.

    The last input may be stamped a tick after the count was read: that is 0, and not 49.7 days.
    """
    passed_ms = (now_ticks - last_ticks) & 0xFFFFFFFF
    return 0.0 if passed_ms >= 0x80000000 else passed_ms / 1000.0


def idle_of_times(last_input: int, now: int) -> float | None:
    """Seconds between two FILETIMEs (100 ns). None where Windows keeps no time of last input, as for some consoles."""
    return None if last_input <= 0 or now < last_input else (now - last_input) / 1e7


if sys.platform == "win32":
    _user32 = ctypes.WinDLL("user32", use_last_error=True)
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _wtsapi32 = ctypes.WinDLL("wtsapi32", use_last_error=True)
    _user32.GetLastInputInfo.argtypes = [ctypes.POINTER(LastInputInfo)]
    _user32.GetLastInputInfo.restype = ctypes.c_int32
    _kernel32.GetTickCount.argtypes = []
    _kernel32.GetTickCount.restype = ctypes.c_uint32
    _kernel32.GetTickCount64.argtypes = []
    _kernel32.GetTickCount64.restype = ctypes.c_uint64
    _kernel32.QueryUnbiasedInterruptTime.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
    _kernel32.QueryUnbiasedInterruptTime.restype = ctypes.c_int32
    _kernel32.GetCurrentProcessId.argtypes = []
    _kernel32.GetCurrentProcessId.restype = ctypes.c_uint32
    _kernel32.ProcessIdToSessionId.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
    _kernel32.ProcessIdToSessionId.restype = ctypes.c_int32
    _wtsapi32.WTSEnumerateSessionsW.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.POINTER(ctypes.POINTER(SessionInfo)),
        ctypes.POINTER(ctypes.c_uint32),
    ]
    _wtsapi32.WTSEnumerateSessionsW.restype = ctypes.c_int32
    _wtsapi32.WTSQuerySessionInformationW.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_uint32),
    ]
    _wtsapi32.WTSQuerySessionInformationW.restype = ctypes.c_int32
    _wtsapi32.WTSFreeMemory.argtypes = [ctypes.c_void_p]
    _wtsapi32.WTSFreeMemory.restype = None

    def own_session() -> int:
        """The session of this process; 0 is that of services. Raises OSError."""
        session = ctypes.c_uint32()
        if not _kernel32.ProcessIdToSessionId(_kernel32.GetCurrentProcessId(), ctypes.byref(session)):
            raise ctypes.WinError(ctypes.get_last_error())
        return session.value

    def own_idle_s() -> float:
        """Since the last input in this process's session. Raises OSError."""
        info = LastInputInfo(size=ctypes.sizeof(LastInputInfo))
        if not _user32.GetLastInputInfo(ctypes.byref(info)):
            raise ctypes.WinError(ctypes.get_last_error())
        return idle_since(info.ticks, _kernel32.GetTickCount())

    def active_sessions() -> list[int]:
        """Sessions in which a user is at work. Raises OSError."""
        first = ctypes.POINTER(SessionInfo)()
        count = ctypes.c_uint32()
        if not _wtsapi32.WTSEnumerateSessionsW(None, 0, 1, ctypes.byref(first), ctypes.byref(count)):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            return [first[index].session for index in range(count.value) if first[index].state == WTS_ACTIVE]
        finally:
            _wtsapi32.WTSFreeMemory(first)

    def session_idle_s(session: int) -> float | None:
        """Since the last input in another session; None where Windows does not tell."""
        found = ctypes.c_void_p()
        length = ctypes.c_uint32()
        if not _wtsapi32.WTSQuerySessionInformationW(
            None, session, WTS_SESSION_INFO, ctypes.byref(found), ctypes.byref(length)
        ):
            return None
        try:
            if found.value is None or length.value < ctypes.sizeof(SessionTimes):
                return None
            times = SessionTimes.from_address(found.value)
            return idle_of_times(times.last_input, times.now)
        finally:
            _wtsapi32.WTSFreeMemory(found)

    def suspended_s() -> float:
        """GetTickCount64 runs on in sleep, QueryUnbiasedInterruptTime (100 ns) does not."""
        awake = ctypes.c_uint64()
        if not _kernel32.QueryUnbiasedInterruptTime(ctypes.byref(awake)):
            return 0.0
        return max(0.0, _kernel32.GetTickCount64() / 1000.0 - awake.value / 1e7)

    class Windows:
        name = "windows"
        verified: Verified = "signature-only"

        def __init__(self) -> None:
            self._scanned_at_s = -60.0
            self._parents: dict[int, int] = {}

        def suspended_s(self) -> float:
            return suspended_s()

        def cpu_times_s(self) -> tuple[float, float]:
            return portable.cpu_times_s()

        def memory(self) -> MemoryUse:
            return portable.memory()

        def process(self, pid: int) -> ProcessInfo | None:
            return portable.process(pid)

        def children(self, process: ProcessInfo) -> Iterable[int]:
            """Windows keeps no list of children: one scan of all processes in 5 s serves all questions."""
            if time.monotonic() - self._scanned_at_s >= 5.0:
                self._parents = portable.parents()
                self._scanned_at_s = time.monotonic()
            return [pid for pid, parent in self._parents.items() if parent == process.pid]

        def seats(self, guests: GuestLedger) -> "WindowsSeats":
            del guests  # a guest opens no session
            return WindowsSeats(
                own_session=own_session,
                own_idle_s=own_idle_s,
                active_sessions=active_sessions,
                session_idle_s=session_idle_s,
            )

        def terminals(self) -> None:
            """Console windows get their keys from the session, and ssh has a session of its own."""
            return


class WindowsSeats:
    """Sessions as seats. The system's calls are handed in, so that the rules run anywhere."""

    name = "sessions"
    verified: Verified = "signature-only"

    def __init__(
        self,
        *,
        own_session: Callable[[], int],
        own_idle_s: Callable[[], float],
        active_sessions: Callable[[], list[int]],
        session_idle_s: Callable[[int], float | None],
    ) -> None:
        self._own_session = own_session
        self._own_idle_s = own_idle_s
        self._active_sessions = active_sessions
        self._session_idle_s = session_idle_s

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        del now_s
        try:
            own = self._own_session()
            others = [session for session in self._active_sessions() if session not in (own, 0)]
            seats = [
                Seat(name=f"session {own}", idle_s=self._own(own)),
                *(Seat(name=f"session {session}", idle_s=self._other(session)) for session in others),
            ]
        except OSError as error:
            return Reading[tuple[Seat, ...]].missing(self.name, str(error), "see idle-sense doctor")
        return Reading(value=tuple(seats), source=self.name)

    def _own(self, session: int) -> Reading[float]:
        if session == 0:
            return Reading[float].missing("session 0", "a service cannot see the keyboard", SERVICE_ADVICE)
        return Reading(value=self._own_idle_s(), source="GetLastInputInfo")

    def _other(self, session: int) -> Reading[float]:
        idle_s = self._session_idle_s(session)
        if idle_s is None:
            advice = "log the other user off, or run this program in that session"
            return Reading[float].missing("WTSSessionInfo", "another user is at work there", advice)
        return Reading(value=idle_s, source="WTSSessionInfo")

    def describe(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Holds nothing."""
