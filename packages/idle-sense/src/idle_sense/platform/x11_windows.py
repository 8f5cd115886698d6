"""Whether an X display's foremost window fills the screen, asked on somebody else's connection.

Window managers tell which window is foremost and that it is fullscreen (Extended Window Manager Hints 1.5:
_NET_ACTIVE_WINDOW, _NET_WM_STATE); where there is none, as for a game in a session of its own, the window that has the
keyboard is measured against the monitors (core protocol; RandR 1.5: GetMonitors).
"""

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

EVERY_S = 1.0
_INTERN_ATOM, _GET_PROPERTY, _GET_INPUT_FOCUS, _QUERY_TREE, _GET_GEOMETRY = 16, 20, 43, 15, 14
_QUERY_EXTENSION, _GET_MONITORS = 98, 42
_ATOMS = (b"_NET_ACTIVE_WINDOW", b"_NET_WM_STATE", b"_NET_WM_STATE_FULLSCREEN")
_MOST_PARENTS = 16
_XA_ATOM, _XA_WINDOW = 4, 33
_NO_FOCUS = (0, 1)
"""None, and PointerRoot: the keyboard goes to no window of its own."""


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int

    def fills(self, other: "Box") -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.left + self.width >= other.left + other.width
            and self.top + self.height >= other.top + other.height
        )


class Request(Protocol):
    def __call__(
        self, data: bytes, take: Callable[[bytes], None], refused: Callable[[], None] | None = None, /
    ) -> None: ...


class Foremost:
    """Asks a second after the last answer, in steps of one round trip each."""

    def __init__(self, request: Request, now: Callable[[], float]) -> None:
        self.fullscreen: bool | None = None
        """None: not told yet."""
        self.told_at_s = 0.0
        """When that was true."""
        self.wanted = False
        """Whether anybody wants to know; else nothing is asked."""
        self._request = request
        self._now = now
        self._root = 0
        self._screen = Box(0, 0, 0, 0)
        self._atoms: dict[bytes, int] = {}
        self._randr = 0
        self._monitors: tuple[Box, ...] = ()
        self._asked_at_s: float | None = None
        self._asking = False

    def begin(self, root: int, width: int, height: int) -> None:
        """The connection stands; ``root`` is the first screen's window."""
        self.forget()
        self._root = root
        self._screen = Box(0, 0, width, height)
        for name in _ATOMS:
            head = struct.pack("<BBHHxx", _INTERN_ATOM, 0, 2 + (len(name) + 3) // 4, len(name))
            self._request(
                head + name + bytes(-len(name) % 4), lambda answer, name=name: self._take_atom(name, answer)
            )
        head = struct.pack("<BxHHxx", _QUERY_EXTENSION, 4, 5)
        self._request(head + b"RANDR\0\0\0", self._take_randr)

    def forget(self) -> None:
        """The connection is gone. What was told grows old."""
        self._atoms.clear()
        self._monitors = ()
        self._randr = 0
        self._asking = False
        self._asked_at_s = None

    def ask_if_due(self) -> None:
        now_s = self._now()
        due = self._asked_at_s is None or not 0 <= now_s - self._asked_at_s < EVERY_S - 0.05
        if not self.wanted or self._asking or not due or len(self._atoms) < len(_ATOMS):
            return
        self._asking = True
        self._asked_at_s = now_s
        self._ask_property(self._root, b"_NET_ACTIVE_WINDOW", _XA_WINDOW, self._take_active, self._gone)

    def _tell(self, *, fullscreen: bool) -> None:
        self.fullscreen = fullscreen
        self.told_at_s = self._asked_at_s or 0.0
        self._asking = False

    def _gone(self) -> None:
        """The window that was asked about has just been closed: the next look will tell."""
        self._asking = False

    def _ask_property(
        self, window: int, name: bytes, kind: int, take: Callable[[bytes], None], refused: Callable[[], None]
    ) -> None:
        head = struct.pack("<BBHIIIII", _GET_PROPERTY, 0, 6, window, self._atoms[name], kind, 0, 64)
        self._request(head, take, refused)

    def _take_atom(self, name: bytes, answer: bytes) -> None:
        (self._atoms[name],) = struct.unpack_from("<I", answer, 8)

    def _take_randr(self, answer: bytes) -> None:
        self._randr = answer[9] if answer[8] == 1 else 0

    def _take_active(self, answer: bytes) -> None:
        windows = _property_values(answer)
        if windows and windows[0]:
            # A window that is no more was left over by a window manager that is no more either.
            self._ask_property(windows[0], b"_NET_WM_STATE", _XA_ATOM, self._take_state, self._ask_focus)
        elif windows is None:
            self._ask_focus()
        else:
            self._tell(fullscreen=False)

    def _ask_focus(self) -> None:
        """No window manager tells: the keyboard's window is measured."""
        self._request(struct.pack("<BxH", _GET_INPUT_FOCUS, 1), self._take_focus)

    def _take_state(self, answer: bytes) -> None:
        states = _property_values(answer) or ()
        self._tell(fullscreen=self._atoms[b"_NET_WM_STATE_FULLSCREEN"] in states)

    def _take_focus(self, answer: bytes) -> None:
        (window,) = struct.unpack_from("<I", answer, 8)
        if window in _NO_FOCUS or window == self._root:
            self._tell(fullscreen=False)
        else:
            self._ask_parent(window, _MOST_PARENTS)

    def _ask_parent(self, window: int, more: int) -> None:
        def take(answer: bytes) -> None:
            (parent,) = struct.unpack_from("<I", answer, 12)
            if parent in (0, self._root) or more == 0:
                self._ask_monitors(window)
            else:
                self._ask_parent(parent, more - 1)

        self._request(struct.pack("<BxHI", _QUERY_TREE, 2, window), take, self._gone)

    def _ask_monitors(self, window: int) -> None:
        def measure(answer: bytes) -> None:
            left, top, width, height, border = struct.unpack_from("<hhHHH", answer, 12)
            box = Box(left, top, width + 2 * border, height + 2 * border)
            self._tell(fullscreen=any(box.fills(one) for one in self._monitors or (self._screen,)))

        def ask_geometry() -> None:
            self._request(struct.pack("<BxHI", _GET_GEOMETRY, 2, window), measure, self._gone)

        def take(answer: bytes) -> None:
            self._monitors = _monitors(answer)
            ask_geometry()

        if self._randr:
            data = struct.pack("<BBHIBxxx", self._randr, _GET_MONITORS, 3, self._root, 1)
            # A server with RandR older than 1.5 answers with an error: its whole screen counts then.
            self._request(data, take, ask_geometry)
        else:
            ask_geometry()


def _property_values(answer: bytes) -> tuple[int, ...] | None:
    """The numbers of a property of 32-bit items; None: the window has no such property."""
    kind, _, count = struct.unpack_from("<III", answer, 8)
    if not kind:
        return None
    return struct.unpack_from(f"<{count}I", answer, 32) if answer[1] == 32 else ()


def _monitors(answer: bytes) -> tuple[Box, ...]:
    """Of a GetMonitors reply: 24 bytes each, and four more for each of a monitor's outputs."""
    (count,) = struct.unpack_from("<I", answer, 12)
    found: list[Box] = []
    offset = 32
    for _ in range(count):
        (outputs,) = struct.unpack_from("<H", answer, offset + 6)
        found.append(Box(*struct.unpack_from("<hhHH", answer, offset + 8)))
        offset += 24 + 4 * outputs
    return tuple(found)
