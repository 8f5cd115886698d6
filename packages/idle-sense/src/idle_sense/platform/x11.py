"""The idle time of one X display, asked over its socket: the MIT-SCREEN-SAVER extension's QueryInfo.

The few requests of the X11 protocol that this needs are written out here (X Window System Protocol, release 7.7,
appendix B; X11 Screen Saver Extension 1.1). Nothing waits: an answer that is late is taken at a later poll, and what
was known grows old meanwhile, so a server that accepts and never answers cannot block anybody.

The extension counts every key, button and movement, also those that XTest makes; programs that call WarpPointer or
ForceScreenSaver reset it too, which errs towards busy.
"""

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from idle_sense.errors import DisplayError

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
GIVE_UP_S = 10.0
"""A connection that has owed an answer for this long is dropped, and made anew."""
RETRY_S = 1.0
"""Between attempts to connect to a server that refused or ended."""
_MAX_ANSWER_BYTES = 1 << 20
_QUERY_EXTENSION = 98
_EXTENSIONS = (b"MIT-SCREEN-SAVER", b"XWAYLAND")


@dataclass(frozen=True, kw_only=True)
class Answer:
    idle_s: float
    at_s: float
    """When the question was sent, on this process's monotonic clock."""


class IdleClient:
    """One connection to one display. Not for several threads at once."""

    def __init__(
        self,
        address: str,
        *,
        cookies: Callable[[int | None], Iterable[bytes]] = lambda _pid: (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``address``: path of the socket; a leading NUL means Linux's abstract names. ``cookies``: what to show the server
        whose process id is given, tried in turn; nothing is tried last."""
        self.address = address
        self.answer: Answer | None = None
        """The latest."""
        self.problem = ""
        """Why there is no newer answer; empty while all is well."""
        self.refused = False
        """The server answers, and lets this user not in."""
        self.absent = False
        """Nobody listens at the address."""
        self.peer_pid: int | None = None
        """The server's process, where the system tells."""
        self.is_xwayland = False
        """It is an X server inside a Wayland desktop, and sees only what goes to X programs."""
        self._cookies = cookies
        self._now = now
        self._socket: socket.socket | None = None
        self._received = b""
        self._offers: list[bytes] | None = None
        self._asked: list[bytes] = []
        self._stage = "setup"
        self._root = 0
        self._opcode = 0
        self._sent_at_s = 0.0
        self._retry_at_s = 0.0

    def poll(self, budget_s: float) -> None:
        """Asks, if nothing is outstanding, and takes what has come within ``budget_s``. Never raises for what a server does."""
        try:
            self._poll(budget_s)
        except DisplayError as error:
            self._drop(error.message, refused=error.refused)
        except (struct.error, IndexError):
            # Lengths inside a message that do not fit the message.
            self._drop("it speaks another protocol")
        except OSError as error:
            self._drop(f"the connection broke: {error.strerror or error}")

    def age_s(self, answer: Answer) -> float:
        """How long ago the answer was true, at the least favourable: since its question was sent."""
        return max(0.0, self._now() - answer.at_s)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _poll(self, budget_s: float) -> None:
        deadline_s = self._now() + budget_s
        if self._socket is None:
            if self._now() < self._retry_at_s:
                return
            self._connect()
        elif self._stage == "ready":
            self._ask_idle()
        while self._stage != "ready":
            message = self._message(deadline_s)
            if message is None:
                waited_s = self._now() - self._sent_at_s
                if waited_s > GIVE_UP_S:
                    raise DisplayError(f"no answer for {waited_s:.0f} s", hint="")
                if waited_s > budget_s:
                    self.problem = "it does not answer"
                return
            self._take(message)

    def _connect(self) -> None:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that there are Unix sockets
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = connection
        connection.settimeout(0.05)
        self._sent_at_s = self._now()
        try:
            connection.connect(self.address)
        except (FileNotFoundError, ConnectionRefusedError):
            self.absent = True
            raise DisplayError("nobody listens there", hint="") from None
        except TimeoutError:
            raise DisplayError("it does not accept connections", hint="") from None
        self.absent = False
        self.peer_pid = _peer_pid(connection)
        if not self._offers:
            self._offers = [*self._cookies(self.peer_pid), b""]
        cookie = self._offers.pop(0)
        name = COOKIE_NAME if cookie else b""
        self._received = b""
        self._stage = "setup"
        self._send(
            struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(name), len(cookie)) + _padded(name) + _padded(cookie)
        )

    def _take(self, message: bytes) -> None:
        if self._stage == "setup":
            self._take_setup(message)
            return
        kind = message[0]
        if kind == 0:
            raise DisplayError(f"it answered with error {message[1]}", hint="")
        if kind != 1:
            return  # an event: a change of the keyboard's map goes to every client
        if self._stage == "extensions":
            self._take_extension(self._asked.pop(0), present=message[8] == 1, opcode=message[9])
        else:
            (idle_ms,) = struct.unpack_from("<I", message, 16)
            self.answer = Answer(idle_s=idle_ms / 1000.0, at_s=self._sent_at_s)
            self.problem = ""
            self.refused = False
            self._stage = "ready"

    def _take_setup(self, message: bytes) -> None:
        if message[0] != 1:
            text = message[8 : 8 + message[1]].decode("utf-8", "replace").strip()
            if self._offers:
                self.close()
                self._connect()
                return
            raise DisplayError(
                f"it does not let this user in ({text or 'no reason given'})", hint="", refused=True
            )
        # After 8 bytes of head: 32 of fixed facts, the vendor's name, the pixmap formats, then the first screen's root.
        (vendor_bytes,) = struct.unpack_from("<H", message, 24)
        formats = message[29]
        (self._root,) = struct.unpack_from("<I", message, 40 + vendor_bytes + -vendor_bytes % 4 + 8 * formats)
        self._asked = list(_EXTENSIONS)
        self._stage = "extensions"
        for name in _EXTENSIONS:
            words = 2 + (len(name) + 3) // 4
            self._send(struct.pack("<BxHHxx", _QUERY_EXTENSION, words, len(name)) + _padded(name))

    def _take_extension(self, name: bytes, *, present: bool, opcode: int) -> None:
        if name == b"XWAYLAND":
            self.is_xwayland = present
        elif not present:
            raise DisplayError("it lacks the MIT-SCREEN-SAVER extension", hint="")
        else:
            self._opcode = opcode
        if not self._asked:
            self._ask_idle()

    def _ask_idle(self) -> None:
        self._stage = "asked"
        self._sent_at_s = self._now()
        self._send(struct.pack("<BBHI", self._opcode, 1, 2, self._root))

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            raise DisplayError("the connection is closed", hint="")
        # Some dozen bytes on a fresh or drained socket: a server that never reads lets them pass, or is dropped.
        self._socket.settimeout(0.05)
        self._socket.sendall(data)

    def _message(self, deadline_s: float) -> bytes | None:
        """The next whole message; None: not within the deadline."""
        while True:
            length = self._length()
            if length is not None and len(self._received) >= length:
                message, self._received = self._received[:length], self._received[length:]
                return message
            if self._socket is None:
                return None
            # A millisecond at least: what has arrived is taken even when the time is over.
            self._socket.settimeout(max(0.001, deadline_s - self._now()))
            try:
                piece = self._socket.recv(65536)
            except TimeoutError:
                return None
            if not piece:
                raise DisplayError("it closed the connection", hint="")
            self._received += piece

    def _length(self) -> int | None:
        """How long the message that begins the buffer is; None: not known yet."""
        if len(self._received) < 8:
            return None
        if self._stage == "setup":
            length = 8 + 4 * int.from_bytes(self._received[6:8], "little")
            if self._received[0] == 1 and length < 44:
                raise DisplayError("it speaks another protocol", hint="")
        else:
            # Replies and generic events say how much follows their 32 bytes.
            more = self._received[0] in (1, 35)
            length = 32 + (4 * int.from_bytes(self._received[4:8], "little") if more else 0)
        if length > _MAX_ANSWER_BYTES:
            raise DisplayError("it speaks another protocol", hint="")
        return length

    def _drop(self, problem: str, *, refused: bool = False) -> None:
        self.close()
        self.problem = problem
        self.refused = refused
        self._offers = None
        self._stage = "setup"
        self._retry_at_s = self._now() + RETRY_S


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _peer_pid(connection: socket.socket) -> int | None:
    """unix(7), SO_PEERCRED: who called listen(2)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with contextlib.suppress(OSError):
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, 12))
        return pid if pid > 0 else None
    return None


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
