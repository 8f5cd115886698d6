"""The part of the store that decisions read: jobs with queued tasks."""

from functools import lru_cache

from sqlalchemy import Connection, select

from idle_accelerator.core.snapshot import WaitingJob
from idle_accelerator.scheduler.store.schema import jobs
from idle_accelerator.wire.jobs import JobSpec, Requirements

_HORIZON = 1000
"""Jobs that one decision looks at, the first in order. Those behind them wait for a later decision."""
_WAITING = (
    select(
        jobs.c.job_id,
        jobs.c.job_seq,
        jobs.c.priority,
        jobs.c.queued,
        jobs.c.kind,
        jobs.c.spec,
        jobs.c.duration_sum_s,
        jobs.c.duration_count,
    )
    .where(jobs.c.queued > 0)
    .order_by(jobs.c.priority.desc(), jobs.c.job_seq)
    .limit(_HORIZON)
)


@lru_cache(maxsize=4096)
def requirements_of(spec_json: str) -> Requirements:
    """A job's requirements; a function also needs the Python that pickled it. Cached: a spec never changes."""
    spec = JobSpec.model_validate_json(spec_json)
    needed = spec.requirements
    if spec.workload.kind == "function" and needed.python is None:
        needed = needed.model_copy(update={"python": spec.workload.python})
    return needed


def waiting_jobs(connection: Connection) -> tuple[WaitingJob, ...]:
    return tuple(
        WaitingJob(
            job_id=row.job_id,
            order_key=row.job_seq,
            priority=row.priority,
            requirements=requirements_of(row.spec),
            queued=row.queued,
            is_function=row.kind == "function",
            mean_duration_s=row.duration_sum_s / row.duration_count if row.duration_count else None,
        )
        for row in connection.execute(_WAITING)
    )
