"""Why a job's queued tasks wait: one reason a node, the nearest to running it first."""

from collections.abc import Sequence
from dataclasses import dataclass

from idle_accelerator.core.match import lasting_mismatches, present_mismatches
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.nodes import NodeFacts, Offer
from idle_accelerator.wire.reasons import Reason, reason

NODES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class NodeStanding:
    """A node as it was last heard of. ``offer.lending`` is 'offline' when it is not heard of any more."""

    node_id: str
    facts: NodeFacts
    offer: Offer


def why_waiting(job_id: str, requirements: Requirements, nodes: Sequence[NodeStanding]) -> tuple[Reason, ...]:
    """Never empty: a queued task always has a reason. Nodes whose obstacle will pass come before those that can never run it."""
    if not nodes:
        return (reason("wait.no_nodes"),)
    passing: list[Reason] = []
    lasting: list[Reason] = []
    for node in nodes:
        never = lasting_mismatches(requirements, node.facts, node_id=node.node_id)
        if never:
            lasting.append(_of_node(node, never))
            continue
        now = present_mismatches(job_id, requirements, node.facts, node.offer)
        if not now:
            return (reason("wait.next_round"),)
        passing.append(_of_node(node, now))
    every = passing + lasting
    shown = every[:NODES_SHOWN]
    if len(every) > NODES_SHOWN:
        shown.append(reason("wait.more_nodes", count=len(every) - NODES_SHOWN))
    return tuple(shown)


def _of_node(node: NodeStanding, why: Sequence[Reason]) -> Reason:
    return reason("wait.node", node=node.facts.name, because=why)
