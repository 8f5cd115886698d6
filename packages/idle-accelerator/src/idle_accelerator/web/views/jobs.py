"""All jobs, newest first, live."""

import streamlit as st

from idle_accelerator.web import badges, faults, pool
from idle_accelerator.web.language import say
from idle_accelerator.web.listings import jobs_table
from idle_accelerator.web.opening import open_chosen_job, remember_job
from idle_accelerator.wire.jobs import JobView
from idle_accelerator.wire.states import JobState

_PAGE = 50
_CURSORS = "jobs.cursors"
_FILTER = "jobs.filter"
_SEARCH = "jobs.search"


def to_newest() -> None:
    st.session_state[_CURSORS] = []


@st.fragment(run_every=pool.REFRESH_S)
def live() -> None:
    open_chosen_job()
    chosen, search = st.columns([3, 2], vertical_alignment="bottom")
    state = chosen.pills(
        say("jobs.filter"),
        list(JobState),
        format_func=badges.word,
        key=_FILTER,
        on_change=to_newest,
        persist_state="session",
    )
    wanted = search.text_input(
        say("jobs.search"), key=_SEARCH, icon=":material/search:", persist_state="session"
    )
    cursors: list[str] = st.session_state.setdefault(_CURSORS, [])
    with faults.shown():
        page = pool.jobs(_PAGE, state, cursors[-1] if cursors else None)
        shown = [view for view in page.jobs if matches(view, wanted)]
        if shown:
            jobs_table(shown, key="jobs.table", on_open=remember_job)
            st.caption(say("jobs.hint"))
        elif page.jobs:
            st.info(say("jobs.no_match"), icon=":material/search_off:")
        elif state is not None:
            st.info(say("jobs.none"), icon=":material/filter_alt_off:")
        else:
            st.info(say("overview.no_jobs"), icon=":material/inbox:")
            st.code("idlectl submit -- python3 -c 'print(6*7)'", language=None)
            st.page_link("views/submit.py", label=say("overview.first_job"), icon=":material/send:")
        turn_pages(cursors, page.next_cursor)


def matches(view: JobView, wanted: str) -> bool:
    sought = wanted.strip().casefold()
    return not sought or any(sought in text.casefold() for text in (view.name, view.summary, view.job_id))


def turn_pages(cursors: list[str], following: str | None) -> None:
    if not cursors and following is None:
        return
    with st.container(horizontal=True):
        st.button(
            say("paging.newest"), icon=":material/first_page:", disabled=not cursors, on_click=cursors.clear
        )
        st.button(
            say("paging.older"),
            icon=":material/chevron_right:",
            disabled=following is None,
            on_click=cursors.append,
            args=(following,),
        )


st.title(say("page.jobs"), anchor=False)
live()
