"""The proxy's work: for each guest a door, which is a socket in its namespace, and what goes through it. See ``proxy``."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from idle_accelerator.agent.network import requests
from idle_accelerator.agent.network.names import NameDoor
from idle_accelerator.agent.network.reaching import RefusedError, connect, permitted, resolve
from idle_accelerator.wire.hosts import lent_host, wanted_host

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

CONNECTIONS: Final = 64
"""Of one guest at a time."""
HEAD_S: Final = 30.0
IDLE_S: Final = 900.0
"""A connection through which nothing went for so long is closed. Time in which its guest stands still does not count."""
TELL_EVERY_S: Final = 0.2
_PIECE_BYTES: Final = 128 * 1024
_MESSAGE_LIMIT: Final = 256 * 1024
_PAUSE_S: Final = 0.1
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

SENTENCES: Final = {
    "network.refused": "The job does not name {host}.",
    "network.not_lent": "The owner of this machine does not allow {host}.",
    "network.not_public": "{host} leads to {detail}, which is no public address.",
    "network.unreachable": "{host} could not be reached: {detail}.",
}
"""What a guest is told in the answer's body."""

Tell = Callable[..., None]


class Door:
    """One guest's way out."""

    def __init__(
        self, listening: socket.socket, terms: dict[str, Any], tell: Tell, moved: Callable[[int], None]
    ) -> None:
        self._listening = listening
        self._id: Final = terms["id"]
        self._wanted: Final = [wanted_host(text) for text in terms["hosts"]]
        self._lent: Final = [lent_host(text) for text in terms["lent"]]
        self._any_public: Final = bool(terms["any_public"])
        self._bytes_per_s: Final[float | None] = terms["bytes_per_s"]
        self._tell = tell
        self._moved = moved
        self._going = asyncio.Event()
        self._going.set()
        self._told: set[str] = set()
        self._paid_until_s = 0.0
        self._resumed_s = 0.0
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name=f"door {self._id}")

    def hold(self) -> None:
        """Nothing more goes through, until ``go``."""
        self._going.clear()

    def go(self) -> None:
        self._resumed_s = time.monotonic()
        self._going.set()

    def close(self) -> None:
        """All of it ends."""
        self._accepting.cancel()
        for task in self._connections:
            task.cancel()
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        while True:
            await self._going.wait()
            try:
                line, _ = await loop.sock_accept(self._listening)
            except OSError:  # no more descriptors, or one that has gone already
                await asyncio.sleep(_PAUSE_S)
                continue
            line.setblocking(False)
            if len(self._connections) >= CONNECTIONS:
                with contextlib.suppress(OSError):
                    line.send(_answer(503, f"A task may have {CONNECTIONS} connections at a time."))
                line.close()
                continue
            task = asyncio.create_task(self._serve(line))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, line: socket.socket) -> None:
        # TimeoutError, OSError: the guest went away, or said nothing.
        with line, contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(HEAD_S):
                head, rest = await _read_head(line)
            try:
                wanted = requests.read(head)
            except requests.NotUnderstoodError as error:
                await _say(line, _answer(405 if head[:1].isalpha() else 400, str(error)))
                return
            try:
                far = await self._reach(wanted)
            except RefusedError as refused:
                await self._refuse(line, wanted, refused)
                return
            with far:
                if wanted.first:
                    await self._send(far, wanted.first + rest)
                else:
                    await _say(line, _ESTABLISHED)
                    if rest:
                        await self._send(far, rest)
                await self._carry(line, far)

    async def _reach(self, wanted: requests.Wanted) -> socket.socket:
        """Raises RefusedError."""
        name, port = wanted.name, wanted.port
        if not any(one.admits(name, port) for one in self._wanted):
            raise RefusedError("network.refused")
        if not self._any_public and not any(one.admits(name, port) for one in self._lent):
            raise RefusedError("network.not_lent")
        addresses = permitted(await resolve(name, port), port, named=self._lent)
        await self._going.wait()
        return await connect(addresses, port)

    async def _refuse(self, line: socket.socket, wanted: requests.Wanted, refused: RefusedError) -> None:
        host = str(wanted)
        if host not in self._told:
            self._told.add(host)
            # Before the guest hears it: when that has ended, this is in the agent's hands.
            self._tell("refused", id=self._id, host=host, code=refused.code, detail=refused.detail[:300])
        said = SENTENCES[refused.code].format(host=host, detail=refused.detail)
        await _say(line, _answer(502 if refused.code == "network.unreachable" else 403, said))

    async def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Both ways, until both have ended."""
        marks = [time.monotonic()]
        ways = [
            asyncio.create_task(self._pump(near, far, marks)),
            asyncio.create_task(self._pump(far, near, marks)),
        ]
        try:
            while not all(way.done() for way in ways):
                await asyncio.wait(ways, timeout=IDLE_S, return_when=asyncio.FIRST_EXCEPTION)
                if any(way.done() and way.exception() is not None for way in ways):
                    return
                quiet_s = time.monotonic() - max(marks[0], self._resumed_s)
                if self._going.is_set() and quiet_s >= IDLE_S:
                    return
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket, marks: list[float]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._going.wait()
            data = await loop.sock_recv(source, _PIECE_BYTES)
            if not data:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            marks[0] = time.monotonic()
            await self._send(sink, data)

    async def _send(self, sink: socket.socket, data: bytes) -> None:
        await self._going.wait()
        await asyncio.get_running_loop().sock_sendall(sink, data)
        self._moved(len(data))
        if self._bytes_per_s is not None:
            now_s = time.monotonic()
            self._paid_until_s = max(self._paid_until_s, now_s) + len(data) / self._bytes_per_s
            await asyncio.sleep(self._paid_until_s - now_s)


class Doors:
    """All guests' doors, and the line to the agent."""

    def __init__(self, line: socket.socket, opener: socket.socket) -> None:
        self._line = line
        self._opener = opener
        self._doors: dict[int, Door | NameDoor] = {}
        self._moved_bytes = 0

    async def serve(self) -> int:
        """Until the agent ends the line."""
        loop = asyncio.get_running_loop()
        self._line.setblocking(False)
        ended = asyncio.Event()

        def hear() -> None:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._line, _MESSAGE_LIMIT, 1)
            except BlockingIOError:
                return
            except OSError:
                said, descriptors = b"", []
            if not said:
                loop.remove_reader(self._line)
                ended.set()
                return
            try:
                self._obey(json.loads(said), descriptors)
            finally:
                for number in descriptors:
                    os.close(number)

        loop.add_reader(self._line, hear)
        await ended.wait()
        for door in self._doors.values():
            door.close()
        return 0

    def _obey(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        number = message["id"]
        match message["do"]:
            case "open":
                self._open(message, descriptors[0])
            case "close":
                if (door := self._doors.pop(number, None)) is not None:
                    door.close()
            case "hold":
                if (door := self._doors.get(number)) is not None:
                    door.hold()
            case _:
                if (door := self._doors.get(number)) is not None:
                    door.go()

    def _open(self, message: dict[str, Any], net: int) -> None:
        number = message["id"]
        # Blocks for two milliseconds, while the process beside this one forks.
        wanted = {"names": message["names"], "closed": message["closed"]}
        socket.send_fds(self._opener, [json.dumps(wanted).encode()], [net])
        said, made, _, _ = socket.recv_fds(self._opener, _MESSAGE_LIMIT, 1)
        if not made:
            self._tell("failed", id=number, why=said.decode(errors="replace") or "its helper has ended")
            return
        line = socket.socket(fileno=made[0])
        if message["names"]:
            self._doors[number] = NameDoor(line)
        else:
            self._doors[number] = Door(line, message, self._tell, self._note)
        self._tell("opened", id=number)

    def _note(self, byte_count: int) -> None:
        if not self._moved_bytes:
            asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell_moved)
        self._moved_bytes += byte_count

    def _tell_moved(self) -> None:
        self._tell("moved", id=0, bytes=self._moved_bytes)
        self._moved_bytes = 0

    def _tell(self, what: str, **values: object) -> None:
        # An agent that does not listen for so long that nothing more fits is about to end this program.
        with contextlib.suppress(OSError):
            self._line.send(json.dumps({"is": what, **values}, separators=(",", ":")).encode())


async def _read_head(line: socket.socket) -> tuple[bytes, bytes]:
    """Up to and with the empty line, and what came after it. Raises OSError for what is none."""
    loop = asyncio.get_running_loop()
    got = b""
    while b"\r\n\r\n" not in got:
        if len(got) > requests.HEAD_LIMIT_BYTES:
            raise OSError("the head is too long")
        piece = await loop.sock_recv(line, 4096)
        if not piece:
            raise OSError("it went away")
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


async def _say(line: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(line, data)


def _answer(status: int, sentence: str) -> bytes:
    phrases = {
        400: "Bad Request",
        403: "Forbidden",
        405: "Method Not Allowed",
        502: "Bad Gateway",
        503: "Busy",
    }
    body = f"{sentence}\n".encode()
    head = (
        f"HTTP/1.1 {status} {phrases[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
