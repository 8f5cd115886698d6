"""Short requests by the direct line and by the general client: what the scheduler gets and the caller hears is the same."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from idle_accelerator.errors import Unavailable
from idle_accelerator.sdk import transport as transport_module
from idle_accelerator.sdk.direct import DirectLine, LineBroken, open_line
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.settings import Connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Does with each connection what the next script says, and keeps what was sent."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
        writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        whole = head + await reader.readexactly(length)
        self.requests.append(whole)
        return whole

    def answers(self, *answers: bytes, piecewise: bool = False) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await self.request(reader)
                for piece in [answer[i : i + 1] for i in range(len(answer))] if piecewise else [answer]:
                    writer.write(piece)
                    await writer.drain()
                    if piecewise:
                        await asyncio.sleep(0)

        return script


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


@pytest.fixture(params=["direct", "general"])
async def transport(
    request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Transport]:
    if request.param == "general":
        monkeypatch.setattr(transport_module, "open_line", lambda _url, **_options: None)
    made = Transport(Connection(url=server.url, key="secret", origin="test"), patience_s=0.0)
    yield made
    await made.close()


async def test_the_request_says_what_it_is_to(server: Server, transport: Transport) -> None:
    server.scripts = [server.answers(OK)]
    answer = await transport.request(
        "POST",
        "/v1/jobs/ä b",
        params={"after": 3, "wait_s": 0.5, "left_out": None, "of": "a&b c"},
        content=b'{"a":1}',
        headers={"Idempotency-Key": "k"},
    )
    assert (answer.status, answer.content) == (200, b"ok")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = [line.lower() for line in head.split(b"\r\n")]
    assert lines[0].startswith(b"post /v1/jobs/%c3%a4%20b?after=3&wait_s=0.5&of=a%26b")
    assert f"host: 127.0.0.1:{server.port}".encode() in lines
    assert b"authorization: bearer secret" in lines
    assert b"idempotency-key: k" in lines
    assert b"content-length: 7" in lines
    assert body == b'{"a":1}'


@pytest.mark.parametrize("piecewise", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-One: 1\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: 1\r\nConnection: close\r\n\r\nhello",
    ],
)
async def test_answers_are_heard_however_they_come(
    server: Server, transport: Transport, answer: bytes, piecewise: bool
) -> None:
    server.scripts = [server.answers(answer, answer, piecewise=piecewise)] * 2
    for _ in range(2):
        heard = await transport.get("/healthz")
        assert (heard.status, heard.content, heard.headers["x-one"]) == (200, b"hello", "1")


async def test_an_answer_without_body_is_whole(server: Server, transport: Transport) -> None:
    server.scripts = [server.answers(b"HTTP/1.1 204 No Content\r\n\r\n", OK)]
    assert (await transport.request("DELETE", "/v1/nodes/x")).content == b""
    assert (await transport.get("/healthz")).content == b"ok"


async def test_a_connection_is_used_again(server: Server, transport: Transport) -> None:
    server.scripts = [server.answers(OK, OK, OK)]
    for _ in range(3):
        await transport.get("/healthz")
    assert server.connections == 1


async def test_requests_at_the_same_time_do_not_wait_for_each_other(
    server: Server, transport: Transport
) -> None:
    released = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        await released.wait()
        writer.write(OK)

    server.scripts = [held, server.answers(OK)]
    first = asyncio.create_task(transport.get("/held"))
    while not server.requests:
        await asyncio.sleep(0.001)
    assert (await transport.get("/healthz")).content == b"ok"
    released.set()
    assert (await first).content == b"ok"


async def test_a_connection_that_was_closed_in_the_meantime_costs_no_failure(
    server: Server, transport: Transport
) -> None:
    server.scripts = [server.answers(OK), server.answers(OK)]
    await transport.get("/healthz")
    await asyncio.sleep(0)
    assert (await transport.get("/healthz")).content == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", b"\x00\x01nonsense\r\n\r\n"]
)
async def test_half_an_answer_is_none(server: Server, transport: Transport, said: bytes) -> None:
    server.scripts = [server.answers(said)]
    with pytest.raises(Unavailable, match="does not answer"):
        await transport.get("/healthz")
    assert len(server.requests) == 1  # with no patience there is one try


async def test_where_nobody_listens_the_words_say_so(transport: Transport) -> None:
    transport.connection = Connection(url="http://127.0.0.1:1", key=None, origin="IDLE_SCHEDULER")
    with pytest.raises(Unavailable, match=r"from IDLE_SCHEDULER.*does not answer"):
        await transport.get("/healthz")


async def test_a_request_that_is_given_up_leaves_no_answer_for_the_next(
    server: Server, transport: Transport
) -> None:
    released = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        await released.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        await server.request(reader)
        writer.write(OK)

    server.scripts = [late, server.answers(OK)]
    first = asyncio.create_task(transport.get("/first"))
    while not server.requests:
        await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    released.set()
    assert (await transport.get("/healthz")).content == b"ok"


# What only the direct line has.


async def test_a_server_that_takes_and_never_answers_is_given_up(server: Server) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server.scripts = [silent]
    line = DirectLine("127.0.0.1", server.port)
    with pytest.raises(TimeoutError):
        await line.request("GET", "/", headers={}, content=None, connect_s=5.0, answer_s=0.05)


async def test_a_second_answer_that_nobody_asked_for_ends_the_connection(server: Server) -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        await reader.read()

    server.scripts = [twice, server.answers(OK)]
    line = DirectLine("127.0.0.1", server.port)

    async def ask() -> bytes:
        answer = await line.request("GET", "/", headers={}, content=None, connect_s=5.0, answer_s=5.0)
        return answer.content

    assert await ask() == b"ok"
    while line._idle[0].usable:
        await asyncio.sleep(0.001)
    assert await ask() == b"ok"
    line.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows")
def test_it_serves_in_other_event_loops() -> None:
    import uvloop

    async def main() -> bytes:
        server = Server()
        server.scripts = [server.answers(OK, OK)]
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        line = DirectLine("127.0.0.1", listening.sockets[0].getsockname()[1])
        for _ in range(2):
            answer = await line.request("GET", "/", headers={}, content=None, connect_s=5.0, answer_s=5.0)
        assert server.connections == 1
        line.close()
        listening.close()
        return answer.content

    assert uvloop.run(main()) == b"ok"


async def test_a_header_cannot_smuggle_another(server: Server) -> None:
    server.scripts = [server.answers(OK)]
    line = DirectLine("127.0.0.1", server.port)
    with pytest.raises(ValueError, match="line break"):
        await line.request(
            "GET", "/", headers={"Idempotency-Key": "a\r\nX: y"}, content=None, connect_s=1.0, answer_s=1.0
        )
    assert server.connections == 0


async def test_no_answer_on_a_fresh_connection_is_told_and_not_asked_for_again(server: Server) -> None:
    server.scripts = [server.answers(b"")]
    line = DirectLine("127.0.0.1", server.port)
    with pytest.raises(LineBroken):
        await line.request("GET", "/", headers={}, content=None, connect_s=1.0, answer_s=1.0)
    assert server.connections == 1


def test_what_needs_more_than_a_plain_connection_is_left_to_the_general_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert open_line("https://pool.example", proxies=False) is None
    assert open_line("http://user:word@pool.example", proxies=False) is None
    assert open_line("http://pool.example", proxies=True) is None
    assert open_line("http://127.0.0.1:8000", proxies=False) is not None
    monkeypatch.setenv("no_proxy", "pool.example")
    assert open_line("http://pool.example", proxies=True) is not None
