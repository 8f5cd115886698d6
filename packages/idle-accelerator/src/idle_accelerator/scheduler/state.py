"""What the routes of one scheduler process share. Nothing here that could not be rebuilt from the store."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

from idle_accelerator.errors import IdleError
from idle_accelerator.scheduler.auth import Gate, KnownTokens
from idle_accelerator.scheduler.blobs import BlobStore
from idle_accelerator.scheduler.clock import SteadyClock
from idle_accelerator.scheduler.matchmaker import Matchmaker
from idle_accelerator.scheduler.signals import Signals
from idle_accelerator.scheduler.store import Store
from idle_accelerator.scheduler.store.leases import expire_leases, forgive_leases, has_expired_leases

_log = logging.getLogger(__name__)
SWEEP_S = 1.0
RESTART_TTL_S = 30.0
"""After a start, agents get this long to come back: their own retries wait up to 10 s."""
HOLDING_POLL_S = 3.0
"""Poll of a node that holds leases: its silent loss is noticed within the lease's 10 s."""
RESTING_POLL_S = 30.0
QUIET_AFTER_S = 10.0
"""A node without a waiting request that was not heard of for this long is shown as offline."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """``host`` other than loopback makes a key at first start, in ``data_dir/scheduler.key``."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()


@dataclass(kw_only=True)
class SchedulerState:
    config: SchedulerConfig
    gate: Gate
    clock: SteadyClock = field(default_factory=SteadyClock)
    signals: Signals = field(default_factory=Signals)
    tokens: KnownTokens = field(default_factory=KnownTokens)
    heard_until: dict[str, float] = field(default_factory=dict[str, float])
    """When a node's waiting request was answered: so long it has been heard of, though it last spoke before its wait."""
    ready: bool = False

    def __post_init__(self) -> None:
        self.store = Store(self.config.data_dir)
        self.blobs = BlobStore(self.config.data_dir / "blobs")
        self.matchmaker = Matchmaker(self.store, self.clock.now)
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.store.open()  # first: it is what refuses a second scheduler on this directory
        self.blobs.open()
        now = self.clock.now()
        await self.store.write(lambda connection: forgive_leases(connection, now=now, ttl_s=RESTART_TTL_S))
        self.matchmaker.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="lease-sweeper")
        self.ready = True

    def begin_stop(self) -> None:
        """Answers everybody who waits, so that their connections can end. Safe to call twice."""
        self.ready = False
        self.signals.close()
        self.matchmaker.release_all()

    async def close(self) -> None:
        self.begin_stop()
        await self.matchmaker.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self.store.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep_once()
            except IdleError as error:
                _log.warning("expired leases could not be written: %s", error)
            except Exception:  # noqa: BLE001  # without sweeps lost work stays lost
                _log.exception("looking for expired leases failed; it is a defect")

    async def sweep_once(self) -> None:
        """Ends leases that ran out. The look is free of writes, so a quiet pool stays quiet."""
        now = self.clock.now()
        if not await self.store.read(lambda connection: has_expired_leases(connection, now=now)):
            return
        jobs, nodes = await self.store.write(lambda connection: expire_leases(connection, now=now))
        _log.info(
            "leases ran out on %s; tasks of %d job(s) go on elsewhere", ", ".join(sorted(nodes)), len(jobs)
        )
        for job_id in jobs:
            self.signals.call(job_id)
        self.matchmaker.wake()
