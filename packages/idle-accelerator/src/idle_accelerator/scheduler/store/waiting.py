"""The part of the store that decisions read: jobs with queued tasks."""

from functools import lru_cache

from sqlalchemy import Connection, select

from idle_accelerator.core.snapshot import WaitingJob
from idle_accelerator.scheduler.store.schema import JOB_WAITING, jobs
from idle_accelerator.wire.jobs import JobSpec, Requirements

HORIZON = 1000
"""Jobs that one decision looks at, the first in order. Those behind them wait for a later decision."""
_WAITING = (
    select(
        jobs.c.job_id,
        jobs.c.job_seq,
        jobs.c.priority,
        jobs.c.queued,
        jobs.c.kind,
        jobs.c.requirements,
        jobs.c.duration_sum_s,
        jobs.c.duration_count,
    )
    .where(JOB_WAITING)
    .order_by(jobs.c.priority.desc(), jobs.c.job_seq)
    .limit(HORIZON)
)


def requirements_of(spec: JobSpec) -> Requirements:
    """What a node must have to run the job; a function also needs the Python that pickled it, a module what runs it."""
    needed = spec.requirements
    if spec.workload.kind == "function" and needed.python is None:
        needed = needed.model_copy(update={"python": spec.workload.python})
    if spec.workload.kind == "wasm" and not needed.wasm:
        needed = needed.model_copy(update={"wasm": True})
    return needed


@lru_cache(maxsize=4096)
def load_requirements(stored: str) -> Requirements:
    """Out of ``jobs.requirements``. Cached, as most jobs of a pool want the same."""
    return Requirements.model_validate_json(stored)


def waiting_jobs(connection: Connection) -> tuple[WaitingJob, ...]:
    return tuple(
        WaitingJob(
            job_id=row.job_id,
            order_key=row.job_seq,
            priority=row.priority,
            requirements=load_requirements(row.requirements),
            queued=row.queued,
            is_function=row.kind == "function",
            mean_duration_s=row.duration_sum_s / row.duration_count if row.duration_count else None,
        )
        for row in connection.execute(_WAITING)
    )
