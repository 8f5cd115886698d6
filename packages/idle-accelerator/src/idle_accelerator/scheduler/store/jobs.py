"""Jobs and their tasks: accept, look at, cancel."""

from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, literal, select, update
from sqlalchemy.sql.expression import Select

from idle_accelerator.errors import Conflict, InvalidInput, NotFound
from idle_accelerator.scheduler.store.ends import End, change_job, end_attempts
from idle_accelerator.scheduler.store.rows import dump_reason, summary
from idle_accelerator.scheduler.store.saves import forget_ended
from idle_accelerator.scheduler.store.schema import TASK_QUEUED, attempts, jobs, nodes, tasks
from idle_accelerator.scheduler.store.waiting import requirements_of
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

_INDEX_CHUNK = 100_000
_BY_IDEMPOTENCY_KEY = select(jobs.c.job_id, jobs.c.spec).where(jobs.c.idempotency_key == bindparam("wanted"))
_HOW_FAR = ("job_id", "job_seq", "state", "total", "queued", "active", "succeeded", "failed", "cancelled")
_STANDING = select(*(jobs.c[name] for name in _HOW_FAR)).where(jobs.c.job_id == bindparam("wanted"))
_ADD_JOB = insert(jobs).returning(jobs.c.job_seq)
_ADD_TASK = insert(tasks)


def add_job(
    connection: Connection, *, job_id: str, spec: JobSpec, idempotency_key: str | None, now: float
) -> str:
    """Stores a job with all of its tasks; returns its id, or that of the job which the same idempotency key made before."""
    if idempotency_key is not None:
        known = connection.execute(_BY_IDEMPOTENCY_KEY, {"wanted": idempotency_key}).one_or_none()
        if known is not None:
            if known.spec != spec.model_dump_json():
                raise Conflict(
                    "another job was submitted with this key.",
                    field="Idempotency-Key",
                    hint="Use a new key for a new job.",
                )
            return str(known.job_id)
    values: dict[str, Any] = {
        "job_id": job_id,
        "idempotency_key": idempotency_key,
        "name": spec.name,
        "kind": spec.workload.kind,
        "summary": summary(spec),
        "spec": spec.model_dump_json(),
        "requirements": requirements_of(spec).model_dump_json(),
        "priority": spec.priority,
        "retries": spec.retries,
        "state": JobState.QUEUED.value,
        "submitted_at": now,
        "total": spec.tasks,
        "queued": spec.tasks,
    }
    job_seq = connection.execute(_ADD_JOB, values).scalar_one()
    if spec.tasks == 1:
        connection.execute(_ADD_TASK, {"job_seq": job_seq, "task_index": 0, "state": TaskState.QUEUED.value})
        return job_id
    for start in range(0, spec.tasks, _INDEX_CHUNK):
        counter = select(literal(start).label("n")).cte("counter", recursive=True)
        counter = counter.union_all(
            select(counter.c.n + 1).where(counter.c.n < min(start + _INDEX_CHUNK, spec.tasks) - 1)
        )
        rows = select(literal(job_seq), counter.c.n, literal(TaskState.QUEUED.value))
        connection.execute(insert(tasks).from_select(["job_seq", "task_index", "state"], rows))
    return job_id


def find_job(connection: Connection, prefix: str) -> Row[Any]:
    """The job whose id is, or uniquely begins with, ``prefix``. Raises NotFound or Conflict (ambiguous)."""
    if not prefix:
        raise InvalidInput("an empty id names no job.", field="job", hint="List jobs with: idlectl jobs")
    found = connection.execute(
        select(jobs)
        .where(and_(jobs.c.job_id >= prefix, jobs.c.job_id < prefix + "~"))
        .order_by(jobs.c.job_id)
        .limit(2)
    ).all()
    if not found:
        raise NotFound(f"there is no job {prefix!r}.", field="job", hint="List jobs with: idlectl jobs")
    if len(found) > 1 and found[0].job_id != prefix:
        raise Conflict(
            f"more than one job begins with {prefix!r}.", field="job", hint="Give more characters of its id."
        )
    return found[0]


def job_standing(connection: Connection, prefix: str) -> Row[Any]:
    """As ``find_job``, without what may be large: how far the job is."""
    exact = connection.execute(_STANDING, {"wanted": prefix}).one_or_none()
    return find_job(connection, prefix) if exact is None else exact


def list_jobs(
    connection: Connection, *, state: JobState | None, before_seq: int | None, limit: int
) -> list[Row[Any]]:
    """Newest first."""
    query = select(jobs).order_by(jobs.c.job_seq.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state.value)
    if before_seq is not None:
        query = query.where(jobs.c.job_seq < before_seq)
    return list(connection.execute(query).all())


