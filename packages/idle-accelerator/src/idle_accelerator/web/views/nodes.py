"""Every machine: whether it is lent and why, what it has, how well it isolates."""

from collections import Counter
from collections.abc import Callable, Sequence

import streamlit as st

from idle_accelerator.errors import IdleError
from idle_accelerator.web import amounts, badges, faults, plain, pool
from idle_accelerator.web.language import current, say, sentences
from idle_accelerator.wire.nodes import Lending, NodeFacts, NodeView

_FILTER = "nodes.filter"
_ERROR = "nodes.error"
_UNISOLATED = "process"


@st.fragment(run_every=pool.REFRESH_S)
def live() -> None:
    refused = st.session_state.pop(_ERROR, None)
    if refused is not None:
        faults.show(refused)
    with faults.shown():
        nodes = pool.nodes()
        if not nodes:
            st.info(say("nodes.none"), icon=":material/inbox:")
            st.markdown(say("overview.join"))
            st.code(f"idlectl agent --scheduler {plain.line(faults.where())}", language=None)
            return
        for node in chosen(nodes):
            card(node)


def chosen(nodes: Sequence[NodeView]) -> list[NodeView]:
    """Those of the wanted standing, the ones that take work first. The choice is offered only where there is one."""
    counts = Counter(node.lending for node in nodes)
    ordered = sorted(nodes, key=lambda node: (badges.LENDING_ORDER.index(node.lending), node.facts.name))
    if len(counts) < 2:
        return ordered

    def named(lending: Lending) -> str:
        return f"{say(f'lending.{lending}')} {counts[lending]}"

    offered = [lending for lending in badges.LENDING_ORDER if counts[lending]]
    wanted = st.pills(
        say("nodes.filter"), offered, format_func=named, key=_FILTER, label_visibility="collapsed"
    )
    return [node for node in ordered if wanted in (None, node.lending)]


def card(node: NodeView) -> None:
    language = current()
    facts = node.facts
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(plain.label(facts.name), anchor=False, width="content")
            badges.lending_badge(node.lending)
            if node.running:
                st.badge(say("nodes.running", count=node.running), icon=":material/play_arrow:", color="blue")
        for sentence in sentences(node.reasons):
            st.text(sentence)
        resources(node)
        seen = (
            say("nodes.seen", ago=amounts.ago(node.last_seen_at, language))
            if node.last_seen_at
            else say("nodes.never")
        )
        about = [facts.os, facts.arch, f"Python {facts.python}", facts.cpu_model, *facts.gpu_names, seen]
        if node.loopback:
            about.append(say("nodes.same_machine"))
        st.caption(plain.label(" · ".join(part for part in about if part), 400))
        isolation(facts.sandbox_tier)
        network(facts)
        details(node)
        controls(node)


def resources(node: NodeView) -> None:
    """Bars of what is free where work is taken; elsewhere only what the machine would give."""
    total, free = node.facts.resources, node.free
    rows = [
        ("nodes.cores", free.cpus, total.cpus, amounts.cores),
        ("nodes.memory", free.memory_bytes, total.memory_bytes, amounts.size),
        ("nodes.disk", free.disk_bytes, total.disk_bytes, amounts.size),
        ("nodes.gpus", free.gpus, total.gpus, amounts.cores),
    ]
    present = [row for row in rows if row[2]]
    if not present:
        return
    for column, (key, left, whole, human) in zip(st.columns(len(present)), present, strict=True):
        if node.lending in badges.TAKING_WORK:
            said = say("nodes.free", free=human(left), total=human(whole))
            column.progress(min(1.0, max(0.0, left / whole)), text=f"{say(key)} · {said}")
        else:
            column.caption(f"{say(key)} · {say('nodes.up_to', total=human(whole))}")


def isolation(tier: str) -> None:
    if tier == _UNISOLATED:
        st.caption(f":material/shield_question: {say('nodes.sandbox_process')}")
    else:
        st.caption(f":material/shield: {say('nodes.sandbox', tier=plain.label(tier))}")


def network(facts: NodeFacts) -> None:
    """What tasks in its sandbox may reach, where its owner allows anything."""
    lent = facts.network
    if lent.kind == "proxy":
        st.caption(f":material/lan: {plain.label(say('nodes.network', hosts=', '.join(lent.hosts)), 400)}")
    elif lent.kind == "open":
        st.caption(f":material/lan: {say('nodes.network_open')}")


def held(facts: NodeFacts) -> None:
    """Line by line what the sandbox of that machine holds, in its own words."""
    if facts.isolation is None:
        return
    st.markdown(say("nodes.isolation"))
    for name, text in facts.isolation.model_dump(exclude={"tier", "probed_at", "most_memory_bytes"}).items():
        st.text(f"• {say(f'nodes.isolation.{name}')}: {plain.line(str(text), 300)}")
    tried = facts.isolation.probed_at
    if tried is None:
        st.caption(say("nodes.isolation.untried"))
    else:
        st.caption(say("nodes.isolation.tried", ago=amounts.ago(tried, current())))


def details(node: NodeView) -> None:
    facts = node.facts
    with st.expander(say("nodes.details")):
        st.text(f"{node.node_id} · agent {plain.line(facts.agent_version) or '?'}")
        held(facts)
        if facts.labels:
            pairs = ", ".join(f"{name}={value}" for name, value in sorted(facts.labels.items()))
            st.text(f"{say('nodes.labels')}: {plain.line(pairs, 1000)}")
        if facts.idleness:
            st.markdown(say("nodes.idleness"))
            for sentence in facts.idleness:
                st.text(f"• {plain.line(sentence, 300)}")


def controls(node: NodeView) -> None:
    """The switch carries the server's word in its key, so that it follows when somebody else turns it."""
    draining = node.lending == "draining"
    key = f"drain.{node.node_id}.{draining}"

    def turn() -> None:
        change(lambda: pool.drain(node.node_id, wanted=bool(st.session_state[key])))

    with st.container(horizontal=True, vertical_alignment="center"):
        if node.lending != "offline":
            st.toggle(
                say("nodes.drain"), value=draining, key=key, on_change=turn, help=say("nodes.drain_help")
            )
            return
        with st.popover(say("nodes.remove"), icon=":material/delete:"):
            st.markdown(say("nodes.remove_sure"))
            st.button(
                say("nodes.remove_yes"),
                key=f"remove.{node.node_id}",
                type="primary",
                on_click=change,
                args=(lambda: pool.remove_node(node.node_id),),
            )


def change(action: Callable[[], None]) -> None:
    """For callbacks, which show nothing themselves: an error waits for the run that follows."""
    try:
        action()
    except IdleError as error:
        st.session_state[_ERROR] = error


st.title(say("page.nodes"), anchor=False)
live()
