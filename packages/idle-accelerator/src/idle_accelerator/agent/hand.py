"""What the agent has in hand: leases that wait, attempts with a process of their own, function jobs with warm processes."""

from collections import deque
from collections.abc import Iterator

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.single import Single
from idle_accelerator.agent.slots import FunctionJob, Slot
from idle_accelerator.core.resources import demand, minus
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.nodes import WarmJob
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState

SPECS_KEPT = 64
"""Specs of jobs without attempts here, so that the scheduler need not send them again."""


class Hand:
    """Only keeps the books; the runner decides."""

    def __init__(self) -> None:
        self.waiting: deque[Attempt] = deque()
        """Of commands, and of functions with files: in the order in which they are started."""
        self.singles: dict[Attempt, Single] = {}
        self.jobs: dict[str, FunctionJob] = {}
        self.specs: dict[str, JobSpec] = {}

    def attempts(self) -> list[Attempt]:
        of_jobs = (attempt for job in self.jobs.values() for attempt in job.attempts())
        return [*self.singles, *of_jobs, *self.waiting]

    def attempts_of(self, job_id: str) -> list[Attempt]:
        job = self.jobs.get(job_id)
        if job is not None:
            return job.attempts()
        return [item for item in (*self.singles, *self.waiting) if item.ref.job_id == job_id]

    def running(self) -> list[Attempt]:
        """Attempts that a process runs or is being prepared for; of the calls in a warm process's hands, the first."""
        current = (slot.current for slot in self.slots())
        return [*self.singles, *(attempt for attempt in current if attempt is not None)]

    def slots(self) -> Iterator[Slot]:
        return (slot for job in self.jobs.values() for slot in job.slots)

    @property
    def has_guests(self) -> bool:
        """Whether any process of a guest may run."""
        return bool(self.singles) or any(True for _ in self.slots())

    @property
    def running_count(self) -> int:
        return sum(attempt.state is not AttemptState.LEASED for attempt in self.attempts())

    @property
    def frozen_count(self) -> int:
        return sum(attempt.state is AttemptState.SUSPENDED for attempt in self.attempts())

    @property
    def has_gpus(self) -> bool:
        """Whether anything here holds a graphics card, or will."""
        return any(attempt.spec.requirements.gpus for attempt in self.singles) or any(
            job.spec.requirements.gpus for job in self.jobs.values()
        )

    def exceeds(self, share: Resources) -> bool:
        """Whether processes that do not stand still, warm ones without work among them, take more than this."""
        used = [
            *(attempt.spec.requirements for attempt in self.singles if not _stands(attempt)),
            *(
                job.spec.requirements
                for job in self.jobs.values()
                for slot in job.slots
                if slot.current is None or not _stands(slot.current)
            ),
        ]
        return (
            sum(each.cpus for each in used) > share.cpus + 1e-6
            or sum(each.memory_bytes for each in used) > share.memory_bytes
            or sum(each.gpus for each in used) > share.gpus
        )

    def free_within(
        self, total: Resources, share: Resources | None, *, warm_counts: bool = False
    ) -> Resources:
        """As ``free_of``; what is not frozen must fit into the share as well."""
        free = self.free_of(total, warm_counts=warm_counts)
        if share is None:
            return free
        of_share = self.free_of(share, warm_counts=warm_counts, moving_only=True)
        return Resources(
            cpus=min(free.cpus, of_share.cpus),
            memory_bytes=min(free.memory_bytes, of_share.memory_bytes),
            disk_bytes=free.disk_bytes,
            gpus=min(free.gpus, of_share.gpus),
        )

    def free_of(self, total: Resources, *, warm_counts: bool = False, moving_only: bool = False) -> Resources:
        """``total`` less what is in use. A warm process without work is in the way of nobody, unless ``warm_counts``.
        ``moving_only``: what is frozen does not count."""
        free = total
        for attempt in self.singles:
            if not moving_only or not _stands(attempt):
                free = minus(free, demand(attempt.spec.requirements))
        for job in self.jobs.values():
            used = sum(
                1
                for slot in job.slots
                if (warm_counts or slot.is_busy)
                and not (moving_only and slot.current is not None and _stands(slot.current))
            )
            if used:
                free = minus(free, demand(job.spec.requirements), used)
        return free

    def warm(self) -> tuple[WarmJob, ...]:
        return tuple(job.warm() for job in self.jobs.values() if job.slots or job.queue)

    def tidy(self) -> None:
        """Let go of function jobs that are over, and of specs that nobody needs."""
        for job_id in [job_id for job_id, job in self.jobs.items() if not job.queue and not job.slots]:
            del self.jobs[job_id]
        if len(self.specs) <= SPECS_KEPT:
            return
        held = {attempt.ref.job_id for attempt in self.attempts()}
        for job_id in [job_id for job_id in self.specs if job_id not in held]:
            if len(self.specs) <= SPECS_KEPT:
                break
            del self.specs[job_id]


def _stands(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.SUSPENDED
