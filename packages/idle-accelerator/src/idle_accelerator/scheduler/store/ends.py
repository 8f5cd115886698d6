"""How attempts end, and what that does to their tasks and jobs: always in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from idle_accelerator.core.attempt import TaskCharge, after_attempt
from idle_accelerator.scheduler.store.rows import dump_artifacts, dump_reason, job_state
from idle_accelerator.scheduler.store.saves import forget_saves
from idle_accelerator.scheduler.store.schema import attempts, jobs, tasks
from idle_accelerator.wire.jobs import Artifact, Usage
from idle_accelerator.wire.payload import Payload, RemoteError
from idle_accelerator.wire.reasons import Reason
from idle_accelerator.wire.states import TERMINAL_JOB_STATES, AttemptState, TaskState


@dataclass(frozen=True, kw_only=True)
class End:
    """An attempt's end. Who writes it has made sure, in the same transaction, that the attempt is live and the move allowed."""

    job_seq: int
    task_index: int
    epoch: int
    state: AttemptState
    reason: Reason | None
    exit_code: int | None = None
    encoding: str | None = None
    result: Payload | None = None
    error: RemoteError | None = None
    artifacts: tuple[Artifact, ...] = ()
    usage: Usage | None = None


_END_ATTEMPT = (
    update(attempts)
    .where(
        attempts.c.job_seq == bindparam("b_job_seq"),
        attempts.c.task_index == bindparam("b_task_index"),
        attempts.c.epoch == bindparam("b_epoch"),
        attempts.c.live,
    )
    .values(
        live=False,
        state=bindparam("b_state"),
        finished_at=bindparam("b_now"),
        reason=bindparam("b_reason"),
        exit_code=bindparam("b_exit_code"),
        encoding=bindparam("b_encoding"),
        result_inline=bindparam("b_inline"),
        result_blob=bindparam("b_blob"),
        result_size_bytes=bindparam("b_size"),
        error=bindparam("b_error"),
        artifacts=bindparam("b_artifacts"),
        usage=bindparam("b_usage"),
    )
)
_MOVE_TASK = (
    update(tasks)
    .where(tasks.c.job_seq == bindparam("b_job_seq"), tasks.c.task_index == bindparam("b_task_index"))
    .values(
        state=bindparam("b_state"),
        failures=bindparam("b_failures"),
        losses=bindparam("b_losses"),
        finish_seq=bindparam("b_finish_seq"),
        finished_at=bindparam("b_finished_at"),
        reason=bindparam("b_reason"),
    )
)
_SUCCEED_TASK = (
    update(tasks)
    .where(tasks.c.job_seq == bindparam("b_job_seq"), tasks.c.task_index == bindparam("b_task_index"))
    .values(
        state=TaskState.SUCCEEDED.value,
        finish_seq=bindparam("b_finish_seq"),
        finished_at=bindparam("b_finished_at"),
        reason=None,
    )
)
_COUNTERS = (jobs.c.queued, jobs.c.active, jobs.c.succeeded, jobs.c.failed, jobs.c.cancelled)
_OF_JOB = (
    jobs.c.job_seq,
    jobs.c.job_id,
    jobs.c.retries,
    jobs.c.cancel_wanted,
    jobs.c.state,
    jobs.c.finished_at,
    jobs.c.has_saves,
)
_JOB = select(*_OF_JOB, *_COUNTERS).where(jobs.c.job_seq == bindparam("wanted"))
_CHANGING = (*(column.name for column in _COUNTERS), "duration_sum_s", "duration_count")
_CHANGE_JOB = (
    update(jobs)
    .where(jobs.c.job_seq == bindparam("b_job_seq"))
    .values({name: jobs.c[name] + bindparam(f"b_{name}") for name in _CHANGING})
    .values(state=bindparam("b_state"), finished_at=bindparam("b_finished_at"))
)
_SPENT = select(tasks.c.failures, tasks.c.losses).where(
    tasks.c.job_seq == bindparam("b_job_seq"), tasks.c.task_index == bindparam("b_task_index")
)
_COUNTER = {TaskState.SUCCEEDED: "succeeded", TaskState.FAILED: "failed", TaskState.CANCELLED: "cancelled"}


class Ended(NamedTuple):
    """What ends have done to jobs."""

    jobs: frozenset[str] = frozenset()
    """Ids of those concerned."""
    some_queued: bool = False
    """Whether any of these has queued tasks now."""


