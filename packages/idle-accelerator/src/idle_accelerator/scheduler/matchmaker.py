"""Pairs queued tasks with nodes that wait: snapshot, core.decide, commit, answer.

Rounds run one after another. A round takes whatever demands are there, so under load many nodes share one decision and
one commit; and the waiting node of a quiet pool is answered at once.
"""

import asyncio
import logging
import math
from collections.abc import Callable

from idle_accelerator.core.decide import decide
from idle_accelerator.core.match import LENDING_NOW
from idle_accelerator.core.snapshot import NodeDemand, Snapshot
from idle_accelerator.errors import IdleError
from idle_accelerator.scheduler.store import Store
from idle_accelerator.scheduler.store.leases import Granted, commit_plan
from idle_accelerator.scheduler.store.waiting import HORIZON, waiting_jobs

_log = logging.getLogger(__name__)
_RETRY_S = 0.5
_BELIEVED_FOR_S = 10.0


class Demand:
    """A node's place in the matchmaker, from its request to its answer."""

    def __init__(self, node: NodeDemand, *, held: bool) -> None:
        self.node = node
        self.held = held
        """Stays until there is something for it; else it is answered by the next round."""
        self.answer: asyncio.Future[list[Granted]] = asyncio.get_running_loop().create_future()

    def settle(self, granted: list[Granted]) -> None:
        if not self.answer.done():
            self.answer.set_result(granted)


class Matchmaker:
    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._demands: dict[str, Demand] = {}
        self._work = asyncio.Event()
        self._nothing_queued_until = -math.inf
        """The last look found no job that waits, or gave leases for all that did, and nobody has called ``wake`` since: another look would find none either.
        Believed for _BELIEVED_FOR_S, since whoever queues a task may be stopped between the commit and the call."""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._rounds(), name="matchmaker")

    async def close(self) -> None:
        self.release_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def release_all(self) -> None:
        """Answers everybody who waits, empty, and nobody waits any more: the scheduler is stopping."""
        self._closed = True
        for node_id in list(self._demands):
            self.release(node_id)

    def wake(self) -> None:
        """Tasks may have been queued: look again. Whoever queues some calls this after the commit."""
        self._nothing_queued_until = -math.inf
        self._work.set()

    def release(self, node_id: str) -> None:
        """Answers the node's waiting request, if any, empty."""
        demand = self._demands.pop(node_id, None)
        if demand is not None:
            demand.settle([])

    def holds(self, node_id: str) -> bool:
        return node_id in self._demands

    def enter(self, node: NodeDemand, *, wait_s: float) -> Demand:
        """Takes the node's place, at once and in the place of an older request of it, so that no news after this is missed.

        It is answered by what the next round gives, or, with ``wait_s``, by what comes until it leaves.
        """
        self.release(node.node_id)
        lends = node.offer.lending in LENDING_NOW
        demand = Demand(node, held=wait_s > 0)
        looks = lends and self._now() >= self._nothing_queued_until
        if self._closed or not (looks or demand.held):
            demand.settle([])
            return demand
        self._demands[node.node_id] = demand
        if looks:
            self._work.set()
        return demand

    def leave(self, demand: Demand) -> list[Granted]:
        """Gives the place back; returns what the demand got. Leases that come later are granted again to the next request."""
        if self._demands.get(demand.node.node_id) is demand:
            del self._demands[demand.node.node_id]
        demand.settle([])
        return demand.answer.result()

    async def _rounds(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._round()
                continue
            except IdleError as error:
                _log.warning("no leases can be given now: %s", error)
            except Exception:  # noqa: BLE001  # without rounds the pool stands still
                _log.exception("a round of matchmaking failed; it is a defect")
            self._answer_impatient({})
            await asyncio.sleep(_RETRY_S)
            self._work.set()

    async def _round(self) -> None:
        waiting = {
            key: demand for key, demand in self._demands.items() if demand.node.offer.lending in LENDING_NOW
        }
        granted: dict[str, list[Granted]] = {}
        if waiting:
            jobs = await self._store.read(waiting_jobs)
            nothing_queued = not jobs
            plan = decide(Snapshot(jobs=jobs, demands=tuple(demand.node for demand in waiting.values())))
            if plan.grants:
                now = self._now()
                # Not durable: a lease that a power cut undoes was held by nobody who would be believed (docs/adr/0004).
                for line in await self._store.write(
                    lambda connection: commit_plan(connection, plan, now=now), durable=False
                ):
                    granted.setdefault(line.node_id, []).append(line)
                given = sum(len(line.attempts) for lines in granted.values() for line in lines)
                if given == sum(job.queued for job in jobs) and len(jobs) < HORIZON:
                    nothing_queued = True
            if nothing_queued and not self._work.is_set():
                self._nothing_queued_until = self._now() + _BELIEVED_FOR_S
        for node_id, lines in granted.items():
            # A request that has left meanwhile gets nothing: its leases are granted again, since the node does not hold them.
            demand = waiting[node_id]
            demand.settle(lines)
            if self._demands.get(node_id) is demand:
                del self._demands[node_id]
        self._answer_impatient(waiting)

    def _answer_impatient(self, seen: dict[str, Demand]) -> None:
        for node_id, demand in list(self._demands.items()):
            if not demand.held and (not seen or seen.get(node_id) is demand):
                self.release(node_id)
