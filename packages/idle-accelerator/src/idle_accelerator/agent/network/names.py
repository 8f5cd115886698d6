"""Names for guests with an open network: their queries go to the resolver of the machine, as they are. Standard library alone."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any, Final

from idle_accelerator.wire.hosts import address_of

QUERIES: Final = 64
"""Of one guest at a time; more are not heard, and asked again by who needs them."""
ANSWER_S: Final = 5.0
_DATAGRAM_BYTES: Final = 4096
_HEADER_BYTES: Final = 12
"""Of every message (RFC 1035)."""
_PORT: Final = 53
_SETTINGS: Final = Path("/etc/resolv.conf")
_BY_DEFAULT: Final = "127.0.0.1"
"""Where no resolver is named (resolv.conf(5))."""


def resolver(text: str) -> str:
    """The address of the first resolver that a resolv.conf(5) names."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and address_of(words[1]) is not None:
            return words[1]
    return _BY_DEFAULT


class NameDoor:
    """One guest's way to ask for names. See ``doors.Door``."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._going = asyncio.Event()
        self._going.set()
        self._asking: set[asyncio.Task[None]] = set()
        self._hearing = asyncio.create_task(self._hear(), name="names")

    def hold(self) -> None:
        self._going.clear()

    def go(self) -> None:
        self._going.set()

    def close(self) -> None:
        self._hearing.cancel()
        for task in self._asking:
            task.cancel()
        self._line.close()

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        self._line.setblocking(False)
        while True:
            await self._going.wait()
            try:
                query, sender = await loop.sock_recvfrom(self._line, _DATAGRAM_BYTES)
            except OSError:  # who asked earlier is gone
                continue
            if len(query) >= _HEADER_BYTES and len(self._asking) < QUERIES:
                task = asyncio.create_task(self._ask(query, sender))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, query: bytes, sender: Any) -> None:
        loop = asyncio.get_running_loop()
        # OSError, TimeoutError: there is no answer, which the guest waits for in vain.
        with contextlib.suppress(OSError, TimeoutError):
            address = resolver(
                await asyncio.to_thread(_SETTINGS.read_text, encoding="utf-8", errors="replace")
            )
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as far:
                far.setblocking(False)
                far.connect((address, _PORT))
                async with asyncio.timeout(ANSWER_S):
                    await loop.sock_sendall(far, query)
                    answer = await loop.sock_recv(far, _DATAGRAM_BYTES)
                    while answer[:2] != query[:2]:
                        answer = await loop.sock_recv(far, _DATAGRAM_BYTES)
                await self._going.wait()
                await loop.sock_sendto(self._line, answer, sender)
