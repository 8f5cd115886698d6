"""``idlectl nodes``, ``node``, ``drain`` and ``forget``."""

from typing import TYPE_CHECKING, Annotated

import typer

from idle_accelerator.cli.connect import JsonFlag, KeyFlag, SchedulerFlag, open_client, short
from idle_accelerator.cli.terminal import shorten, show, show_fields, show_json, show_table
from idle_accelerator.errors import InvalidInput

if TYPE_CHECKING:
    from idle_accelerator.wire.nodes import NodeFacts, NodeView
    from idle_accelerator.wire.resources import Resources

NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="A node's name, its id, or a unique beginning of its id.")
]


def nodes(as_json: JsonFlag = False, scheduler: SchedulerFlag = None, key: KeyFlag = None) -> int:
    """List the pool's machines, each with the reason why it is, or is not, lent."""
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # wire models cost 0.2 s; see cli/__init__
    from idle_accelerator.wire.nodes import NodePage  # noqa: PLC0415  # as above

    with open_client(scheduler, key) as client:
        found = client.nodes()
    if as_json:
        show_json(NodePage(nodes=tuple(found)))
        return 0
    show_table(
        ("NAME", "ID", "STATE", "RUNS", "CPUS", "MEMORY", "SEEN", "WHY"),
        (
            (
                shorten(item.facts.name, 30),
                short(item.node_id),
                item.lending,
                str(item.running),
                f"{item.free.cpus:g}/{item.facts.resources.cpus:g}",
                _size(item.facts.resources.memory_bytes),
                ago(item.last_seen_at),
                why(item),
            )
            for item in found
        ),
        empty="No machine has joined yet. To lend this one: idlectl agent --scheduler URL",
    )
    return 0


def why(view: "NodeView") -> str:
    return "; ".join(item.sentence for item in view.reasons)


def _size(size_bytes: int) -> str:
    from idle_accelerator.wire.units import format_size  # noqa: PLC0415  # as above

    return format_size(size_bytes)


def node(
    node_name: NodeArgument, as_json: JsonFlag = False, scheduler: SchedulerFlag = None, key: KeyFlag = None
) -> int:
    """Show a machine: what it is, what it lends, what it takes as idleness."""
    _check(node_name)
    with open_client(scheduler, key) as client:
        found = client.node(node_name)
    if as_json:
        show_json(found)
    else:
        _show_node(found)
    return 0


def _check(name: str) -> None:
    if not name or "/" in name or not name.isprintable():
        raise InvalidInput(
            f"{name!r} is no name of a node.", field="NODE", hint="List nodes with: idlectl nodes"
        )


def _show_node(view: "NodeView") -> None:
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # as above

    facts = view.facts
    show_fields(
        (
            ("node", f"{facts.name} ({view.node_id})"),
            ("state", view.lending),
            ("why", "\n".join(item.sentence for item in view.reasons)),
            ("runs", f"{view.running} attempts" if view.running != 1 else "1 attempt"),
            ("machine", " · ".join(text for text in (facts.os, facts.arch, facts.cpu_model) if text)),
            ("lends", _amounts(facts.resources)),
            ("free", _amounts(view.free)),
            ("GPUs", ", ".join(facts.gpu_names)),
            ("labels", ", ".join(f"{name}={value}" for name, value in facts.labels.items())),
            ("network", str(facts.network)),
            ("isolation", _isolation(facts)),
            ("idle when", "\n".join(facts.idleness)),
            (
                "software",
                ", ".join(
                    text
                    for text in (f"agent {facts.agent_version}", f"Python {facts.python}", facts.wasm)
                    if text
                ),
            ),
            ("joined", ago(view.enrolled_at)),
            ("seen", ago(view.last_seen_at)),
        )
    )


def _isolation(facts: "NodeFacts") -> str:
    """The tier, and line by line what it holds."""
    tier = "none: a plain process" if facts.sandbox_tier == "process" else facts.sandbox_tier
    held = facts.isolation
    if held is None:
        return tier
    lines = held.model_dump(exclude={"tier", "probed_at", "most_memory_bytes"})
    tried = [] if held.probed_at is None else [f"tried on {held.probed_at:%Y-%m-%d %H:%M} UTC"]
    return "\n".join([tier, *(f"{name}: {text}" for name, text in lines.items()), *tried])


def _amounts(resources: "Resources") -> str:
    parts = [f"{resources.cpus:g} CPUs", f"{_size(resources.memory_bytes)} memory"]
    parts += [f"{_size(resources.disk_bytes)} disk"] if resources.disk_bytes else []
    parts += [f"{resources.gpus} GPUs"] if resources.gpus else []
    return ", ".join(parts)


def drain(
    node_name: NodeArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take work again.")] = False,
    as_json: JsonFlag = False,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Give a machine nothing new; what it runs, it finishes."""
    _check(node_name)
    with open_client(scheduler, key) as client:
        found = client.drain(node_name, not undo)
    if as_json:
        show_json(found)
    elif undo:
        show(f"{found.facts.name} takes work again: {found.lending}, {why(found)}")
    else:
        show(f"{found.facts.name} takes nothing new; it still holds {found.running}.")
    return 0


def forget(node_name: NodeArgument, scheduler: SchedulerFlag = None, key: KeyFlag = None) -> int:
    """Remove a machine from the pool. Its agent must enrol anew to come back."""
    _check(node_name)
    with open_client(scheduler, key) as client:
        client.remove_node(node_name)
    show(f"{node_name} is forgotten.")
    return 0
