"""Whether the foremost window of Windows fills its screen: a soft vote.

SHQueryUserNotificationState (shellapi.h) is asked first. What it says is not always so: an invisible window over everything, as
overlays of graphics drivers are, makes it QUNS_BUSY for good; games in a borderless window are QUNS_BUSY and never
QUNS_RUNNING_D3D_FULL_SCREEN; presentation settings may have been left on. So QUNS_BUSY counts only together with a foremost
window that does fill its screen and is not the desktop's own.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from idle_sense.facts import Reading, Screen
from idle_sense.platform.windows_numbers import (
    MONITOR_DEFAULTTONEAREST,
    QUNS_BUSY,
    QUNS_PRESENTATION_MODE,
    QUNS_RUNNING_D3D_FULL_SCREEN,
)
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.platform.windows_structures import MONITORINFO, RECT, text
from idle_sense.types import Verified

Box = tuple[int, int, int, int]
"""left, top, right, bottom"""

DESKTOP_CLASSES = frozenset({"Progman", "WorkerW", "Shell_TrayWnd", "#32769"})
"""Windows of the desktop itself fill the screen as well."""


class Foremost(NamedTuple):
    window_class: str
    window: Box
    screen: Box


def fills(foremost: Foremost | None) -> bool:
    if foremost is None or foremost.window_class in DESKTOP_CLASSES:
        return False
    left, top, right, bottom = foremost.window
    screen = foremost.screen
    return left <= screen[0] and top <= screen[1] and right >= screen[2] and bottom >= screen[3]


def is_fullscreen(state: int, foremost: Foremost | None) -> bool:
    """``state``: QUERY_USER_NOTIFICATION_STATE."""
    if state in (QUNS_RUNNING_D3D_FULL_SCREEN, QUNS_PRESENTATION_MODE):
        return True
    return state == QUNS_BUSY and fills(foremost)


class WindowsScreen(WindowsProbe[Screen]):
    fact = "screen"
    back_end = "SHQueryUserNotificationState"
    verified: ClassVar[Verified] = "emulated"
    every_s = 5.0

    def __init__(
        self, *, seat: str, state: Callable[[], int], foremost: Callable[[], Foremost | None]
    ) -> None:
        """``state`` may raise OSError; ``foremost`` is asked only when it matters."""
        super().__init__()
        self._seat = seat
        self._state = state
        self._foremost = foremost

    def look(self, now_s: float) -> Reading[Screen]:
        del now_s
        state = self._state()
        foremost = self._foremost() if state == QUNS_BUSY else None
        seats = (self._seat,) if is_fullscreen(state, foremost) else ()
        return Reading(value=Screen(fullscreen=seats), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Whether the foremost window fills the screen, or presentation settings are on.",)


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    def notification_state() -> int:
        """Raises OSError."""
        state = ctypes.c_int32()
        result = libraries.shell32().SHQueryUserNotificationState(ctypes.byref(state))
        if result < 0:
            raise OSError(f"SHQueryUserNotificationState failed (0x{result & 0xFFFFFFFF:08x})")
        return state.value

    def foremost() -> Foremost | None:
        """None: no window is, or it has gone meanwhile."""
        user = libraries.user32()
        handle = user.GetForegroundWindow()
        if not handle or handle in (user.GetDesktopWindow(), user.GetShellWindow()):
            return None
        name = (ctypes.c_uint16 * 256)()
        user.GetClassNameW(handle, name, len(name))
        window = RECT()
        monitor = MONITORINFO(cbSize=ctypes.sizeof(MONITORINFO))
        screen = user.MonitorFromWindow(handle, MONITOR_DEFAULTTONEAREST)
        if not user.GetWindowRect(handle, ctypes.byref(window)) or not user.GetMonitorInfoW(
            screen, ctypes.byref(monitor)
        ):
            return None
        return Foremost(text(name), _box(window), _box(monitor.rcMonitor))

    def _box(rect: RECT) -> Box:
        return rect.left, rect.top, rect.right, rect.bottom