def _task_rows() -> Select[Any]:
    """Each task with its newest attempt."""
    newest = and_(
        attempts.c.job_seq == tasks.c.job_seq,
        attempts.c.task_index == tasks.c.task_index,
        attempts.c.epoch == tasks.c.epoch,
    )
    return select(
        tasks,
        attempts.c.state.label("attempt_state"),
        attempts.c.reason.label("attempt_reason"),
        attempts.c.exit_code,
        attempts.c.encoding,
        attempts.c.result_inline,
        attempts.c.result_blob,
        attempts.c.result_size_bytes,
        attempts.c.error,
        attempts.c.artifacts,
        attempts.c.node_id,
        nodes.c.name.label("node_name"),
    ).select_from(tasks.outerjoin(attempts, newest).outerjoin(nodes, nodes.c.node_id == attempts.c.node_id))


_TASKS = _task_rows()
_RESULTS = (
    _TASKS.where(tasks.c.job_seq == bindparam("wanted"), tasks.c.finish_seq > bindparam("after"))
    .order_by(tasks.c.finish_seq)
    .limit(bindparam("at_most"))
)


def list_tasks(
    connection: Connection, job_seq: int, *, state: TaskState | None, after_index: int, limit: int
) -> list[Row[Any]]:
    query = _TASKS.where(tasks.c.job_seq == job_seq, tasks.c.task_index > after_index)
    if state is not None:
        query = query.where(tasks.c.state == state.value)
    return list(connection.execute(query.order_by(tasks.c.task_index).limit(limit)).all())


def get_task(connection: Connection, job: Row[Any], task_index: int) -> tuple[Row[Any], list[Row[Any]]]:
    """The task and its attempts, oldest first. Raises NotFound."""
    row = connection.execute(
        _TASKS.where(tasks.c.job_seq == job.job_seq, tasks.c.task_index == task_index)
    ).one_or_none()
    if row is None:
        raise NotFound(
            f"job {job.job_id} has no task {task_index}.",
            field="task",
            hint=f"Its tasks are 0 to {job.total - 1}.",
        )
    query = (
        select(attempts, nodes.c.name.label("node_name"), nodes.c.facts.label("node_facts"))
        .select_from(attempts.outerjoin(nodes, nodes.c.node_id == attempts.c.node_id))
        .where(attempts.c.job_seq == job.job_seq, attempts.c.task_index == task_index)
        .order_by(attempts.c.epoch)
    )
    return row, list(connection.execute(query).all())


def finished_tasks(connection: Connection, job_seq: int, *, after: int, limit: int) -> list[Row[Any]]:
    """In the order in which they finished; ``finish_seq`` counts them per job, from 1."""
    return list(connection.execute(_RESULTS, {"wanted": job_seq, "after": after, "at_most": limit}).all())


def cancel_job(connection: Connection, job_seq: int, *, now: float) -> set[str]:
    """Wants a job cancelled: queued tasks end at once, leases not yet begun are withdrawn, running ones are told.

    Returns the nodes that hold attempts of it. Cancelling a finished job changes nothing.
    """
    job = connection.execute(select(jobs).where(jobs.c.job_seq == job_seq)).one()
    if job.queued + job.active == 0:
        return set()
    connection.execute(update(jobs).where(jobs.c.job_seq == job_seq).values(cancel_wanted=True))
    finished = job.succeeded + job.failed + job.cancelled
    rank = func.row_number().over(order_by=tasks.c.task_index)
    waiting = (
        select(tasks.c.task_index, rank.label("rank"))
        .where(tasks.c.job_seq == job_seq, TASK_QUEUED)
        .subquery()
    )
    ended = connection.execute(
        update(tasks)
        .where(tasks.c.job_seq == job_seq, tasks.c.task_index == waiting.c.task_index)
        .values(
            state=TaskState.CANCELLED.value,
            finish_seq=waiting.c.rank + finished,
            finished_at=now,
            reason=dump_reason(reason("task.cancelled")),
        )
    ).rowcount
    change_job(connection, job, {"queued": -ended, "cancelled": ended}, now=now)
    held = connection.execute(
        select(attempts.c.task_index, attempts.c.epoch, attempts.c.state, attempts.c.node_id).where(
            attempts.c.job_seq == job_seq, attempts.c.live
        )
    ).all()
    ends = [
        End(
            job_seq=job_seq,
            task_index=row.task_index,
            epoch=row.epoch,
            state=AttemptState.CANCELLED,
            reason=reason("task.cancelled"),
        )
        for row in held
        if row.state == AttemptState.LEASED.value
    ]
    end_attempts(connection, ends, now=now)
    if job.has_saves:
        forget_ended(connection, job_seq)
    return {row.node_id for row in held}
