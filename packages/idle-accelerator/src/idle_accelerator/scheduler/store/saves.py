"""What tasks saved, and what they say of themselves. Its rows end with their tasks; blobs stay, as all blobs do.

Writers have made sure, in the same transaction, that the attempt is live and on the node that speaks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from idle_accelerator.scheduler.store.rows import checkpoint_of, dump_reason
from idle_accelerator.scheduler.store.schema import attempts, checkpoints, jobs, nodes, notes, tasks
from idle_accelerator.wire.checkpoints import ProgressNote, ResumePoint, SavedCheckpoint
from idle_accelerator.wire.ids import AttemptRef

KEPT = 2
"""Checkpoints of a task: the newest, and the one before it for when that cannot be had."""
_AT_ONCE = 500
"""Tasks in one question."""

_OF_TASK = (
    checkpoints.c.job_seq == bindparam("b_job_seq"),
    checkpoints.c.task_index == bindparam("b_task_index"),
)
_NEWEST_FIRST = (checkpoints.c.epoch.desc(), checkpoints.c.step.desc())
_KEPT = select(checkpoints.c.epoch, checkpoints.c.step).where(*_OF_TASK).order_by(*_NEWEST_FIRST)
_ADD = insert(checkpoints)
_DROP = delete(checkpoints).where(
    *_OF_TASK, checkpoints.c.epoch == bindparam("b_epoch"), checkpoints.c.step == bindparam("b_step")
)
_DROP_ALL = delete(checkpoints).where(*_OF_TASK)
_HAS_SAVES = update(jobs).where(jobs.c.job_seq == bindparam("b_job_seq")).values(has_saves=True)
_OF_NOTE = (notes.c.job_seq == bindparam("b_job_seq"), notes.c.task_index == bindparam("b_task_index"))
_FORGET_NOTE = delete(notes).where(*_OF_NOTE)
_ADD_NOTE = insert(notes)
_POINTS = (
    select(
        checkpoints.c.task_index,
        checkpoints.c.step,
        checkpoints.c.manifest,
        checkpoints.c.size_bytes,
        checkpoints.c.files,
    )
    .where(
        checkpoints.c.job_seq == bindparam("wanted"),
        checkpoints.c.task_index.in_(bindparam("indices", expanding=True)),
    )
    .order_by(checkpoints.c.task_index, *_NEWEST_FIRST)
)
_SHOWN = (
    select(checkpoints, nodes.c.name.label("node_name"), attempts.c.node_id)
    .select_from(
        checkpoints.join(
            attempts,
            (attempts.c.job_seq == checkpoints.c.job_seq)
            & (attempts.c.task_index == checkpoints.c.task_index)
            & (attempts.c.epoch == checkpoints.c.epoch),
        ).outerjoin(nodes, nodes.c.node_id == attempts.c.node_id)
    )
    .where(*_OF_TASK)
    .order_by(*_NEWEST_FIRST)
)
_NOTES = select(notes).where(
    notes.c.job_seq == bindparam("b_job_seq"),
    notes.c.task_index >= bindparam("b_first"),
    notes.c.task_index <= bindparam("b_last"),
)


def save_checkpoints(
    connection: Connection,
    live: Mapping[AttemptRef, Any],
    saved: Iterable[SavedCheckpoint],
    *,
    now: float,
) -> None:
    """Keeps those of live attempts. One that is not newer than what its attempt saved before changes nothing."""
    for item in saved:
        row = live.get(AttemptRef(item.job_id, item.task_index, item.epoch))
        if row is None:
            continue
        key = {"b_job_seq": row.job_seq, "b_task_index": item.task_index}
        kept = [(found.epoch, found.step) for found in connection.execute(_KEPT, key)]
        new = (item.epoch, item.checkpoint.step)
        if kept and new <= kept[0]:
            continue
        connection.execute(
            _ADD,
            {
                "job_seq": row.job_seq,
                "task_index": item.task_index,
                "epoch": item.epoch,
                "step": item.checkpoint.step,
                "manifest": item.checkpoint.manifest,
                "size_bytes": item.checkpoint.size_bytes,
                "files": item.checkpoint.files,
                "saved_at": now,
            },
        )
        for epoch, step in kept[KEPT - 1 :]:
            connection.execute(_DROP, {**key, "b_epoch": epoch, "b_step": step})
        if not row.has_saves:
            connection.execute(_HAS_SAVES, {"b_job_seq": row.job_seq})


def note_progress(
    connection: Connection, live: Mapping[AttemptRef, Any], said: Sequence[ProgressNote]
) -> None:
    """The newest word of live attempts takes the place of what they or earlier attempts said."""
    newest: dict[tuple[int, int], dict[str, Any]] = {}
    unmarked: set[int] = set()
    for item in said:
        row = live.get(AttemptRef(item.job_id, item.task_index, item.epoch))
        if row is None:
            continue
        newest[row.job_seq, item.task_index] = {
            "job_seq": row.job_seq,
            "task_index": item.task_index,
            "epoch": item.epoch,
            "progress": item.progress.model_dump_json() if item.progress else None,
            "refused": dump_reason(item.refused),
        }
        if not row.has_saves:
            unmarked.add(row.job_seq)
    if not newest:
        return
    connection.execute(
        _FORGET_NOTE, [{"b_job_seq": job_seq, "b_task_index": index} for job_seq, index in newest]
    )
    connection.execute(_ADD_NOTE, list(newest.values()))
    for job_seq in unmarked:
        connection.execute(_HAS_SAVES, {"b_job_seq": job_seq})


def forget_saves(connection: Connection, job_seq: int, task_indices: Iterable[int]) -> None:
    """These tasks have ended."""
    keys = [{"b_job_seq": job_seq, "b_task_index": index} for index in task_indices]
    if keys:
        connection.execute(_DROP_ALL, keys)
        connection.execute(_FORGET_NOTE, keys)


def forget_ended(connection: Connection, job_seq: int) -> None:
    """All tasks of the job that are over."""
    over = select(tasks.c.task_index).where(tasks.c.job_seq == job_seq, tasks.c.finish_seq.is_not(None))
    for table in (checkpoints, notes):
        connection.execute(delete(table).where(table.c.job_seq == job_seq, table.c.task_index.in_(over)))


def resume_points(connection: Connection, job_seq: int, task_indices: Sequence[int]) -> list[ResumePoint]:
    """By task, newest first."""
    found: list[ResumePoint] = []
    for start in range(0, len(task_indices), _AT_ONCE):
        some = list(task_indices[start : start + _AT_ONCE])
        found += [
            ResumePoint(task_index=row.task_index, checkpoint=checkpoint_of(row))
            for row in connection.execute(_POINTS, {"wanted": job_seq, "indices": some})
        ]
    return found


def list_checkpoints(connection: Connection, job_seq: int, task_index: int) -> list[Row[Any]]:
    """Newest first, with the node that saved each."""
    return list(connection.execute(_SHOWN, {"b_job_seq": job_seq, "b_task_index": task_index}).all())


def list_notes(connection: Connection, job_seq: int, first: int, last: int) -> dict[int, Row[Any]]:
    """What tasks of this range of indices said last, by index."""
    wanted = {"b_job_seq": job_seq, "b_first": first, "b_last": last}
    return {row.task_index: row for row in connection.execute(_NOTES, wanted)}
