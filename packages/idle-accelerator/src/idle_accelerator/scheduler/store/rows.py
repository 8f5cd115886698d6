"""Between rows and wire models."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from idle_accelerator.wire.checkpoints import Checkpoint, CheckpointView, Progress, Resumed, ResumedView
from idle_accelerator.wire.isolation import Isolation
from idle_accelerator.wire.jobs import (
    Artifact,
    AttemptView,
    JobSpec,
    JobView,
    TaskCounts,
    TaskResult,
    TaskView,
    Usage,
)
from idle_accelerator.wire.nodes import NodeFacts
from idle_accelerator.wire.payload import Payload, RemoteError
from idle_accelerator.wire.reasons import Reason, ReasonView, view
from idle_accelerator.wire.states import AttemptState, JobState, TaskState
from idle_accelerator.wire.texts import is_plain

_ARTIFACTS: TypeAdapter[tuple[Artifact, ...]] = TypeAdapter(tuple[Artifact, ...])
SUMMARY_LENGTH = 120


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def certain_moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def dump_artifacts(artifacts: tuple[Artifact, ...]) -> str | None:
    return _ARTIFACTS.dump_json(artifacts).decode() if artifacts else None


def load_artifacts(stored: str | None) -> tuple[Artifact, ...]:
    return _ARTIFACTS.validate_json(stored) if stored else ()


@lru_cache(maxsize=1024)
def load_facts(stored: str) -> NodeFacts:
    """Out of ``nodes.facts``. Cached: a machine's facts hardly ever change, and every exchange needs them."""
    return NodeFacts.model_validate_json(stored)


def dump_reason(reason: Reason | None) -> str | None:
    return None if reason is None else reason.model_dump_json()


@lru_cache(maxsize=4096)
def load_reason(stored: str | None) -> ReasonView | None:
    """Cached: most tasks end for the same reason."""
    return None if stored is None else view(Reason.model_validate_json(stored))


def summary(spec: JobSpec) -> str:
    """One printable line that tells a person which job this is."""
    workload = spec.workload
    if workload.kind == "command":
        line = " ".join(workload.argv)
    elif workload.kind == "wasm":
        line = " ".join((workload.module, *workload.arguments))
    else:
        line = f"{workload.name or 'function'}()"
    line = "".join(letter if is_plain(letter) else "·" for letter in line)
    return line if len(line) <= SUMMARY_LENGTH else line[: SUMMARY_LENGTH - 1] + "…"


def job_state(*, queued: int, active: int, succeeded: int, failed: int, cancelled: int) -> JobState:
    """A job's state follows from its tasks."""
    if queued + active == 0:
        if failed:
            return JobState.FAILED
        return JobState.CANCELLED if cancelled else JobState.SUCCEEDED
    return JobState.ACTIVE if active + succeeded + failed else JobState.QUEUED


def counts(row: Any) -> TaskCounts:
    return TaskCounts(
        total=row.total,
        queued=row.queued,
        active=row.active,
        succeeded=row.succeeded,
        failed=row.failed,
        cancelled=row.cancelled,
    )


def job_view(row: Any, waiting: tuple[ReasonView, ...] = ()) -> JobView:
    return JobView(
        job_id=row.job_id,
        name=row.name,
        kind=row.kind,
        summary=row.summary,
        state=JobState(row.state),
        priority=row.priority,
        counts=counts(row),
        submitted_at=certain_moment(row.submitted_at),
        finished_at=moment(row.finished_at),
        waiting=waiting,
    )


def task_view(row: Any, note: Any = None) -> TaskView:
    """``note``: the task's row in ``notes``; it counts only while it is the newest attempt's."""
    said = note.progress if note is not None and note.epoch == row.epoch else None
    return TaskView(
        index=row.task_index,
        state=TaskState(row.state),
        attempt_state=AttemptState(row.attempt_state) if row.attempt_state else None,
        epoch=row.epoch,
        node_name=row.node_name,
        exit_code=row.exit_code,
        reason=load_reason(row.reason or row.attempt_reason),
        finished_at=moment(row.finished_at),
        progress=Progress.model_validate_json(said) if said else None,
    )


def attempt_view(row: Any) -> AttemptView:
    usage = Usage.model_validate_json(row.usage) if row.usage else None
    return AttemptView(
        epoch=row.epoch,
        state=AttemptState(row.state),
        node_id=row.node_id,
        node_name=row.node_name or row.node_id,
        leased_at=certain_moment(row.leased_at),
        finished_at=moment(row.finished_at),
        reason=load_reason(row.reason),
        exit_code=row.exit_code,
        usage=usage,
        isolation=_isolation_of(usage, row.node_facts),
        resumed=_resumed_view(row.resumed),
    )


def _isolation_of(usage: Usage | None, node_facts: str | None) -> Isolation | None:
    """The node's, where it is still the one that the attempt had."""
    if usage is None or usage.ran_under is None or not node_facts:
        return None
    held = load_facts(node_facts).isolation
    same = (
        held is not None and held.tier == usage.ran_under.tier and held.probed_at == usage.ran_under.probed_at
    )
    return held if same else None


def _resumed_view(stored: str | None) -> ResumedView | None:
    if stored is None:
        return None
    resumed = Resumed.model_validate_json(stored)
    return ResumedView(
        step=resumed.checkpoint.step if resumed.checkpoint else None,
        reason=view(resumed.reason) if resumed.reason else None,
    )


def checkpoint_view(row: Any, attempts: Iterable[Any]) -> CheckpointView:
    """``attempts``: all of the task's rows."""
    checkpoint = checkpoint_of(row)
    return CheckpointView(
        checkpoint=checkpoint,
        epoch=row.epoch,
        node_name=row.node_name or row.node_id,
        saved_at=certain_moment(row.saved_at),
        resumed_by=tuple(
            item.epoch
            for item in attempts
            if item.resumed is not None and Resumed.model_validate_json(item.resumed).checkpoint == checkpoint
        ),
    )


def checkpoint_of(row: Any) -> Checkpoint:
    return Checkpoint(step=row.step, manifest=row.manifest, size_bytes=row.size_bytes, files=row.files)


def task_result(row: Any) -> TaskResult:
    payload = None
    if row.result_size_bytes is not None:
        payload = Payload(inline=row.result_inline, blob=row.result_blob, size_bytes=row.result_size_bytes)
    return TaskResult(
        index=row.task_index,
        state=TaskState(row.state),
        epoch=row.epoch,
        exit_code=row.exit_code,
        reason=load_reason(row.reason or row.attempt_reason),
        encoding=row.encoding,
        result=payload,
        error=RemoteError.model_validate_json(row.error) if row.error else None,
        artifacts=load_artifacts(row.artifacts),
        node_id=row.node_id,
        node_name=row.node_name,
    )
