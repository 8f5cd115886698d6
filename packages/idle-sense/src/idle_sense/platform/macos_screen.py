"""Whether a window fills a Mac's screen (CGWindow.h). Needs no permission: titles would, places and owners do not."""

import ctypes
from collections.abc import Callable, Iterable
from typing import NamedTuple

from idle_sense.facts import Reading, Screen
from idle_sense.platform.macos_frameworks import Frameworks, Rect
from idle_sense.platform.macos_values import Values, mapping, number, text, whole
from idle_sense.probes.asked import Asked

ON_SCREEN_ONLY = 1
WITHOUT_DESKTOP = 16
"""CGWindow.h, kCGWindowListOptionOnScreenOnly, kCGWindowListExcludeDesktopElements."""
ORDINARY_LAYER = 0
MENU_BAR_LAYER = 24
"""CGWindowLevel.h, kCGNormalWindowLevel, kCGMainMenuWindowLevel."""
MOST_DISPLAYS = 32
SLACK_POINTS = 1.0
NOTCH_POINTS = 48.0
"""A window in a full-screen space begins below the camera housing, where the screen has one: 32 to 38 points."""


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    def covers(self, other: "Box", *, below_points: float = 0.0) -> bool:
        """All of the other one, except so much of its upper edge."""
        return (
            self.x <= other.x + SLACK_POINTS
            and self.y <= other.y + below_points + SLACK_POINTS
            and self.x + self.width >= other.x + other.width - SLACK_POINTS
            and self.y + self.height >= other.y + other.height - SLACK_POINTS
        )

    def touches(self, other: "Box") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


class Window(NamedTuple):
    owner: str
    layer: int
    box: Box
    opaque: float
    """0: cannot be seen."""


def filled(displays: Iterable[tuple[str, Box]], windows: Iterable[Window]) -> tuple[str, ...]:
    """Displays that an ordinary window fills.

    With a menu bar on the display, only a window that lies over it too does; without one, as in a full-screen space, also a
    window that leaves out the strip beside the camera.
    """
    windows = tuple(windows)
    found: list[str] = []
    for name, display in displays:
        menu_bar = any(
            window.layer == MENU_BAR_LAYER and window.opaque > 0 and window.box.touches(display)
            for window in windows
        )
        below_points = 0.0 if menu_bar else NOTCH_POINTS
        if any(
            window.layer == ORDINARY_LAYER
            and window.opaque > 0
            and window.box.covers(display, below_points=below_points)
            for window in windows
        ):
            found.append(name)
    return tuple(found)


class ScreenCalls:
    """The window server's answers."""

    def __init__(self, frameworks: Frameworks, values: Values) -> None:
        self._graphics = frameworks.core_graphics
        self._values = values

    def displays(self) -> tuple[tuple[str, Box], ...]:
        """Those that are on; none while the screen is locked. Raises OSError."""
        handles, count = (ctypes.c_uint32 * MOST_DISPLAYS)(), ctypes.c_uint32()
        status = self._graphics.CGGetActiveDisplayList(MOST_DISPLAYS, handles, ctypes.byref(count))
        if status != 0:
            raise OSError(f"the window server does not tell its displays ({status})")
        found: list[tuple[str, Box]] = []
        for handle in handles[: count.value]:
            rect: Rect = self._graphics.CGDisplayBounds(handle)
            found.append((f"display {handle}", Box(rect.x, rect.y, rect.width, rect.height)))
        return tuple(found)

    def windows(self) -> tuple[Window, ...] | None:
        """Ordinary ones and menu bars, the foremost first; None: there is no window server for this program."""
        found: list[Window] = []
        reference = self._graphics.CGWindowListCopyWindowInfo(ON_SCREEN_ONLY | WITHOUT_DESKTOP, 0)
        with self._values.owned(reference) as array:
            if not array:
                return None
            for window in self._values.items(array):
                # Of about a hundred windows few are of these layers; the rest is not looked into.
                layer = whole(self._values.plain(self._values.get(window, "kCGWindowLayer")))
                if layer in (ORDINARY_LAYER, MENU_BAR_LAYER):
                    found.append(self._window(window, layer))
        return tuple(found)

    def _window(self, window: int, layer: int) -> Window:
        plain, get = self._values.plain, self._values.get
        bounds = mapping(plain(get(window, "kCGWindowBounds")))
        x, y, width, height = (number(bounds.get(key)) or 0.0 for key in ("X", "Y", "Width", "Height"))
        alpha = number(plain(get(window, "kCGWindowAlpha")))
        owner = text(plain(get(window, "kCGWindowOwnerName")))
        return Window(owner, layer, Box(x, y, width, height), 1.0 if alpha is None else alpha)


class MacScreenProbe(Asked[Screen]):
    fact = "screen"
    back_end = "CGWindowList"
    every_s: float = 3.0

    def __init__(
        self,
        *,
        displays: Callable[[], Iterable[tuple[str, Box]]],
        windows: Callable[[], Iterable[Window] | None],
    ) -> None:
        super().__init__()
        self._displays = displays
        self._windows = windows

    def look(self, now_s: float) -> Reading[Screen]:
        del now_s
        windows = self._windows()
        if windows is None:
            return Reading[Screen].untold(
                self.back_end,
                "a program outside a log-in session sees no windows",
                "start it as a launch agent of the logged-in user",
            )
        return Reading(value=Screen(fullscreen=filled(self._displays(), windows)), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Windows that fill a screen: films, games, presentations.",)
