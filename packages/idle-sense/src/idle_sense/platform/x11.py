"""One X display over its socket: how long it has had no input, and whether the foremost window fills the screen.

The few requests of the X11 protocol that this needs are written out here (X Window System Protocol, release 7.7,
appendix B; X11 Screen Saver Extension 1.1: QueryInfo; X Synchronization Extension 3.1: alarms on the counter IDLETIME).

The idle time counts every key, button and movement, also those that XTest makes; programs that call WarpPointer or
ForceScreenSaver reset it too, which errs towards busy. The alarm tells the first input after a second of quiet by an event;
somebody who types on causes none.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable

from idle_sense.platform.display_client import GIVE_UP_S, QUIET_S, Answer, DisplayClient
from idle_sense.platform.local_socket import ServerProblem
from idle_sense.platform.x11_windows import Foremost

__all__ = ["GIVE_UP_S", "Answer", "IdleClient", "cookies_in"]

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
_QUERY_EXTENSION = 98
_EXTENSIONS = (b"MIT-SCREEN-SAVER", b"XWAYLAND", b"SYNC")
_SYNC_INITIALIZE, _SYNC_LIST_SYSTEM_COUNTERS, _SYNC_CREATE_ALARM = 0, 1, 8
_ABSOLUTE, _NEGATIVE_TRANSITION = 0, 1
_ALARM_FACTS = 0b111111
"""sync.h: counter, value type, value, test, delta and events are given."""

Taker = Callable[[bytes], None]


class IdleClient(DisplayClient):
    def __init__(
        self,
        address: str,
        *,
        cookies: Callable[[int | None], Iterable[bytes]] = lambda _pid: (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cookies``: what to show the server whose process id is given, tried in turn; nothing is tried last."""
        super().__init__(address, now=now)
        self.is_xwayland = False
        """It is an X server inside a Wayland desktop, and sees only what goes to X programs."""
        self.alarmed = False
        """The server tells of the first input after some quiet by itself."""
        self.foremost = Foremost(self._request, now)
        self._cookies = cookies
        self._offers: list[bytes] | None = None
        self._let_in = False
        self._root = 0
        self._own_ids = 0
        self._screen_saver = 0
        self._sync = self._alarm_event = 0
        self._count = 0
        self._alarm_number = -1
        self._owed: dict[int, tuple[Taker, Callable[[], None] | None]] = {}

    def _greet(self) -> None:
        if not self._offers:
            self._offers = [*self._cookies(self.peer_pid), b""]
        cookie = self._offers.pop(0)
        name = COOKIE_NAME if cookie else b""
        self._send(
            struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(name), len(cookie)) + _padded(name) + _padded(cookie)
        )

    def _ask(self) -> None:
        self._request(struct.pack("<BBHI", self._screen_saver, 1, 2, self._root), self._take_idle)
        self.foremost.ask_if_due()

    def _outstanding(self) -> bool:
        return not self._let_in or bool(self._owed)

    def _forget(self) -> None:
        self._let_in = self.alarmed = False
        self._alarm_number = -1
        self._offers = None
        self._owed.clear()
        self.foremost.forget()

    def _length(self) -> int | None:
        received = self._received
        if len(received) < 8:
            return None
        if not self._let_in:
            length = 8 + 4 * int.from_bytes(received[6:8], "little")
            if received[0] == 1 and length < 44:
                raise ServerProblem("it speaks another protocol")
            return length
        # Replies and generic events say how much follows their 32 bytes.
        return 32 + (4 * int.from_bytes(received[4:8], "little") if received[0] in (1, 35) else 0)

    def _request(self, data: bytes, take: Taker, refused: Callable[[], None] | None = None) -> None:
        """``refused``: what to do for an error in place of the answer; None: the connection is of no use then."""
        self._count = (self._count + 1) & 0xFFFF
        self._owed[self._count] = (take, refused)
        self._send(data)

    def _take(self, message: bytes) -> None:
        if not self._let_in:
            self._take_setup(message)
            return
        if message[0] > 1:
            # Else a change of the keyboard's map, which goes to every client.
            if self.alarmed and message[0] & 0x7F == self._alarm_event:
                # Input just now: known at once, however long the server takes for the next question.
                self.answer = Answer(idle_s=0.0, at_s=self._now())
            return
        number = int.from_bytes(message[2:4], "little")
        if message[0] == 0 and number == self._alarm_number:
            self.alarmed = False
            return
        take, refused = self._owed.pop(number, (None, None))
        if take is None:
            raise ServerProblem("it speaks another protocol")
        if message[0] == 1:
            take(message)
        elif refused is not None:
            refused()
        else:
            raise ServerProblem(f"it answered with error {message[1]}")

    def _take_setup(self, message: bytes) -> None:
        if message[0] != 1:
            text = message[8 : 8 + message[1]].decode("utf-8", "replace").strip()
            if self._offers:
                self.close()
                self._connect()
                return
            raise ServerProblem(f"it does not let this user in ({text or 'no reason given'})", refused=True)
        # After 8 bytes of head: 32 of fixed facts, the vendor's name, the pixmap formats, then the first screen.
        (self._own_ids,) = struct.unpack_from("<I", message, 12)
        (vendor_bytes,) = struct.unpack_from("<H", message, 24)
        screen = 40 + vendor_bytes + -vendor_bytes % 4 + 8 * message[29]
        (self._root,) = struct.unpack_from("<I", message, screen)
        width, height = struct.unpack_from("<HH", message, screen + 20)
        self._let_in = True
        self._count = 0
        for name in _EXTENSIONS:
            words = 2 + (len(name) + 3) // 4
            data = struct.pack("<BxHHxx", _QUERY_EXTENSION, words, len(name)) + _padded(name)
            self._request(data, lambda answer, name=name: self._take_extension(name, answer))
        self.foremost.begin(self._root, width, height)

    def _take_extension(self, name: bytes, answer: bytes) -> None:
        present, opcode = answer[8] == 1, answer[9]
        if name == b"XWAYLAND":
            self.is_xwayland = present
        elif name == b"SYNC":
            if present:
                self._sync, self._alarm_event = opcode, answer[10] + 1
                self._request(struct.pack("<BBHBBxx", opcode, _SYNC_INITIALIZE, 2, 3, 1), self._begin_sync)
        elif not present:
            raise ServerProblem("it lacks the MIT-SCREEN-SAVER extension")
        else:
            self._screen_saver = opcode
            self._ask()

    def _begin_sync(self, _answer: bytes) -> None:
        self._request(struct.pack("<BBH", self._sync, _SYNC_LIST_SYSTEM_COUNTERS, 1), self._take_counters)

    def _take_counters(self, answer: bytes) -> None:
        (count,) = struct.unpack_from("<i", answer, 8)
        offset = 32
        for _ in range(count):
            (counter,) = struct.unpack_from("<I", answer, offset)
            (length,) = struct.unpack_from("<H", answer, offset + 12)
            if answer[offset + 14 : offset + 14 + length] == b"IDLETIME":
                self._set_alarm(counter)
                return
            offset += 14 + length + -(14 + length) % 4

    def _set_alarm(self, counter: int) -> None:
        """Falls due whenever the counter falls below the threshold, as often as that happens: a transition without a step
        (delta 0) stays set."""
        alarm, quiet_ms = self._own_ids | 1, round(QUIET_S * 1000)
        facts = struct.pack("<IIiIIiII", counter, _ABSOLUTE, 0, quiet_ms, _NEGATIVE_TRANSITION, 0, 0, 1)
        words = 3 + len(facts) // 4
        data = struct.pack("<BBHII", self._sync, _SYNC_CREATE_ALARM, words, alarm, _ALARM_FACTS) + facts
        # A request without an answer: it counts all the same, and an error in its place comes under its number.
        self._alarm_number = self._count = (self._count + 1) & 0xFFFF
        self._send(data)
        self.alarmed = True

    def _take_idle(self, answer: bytes) -> None:
        (idle_ms,) = struct.unpack_from("<I", answer, 16)
        self.answer = Answer(idle_s=idle_ms / 1000.0, at_s=self._sent_at_s)
        self.problem = ""
        self.refused = False


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cookies_in(path: str, number: int) -> list[bytes]:
    """The cookies for display ``number`` in an Xauthority file (Xau(3)); empty where it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a string from the environment
            raw = file.read(1 << 20)
    except OSError:
        return []
    found: list[bytes] = []
    offset = 0
    hostname = os.fsencode(socket.gethostname())
    while offset + 2 <= len(raw):
        (family,) = struct.unpack_from(">H", raw, offset)
        offset += 2
        fields: list[bytes] = []
        for _ in range(4):
            if offset + 2 > len(raw):
                return found
            (length,) = struct.unpack_from(">H", raw, offset)
            fields.append(raw[offset + 2 : offset + 2 + length])
            offset += 2 + length
            if offset > len(raw):
                return found
        host, display, name, data = fields
        here = family == 0xFFFF or (family == 256 and host == hostname)
        if name == COOKIE_NAME and display in (b"", b"%d" % number) and data:
            # This host's first; a machine that was renamed since keeps the old name in its file.
            found.insert(0 if here else len(found), data)
    return found
