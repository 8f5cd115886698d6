"""One job: where it stands, why it waits, its tasks, their output, attempts and files."""

import shlex

import streamlit as st

from idle_accelerator.errors import IdleError
from idle_accelerator.web import amounts, badges, faults, plain, pool
from idle_accelerator.web.language import current, say, sentences
from idle_accelerator.web.listings import finished, tasks_table
from idle_accelerator.web.task import all_files, task_panel
from idle_accelerator.wire.jobs import JobDetail, JobSpec, JobView, Requirements
from idle_accelerator.wire.states import TERMINAL_JOB_STATES, TaskState

_PAGE = 50
_COMMAND_LIMIT = 4000
_REFUSED = "job.refused"


def live(job_id: str, *, was_over: bool) -> None:
    with faults.shown():
        detail = pool.job(job_id)
        over = detail.view.state in TERMINAL_JOB_STATES
        if over and not was_over:
            st.rerun()
        heading(detail)
        waiting(detail.view)
        submitted(detail.spec)
        index = 0
        if detail.spec.tasks > 1:
            index = choose_task(detail.view)
            if over:
                all_files(detail)
        task_panel(detail, index)


def heading(detail: JobDetail) -> None:
    view, language = detail.view, current()
    st.header(plain.label(view.name or view.summary), anchor=False)
    times = say(
        "job.times" if view.finished_at else "job.times_live",
        ago=amounts.ago(view.submitted_at, language),
        took=amounts.between(view.submitted_at, view.finished_at, language),
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        badges.state_badge(view.state)
        st.code(view.job_id, language=None, width="content")
        st.caption(times, width="content")
        if view.priority:
            st.caption(say("job.priority", priority=view.priority), width="content")
        if view.state not in TERMINAL_JOB_STATES:
            cancel_button(view)
    counts = view.counts
    done = finished(counts)
    said = [say("job.finished", count=f"{done:,}", total=f"{counts.total:,}")]
    parts = {
        "job.active": counts.active,
        "job.queued": counts.queued,
        "job.failed": counts.failed,
        "job.cancelled": counts.cancelled,
    }
    said += [say(key, count=f"{count:,}") for key, count in parts.items() if count]
    st.progress(done / counts.total, text=" · ".join(said))


def waiting(view: JobView) -> None:
    if not view.waiting:
        return
    with st.container(border=True, gap="small"):
        st.markdown(f":material/hourglass_empty: **{say('job.waiting')}**")
        for sentence in sentences(view.waiting):
            st.text(sentence)


def cancel_button(view: JobView) -> None:
    def cancel() -> None:
        try:
            pool.cancel(view.job_id)
        except IdleError as error:
            st.session_state[_REFUSED] = error
        else:
            st.toast(say("job.cancelled_now"))

    refused = st.session_state.pop(_REFUSED, None)
    if refused is not None:
        faults.show(refused)
    with st.popover(say("job.cancel"), icon=":material/cancel:"):
        st.markdown(say("job.cancel_sure"))
        st.button(say("job.cancel_yes"), type="primary", on_click=cancel, key="job.cancel")


def submitted(spec: JobSpec) -> None:
    """The spec. Values of environment variables stay hidden: people put secrets there."""
    with st.expander(say("job.spec")):
        if spec.workload.kind != "function":
            words = (
                spec.workload.argv
                if spec.workload.kind == "command"
                else (spec.workload.module, *spec.workload.arguments)
            )
            st.code(plain.block(shlex.join(words), _COMMAND_LIMIT), language=None, wrap_lines=True)
        else:
            st.text(
                f"{say('job.function')}: {plain.line(spec.workload.name)} · Python {spec.workload.python}"
            )
        st.text(say("job.requires", needs=", ".join(needs(spec.requirements))))
        limits = [say("job.retries", retries=spec.retries)] if spec.retries else []
        if spec.timeout_s is not None:
            limits.append(say("job.timeout", timeout=amounts.duration(spec.timeout_s, current())))
        if limits:
            st.text("; ".join(limits))
        if spec.outputs:
            st.text(plain.line(say("job.outputs", globs=", ".join(spec.outputs)), 1000))
        if spec.env:
            st.text(plain.line(say("job.env", names=", ".join(sorted(spec.env))), 1000))
        if spec.inputs:
            st.text(f"{say('job.inputs')}:")
            for item in spec.inputs[:20]:
                st.text(f"• {plain.line(item.path)} ({amounts.size(item.size_bytes)})")
            if len(spec.inputs) > 20:
                st.text(f"• … {len(spec.inputs) - 20}")


def needs(wanted: Requirements) -> list[str]:
    parts = [say("need.cpus", amount=amounts.cores(wanted.cpus))]
    if wanted.memory_bytes:
        parts.append(say("need.memory", amount=amounts.size(wanted.memory_bytes)))
    if wanted.disk_bytes:
        parts.append(say("need.disk", amount=amounts.size(wanted.disk_bytes)))
    if wanted.gpus:
        parts.append(say("need.gpus", amount=wanted.gpus))
    parts += [name for name in (wanted.os, wanted.arch) if name]
    parts += [
        plain.line(say("need.label", name=name, value=value)) for name, value in sorted(wanted.labels.items())
    ]
    if wanted.node:
        parts.append(plain.line(say("need.node", name=wanted.node)))
    if wanted.network.open:
        parts.append(say("need.network_open"))
    if wanted.network.hosts:
        parts.append(plain.line(say("need.network", hosts=", ".join(wanted.network.hosts)), 1000))
    return parts


def choose_task(view: JobView) -> int:
    """The table of tasks, page by page; returns the index of the task to look at."""
    chosen_key, cursors_key, filter_key = (
        f"job.{view.job_id}.{part}" for part in ("task", "cursors", "filter")
    )
    cursors: list[int] = st.session_state.setdefault(cursors_key, [])
    last = view.counts.total - 1
    st.session_state[chosen_key] = min(last, st.session_state.get(chosen_key, 0))
    st.subheader(say("tasks.title"), anchor=False)
    states, number = st.columns([4, 1], vertical_alignment="bottom")
    state = states.pills(
        say("tasks.filter"), list(TaskState), format_func=badges.word, key=filter_key, on_change=cursors.clear
    )
    number.number_input(say("tasks.choose"), 0, last, key=chosen_key)
    page = pool.tasks(view.job_id, _PAGE, state, cursors[-1] if cursors else None)

    def choose(index: int) -> None:
        st.session_state[chosen_key] = index

    if page.tasks:
        tasks_table(page.tasks, key=f"job.{view.job_id}.tasks", on_open=choose)
    else:
        st.info(say("tasks.none"), icon=":material/filter_alt_off:")
    with st.container(horizontal=True, vertical_alignment="center"):
        following = page.next_cursor
        if cursors or following is not None:
            st.button(
                say("paging.first"),
                icon=":material/first_page:",
                disabled=not cursors,
                on_click=cursors.clear,
            )
            st.button(
                say("paging.next"),
                icon=":material/chevron_right:",
                disabled=following is None,
                on_click=cursors.append,
                args=(following,),
            )
        st.caption(say("tasks.hint"), width="content")
    return int(st.session_state[chosen_key])


def ask_for_id() -> None:
    st.info(say("job.open_hint"), icon=":material/info:")
    typed = st.text_input(say("job.open"), key="job.asked").strip()
    if typed:
        st.query_params["job"] = typed
        st.rerun()


def is_over(job_id: str) -> bool:
    """Whether nothing will change any more; unknown counts as no, so that the page keeps looking."""
    try:
        return pool.job(job_id).view.state in TERMINAL_JOB_STATES
    except IdleError:
        return False


def show() -> None:
    st.page_link("views/jobs.py", label=say("job.back"), icon=":material/arrow_back:")
    job_id = st.query_params.get("job", "")
    if not job_id:
        ask_for_id()
        return
    over = is_over(job_id)
    st.fragment(live, run_every=None if over else pool.REFRESH_S)(job_id, was_over=over)


show()
