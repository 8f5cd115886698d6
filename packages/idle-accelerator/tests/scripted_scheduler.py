"""A scheduler that answers as a test tells it to: also wrongly, and cut short."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``announced``: what Content-Length says, when that is to differ from the body that is sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None


Route = Callable[[Asked], Reply]


class ScriptedScheduler:
    """``routes`` by ``"METHOD /path"``; what has none is answered as the scheduler answers what does not exist."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("content-length", 0))
                asked = Asked(
                    method=self.command,
                    path=parts.path,
                    params={name: values[0] for name, values in parse_qs(parts.query).items()},
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self.rfile.read(length),
                )
                outer.asked.append(asked)
                reply = outer.routes.get(f"{asked.method} {asked.path}", _nothing)(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                announced = len(reply.body) if reply.announced is None else reply.announced
                self.send_header("Content-Length", str(announced))
                self.end_headers()
                if asked.method != "HEAD":
                    self.wfile.write(reply.body)
                if announced > len(reply.body) and asked.method != "HEAD":
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815  # the names are the base's

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, route: str, *replies: Reply) -> None:
        """The replies one after the other, then the last for ever."""
        left = list(replies)
        self.routes[route] = lambda _asked: left.pop(0) if len(left) > 1 else left[0]

    def count(self, route: str) -> int:
        return sum(f"{item.method} {item.path}" == route for item in self.asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def scripted() -> Iterator[ScriptedScheduler]:
    """For fixtures: ``fixture = pytest.fixture(scripted)``."""
    scheduler = ScriptedScheduler()
    yield scheduler
    scheduler.close()


def _nothing(_asked: Asked) -> Reply:
    return Reply(
        status=404, body=b'{"code":"not_found","message":"there is nothing here.","field":null,"hint":null}'
    )
