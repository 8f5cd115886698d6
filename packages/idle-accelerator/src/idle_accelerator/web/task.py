"""One task: its output as it comes, its result, its files, its attempts."""

import contextlib
import functools
import pprint
from collections.abc import Callable
from typing import Any

import streamlit as st

from idle_accelerator.errors import IdleError
from idle_accelerator.web import amounts, badges, plain, pool
from idle_accelerator.web.language import say, sentence
from idle_accelerator.web.listings import attempts_table, checkpoints_table, percent_of
from idle_accelerator.wire.jobs import Artifact, AttemptView, JobDetail, TaskDetail, TaskView
from idle_accelerator.wire.payload import INLINE_LIMIT_BYTES
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, TERMINAL_TASK_STATES, TaskState

SHOWN_BYTES = 64 * 1024
"""Of a stream, on the screen."""
_FILES_SHOWN = 50
_OUTPUT_HEIGHT = 320
_RESULT_LIMIT = 20_000
_STREAMS: tuple[pool.Stream, ...] = ("stdout", "stderr")


def task_panel(job: JobDetail, index: int) -> None:
    detail = pool.task(job.view.job_id, index)
    task = detail.task
    with st.container(horizontal=True, vertical_alignment="center"):
        if job.spec.tasks > 1:
            st.subheader(say("tasks.one", index=index), anchor=False, width="content")
        badges.state_badge(
            task.attempt_state if task.state is TaskState.ACTIVE and task.attempt_state else task.state
        )
        said = [sentence(task.reason)] if task.reason else []
        if task.node_name:
            said.append(say("tasks.on_node", name=plain.line(task.node_name)))
        if said:
            st.text(" · ".join(said))
    progress(detail.task)
    if job.spec.workload.kind == "function":
        result(job, detail)
    if detail.attempts:
        output(detail)
    if detail.artifacts or job.spec.outputs:
        files(detail)
    checkpoints(detail)
    st.markdown(f"**{say('attempts.title')}**")
    if detail.attempts:
        attempts_table(detail.attempts)
    else:
        st.caption(say("attempts.none"))


def progress(task: TaskView) -> None:
    """How far the task says it is."""
    if task.progress is None:
        return
    percent, note = percent_of(task), plain.label(task.progress.note) if task.progress.note else ""
    if percent is not None:
        st.progress(percent / 100, text=" · ".join(part for part in (f"{percent} %", note) if part))
    elif note:
        st.markdown(note)


def checkpoints(detail: TaskDetail) -> None:
    """What the task has saved, for its next attempt and for its submitter."""
    if detail.checkpoints or detail.checkpoint_refused:
        st.markdown(f"**{say('checkpoints.title')}**")
    if detail.checkpoint_refused:
        st.text(say("checkpoints.refused", why=sentence(detail.checkpoint_refused)))
    if detail.checkpoints:
        checkpoints_table(detail.checkpoints)
        st.caption(say("checkpoints.fetch", job_id=detail.job_id, index=detail.task.index))


def output(detail: TaskDetail) -> None:
    """The end of one stream of one attempt; the newest attempt unless another is chosen."""
    job_id, index = detail.job_id, detail.task.index
    key = f"output.{job_id}.{index}"
    st.markdown(f"**{say('output.title')}**")
    first: pool.Stream = "stderr" if detail.task.state is TaskState.FAILED else "stdout"
    with st.container(horizontal=True, vertical_alignment="center"):
        stream: pool.Stream = st.segmented_control(
            say("output.stream"),
            _STREAMS,
            default=first,
            required=True,
            key=f"output.{first}",
            label_visibility="collapsed",
        )
        attempt = choose_attempt(detail.attempts, key)
        over = attempt.state not in LIVE_ATTEMPT_STATES
        kept = pool.log(job_id, index, stream, attempt.epoch, over=over)
        if kept:
            st.download_button(
                say("output.download", stream=stream),
                kept,
                file_name=f"{job_id}-{index}-{attempt.epoch}.{stream}.txt",
                mime="text/plain",
                icon=":material/download:",
                on_click="ignore",
                key=f"{key}.download",
            )
    if not kept:
        st.caption(say("output.none", stream=stream) if over else say("output.none_yet"))
        return
    with st.container(height=_OUTPUT_HEIGHT if kept.count(b"\n") > 10 else "content", autoscroll=not over):
        st.code(plain.output(kept[-SHOWN_BYTES:]), language=None, wrap_lines=True)
    if len(kept) > SHOWN_BYTES:
        st.caption(say("output.tail", shown=amounts.size(SHOWN_BYTES), kept=amounts.size(len(kept))))


