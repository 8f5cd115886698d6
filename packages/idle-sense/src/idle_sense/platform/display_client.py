"""What every connection to a display server does, whatever it speaks: one question at a time, and nobody waits for it.

An answer that is late is taken at a later poll, and what was known grows old meanwhile; so a server that accepts and never
answers cannot block anybody.
"""

import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

from idle_sense.platform.local_socket import LocalSocket, ServerProblem

PATIENCE_S = 0.05
"""How long the polls wait for one answer, all in all."""
GIVE_UP_S = 10.0
"""A connection that has owed an answer for this long is dropped, and made anew."""
RETRY_S = 1.0
"""Between attempts to connect to a server that refused or ended."""
QUIET_S = 1.0
"""The first input after so long without is told at once, as an event; input that follows input is not."""
MOST_BYTES = 1 << 20
"""Of one message."""


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
        self._socket: LocalSocket | None = None
        self._received = bytearray()
        self._sent_at_s = 0.0
        self._retry_at_s: float | None = None

    def poll(self, budget_s: float) -> None:
        """Asks, if nothing is outstanding, and takes what has come; waits up to ``budget_s`` for an answer to a question that
        is still young. Never raises for what a server does."""
        try:
            self._poll(budget_s)
        except ServerProblem as error:
            self._drop(error)
        except (struct.error, IndexError, UnicodeDecodeError):
            # Lengths inside a message that do not fit the message.
            self._drop(ServerProblem("it speaks another protocol"))
        except OSError as error:
            self._drop(ServerProblem(f"the connection broke: {error.strerror or error}"))

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
        """How long the message that begins ``_received`` is; None: not known yet. Raises ServerProblem for nonsense."""

    @abstractmethod
    def _take(self, message: bytes) -> None:
        """A whole message has come."""

    @abstractmethod
    def _forget(self) -> None:
        """The connection is gone: forgets what belonged to it."""

    # The rest is the same for all.

    def _poll(self, budget_s: float) -> None:
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
            self._socket.flush()
            self._receive()
            if not self._outstanding():
                return
            waited_s = self._now() - self._sent_at_s
            if waited_s > GIVE_UP_S:
                raise ServerProblem(f"no answer for {waited_s:.0f} s")
            wait_s = min(deadline_s, self._sent_at_s + PATIENCE_S) - self._now()
            if wait_s <= 0:
                if waited_s > PATIENCE_S / 2:
                    self.problem = "it does not answer"
                return
            self._socket.wait(wait_s)

    def _begin(self) -> None:
        """A question begins now."""
        self._sent_at_s = self._now()

    def _connect(self) -> None:
        self._begin()
        connection = self._socket = LocalSocket(self.address)
        self.absent = False
        self.peer_pid = connection.peer_pid
        self._greet()

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.send(data)

    def _receive(self) -> None:
        """Takes all whole messages that have come."""
        connection = self._socket
        for piece in () if connection is None else connection.pieces():
            self._received += piece
            while (length := self._length()) is not None and len(self._received) >= length:
                message = bytes(self._received[:length])
                del self._received[:length]
                self._take(message)
            if length is not None and length > MOST_BYTES:
                raise ServerProblem("it speaks another protocol")
            if self._socket is not connection:
                # What it said made us leave it.
                return

    def _drop(self, problem: ServerProblem) -> None:
        self.close()
        self._forget()
        self.problem, self.refused = problem.problem, problem.refused
        if problem.absent or problem.refused:
            self.absent = problem.absent
        self._retry_at_s = self._now() + self.retry_s
