"""Huey on SQLite, with and without an fsync for each commit.

- Consumer: `-k process`, one process a slot. An empty queue is polled every 5 ms at first and every 20 ms at most
  (`-d 0.005 -m 0.02`); its defaults, 100 ms and 10 s, would show as latency.
- `fsync=True` sets `PRAGMA synchronous=FULL`, `fsync=False` sets OFF; the journal is a WAL either way. Results are
  stored in the same database. No periodic tasks (`-n`), warnings only in the log (`-q`).
- Submitted with `map`, which commits task by task: there is no batch insert. Collected with `ResultGroup.get`.
- A waiting caller polls first after 50 ms, which Huey fixes, so a single result is polled here each millisecond.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from huey import SqliteHuey

from peers import FSYNC, NO_FSYNC, Peer
from peers.services import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

huey = SqliteHuey(
    "bench",
    filename=str(Path(os.environ["BENCH_DIRECTORY"]) / "huey.db"),
    fsync=os.environ["BENCH_PEER"] == "DurableHuey",
    timeout=60,
)


@huey.task()
def noop(value: int) -> int:
    return value


class DurableHuey(Peer):
    name = "Huey + SQLite"
    durability = FSYNC
    settings = "-k process, polling 5-20 ms, fsync=True (synchronous=FULL, WAL), map()"

    @property
    def version(self) -> str:
        return f"huey {version('huey')}"

    def start(self, directory: Path, workers: int) -> None:
        command = [sys.executable, "-m", "huey.bin.huey_consumer", "peers.huey.huey", "-k", "process"]
        options = ["-w", str(workers), "-d", "0.005", "-m", "0.02", "-n", "-q"]
        self.services.add(Service("huey", [*command, *options], directory))

    def run(self, count: int) -> Sequence[int]:
        return noop.map(range(count)).get(blocking=True, timeout=120)

    def single(self) -> int:
        result = noop(1)
        deadline = time.monotonic() + 30
        while (value := result.get()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("no result of a single task after 30 s")
            time.sleep(0.001)
        return value


class FastHuey(DurableHuey):
    durability = NO_FSYNC
    settings = "-k process, polling 5-20 ms, fsync=False (synchronous=OFF, WAL), map()"
