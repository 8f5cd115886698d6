"""Whether a node can run a task, and if not, every reason why."""

from collections.abc import Iterator

from idle_accelerator.core.resources import demand, times
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.network import NetworkOffer, NetworkWish
from idle_accelerator.wire.nodes import ISOLATION_LINES, ONLY_WASM, NodeFacts, Offer, holds
from idle_accelerator.wire.reasons import Reason, reason

_HOSTS_LIMIT = 500
LENDING_NOW = frozenset({"available", "lent"})


def lasting_mismatches(requirements: Requirements, facts: NodeFacts, *, node_id: str) -> tuple[Reason, ...]:
    """Reasons that hold even when the node is idle and empty; none means that it could run the task some day."""
    total = facts.resources
    reasons: list[Reason] = []
    if requirements.node is not None and requirements.node not in (node_id, facts.name):
        reasons.append(reason("match.node", needed=requirements.node))
    if requirements.cpus > total.cpus:
        reasons.append(reason("match.cpus", needed=requirements.cpus, offered=total.cpus))
    if requirements.memory_bytes > total.memory_bytes:
        reasons.append(
            reason("match.memory", needed_bytes=requirements.memory_bytes, offered_bytes=total.memory_bytes)
        )
    if requirements.disk_bytes > total.disk_bytes:
        reasons.append(
            reason("match.disk", needed_bytes=requirements.disk_bytes, offered_bytes=total.disk_bytes)
        )
    if requirements.gpus > total.gpus:
        reasons.append(reason("match.gpus", needed=requirements.gpus, offered=total.gpus))
    for code, needed, offered in (
        ("match.os", requirements.os, facts.os),
        ("match.arch", requirements.arch, facts.arch),
        ("match.python", requirements.python, facts.python),
    ):
        if needed is not None and needed != offered:
            reasons.append(reason(code, needed=needed, offered=offered))
    if requirements.wasm and not facts.wasm:
        reasons.append(reason("match.wasm"))
    if not requirements.wasm and facts.sandbox_tier == ONLY_WASM:
        reasons.append(reason("match.only_wasm"))
    reasons += _isolation_mismatches(requirements, facts)
    reasons += _network(requirements.network, facts.network)
    for name, needed in requirements.labels.items():
        offered = facts.labels.get(name)
        if offered != needed:
            reasons.append(
                reason(
                    "match.label",
                    name=name,
                    needed=needed,
                    offered=offered if offered is not None else "none",
                )
            )
    return tuple(reasons)


def _isolation_mismatches(requirements: Requirements, facts: NodeFacts) -> Iterator[Reason]:
    held = facts.isolation
    most = None if held is None else held.most_memory_bytes
    if most is not None and requirements.memory_bytes > most:
        yield reason("match.memory_unlimited", needed_bytes=requirements.memory_bytes, offered_bytes=most)
    tiers = [name for name in requirements.isolation if name not in ISOLATION_LINES]
    if tiers and facts.sandbox_tier not in tiers:
        yield reason("match.tier", needed=" | ".join(tiers), offered=facts.sandbox_tier)
    for line in requirements.isolation:
        if line in ISOLATION_LINES and (held is None or not holds(held, line)):
            offered = "nothing" if held is None else str(getattr(held, line))
            yield reason("match.isolation", line=line, offered=offered)


def _network(wish: NetworkWish, lent: NetworkOffer) -> tuple[Reason, ...]:
    if not wish.asks:
        return ()
    if wish.open:
        return () if lent.is_open else (reason("match.network_open"),)
    lacking = lent.lacking(wish)
    if not lacking:
        return ()
    needed = ", ".join(lacking)
    if lent.kind == "off":
        return (reason("match.network_off", needed=needed[:_HOSTS_LIMIT]),)
    return (reason("match.network", needed=needed[:_HOSTS_LIMIT]),)


def present_mismatches(
    job_id: str, requirements: Requirements, facts: NodeFacts, offer: Offer
) -> tuple[Reason, ...]:
    """Reasons that will pass: the node is not lent now, is lent to others, or is full."""
    if offer.lending not in LENDING_NOW:
        return offer.reasons or (reason("match.not_lending"),)
    if offer.only_jobs is not None and job_id not in offer.only_jobs:
        return (reason("match.only_jobs"), *(item for item in offer.reasons if item.code == "lend.hint"))
    if times(offer.free, demand(requirements)) < 1:
        if shared := tuple(item for item in offer.reasons if item.code == "node.shared"):
            return shared
        return (reason("wait.busy", cpus=facts.resources.cpus),)
    return ()
