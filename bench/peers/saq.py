"""SAQ (Simple Async Queue) on Redis.

- Worker: one process a slot, each running up to 10 tasks at once on its event loop, the default: their writes to
  Redis then share fsyncs.
- Redis fsyncs before it answers.
- Submitted and collected with `Queue.map`, which enqueues up to 20 at a time and then polls; polled every 100 ms
  (default: 500). A single one goes by `Queue.apply`'s own steps, `enqueue` and `listen`, polled each millisecond.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from saq import Queue
from saq.job import TERMINAL_STATUSES

from peers import FSYNC, Peer
from peers.services import Service, redis_url, redis_version, start_redis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


async def noop(_context: object, *, value: int) -> int:
    return value


SWEEP_S = 0.5

queue = Queue.from_url(redis_url())
settings = {"queue": queue, "functions": [noop], "concurrency": 10}


class Saq(Peer):
    name = "SAQ + Redis"
    durability = FSYNC
    settings = "10 concurrent a process, Redis appendfsync always, map() polled each 100 ms, single each 1 ms"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()

    @property
    def version(self) -> str:
        return f"saq {version('saq')}, {redis_version()}"

    def start(self, directory: Path, workers: int) -> None:
        start_redis(self.services, directory)
        for number in range(workers):
            command = [sys.executable, "-m", "saq", "peers.saq.settings"]
            worker = self.services.add(Service(f"saq-{number}", command, directory))
        worker.wait_until(lambda: self._workers_seen() == workers)
        # A worker that starts sweeps stuck jobs once, and takes a job that was dequeued in that instant for stuck.
        time.sleep(SWEEP_S)

    def _workers_seen(self) -> int:
        return len(self._loop.run_until_complete(queue.info())["workers"])

    def run(self, count: int) -> Sequence[int]:
        arguments = [{"value": value} for value in range(count)]
        return self._loop.run_until_complete(queue.map("noop", arguments, timeout=120, poll_interval=0.1))

    def single(self) -> int:
        return self._loop.run_until_complete(self._single())

    async def _single(self) -> int:
        job = await queue.enqueue("noop", value=1)
        await queue.listen(
            [job.key], lambda _id, status: status in TERMINAL_STATUSES, timeout=30, poll_interval=0.001
        )
        await job.refresh()
        return job.result

    def stop(self) -> None:
        self._loop.run_until_complete(queue.disconnect())
        self._loop.close()
        super().stop()
