"""Short requests to a scheduler that is reached directly over plain HTTP: the conversations that every task pays for.

A general client spends 0.5 ms of CPU on such a request, ten times what the parser (httptools, which the scheduler uses as
well) and a socket cost; a single small task makes four of them. What is not plain takes the general client: TLS, a proxy,
bodies that are streamed. See docs/adr/0005.
"""

import asyncio
import contextlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import urlsplit

try:
    import httptools
except ImportError:  # not on every Python; the general client then serves all
    httptools = None

_KEPT_IDLE_S = 4.0
"""A connection that nobody used for so long is not used again: servers close theirs after 5 s."""
SHORT_BYTES = 256 * 1024
"""Longer bodies are for the general client, which sends them in pieces."""
_KEPT = 8
"""Connections that wait for their next request."""


class LineBroken(Exception):
    """There is no answer: nobody listens, the connection broke, or what came is no HTTP."""


@dataclass(frozen=True, kw_only=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


def open_line(url: str, *, proxies: bool) -> "DirectLine | None":
    """A line to where ``url`` leads; None where it needs more than a plain connection.

    ``proxies``: whether the environment's proxies count.
    """
    parts = urlsplit(url)
    if httptools is None or parts.scheme != "http" or parts.hostname is None or parts.username is not None:
        return None
    if proxies and "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
        return None
    return DirectLine(parts.hostname, parts.port or 80, prefix=parts.path.rstrip("/"))


class DirectLine:
    """Kept-alive connections to one server. Belongs to the event loop that uses it."""

    def __init__(self, host: str, port: int, *, prefix: str = "") -> None:
        self._host = host
        self._port = port
        self._prefix = prefix
        name = f"[{host}]" if ":" in host else host
        self._host_line = f"Host: {name}:{port}\r\n"
        self._idle: list[_Connection] = []
        self._closed = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None,
        connect_s: float,
        answer_s: float,
    ) -> Response:
        """Send, and wait ``answer_s`` for the whole answer. Not for HEAD, nor for long bodies. ``target``: path and query, encoded.

        Raises LineBroken or TimeoutError. The server may have acted then.
        """
        lines = [f"{method} {self._prefix}{target} HTTP/1.1\r\n", self._host_line]
        for name, value in headers.items():
            if "\n" in value or "\r" in value:
                raise ValueError(f"the header {name} has a line break in it")
            lines.append(f"{name}: {value}\r\n")
        if content is not None and not any(name.lower() == "content-length" for name in headers):
            lines.append(f"Content-Length: {len(content)}\r\n")
        lines.append("\r\n")
        message = "".join(lines).encode("latin-1") + (content or b"")
        while True:
            connection, used = await self._connection(connect_s)
            try:
                async with asyncio.timeout(answer_s):
                    response = await connection.ask(message)
            except LineBroken:
                connection.close()
                if used and not connection.heard:
                    continue  # the server had closed it in the meantime
                raise
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return response

    def close(self) -> None:
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self, connect_s: float) -> "tuple[_Connection, bool]":
        """A connection, and whether it was used before."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now_s - connection.idle_since_s < _KEPT_IDLE_S:
                return connection, True
            connection.close()
        try:
            async with asyncio.timeout(connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port
                )
        except TimeoutError:
            raise LineBroken(f"no connection within {connect_s:g} s") from None
        except OSError as error:
            raise LineBroken(_in_words(error)) from error
        return connection, False

    def _keep(self, connection: "_Connection") -> None:
        if connection.usable and not self._closed and len(self._idle) < _KEPT:
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


@dataclass(kw_only=True)
class _Answer:
    """What has come of an answer; the parser calls its methods."""

    parser: _Parser | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    pieces: list[bytes] = field(default_factory=list[bytes])
    whole: bool = False
    keeps: bool = False
    """The connection serves more requests."""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        # A 1xx is followed by the answer proper.
        if self.parser is not None and self.parser.get_status_code() >= 200:
            self.whole = True
            self.keeps = self.parser.should_keep_alive()


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self.usable = True
        self.heard = False
        """Something of the present answer has come."""
        self.idle_since_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer = _Answer()
        self._parser: _Parser | None = None
        self._done: asyncio.Future[Response] | None = None

    async def ask(self, message: bytes) -> Response:
        """Raises LineBroken."""
        if self._transport is None or httptools is None or not self.usable:
            raise LineBroken("the server closed the connection")
        self.heard = False
        self._answer = _Answer()
        self._parser = self._answer.parser = httptools.HttpResponseParser(self._answer)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._done

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by isinstance: other event loops have classes of their own.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        done, parser = self._done, self._parser
        if done is None or done.done() or parser is None:
            self.close()  # an answer that nobody asked for
            return
        self.heard = True
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:  # pyright: ignore[reportOptionalMemberAccess]  # a parser is one of its
            self._fail(f"what came is no HTTP ({error})")
            return
        if self._answer.whole:
            self.usable = self._answer.keeps
            status = parser.get_status_code()
            content = b"".join(self._answer.pieces)
            done.set_result(Response(status=status, headers=self._answer.headers, content=content))

    def eof_received(self) -> None:
        self.usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._fail("the server closed the connection" if exc is None else _in_words(exc))

    def _fail(self, problem: str) -> None:
        self.usable = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(LineBroken(problem))


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        with contextlib.suppress(ValueError):
            return os.strerror(error.errno)
    return str(error) or type(error).__name__
