"""The words for where tasks and attempts stand. Who may move them is in core.attempt."""

from enum import StrEnum


class AttemptState(StrEnum):
    """Each state with who moves it on, and what a crash leaves behind."""

    LEASED = "LEASED"
    """Granted by the scheduler, perhaps not yet known to the agent. Crash: granted again in the next answer, or LOST at expiry."""
    STAGING = "STAGING"
    """The agent fetches inputs. Crash: the workspace is wiped at the agent's next start, the attempt is LOST."""
    RUNNING = "RUNNING"
    """The task's processes run. Crash of the agent: they are killed with it or at its next start; LOST."""
    SUSPENDED = "SUSPENDED"
    """Frozen because the owner is back; moved on by the agent alone. Crash: as RUNNING."""
    VACATING = "VACATING"
    """Told to save and leave; killed after its grace. Crash: as RUNNING."""
    SUCCEEDED = "SUCCEEDED"
    """Done; ends its task. Crash: its end stays in the agent's journal until the scheduler has it."""
    FAILED = "FAILED"
    """The task's own fault. The only end that spends the retry budget."""
    VACATED = "VACATED"
    """Left because the machine was needed, or of its own accord after saving a newer checkpoint. Costs nothing."""
    REJECTED = "REJECTED"
    """The agent could not take the lease after all. Costs nothing."""
    CANCELLED = "CANCELLED"
    """Its submitter cancelled it. Costs nothing."""
    LOST = "LOST"
    """The lease ran out or the agent forgot it; written by the scheduler. Has a small cap of its own."""


class TaskState(StrEnum):
    QUEUED = "QUEUED"
    """Waits for a lease; moved on by the matchmaker. On disk, so a crash changes nothing."""
    ACTIVE = "ACTIVE"
    """Has one live attempt, and follows it."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobState(StrEnum):
    """Follows from the job's tasks."""

    QUEUED = "QUEUED"
    ACTIVE = "ACTIVE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


LIVE_ATTEMPT_STATES = frozenset(
    {
        AttemptState.LEASED,
        AttemptState.STAGING,
        AttemptState.RUNNING,
        AttemptState.SUSPENDED,
        AttemptState.VACATING,
    }
)
TERMINAL_TASK_STATES = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
