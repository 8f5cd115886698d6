"""Output of tasks: pieces by offset; only the tail is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, tuple_, update

from idle_accelerator.scheduler.store.schema import attempts, jobs, log_chunks
from idle_accelerator.wire.exchange import LogChunk

KEPT_BYTES = 1024 * 1024
"""Of each stream of each attempt."""


@dataclass(frozen=True, kw_only=True)
class LogPiece:
    offset: int
    data: bytes
    dropped_bytes: int


def add_logs(connection: Connection, node_id: str, chunks: Sequence[LogChunk]) -> set[str]:
    """Stores what the node's own attempts wrote; a piece that is there already, or of another's attempt, changes nothing.

    Returns the ids of the jobs concerned.
    """
    owners = _own_jobs(connection, node_id, chunks)
    touched: set[str] = set()
    for chunk in chunks:
        job_seq = owners.get((chunk.job_id, chunk.task_index, chunk.epoch))
        if job_seq is None or not chunk.data:
            continue
        key: dict[str, Any] = {
            "job_seq": job_seq,
            "task_index": chunk.task_index,
            "epoch": chunk.epoch,
            "stream": chunk.stream,
        }
        of_stream = tuple(log_chunks.c[name] == value for name, value in key.items())
        length = func.length(log_chunks.c.data)
        last = connection.execute(
            select(log_chunks.c.start + length).where(*of_stream).order_by(log_chunks.c.start.desc()).limit(1)
        ).scalar()
        end = chunk.offset + len(chunk.data)
        keep_from = max(end, last or 0) - KEPT_BYTES
        if chunk.offset < keep_from:
            continue
        at_offset = (*of_stream, log_chunks.c.start == chunk.offset)
        kept = connection.execute(select(length).where(*at_offset)).scalar() if last else None
        if kept is None:
            connection.execute(insert(log_chunks), {**key, "start": chunk.offset, "data": chunk.data})
        elif kept < len(chunk.data):  # the agent cut its pieces anew when it sent them again
            connection.execute(update(log_chunks).where(*at_offset).values(data=chunk.data))
        else:
            continue
        touched.add(chunk.job_id)
        if keep_from > 0:
            connection.execute(delete(log_chunks).where(*of_stream, log_chunks.c.start < keep_from))
    return touched


def read_log(
    connection: Connection,
    job_seq: int,
    task_index: int,
    epoch: int,
    stream: str,
    *,
    offset: int,
    limit_bytes: int,
) -> LogPiece:
    """What is kept from ``offset`` on, up to the limit or the first gap."""
    rows = connection.execute(
        select(log_chunks.c.start, log_chunks.c.data)
        .where(
            log_chunks.c.job_seq == job_seq,
            log_chunks.c.task_index == task_index,
            log_chunks.c.epoch == epoch,
            log_chunks.c.stream == stream,
        )
        .order_by(log_chunks.c.start)
    )
    begin: int | None = None
    parts: list[bytes] = []
    position = offset
    size = 0
    for row in rows:
        end = row.start + len(row.data)
        if end <= position:
            continue
        if begin is None:
            begin = position = max(row.start, offset)
        elif row.start > position:
            break
        part = row.data[position - row.start :][: limit_bytes - size]
        parts.append(part)
        position += len(part)
        size += len(part)
        if size >= limit_bytes:
            break
    if begin is None:
        return LogPiece(offset=offset, data=b"", dropped_bytes=0)
    return LogPiece(offset=begin, data=b"".join(parts), dropped_bytes=begin - offset)


def _own_jobs(
    connection: Connection, node_id: str, chunks: Sequence[LogChunk]
) -> dict[tuple[str, int, int], int]:
    refs = {(chunk.job_id, chunk.task_index, chunk.epoch) for chunk in chunks}
    if not refs:
        return {}
    rows = connection.execute(
        select(jobs.c.job_id, attempts.c.task_index, attempts.c.epoch, attempts.c.job_seq)
        .select_from(attempts.join(jobs, jobs.c.job_seq == attempts.c.job_seq))
        .where(
            attempts.c.node_id == node_id,
            tuple_(jobs.c.job_id, attempts.c.task_index, attempts.c.epoch).in_(sorted(refs)),
        )
    )
    return {(row.job_id, row.task_index, row.epoch): row.job_seq for row in rows}
