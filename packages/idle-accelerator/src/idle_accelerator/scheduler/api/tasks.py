"""Tasks of a job: list, look, and their output."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection

from idle_accelerator.errors import NotFound
from idle_accelerator.scheduler.api.access import State, User
from idle_accelerator.scheduler.api.bodies import answer, errors
from idle_accelerator.scheduler.api.jobs import MAX_WAIT_S
from idle_accelerator.scheduler.signals import called
from idle_accelerator.scheduler.store import jobs as stored
from idle_accelerator.scheduler.store.logs import LogPiece, read_log
from idle_accelerator.scheduler.store.rows import (
    attempt_view,
    checkpoint_view,
    load_artifacts,
    load_reason,
    task_view,
)
from idle_accelerator.scheduler.store.saves import list_checkpoints, list_notes
from idle_accelerator.wire.ids import MAX_TASKS
from idle_accelerator.wire.jobs import LogPage, TaskDetail, TaskPage
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, TERMINAL_TASK_STATES, AttemptState, TaskState

router = APIRouter(prefix="/v1/jobs/{job}/tasks", tags=["tasks"], dependencies=[User])
LOG_BYTES = 256 * 1024
TaskIndex = Annotated[int, Path(ge=0, lt=MAX_TASKS)]


@router.get("", response_model=TaskPage, responses=errors(404, 409, 422, 503))
async def list_tasks(
    job: str,
    state: State,
    limit: Annotated[int, Query(ge=1, le=2000)] = 200,
    cursor: Annotated[int, Query(ge=-1, lt=MAX_TASKS, description="Last index of the page before.")] = -1,
    task_state: Annotated[TaskState | None, Query(alias="state")] = None,
) -> Response:
    """Tasks by index."""

    def look(connection: Connection) -> tuple[list[Any], dict[int, Any]]:
        row = stored.find_job(connection, job)
        found = stored.list_tasks(
            connection, row.job_seq, state=task_state, after_index=cursor, limit=limit + 1
        )
        if not found or not row.has_saves:
            return found, {}
        return found, list_notes(connection, row.job_seq, found[0].task_index, found[-1].task_index)

    rows, notes = await state.store.read(look)
    page = rows[:limit]
    return answer(
        TaskPage(
            tasks=tuple(task_view(row, notes.get(row.task_index)) for row in page),
            next_cursor=page[-1].task_index if len(rows) > limit else None,
        )
    )


@router.get("/{task}", response_model=TaskDetail, responses=errors(404, 409, 422, 503))
async def get_task(job: str, task: TaskIndex, state: State) -> Response:
    """A task with all of its attempts, its artifacts, and the checkpoints that are kept of it."""

    def look(connection: Connection) -> tuple[Any, Any, list[Any], list[Any], Any]:
        row = stored.find_job(connection, job)
        task_row, attempts = stored.get_task(connection, row, task)
        if not row.has_saves:
            return row, task_row, attempts, [], None
        note = list_notes(connection, row.job_seq, task, task).get(task)
        return row, task_row, attempts, list_checkpoints(connection, row.job_seq, task), note

    row, task_row, attempts, checkpoints, note = await state.store.read(look)
    refused = note.refused if note is not None and note.epoch == task_row.epoch else None
    return answer(
        TaskDetail(
            job_id=row.job_id,
            task=task_view(task_row, note),
            attempts=tuple(attempt_view(item) for item in attempts),
            artifacts=load_artifacts(task_row.artifacts),
            checkpoints=tuple(checkpoint_view(item, attempts) for item in checkpoints),
            checkpoint_refused=load_reason(refused),
        )
    )


@router.get("/{task}/logs", response_model=LogPage, responses=errors(404, 409, 422, 503))
async def logs(
    job: str,
    task: TaskIndex,
    state: State,
    stream: Literal["stdout", "stderr"] = "stdout",
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    epoch: Annotated[
        int | None, Query(ge=1, le=2**31, description="Which attempt; the newest if left out.")
    ] = None,
    limit_bytes: Annotated[int, Query(ge=1, le=LOG_BYTES)] = LOG_BYTES,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0,
) -> Response:
    """Output from ``offset`` on; held until there is some, or the attempt has ended."""

    def look(connection: Connection) -> tuple[str, LogPiece, int, bool]:
        row = stored.find_job(connection, job)
        task_row, attempts = stored.get_task(connection, row, task)
        wanted = task_row.epoch if epoch is None else epoch
        attempt = next((item for item in attempts if item.epoch == wanted), None)
        if attempt is None and epoch is not None:
            raise NotFound(
                f"task {task} has no attempt {epoch}.", field="epoch", hint=f"It has {len(attempts)}."
            )
        piece = read_log(
            connection, row.job_seq, task, wanted, stream, offset=offset, limit_bytes=limit_bytes
        )
        if attempt is None:
            over = TaskState(task_row.state) in TERMINAL_TASK_STATES
        else:
            over = AttemptState(attempt.state) not in LIVE_ATTEMPT_STATES
        return str(row.job_id), piece, wanted, over

    deadline = asyncio.get_running_loop().time() + wait_s
    topic: str | None = None
    while True:
        signal = state.signals.listen(topic) if topic is not None else None
        try:
            job_id, piece, wanted, over = await state.store.read(look)
            left = deadline - asyncio.get_running_loop().time()
            if piece.data or over or left <= 0 or state.signals.closed:
                break
            if signal is not None:
                await called(signal, within_s=left)
        finally:
            if signal is not None and topic is not None:
                state.signals.forget(topic, signal)
        topic = job_id
    return answer(
        LogPage(
            epoch=max(wanted, 0),
            stream=stream,
            offset=piece.offset,
            data=piece.data,
            next_offset=piece.offset + len(piece.data),
            dropped_bytes=piece.dropped_bytes,
            finished=over and not piece.data,
        )
    )
