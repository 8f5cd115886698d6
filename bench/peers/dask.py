"""Dask distributed: everything in memory, nothing is on disk before it is accepted.

- `dask scheduler` (dashboard off) and one `dask worker --nthreads 1` process a slot, without nannies: less to run.
- Submitted with `Client.map(pure=False)`, collected with `Client.gather`; a single one with `submit` and `result`.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from distributed import Client

from peers import NO_FSYNC, Peer
from peers.services import START_TIMEOUT_S, Service, port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def noop(value: int) -> int:
    return value


class Dask(Peer):
    name = "Dask"
    durability = NO_FSYNC
    settings = "1 thread a process, no nanny, no dashboard, map(pure=False), gather()"

    def __init__(self) -> None:
        super().__init__()
        self._client: Client | None = None

    @property
    def version(self) -> str:
        return f"distributed {version('distributed')}"

    def start(self, directory: Path, workers: int) -> None:
        dask = [sys.executable, "-m", "dask"]
        address = f"tcp://127.0.0.1:{port()}"
        scheduler = Service(
            "scheduler",
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port()), "--no-dashboard"],
            directory,
        )
        self.services.add(scheduler).wait_for_log("Scheduler at:")
        for number in range(workers):
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", directory]
            self.services.add(Service(f"worker-{number}", [*dask, "worker", address, *options], directory))
        self._client = Client(address)
        self._client.wait_for_workers(workers, timeout=START_TIMEOUT_S)

    def run(self, count: int) -> Sequence[int]:
        return self._client.gather(self._client.map(noop, range(count), pure=False))

    def single(self) -> int:
        return self._client.submit(noop, 1, pure=False).result(timeout=30)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        super().stop()
