"""What this program itself moves over TCP, as the kernel counts it by connection (tcp(7), TCP_INFO of linux/tcp.h).

What a connection moved between the last look and its end is not seen; whoever moves much had better tell the ledger.
"""

import os
import socket
import struct
import sys

BYTES_ACKED_AT = 120
"""Offset of tcpi_bytes_acked in struct tcp_info; tcpi_bytes_received follows (Linux 4.2)."""
INFO_BYTES = 136
WITH_HEADERS = 1.05
"""What devices count for each byte of a connection: headers of 66 bytes for 1,448 of content."""


class OwnConnections:
    """Looks at this process's own descriptors; connections within the machine pass no device and do not count."""

    def __init__(self, *, proc: str = "/proc") -> None:
        self._folder = f"{proc}/self/fd"
        self._known: dict[str, int] = {}
        self._others: set[str] = set()
        """Sockets that are no TCP connection to elsewhere, by their inodes."""
        self._looked = False

    def moved_bytes(self) -> float:
        """In and out since the last look; of the first look nothing is known."""
        moved = 0
        now: dict[str, int] = {}
        others: set[str] = set()
        for descriptor, inode in self._sockets():
            if inode in self._others:
                others.add(inode)
                continue
            total = _total_of(descriptor)
            if total is None:
                others.add(inode)
                continue
            moved += max(0, total - self._known.get(inode, 0 if self._looked else total))
            now[inode] = total
        self._known, self._others, self._looked = now, others, True
        return moved * WITH_HEADERS

    def _sockets(self) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - in the loop
        except OSError:
            return found
        for name in names:
            try:
                target = os.readlink(f"{self._folder}/{name}")  # noqa: PTH115 - in the loop
            except OSError:
                continue
            if target.startswith("socket:["):
                found.append((int(name), target))
        return found


def _total_of(descriptor: int) -> int | None:
    """None: no TCP connection to elsewhere. A listening or unconnected one may become one, and has 0."""
    assert sys.platform == "linux"  # noqa: S101 - tells type checkers that there is TCP_INFO
    try:
        one = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
    with one:
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
            return None
        try:
            info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
            if _is_within(one):
                return None
        except OSError:
            # Not connected, or not any more.
            return 0
    return total_in(info)


def _is_within(one: socket.socket) -> bool:
    """Connected to an address of this machine; raises OSError for one that is not connected."""
    return one.getpeername()[0] == one.getsockname()[0]


def total_in(info: bytes) -> int:
    """Bytes acknowledged and received, from a struct tcp_info; 0 where the kernel's own is shorter."""
    if len(info) < INFO_BYTES:
        return 0
    acked, received = struct.unpack_from("=QQ", info, BYTES_ACKED_AT)
    return acked + received