def choose_attempt(attempts: tuple[AttemptView, ...], key: str) -> AttemptView:
    """Offered only where there is more than one."""
    if len(attempts) == 1:
        return attempts[0]
    by_epoch = {attempt.epoch: attempt for attempt in reversed(attempts)}

    def named(epoch: int) -> str:
        return f"{say('output.attempt')} {epoch} · {badges.word(by_epoch[epoch].state)}"

    chosen = st.selectbox(
        say("output.attempt"),
        list(by_epoch),
        format_func=named,
        key=f"{key}.{len(attempts)}.epoch",
        label_visibility="collapsed",
        width=260,
    )
    return by_epoch[chosen]


def _content(artifact: Artifact) -> bytes | Callable[[], bytes]:
    """What the download button gives. Content that is made at the click belongs to one rendering of the page: a click that
    crosses the next rendering finds nothing, and has to be repeated. Small files, most of all, need not suffer that."""
    if artifact.size_bytes <= pool.SMALL_BYTES:
        with contextlib.suppress(IdleError):  # it cannot be had now: the click says so
            return pool.small_blob(artifact.digest)
    return functools.partial(pool.blob, artifact.digest)


def files(detail: TaskDetail) -> None:
    st.markdown(f"**{say('artifacts.title')}**")
    if not detail.artifacts:
        st.caption(say("artifacts.none_matched") if detail.task.finished_at else say("artifacts.later"))
        return
    for number, artifact in enumerate(detail.artifacts[:_FILES_SHOWN]):
        with st.container(horizontal=True, vertical_alignment="center"):
            if artifact.size_bytes <= pool.DOWNLOAD_LIMIT_BYTES:
                st.download_button(
                    say("artifacts.download"),
                    _content(artifact),
                    file_name=plain.file_name(artifact.path),
                    mime="application/octet-stream",
                    icon=":material/download:",
                    on_click="ignore",
                    key=f"file.{detail.job_id}.{detail.task.index}.{number}",
                )
            st.text(f"{plain.line(artifact.path)} · {amounts.size(artifact.size_bytes)}")
    if len(detail.artifacts) > _FILES_SHOWN:
        more = len(detail.artifacts) - _FILES_SHOWN
        st.caption(say("artifacts.more", count=more, job_id=detail.job_id))
    if any(artifact.size_bytes > pool.DOWNLOAD_LIMIT_BYTES for artifact in detail.artifacts):
        limit = amounts.size(pool.DOWNLOAD_LIMIT_BYTES)
        st.caption(say("artifacts.large", limit=limit, job_id=detail.job_id))


def all_files(job: JobDetail) -> None:
    """Of an array that is over: one archive of what all of its tasks left."""
    job_id = job.view.job_id
    if not job.spec.outputs or job.spec.tasks > pool.SCANNED_TASKS:
        return
    found = pool.output_files(job_id)
    size = amounts.size(found.size_bytes)
    if found.size_bytes > pool.DOWNLOAD_LIMIT_BYTES:
        st.caption(say("artifacts.all_large", count=len(found.files), size=size, job_id=job_id))
    elif found.files:
        st.download_button(
            say("artifacts.all", count=len(found.files), size=size),
            lambda: pool.archive(job_id),
            file_name=f"{job_id}.zip",
            mime="application/zip",
            icon=":material/folder_zip:",
            on_click="ignore",
            key=f"files.{job_id}",
        )


def result(job: JobDetail, detail: TaskDetail) -> None:
    """What the function returned or raised. It comes from a node: shown as text, and a pickle is never opened here."""
    job_id = job.view.job_id
    if detail.task.state not in TERMINAL_TASK_STATES or job.spec.tasks > pool.SCANNED_TASKS:
        return
    outcome = pool.result(job_id, detail.task.index)
    if outcome is None:
        return
    if outcome.error is not None:
        st.markdown(f"**{say('result.raised')}**")
        st.code(plain.block(outcome.error.traceback_text, _RESULT_LIMIT), language=None, wrap_lines=True)
    elif outcome.result is not None:
        st.markdown(f"**{say('result.title')}**")
        if outcome.encoding == "pickle":
            st.caption(say("result.pickled", job_id=job_id))
        elif outcome.result.inline is None:
            st.caption(say("result.large", limit=amounts.size(INLINE_LIMIT_BYTES), job_id=job_id))
        else:
            st.code(
                plain.block(written(pool.value(job_id, outcome)), _RESULT_LIMIT),
                language=None,
                wrap_lines=True,
            )


def written(value: Any) -> str:
    """The value as Python would write it."""
    try:
        return pprint.pformat(value, width=100, compact=True)
    except ValueError as error:  # an int of more digits than Python writes
        return f"<{error}>"
