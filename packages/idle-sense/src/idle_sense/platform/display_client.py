"""What every connection to a display server does, whatever it speaks: one question at a time, and nobody waits for it.

An answer that is late is taken at a later poll, and what was known grows old meanwhile; so a server that accepts and never
answers cannot block anybody.
"""

import contextlib
import select
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

from idle_sense.errors import DisplayError

PATIENCE_S = 0.05
"""How long the polls wait for one answer, all in all."""
GIVE_UP_S = 10.0
"""A connection that has owed an answer for this long is dropped, and made anew."""
RETRY_S = 1.0
"""Between attempts to connect to a server that refused or ended."""
QUIET_S = 1.0
"""The first input after so long without is told at once, as an event; input that follows input is not."""
MOST_BYTES = 1 << 20
"""Of one message, and of what waits to be read."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    idle_s: float
    at_s: float
    """When the question was sent, on this process's monotonic clock."""


class DisplayClient(ABC):
    """One connection to one display server; what it speaks is the subclass's affair. Not for several threads at once."""

    def __init__(self, address: str, *, now: Callable[[], float] = time.monotonic) -> None:
        """``address``: path of the socket; a leading NUL means Linux's abstract names."""
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
        self.retry_s = RETRY_S
        self._now = now
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._outgoing = bytearray()
        self._sent_at_s = 0.0
        self._retry_at_s: float | None = None

    def poll(self, budget_s: float) -> None:
        """Asks, if nothing is outstanding, and takes what has come; waits up to ``budget_s`` for an answer to a question that
        is still young. Never raises for what a server does."""
        try:
            self._poll(budget_s)
        except DisplayError as error:
            self._drop(error.message, refused=error.refused)
        except (struct.error, IndexError, UnicodeDecodeError):
            # Lengths inside a message that do not fit the message.
            self._drop("it speaks another protocol")
        except OSError as error:
            self._drop(f"the connection broke: {error.strerror or error}")

    def age_s(self, answer: Answer) -> float:
        """How long ago the answer was true, at the least favourable: since its question was sent."""
        return max(0.0, self._now() - answer.at_s)

    def filenos(self) -> Collection[int]:
        """Readable when something has come that ``poll`` should take."""
        return () if self._socket is None else (self._socket.fileno(),)

    def close(self) -> None:
        """Twice is once. A later ``poll`` connects anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received.clear()
        self._outgoing.clear()

    # What the subclass speaks.

    @abstractmethod
    def _greet(self) -> None:
        """The connection stands: sends what comes first."""

    @abstractmethod
    def _ask(self) -> None:
        """Nothing is outstanding: asks for the idle time."""

    @abstractmethod
    def _outstanding(self) -> bool:
        """Whether an answer is owed."""

    @abstractmethod
    def _length(self) -> int | None:
        """How long the message that begins ``_received`` is; None: not known yet. Raises DisplayError for nonsense."""

    @abstractmethod
    def _take(self, message: bytes) -> None:
        """A whole message has come."""

    @abstractmethod
    def _forget(self) -> None:
        """The connection is gone: forgets what belonged to it."""

    # The rest is the same for all.

    def _poll(self, budget_s: float) -> None:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that there is poll(2)
        deadline_s = self._now() + budget_s
        if self._socket is None:
            if self._retry_at_s is not None and self._now() < self._retry_at_s:
                return
            self._connect()
        else:
            # First what has arrived: a server that has just come back may have answered.
            self._receive()
            if not self._outstanding():
                self._begin()
                self._ask()
        while self._socket is not None:
            self._flush()
            self._receive()
            if not self._outstanding():
                return
            waited_s = self._now() - self._sent_at_s
            if waited_s > GIVE_UP_S:
                raise DisplayError(f"no answer for {waited_s:.0f} s", hint="")
            wait_s = min(deadline_s, self._sent_at_s + PATIENCE_S) - self._now()
            if wait_s <= 0:
                if waited_s > PATIENCE_S / 2:
                    self.problem = "it does not answer"
                return
            poller = select.poll()
            poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
            poller.poll(max(1.0, wait_s * 1000))

    def _begin(self) -> None:
        """A question begins now."""
        self._sent_at_s = self._now()

    def _connect(self) -> None:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that there are Unix sockets
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = connection
        connection.setblocking(False)
        self._begin()
        try:
            connection.connect(self.address)
        except (FileNotFoundError, ConnectionRefusedError):
            self.absent = True
            raise DisplayError("nobody listens there", hint="") from None
        except PermissionError:
            self.absent = False
            raise DisplayError("this user may not connect to it", hint="", refused=True) from None
        except BlockingIOError:
            # unix(7): the queue of connections that nobody accepted is full.
            raise DisplayError("it does not accept connections", hint="") from None
        self.absent = False
        self.peer_pid = _peer_pid(connection)
        self._greet()

    def _send(self, data: bytes) -> None:
        self._outgoing += data
        if len(self._outgoing) > MOST_BYTES:
            raise DisplayError("it does not read what it is asked", hint="")

    def _flush(self) -> None:
        while self._outgoing and self._socket is not None:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            del self._outgoing[:sent]

    def _receive(self) -> None:
        """Takes all whole messages that have come."""
        taken = 0
        while self._socket is not None and taken < MOST_BYTES:
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                return
            if not piece:
                raise DisplayError("it closed the connection", hint="")
            taken += len(piece)
            self._received += piece
            while (length := self._length()) is not None and len(self._received) >= length:
                message = bytes(self._received[:length])
                del self._received[:length]
                self._take(message)
            if length is not None and length > MOST_BYTES:
                raise DisplayError("it speaks another protocol", hint="")

    def _drop(self, problem: str, *, refused: bool = False) -> None:
        self.close()
        self._forget()
        self.problem = problem
        self.refused = refused
        self._retry_at_s = self._now() + self.retry_s


def _peer_pid(connection: socket.socket) -> int | None:
    """unix(7), SO_PEERCRED: who called listen(2)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with contextlib.suppress(OSError):
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, 12))
        return pid if pid > 0 else None
    return None
