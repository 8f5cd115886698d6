"""A web site of the tests' own, over TLS with a certificate made for it, on an address of this machine that is no loopback."""

import contextlib
import functools
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SLOW_PATH = "/slow"
PIECE_BYTES = 16 * 1024
PIECES = 400
"""Of what SLOW_PATH gives, one each some milliseconds."""


@dataclass(kw_only=True)
class Site:
    """Where it is, and what was asked of it."""

    address: str
    port: int
    folder: Path
    """Files that it serves."""
    certificate: Path
    asked: list[str] = field(default_factory=list[str])
    sent_pieces: int = 0

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"


def own_address() -> str:
    """An address of this machine beside its loopback; nothing is sent. Skips where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        try:
            line.connect(("192.0.2.53", 53))
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        return str(line.getsockname()[0])


@contextlib.contextmanager
def site(folder: Path) -> Generator[Site]:
    """Serve ``folder / "www"``."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    address = own_address()
    root, key, certificate = folder / "www", folder / "key.pem", folder / "certificate.pem"
    root.mkdir()
    subject = ("-subj", "/CN=site", "-addext", f"subjectAltName=IP:{address},DNS:localhost")
    kind = ("-addext", "basicConstraints=critical,CA:FALSE")
    made_by = (openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    subprocess.run(
        [*made_by, *subject, *kind, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    made = Site(address=address, port=0, folder=root, certificate=certificate)
    handler = functools.partial(_Handler, made, directory=str(root))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _Server(("0.0.0.0", 0), handler) as server:  # its loopback is one of the places to be refused
        server.tls = context
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext

    def finish_request(self, request, client_address) -> None:  # pyright: ignore[reportMissingParameterType]
        """In the connection's own thread: a client that is slow to speak TLS holds nobody up."""
        with contextlib.suppress(OSError), self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, made: Site, *arguments: object, **named: object) -> None:
        self._site = made
        super().__init__(*arguments, **named)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        self._site.asked.append(self.path)
        if self.path != SLOW_PATH:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(PIECES * PIECE_BYTES))
        self.end_headers()
        for _ in range(PIECES):
            self.wfile.write(b"x" * PIECE_BYTES)
            self._site.sent_pieces += 1
            threading.Event().wait(0.005)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as it is called there
        pass
