"""Dramatiq with Redis as broker and result backend.

- Worker: one process a slot with 8 threads each, the default: their writes to Redis then share fsyncs, which made it
  faster here than one thread each.
- Redis fsyncs before it answers. Acknowledged after the run, as always in Dramatiq. Prefetch is its default, twice
  the threads.
- Submitted with `group().run()`, which sends message by message; collected with `get_results(block=True)`, one
  blocking pop a result.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers import FSYNC, Peer
from peers.services import Service, redis_url, redis_version, start_redis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

broker = RedisBroker(url=redis_url())
broker.add_middleware(Results(backend=RedisBackend(url=redis_url())))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(value: int) -> int:
    return value


class Dramatiq(Peer):
    name = "Dramatiq + Redis"
    durability = FSYNC
    settings = "8 threads a process, late acks, Redis appendfsync always, group().get_results()"

    @property
    def version(self) -> str:
        return f"dramatiq {version('dramatiq')}, {redis_version()}"

    def start(self, directory: Path, workers: int) -> None:
        start_redis(self.services, directory)
        command = [sys.executable, "-m", "dramatiq", "peers.dramatiq", "-p", str(workers), "-t", "8"]
        worker = self.services.add(Service("dramatiq", command, directory))
        worker.wait_for_log("is ready for action", times=workers)

    def run(self, count: int) -> Sequence[int]:
        sent = dramatiq.group(noop.message(value) for value in range(count)).run()
        return list(sent.get_results(block=True, timeout=120_000))

    def single(self) -> int:
        return noop.send(1).get_result(block=True, timeout=30_000)

    def stop(self) -> None:
        broker.close()
        super().stop()
