"""Programs that a peer needs beside the benchmark's own process: its workers, Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BENCH_DIRECTORY = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 5.0


def port() -> int:
    """A TCP port on the loopback address that the harness reserved for this run; workers inherit it."""
    return int(os.environ["BENCH_PORT"])


def redis_url() -> str:
    return f"redis://127.0.0.1:{port()}/0"


class Service:
    """A child process whose output goes to `directory/name.log`.

    It stays in the benchmark's process group, so that the harness can end a run whose client died.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        directory: Path,
        *,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [os.fspath(part) for part in command],
                cwd=BENCH_DIRECTORY,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=user,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when `is_ready()` is true; raise RuntimeError with the end of the log if that never happens."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            obituary = self.obituary()
            if obituary is not None:
                raise RuntimeError(obituary)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} was not ready after {timeout_s:.0f} s: {self._last_words()}")
            time.sleep(0.02)

    def wait_for_log(self, text: str, *, times: int = 1, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when `text` stands in the log at least `times` times."""
        self.wait_until(
            lambda: self._log.read_text(errors="replace").count(text) >= times, timeout_s=timeout_s
        )

    def obituary(self) -> str | None:
        """How it ended and what it said last, or None while it runs."""
        status = self._process.poll()
        return None if status is None else f"{self.name} exited with {status}: {self._last_words()}"

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it printed nothing"

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Services:
    """The services of one peer, stopped in the reverse of the order in which they were started."""

    def __init__(self) -> None:
        self._started: list[Service] = []

    def add(self, service: Service) -> Service:
        self._started.append(service)
        return service

    def pids(self) -> list[int]:
        return [service.pid for service in self._started]

    def obituaries(self) -> list[str]:
        """What those that have ended by themselves left behind."""
        return [words for words in (service.obituary() for service in self._started) if words is not None]

    def stop(self) -> None:
        while self._started:
            self._started.pop().stop()


def start_redis(services: Services, directory: Path) -> None:
    """A Redis of this run's own that has fsynced its append-only file before it answers a write.

    https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/: one fsync covers the writes of all
    clients in one turn of its event loop, so concurrent and pipelined writes share it.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError(
            "redis-server is not on PATH; install it with `apt-get install redis-server` (Debian, Ubuntu), "
            "`dnf install redis` (Fedora) or `brew install redis` (macOS)"
        )
    data = directory / "redis"
    data.mkdir()
    redis = services.add(
        Service(
            "redis",
            [
                *(program, "--port", str(port()), "--bind", "127.0.0.1", "--dir", data, "--daemonize", "no"),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            ],
            directory,
        )
    )
    redis.wait_for_log("Ready to accept connections")


def redis_version() -> str:
    """The version of the redis-server on PATH, as in `redis-server 7.0.15`."""
    words = subprocess.run(
        ["redis-server", "--version"], check=True, capture_output=True, text=True
    ).stdout.split()
    return next(f"redis-server {word[2:]}" for word in words if word.startswith("v="))
