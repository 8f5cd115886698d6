"""The pool in one glance, and what to do when there is nothing yet."""

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from idle_accelerator.web import amounts, badges, faults, plain, pool
from idle_accelerator.web.language import say, sentences
from idle_accelerator.web.listings import jobs_table
from idle_accelerator.web.opening import open_chosen_job, remember_job
from idle_accelerator.wire.jobs import JobPage
from idle_accelerator.wire.nodes import NodeView
from idle_accelerator.wire.states import JobState

_RECENT = 8
_COUNTED = 100
_NODES_SHOWN = 6


@st.fragment(run_every=pool.REFRESH_S)
def live() -> None:
    open_chosen_job()
    with faults.shown():
        nodes = pool.nodes()
        recent = pool.jobs(_RECENT)
        figures(nodes, pool.jobs(_COUNTED, JobState.ACTIVE), pool.jobs(_COUNTED, JobState.QUEUED))
        if nodes:
            lending(nodes)
        else:
            first_node()
        if recent.jobs:
            with st.container(horizontal=True, vertical_alignment="bottom"):
                st.subheader(say("overview.recent"), anchor=False)
                st.page_link("views/jobs.py", label=say("overview.all_jobs"), icon=":material/list_alt:")
            jobs_table(recent.jobs, key="overview.jobs", on_open=remember_job)
        else:
            first_job()


def figures(nodes: Sequence[NodeView], running: JobPage, queued: JobPage) -> None:
    lent = [node for node in nodes if node.lending in badges.TAKING_WORK]
    free = sum(node.free.cpus for node in lent)
    total = sum(node.facts.resources.cpus for node in lent)
    first, second, third, fourth = st.columns(4)
    first.metric(
        say("overview.nodes"),
        say("overview.of", part=len(lent), whole=len(nodes)),
        help=say("overview.nodes_help"),
        border=True,
    )
    second.metric(
        say("overview.cores"),
        say("overview.of", part=amounts.cores(free), whole=amounts.cores(total)),
        help=say("overview.cores_help"),
        border=True,
    )
    third.metric(say("overview.running"), _count(running), border=True)
    fourth.metric(say("overview.queued"), _count(queued), border=True)


def _count(page: JobPage) -> str:
    return f"{len(page.jobs)}{'+' if page.next_cursor else ''}"


def lending(nodes: Sequence[NodeView]) -> None:
    """How many nodes stand where, then why, the ones that take work first."""
    counts = Counter(node.lending for node in nodes)
    if not any(counts[state] for state in badges.TAKING_WORK):
        st.info(say("overview.none_lent"), icon=":material/hourglass_top:")
    with st.container(horizontal=True):
        for state in badges.LENDING_ORDER:
            if counts[state]:
                badges.lending_badge(state, count=counts[state])
    ordered = sorted(nodes, key=lambda node: badges.LENDING_ORDER.index(node.lending))
    with st.container(border=True, gap="small"):
        for node in ordered[:_NODES_SHOWN]:
            mark, name, why = st.columns([2, 2, 7], vertical_alignment="center")
            with mark:
                badges.lending_badge(node.lending)
            name.text(plain.line(node.facts.name, 40))
            why.text("; ".join(sentences(node.reasons)))
        st.page_link("views/nodes.py", label=say("overview.all_nodes"), icon=":material/dns:")


def first_node() -> None:
    with st.container(border=True):
        st.markdown(f"**{say('overview.no_nodes')}** {say('overview.join')}")
        url = faults.where()
        st.code(f"idlectl agent --scheduler {plain.line(url)}", language=None)
        loopback = any(name in url for name in ("//127.", "//localhost", "//[::1]"))
        st.caption(say("overview.join_loopback" if loopback else "overview.join_key"))


def first_job() -> None:
    with st.container(border=True):
        st.markdown(say("overview.no_jobs"))
        st.code("idlectl submit -- python3 -c 'print(6*7)'", language=None)
        st.page_link("views/submit.py", label=say("overview.first_job"), icon=":material/send:")


st.title(say("page.overview"), anchor=False)
live()