def end_attempts(connection: Connection, ends: Sequence[End], *, now: float) -> Ended:
    """Writes the ends, moves the tasks on and keeps the jobs' counters true."""
    if not ends:
        return Ended()
    connection.execute(_END_ATTEMPT, [_attempt_values(end, now) for end in ends])
    by_job: defaultdict[int, list[End]] = defaultdict(list)
    for end in ends:
        by_job[end.job_seq].append(end)
    moved = [_end_for_job(connection, job_seq, of_job, now=now) for job_seq, of_job in by_job.items()]
    return Ended(frozenset(job_id for job_id, _ in moved), any(queued for _, queued in moved))


def _end_for_job(connection: Connection, job_seq: int, ends: Iterable[End], *, now: float) -> tuple[str, int]:
    """Returns the job's id and how many tasks of it are queued now."""
    job = connection.execute(_JOB, {"wanted": job_seq}).one()
    finished = job.succeeded + job.failed + job.cancelled
    change: defaultdict[str, Any] = defaultdict(int)
    succeeded: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    duration_sum_s = 0.0
    for end in ends:
        change["active"] -= 1
        key = {"b_job_seq": job_seq, "b_task_index": end.task_index}
        if end.state is AttemptState.SUCCEEDED:
            finished += 1
            change["succeeded"] += 1
            duration_sum_s += end.usage.wall_s if end.usage else 0.0
            succeeded.append({**key, "b_finish_seq": finished, "b_finished_at": now})
            continue
        spent = connection.execute(_SPENT, key).one()
        move = after_attempt(
            end.state,
            end.reason,
            TaskCharge(failures=spent.failures, losses=spent.losses),
            retries=job.retries,
            cancel_wanted=job.cancel_wanted,
        )
        over = move.state in _COUNTER
        finished += over
        change[_COUNTER.get(move.state, "queued")] += 1
        moved.append(
            {
                **key,
                "b_state": move.state.value,
                "b_failures": move.charge.failures,
                "b_losses": move.charge.losses,
                "b_finish_seq": finished if over else None,
                "b_finished_at": now if over else None,
                "b_reason": dump_reason(move.reason),
            }
        )
    if succeeded:
        connection.execute(_SUCCEED_TASK, succeeded)
    if moved:
        connection.execute(_MOVE_TASK, moved)
    if job.has_saves:
        over_now = [*succeeded, *(item for item in moved if item["b_finish_seq"] is not None)]
        forget_saves(connection, job_seq, [item["b_task_index"] for item in over_now])
    change["duration_sum_s"] = duration_sum_s
    change["duration_count"] = len(succeeded)
    return str(job.job_id), change_job(connection, job, change, now=now)


def change_job(connection: Connection, job: Any, by: Mapping[str, Any], *, now: float) -> int:
    """Adds to these counters of the job, and writes its state as it follows from them then. Returns what is queued.

    ``job`` is its row as it stands in this transaction.
    """
    queued = job.queued + by.get("queued", 0)
    state = job_state(
        queued=queued,
        active=job.active + by.get("active", 0),
        succeeded=job.succeeded + by.get("succeeded", 0),
        failed=job.failed + by.get("failed", 0),
        cancelled=job.cancelled + by.get("cancelled", 0),
    )
    finished_at = job.finished_at
    if state.value != job.state:
        finished_at = now if state in TERMINAL_JOB_STATES else None
    connection.execute(
        _CHANGE_JOB,
        {
            "b_job_seq": job.job_seq,
            "b_state": state.value,
            "b_finished_at": finished_at,
            **{f"b_{name}": by.get(name, 0) for name in _CHANGING},
        },
    )
    return queued


def _attempt_values(end: End, now: float) -> dict[str, Any]:
    result = end.result
    return {
        "b_job_seq": end.job_seq,
        "b_task_index": end.task_index,
        "b_epoch": end.epoch,
        "b_state": end.state.value,
        "b_now": now,
        "b_reason": dump_reason(end.reason),
        "b_exit_code": end.exit_code,
        "b_encoding": end.encoding,
        "b_inline": result.inline if result else None,
        "b_blob": result.blob if result else None,
        "b_size": result.size_bytes if result else None,
        "b_error": end.error.model_dump_json() if end.error else None,
        "b_artifacts": dump_artifacts(end.artifacts),
        "b_usage": end.usage.model_dump_json(exclude_defaults=True) if end.usage else None,
    }
