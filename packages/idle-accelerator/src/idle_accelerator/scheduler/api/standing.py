"""Nodes as they stand now: what was last heard of them, and whether they are still heard of."""

from typing import Any

from sqlalchemy import Connection

from idle_accelerator.core.explain import NodeStanding
from idle_accelerator.scheduler.state import QUIET_AFTER_S, SchedulerState
from idle_accelerator.scheduler.store.nodes import list_nodes
from idle_accelerator.scheduler.store.rows import certain_moment, load_facts, moment
from idle_accelerator.wire.nodes import NodeView, Offer
from idle_accelerator.wire.reasons import aged, reason, view


def standings(connection: Connection, state: SchedulerState) -> tuple[NodeStanding, ...]:
    return tuple(standing(row, state) for row in list_nodes(connection))


def standing(row: Any, state: SchedulerState) -> NodeStanding:
    return NodeStanding(node_id=row.node_id, facts=load_facts(row.facts), offer=_offer_now(row, state))


def node_view(row: Any, state: SchedulerState) -> NodeView:
    now = standing(row, state)
    return NodeView(
        node_id=row.node_id,
        facts=now.facts,
        lending=now.offer.lending,
        free=now.offer.free,
        reasons=tuple(view(item) for item in now.offer.reasons),
        running=row.running,
        enrolled_at=certain_moment(row.enrolled_at),
        last_seen_at=moment(row.last_seen_at),
        loopback=row.loopback,
    )


def _offer_now(row: Any, state: SchedulerState) -> Offer:
    if row.last_seen_at is None:
        return Offer(lending="offline", reasons=(reason("node.never_seen"),))
    silent_s = state.clock.now() - max(row.last_seen_at, state.heard_until.get(row.node_id, 0.0))
    offer = Offer.model_validate_json(row.offer)
    if offer.lending == "offline" and offer.reasons:
        return offer  # it has said goodbye, and why
    if offer.lending == "offline" or (silent_s > QUIET_AFTER_S and not state.matchmaker.holds(row.node_id)):
        return Offer(lending="offline", reasons=(reason("node.offline", age_s=round(max(0.0, silent_s), 1)),))
    if row.draining:
        return offer.model_copy(update={"lending": "draining", "reasons": (reason("node.draining"),)})
    by_s = max(0.0, state.clock.now() - row.offered_at)
    return offer.model_copy(update={"reasons": tuple(aged(item, by_s) for item in offer.reasons)})
