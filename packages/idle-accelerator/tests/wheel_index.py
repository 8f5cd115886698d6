"""A package index of tiny wheels made by hand, served on the loopback as PEP 503 has it; no other network is needed."""

import base64
import hashlib
import io
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from idle_accelerator.agent.environments.uv import find_uv

USER, PASSWORD = "owner", "hunter2-of-the-owner"


@dataclass(frozen=True, kw_only=True)
class Link:
    """Content of a wheel: a symbolic link."""

    to: str


def wheel(
    name: str, version: str, files: Mapping[str, str | bytes | Link], *, requires: str = ""
) -> tuple[str, bytes]:
    """(file name, content). ``files`` may hold what no honest wheel holds."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    every: dict[str, str | bytes | Link] = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in every)
    every[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in every.items():
            if isinstance(content, Link):
                entry = zipfile.ZipInfo(path)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, content.to)
            else:
                archive.writestr(path, content)
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


def source(name: str, version: str, setup: str) -> tuple[str, bytes]:
    """A source distribution whose build would run ``setup``."""
    packed = io.BytesIO()
    files = {
        "setup.py": setup,
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'setup'\nbackend-path = ['.']\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return f"{name}-{version}.tar.gz", packed.getvalue()


@dataclass(kw_only=True)
class WheelIndex:
    """Files by name; ``url`` is what uv is told."""

    port: int
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    asked: list[str] = field(default_factory=list[str])
    """Paths of all requests."""
    needs_password: bool = False
    slow: threading.Event = field(default_factory=threading.Event)
    """While it is set, files do not get past their first half."""
    status: int = 200
    """Of all answers."""

    @property
    def url(self) -> str:
        who = f"{USER}:{PASSWORD}@" if self.needs_password else ""
        return f"http://{who}127.0.0.1:{self.port}/simple/"

    def add(self, file: tuple[str, bytes]) -> str:
        """Its requirement, pinned by its hash."""
        name, content = file
        self.files[name] = content
        package, version = name.removesuffix(".tar.gz").split("-")[:2]
        return f"{package}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}"

    def downloads(self) -> list[str]:
        return [path for path in self.asked if path.startswith("/files/") and not path.endswith(".metadata")]

    def metadata(self, name: str) -> bytes:
        """Of a wheel, as PEP 658 has it; empty for what is none."""
        if not name.endswith(".whl"):
            return b""
        with zipfile.ZipFile(io.BytesIO(self.files[name])) as wheel_:
            found = next(path for path in wheel_.namelist() if path.endswith(".dist-info/METADATA"))
            return wheel_.read(found)


def _anchor(index: "WheelIndex", file: str) -> str:
    digest = hashlib.sha256(index.files[file]).hexdigest()
    described = f'data-core-metadata="sha256={hashlib.sha256(index.metadata(file)).hexdigest()}"'
    return f'<a href="/files/{file}#sha256={digest}" {described if file.endswith(".whl") else ""}>{file}</a>'


def _handler(index: Callable[[], WheelIndex]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = index()
            here.asked.append(self.path)
            wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if here.needs_password and self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.end_headers()
                return
            kind, _, name = self.path.strip("/").partition("/")
            if here.status != 200:
                self.send_error(here.status)
            elif name.endswith(".metadata"):
                self._answer(here.metadata(name.removesuffix(".metadata")), "text/plain", found=True)
            elif kind == "simple":
                listed = [file for file in here.files if file.split("-")[0] == name.replace("-", "_")]
                links = "".join(_anchor(here, file) for file in listed)
                self._answer(
                    f"<!DOCTYPE html><html><body>{links}</body></html>".encode(),
                    "text/html",
                    found=bool(listed),
                )
            else:
                self._answer(here.files.get(name, b""), "application/octet-stream", found=name in here.files)

        def _answer(self, content: bytes, kind: str, *, found: bool) -> None:
            if not found:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            self.wfile.flush()
            while kind == "application/octet-stream" and index().slow.is_set():
                time.sleep(0.01)
            self.wfile.write(content[half:])

        def log_message(self, *_said: object) -> None:
            return

    return Handler


def serve() -> tuple[WheelIndex, Callable[[], None]]:
    """An empty index, and what ends it."""
    made: list[WheelIndex] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: made[0]))
    server.daemon_threads = True
    made.append(WheelIndex(port=server.server_address[1]))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def end() -> None:
        made[0].slow.clear()
        server.shutdown()
        server.server_close()
        thread.join()

    return made[0], end


def uv_or_skip() -> Path:
    import pytest

    program = find_uv()
    if program is None:
        pytest.skip("uv is not installed")
    return program
