"""A connection to a server of this machine over a Unix socket that never blocks, whatever is spoken over it."""

import contextlib
import select
import socket
import struct
import sys
from collections.abc import Iterator

MOST_BYTES = 4 << 20
"""What may wait to be sent, and what is taken at once: a server that floods us is left for a moment."""


class ServerProblem(Exception):
    """A server refused, ended or broke the protocol. Clients keep it as their problem and raise it to nobody."""

    def __init__(self, problem: str, *, refused: bool = False, absent: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.refused = refused
        """It answers, and does not let this user in; another credential may."""
        self.absent = absent
        """Nobody listens there."""


class ServerGone(ServerProblem):
    """It has ended the connection."""

    def __init__(self) -> None:
        super().__init__("it closed the connection")


class LocalSocket:
    """Connected from the start. Not for several threads at once."""

    _socket: socket.socket
    _outgoing: bytearray

    def __init__(self, path: str) -> None:
        """``path``: a leading NUL means Linux's abstract names. Raises ServerProblem or OSError."""
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that there are Unix sockets
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._outgoing = bytearray()
        self._socket.setblocking(False)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise _problem(error) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def peer_pid(self) -> int | None:
        """unix(7), SO_PEERCRED: who called listen(2); None where the system does not tell."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is not None:
            with contextlib.suppress(OSError):
                pid, _, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, option, 12))
                return pid if pid > 0 else None
        return None

    def send(self, data: bytes | bytearray) -> None:
        """To be sent with the next ``flush``. Raises ServerProblem."""
        self._outgoing += data
        if len(self._outgoing) > MOST_BYTES:
            raise ServerProblem("it does not read what it is asked")

    def flush(self) -> None:
        """Sends what the socket takes now. Raises OSError."""
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            del self._outgoing[:sent]

    def pieces(self) -> Iterator[bytes]:
        """What has come. Raises ServerGone, or OSError."""
        taken = 0
        while taken < MOST_BYTES:
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                return
            if not piece:
                raise ServerGone
            taken += len(piece)
            yield piece

    def wait(self, seconds: float) -> None:
        """Until something has come, or more can be sent, or the time is over."""
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that there is poll(2)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        poller.poll(max(1.0, seconds * 1000))

    def close(self) -> None:
        self._socket.close()


def _problem(error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return ServerProblem("nobody listens there", absent=True)
    if isinstance(error, PermissionError):
        return ServerProblem("this user may not connect to it", refused=True)
    if isinstance(error, BlockingIOError):
        # unix(7): the queue of connections that nobody accepted is full.
        return ServerProblem("it does not accept connections")
    return error
