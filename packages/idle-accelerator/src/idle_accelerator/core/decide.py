"""From a snapshot to a plan: jobs in order, each to the nodes that can run it."""

import math

from idle_accelerator.core.match import LENDING_NOW, lasting_mismatches
from idle_accelerator.core.order import in_order
from idle_accelerator.core.resources import demand, minus, times
from idle_accelerator.core.snapshot import GrantLine, NodeDemand, Plan, Snapshot, WaitingJob
from idle_accelerator.wire.resources import Resources

PREFETCH_TARGET_S = 0.25
"""Work that a node may hold ahead for its warm function processes: long enough to hide a round trip, short enough
that little is handed back when the owner returns."""
PREFETCH_LIMIT = 1000
"""Tasks that a node may hold ahead, however short they are."""
SHORTEST_TASK_S = 0.0001


def prefetch(mean_duration_s: float | None, slots: int) -> int:
    """How many tasks of a function job may wait on the node for its ``slots`` warm processes.

    None, before any task has finished, gives 0: nothing is known yet, and a long task must not be held ahead.
    """
    if mean_duration_s is None or slots == 0:
        return 0
    return min(PREFETCH_LIMIT, math.floor(PREFETCH_TARGET_S * slots / max(mean_duration_s, SHORTEST_TASK_S)))


def decide(snapshot: Snapshot) -> Plan:
    """Grants in order of priority and age. Nothing here takes more than is queued, or more than a node has free.

    A node that holds warm processes of a job gets more of it ahead only while no job that goes first could use the node.
    """
    free: dict[str, Resources] = {item.node_id: item.offer.free for item in snapshot.demands}
    wanted: set[str] = set()
    grants: list[GrantLine] = []
    for job in in_order(snapshot.jobs):
        left = job.queued
        for node in _suitable(job, snapshot.demands):
            if left <= 0:
                break
            count = _take(job, node, free[node.node_id], left, top_up=node.node_id not in wanted)
            wanted.add(node.node_id)
            if count.slots + count.ahead == 0:
                continue
            free[node.node_id] = minus(free[node.node_id], demand(job.requirements), count.slots)
            grants.append(
                GrantLine(
                    node_id=node.node_id,
                    heard=node.heard,
                    job_id=job.job_id,
                    count=count.slots + count.ahead,
                )
            )
            left -= count.slots + count.ahead
    return Plan(grants=tuple(grants))


class _Count:
    __slots__ = ("ahead", "slots")

    def __init__(self, slots: int, ahead: int) -> None:
        self.slots = slots
        self.ahead = ahead


def _take(job: WaitingJob, node: NodeDemand, free: Resources, left: int, *, top_up: bool) -> _Count:
    slots = min(left, times(free, demand(job.requirements)))
    if not job.is_function or not top_up:
        return _Count(slots, 0)
    warm = next((item for item in node.offer.warm if item.job_id == job.job_id), None)
    running, queued = (warm.slots, warm.queued) if warm else (0, 0)
    ahead = max(0, prefetch(job.mean_duration_s, running + slots) - queued)
    return _Count(slots, min(left - slots, ahead))


def _suitable(job: WaitingJob, demands: tuple[NodeDemand, ...]) -> list[NodeDemand]:
    """Nodes that could run the job, most free cores first, so that a small job spreads over the pool."""
    able = [
        node
        for node in demands
        if node.offer.lending in LENDING_NOW
        and (node.offer.only_jobs is None or job.job_id in node.offer.only_jobs)
        and not lasting_mismatches(job.requirements, node.facts, node_id=node.node_id)
    ]
    return sorted(able, key=lambda node: (-node.offer.free.cpus, node.node_id))
