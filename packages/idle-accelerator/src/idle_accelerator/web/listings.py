"""Tables of jobs, tasks and attempts. Cells of a table know no markup, so names may stand in them as they are."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import streamlit as st

from idle_accelerator.web import amounts, badges, plain
from idle_accelerator.web.language import current, say, sentence
from idle_accelerator.wire.checkpoints import CheckpointView, ResumedView
from idle_accelerator.wire.jobs import AttemptView, JobView, TaskCounts, TaskView
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

_NAME_LIMIT = 160
Target = TypeVar("Target")


def finished(counts: TaskCounts) -> int:
    return counts.succeeded + counts.failed + counts.cancelled


def jobs_table(jobs: Sequence[JobView], *, key: str, on_open: Callable[[str], None]) -> None:
    """``on_open`` is called with the id of the job whose row was clicked, before the page runs again."""
    language, now = current(), datetime.now(UTC)
    rows = {
        "name": [plain.line(job.name or job.summary, _NAME_LIMIT) for job in jobs],
        "state": [[badges.word(job.state)] for job in jobs],
        "progress": [100 * finished(job.counts) // job.counts.total for job in jobs],
        "tasks": [f"{finished(job.counts):,} / {job.counts.total:,}" for job in jobs],
        "failed": [f"{job.counts.failed:,}" if job.counts.failed else "" for job in jobs],
        "submitted": [amounts.ago(job.submitted_at, language, now=now) for job in jobs],
        "took": [
            amounts.between(job.submitted_at, job.finished_at, language) if job.finished_at else ""
            for job in jobs
        ],
        "id": [job.job_id for job in jobs],
    }
    config = {
        "name": st.column_config.TextColumn(say("jobs.name"), width=270),
        "state": badges.state_column(say("jobs.state"), JobState),
        "progress": st.column_config.ProgressColumn(
            say("jobs.progress"), min_value=0, max_value=100, format="%d %%", width=110
        ),
        "tasks": st.column_config.TextColumn(say("jobs.tasks"), width=90),
        "failed": st.column_config.TextColumn(say("jobs.failed"), width=60),
        "submitted": st.column_config.TextColumn(say("jobs.submitted"), width=105),
        "took": st.column_config.TextColumn(say("jobs.took"), width=95),
        "id": st.column_config.TextColumn(say("jobs.id"), width=150),
    }
    _clickable(rows, config, key=key, targets=[job.job_id for job in jobs], on_click=on_open)


def tasks_table(tasks: Sequence[TaskView], *, key: str, on_open: Callable[[int], None]) -> None:
    """``on_open`` is called with the index of the task whose row was clicked, before the page runs again."""
    language, now = current(), datetime.now(UTC)
    rows = {
        "index": [task.index for task in tasks],
        "state": [[badges.word(_shown_state(task))] for task in tasks],
        "progress": [percent_of(task) for task in tasks],
        "node": [plain.line(task.node_name or "") for task in tasks],
        "epoch": [task.epoch for task in tasks],
        "exit": [_number(task.exit_code) for task in tasks],
        "finished": [
            amounts.ago(task.finished_at, language, now=now) if task.finished_at else "" for task in tasks
        ],
        "reason": [sentence(task.reason) if task.reason else "" for task in tasks],
    }
    config = {
        "index": st.column_config.NumberColumn(say("tasks.index"), width="small", format="%d"),
        "state": badges.state_column(say("jobs.state"), (*TaskState, *AttemptState)),
        "progress": st.column_config.ProgressColumn(
            say("tasks.progress"), min_value=0, max_value=100, format="%d %%", width=110
        ),
        "node": st.column_config.TextColumn(say("tasks.node"), width=130),
        "epoch": st.column_config.NumberColumn(say("tasks.attempts"), width=80),
        "exit": st.column_config.TextColumn(say("tasks.exit"), width=85),
        "finished": st.column_config.TextColumn(say("tasks.finished"), width=100),
        "reason": st.column_config.TextColumn(say("tasks.reason"), width=220),
    }
    _clickable(rows, config, key=key, targets=[task.index for task in tasks], on_click=on_open)


def attempts_table(attempts: Sequence[AttemptView]) -> None:
    language, now = current(), datetime.now(UTC)
    used = [attempt.usage for attempt in attempts]
    rows = {
        "epoch": [attempt.epoch for attempt in attempts],
        "state": [[badges.word(attempt.state)] for attempt in attempts],
        "node": [plain.line(attempt.node_name) for attempt in attempts],
        "resumed": [_resumed(attempt.resumed) for attempt in attempts],
        "reason": [sentence(attempt.reason) if attempt.reason else "" for attempt in attempts],
        "leased": [amounts.ago(attempt.leased_at, language, now=now) for attempt in attempts],
        "took": [amounts.duration(use.wall_s, language) if use else "" for use in used],
        "frozen": [
            amounts.duration(use.suspended_s, language) if use and use.suspended_s else "" for use in used
        ],
        "cpu": [
            amounts.duration(use.cpu_s, language) if use and use.cpu_s is not None else "" for use in used
        ],
        "memory": [amounts.size(use.max_rss_bytes) if use and use.max_rss_bytes else "" for use in used],
        "exit": [_number(attempt.exit_code) for attempt in attempts],
    }
    config: dict[str, Any] = {
        "epoch": st.column_config.NumberColumn(say("attempts.number"), width="small", format="%d"),
        "state": badges.state_column(say("jobs.state"), AttemptState),
        "node": st.column_config.TextColumn(say("tasks.node"), width=130),
        "reason": st.column_config.TextColumn(say("tasks.reason"), width=220),
        "resumed": st.column_config.TextColumn(say("attempts.resumed"), width=130),
        "leased": st.column_config.TextColumn(say("attempts.leased"), width=100),
        "took": st.column_config.TextColumn(say("attempts.took"), width=85),
        "frozen": st.column_config.TextColumn(say("attempts.frozen"), width=95),
        "cpu": st.column_config.TextColumn(say("attempts.cpu"), width=85),
        "memory": st.column_config.TextColumn(say("attempts.memory"), width=105),
        "exit": st.column_config.TextColumn(say("tasks.exit"), width=85),
    }
    filled = [name for name, cells in rows.items() if any(cell not in ("", None) for cell in cells)]
    st.dataframe(rows, hide_index=True, column_order=filled, column_config=config, lazy=False)


def checkpoints_table(checkpoints: Sequence[CheckpointView]) -> None:
    language, now = current(), datetime.now(UTC)
    rows = {
        "step": [str(item.checkpoint.step) for item in checkpoints],
        "size": [amounts.size(item.checkpoint.size_bytes) for item in checkpoints],
        "files": [str(item.checkpoint.files) for item in checkpoints],
        "saved": [amounts.ago(item.saved_at, language, now=now) for item in checkpoints],
        "node": [plain.line(item.node_name) for item in checkpoints],
        "epoch": [str(item.epoch) for item in checkpoints],
        "resumed": [", ".join(map(str, item.resumed_by)) for item in checkpoints],
    }
    config: dict[str, Any] = {
        "step": st.column_config.TextColumn(say("checkpoints.step"), width=100),
        "size": st.column_config.TextColumn(say("checkpoints.size"), width=95),
        "files": st.column_config.TextColumn(say("checkpoints.files"), width=85),
        "saved": st.column_config.TextColumn(say("checkpoints.saved"), width=105),
        "node": st.column_config.TextColumn(say("tasks.node"), width=130),
        "epoch": st.column_config.TextColumn(say("attempts.number"), width=80),
        "resumed": st.column_config.TextColumn(say("checkpoints.resumed"), width=170),
    }
    filled = [name for name, cells in rows.items() if any(cells)]
    st.dataframe(rows, hide_index=True, column_order=filled, column_config=config, lazy=False)


def percent_of(task: TaskView) -> int | None:
    """How much a task says is done, rounded down; None where it says nothing of that."""
    if task.progress is None or task.progress.done_ratio is None:
        return None
    return int(task.progress.done_ratio * 100 + 1e-9)


def _resumed(resumed: ResumedView | None) -> str:
    """What an attempt went on from, and why that was not the newest."""
    if resumed is None:
        return ""
    step = resumed.step
    said = [say("attempts.resumed_anew") if step is None else say("attempts.resumed_step", step=step)]
    said += [sentence(resumed.reason)] if resumed.reason else []
    return ": ".join(said)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _shown_state(task: TaskView) -> TaskState | AttemptState:
    """An active task is shown by where its attempt stands: frozen says more than active."""
    return task.attempt_state if task.state is TaskState.ACTIVE and task.attempt_state else task.state


def _clickable(
    rows: dict[str, list[Any]],
    config: dict[str, Any],
    *,
    key: str,
    targets: list[Target],
    on_click: Callable[[Target], None],
) -> None:
    """A click counts for the rows that were on the screen when it was made: by the next run they may have moved on."""
    on_screen = f"{key}.rows"

    def clicked() -> None:
        chosen: dict[str, list[Any]] = st.session_state[key]["selection"]
        places: list[int] = [*chosen["rows"], *(cell[0] for cell in chosen["cells"])]
        shown = cast("list[Target]", st.session_state.get(on_screen, targets))
        if places and places[0] < len(shown):
            on_click(shown[places[0]])

    filled = [name for name, cells in rows.items() if any(cell not in ("", None) for cell in cells)]
    st.dataframe(
        rows,
        hide_index=True,
        column_order=filled,
        column_config=config,
        key=key,
        on_select=clicked,
        selection_mode=["single-row", "single-cell"],
        lazy=False,
    )
    st.session_state[on_screen] = targets
