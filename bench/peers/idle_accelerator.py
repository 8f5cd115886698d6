"""Ours: `idlectl scheduler` on SQLite and one `idlectl agent`, as a user would start them.

- The scheduler's defaults: SQLite with `synchronous=FULL`, the answer to a submit comes after its commit.
- The agent lends by its owner's word (`--policy server --lend-for 1h`), one CPU a slot; a no-op runs in the unsandboxed
  tier, in the job's warm process.
- Submitted and collected with `Client.map`, one job of as many tasks; a single one with `submit_function` and `result`.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idle_accelerator import Client
from peers import FSYNC, Peer
from peers.services import Service, port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LENDING = ("available", "lent")


def make_noop() -> Callable[[int], int]:
    """A function that travels by value: nodes cannot import this module."""

    def noop(value: int) -> int:
        return value

    return noop


class IdleAccelerator(Peer):
    name = "idle-accelerator"
    durability = FSYNC
    settings = "SQLite synchronous=FULL, one agent, map()"

    def __init__(self) -> None:
        super().__init__()
        self._url = f"http://127.0.0.1:{port()}"
        self._client: Client | None = None
        self._noop = make_noop()

    @property
    def version(self) -> str:
        return f"idle-accelerator {version('idle-accelerator')}"

    def start(self, directory: Path, workers: int) -> None:
        idlectl = Path(sys.executable).with_name("idlectl")
        scheduler = Service(
            "scheduler",
            [idlectl, "scheduler", "--data-dir", directory / "s", "--port", str(port())],
            directory,
        )
        self.services.add(scheduler).wait_until(lambda: self._get("/healthz") is not None)
        offer = ["--policy", "server", "--lend-for", "1h", "--cpus", str(workers)]
        agent = Service(
            "agent",
            [idlectl, "agent", "--scheduler", self._url, "--data-dir", directory / "a", *offer],
            directory,
        )
        self.services.add(agent).wait_until(self._is_lent)
        self._client = Client(self._url)

    def _get(self, path: str) -> Any:
        """The JSON at `path`, or None while nobody answers there."""
        try:
            with urllib.request.urlopen(self._url + path, timeout=5) as response:
                return json.load(response)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def _is_lent(self) -> bool:
        page = self._get("/v1/nodes")
        return page is not None and any(node["lending"] in LENDING for node in page["nodes"])

    def run(self, count: int) -> Sequence[int]:
        return list(self._client.map(self._noop, range(count)))

    def single(self) -> int:
        return self._client.submit_function(self._noop, 1).result(timeout=30)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        super().stop()
