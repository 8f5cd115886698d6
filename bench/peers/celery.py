"""Celery with Redis as broker and result backend.

- Worker: prefork pool, one process a slot; gossip, mingle and heartbeats off, as its guide advises for one node.
- `worker_prefetch_multiplier=64`: the guide's advice for many short tasks ("Optimizing", prefetch limits); 4 is the
  default. Acknowledged early, as by default: faster, but a worker that dies loses what it had begun.
- Redis fsyncs before it answers. Submitted as a `group`, which stores nothing about the group itself; collected with
  `join_native`, checked every 10 ms (default: 500); a single one by `AsyncResult.get`.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from celery import Celery, group

from peers import FSYNC, Peer
from peers.services import Service, redis_url, redis_version, start_redis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

app = Celery("bench", broker=redis_url(), backend=redis_url())
app.conf.update(
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
)


@app.task(name="noop")
def noop(value: int) -> int:
    return value


class CeleryPeer(Peer):
    name = "Celery + Redis"
    durability = FSYNC
    settings = "prefork, prefetch 64, early acks, Redis appendfsync always, join_native() checked each 10 ms"

    @property
    def version(self) -> str:
        return f"celery {version('celery')}, {redis_version()}"

    def start(self, directory: Path, workers: int) -> None:
        start_redis(self.services, directory)
        worker = Service(
            "celery",
            [
                *(
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "peers.celery",
                    "worker",
                    "-P",
                    "prefork",
                    "-c",
                    str(workers),
                ),
                *("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"),
            ],
            directory,
        )
        self.services.add(worker)

    def run(self, count: int) -> Sequence[int]:
        return (
            group(noop.s(value) for value in range(count))
            .apply_async()
            .join_native(timeout=120, interval=0.01)
        )

    def single(self) -> int:
        return noop.delay(1).get(timeout=30)

    def stop(self) -> None:
        app.close()
        super().stop()
