"""One example of every body of the API. They are wire models, so an example that is wrong does not import."""

from datetime import UTC, datetime

from idle_accelerator.wire.checkpoints import (
    Asked,
    Checkpoint,
    CheckpointView,
    Missing,
    Progress,
    ResumePoint,
    SavedCheckpoint,
)
from idle_accelerator.wire.exchange import (
    AttemptReport,
    ExchangeAnswer,
    ExchangeRequest,
    Grant,
    HeldAttempts,
)
from idle_accelerator.wire.jobs import (
    AttemptView,
    Command,
    JobAccepted,
    JobDetail,
    JobPage,
    JobSpec,
    JobView,
    LogPage,
    Requirements,
    ResultPage,
    TaskCounts,
    TaskDetail,
    TaskPage,
    TaskResult,
    TaskView,
    Usage,
)
from idle_accelerator.wire.model import ErrorBody, WireModel
from idle_accelerator.wire.nodes import Enrolled, Enrolment, NodeFacts, NodePage, NodeView, Offer
from idle_accelerator.wire.reasons import reason, view
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

_GIB = 1024**3
_JOB_ID = "jx3k7q2m5w4t6rab2"
_NODE_ID = "nb7c2k5q6w3x4zab2"
_AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
_SPEC = JobSpec(
    workload=Command(argv=("python3", "-c", "print(6*7)")),
    name="answers",
    tasks=2,
    requirements=Requirements(cpus=1, memory_bytes=_GIB),
    retries=2,
    timeout_s=600,
)
_COUNTS = TaskCounts(total=2, queued=0, active=1, succeeded=1, failed=0, cancelled=0)
_DONE = reason("task.done")
_VIEW = JobView(
    job_id=_JOB_ID,
    name="answers",
    kind="command",
    summary="python3 -c print(6*7)",
    state=JobState.ACTIVE,
    priority=0,
    counts=_COUNTS,
    submitted_at=_AT,
)
_TASK = TaskView(
    index=0,
    state=TaskState.SUCCEEDED,
    attempt_state=AttemptState.SUCCEEDED,
    epoch=1,
    node_name="lab-7",
    exit_code=0,
    reason=view(_DONE),
    finished_at=_AT,
)
_ATTEMPT = AttemptView(
    epoch=1,
    state=AttemptState.SUCCEEDED,
    node_id=_NODE_ID,
    node_name="lab-7",
    leased_at=_AT,
    finished_at=_AT,
    reason=view(_DONE),
    exit_code=0,
    usage=Usage(wall_s=1.5, cpu_s=1.4),
)
_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_CHECKPOINT = Checkpoint(step=40, manifest=_DIGEST, size_bytes=3 * _GIB, files=2)
_RUNNING = TaskView(
    index=1,
    state=TaskState.ACTIVE,
    attempt_state=AttemptState.RUNNING,
    epoch=1,
    node_name="lab-7",
    progress=Progress(done_ratio=0.4, note="epoch 40 of 100"),
)
_FREE = Resources(cpus=6, memory_bytes=12 * _GIB, disk_bytes=100 * _GIB)
_FACTS = NodeFacts(
    name="lab-7",
    os="linux",
    arch="x86_64",
    python="3.11",
    resources=Resources(cpus=8, memory_bytes=16 * _GIB, disk_bytes=100 * _GIB),
)
_NODE = NodeView(
    node_id=_NODE_ID,
    facts=_FACTS,
    lending="available",
    free=_FREE,
    reasons=(view(reason("node.available")),),
    running=1,
    enrolled_at=_AT,
    last_seen_at=_AT,
    loopback=False,
)

EXAMPLES: tuple[WireModel, ...] = (
    _SPEC,
    JobAccepted(job_id=_JOB_ID),
    _VIEW,
    JobDetail(view=_VIEW, spec=_SPEC),
    JobPage(jobs=(_VIEW,)),
    TaskPage(tasks=(_TASK, _RUNNING)),
    TaskDetail(
        job_id=_JOB_ID,
        task=_TASK,
        attempts=(_ATTEMPT,),
        checkpoints=(CheckpointView(checkpoint=_CHECKPOINT, epoch=1, node_name="lab-7", saved_at=_AT),),
    ),
    Asked(digests=(_DIGEST,)),
    Missing(digests=(_DIGEST,)),
    ResultPage(
        results=(
            TaskResult(
                index=0,
                state=TaskState.SUCCEEDED,
                epoch=1,
                exit_code=0,
                reason=view(_DONE),
                node_id=_NODE_ID,
                node_name="lab-7",
            ),
        ),
        next_after=1,
        job_state=JobState.ACTIVE,
        counts=_COUNTS,
    ),
    LogPage(epoch=1, stream="stdout", offset=0, data=b"42\n", next_offset=3, dropped_bytes=0, finished=False),
    Enrolment(facts=_FACTS),
    Enrolled(node_id=_NODE_ID, name="lab-7", token="idle_shown-this-once"),  # noqa: S106  # an example
    _NODE,
    NodePage(nodes=(_NODE,)),
    ExchangeRequest(
        incarnation="k3v9",
        seq=7,
        offer=Offer(lending="available", free=_FREE),
        holding=(HeldAttempts(job_id=_JOB_ID, attempts=((0, 1), (1, 1))),),
        known_jobs=(_JOB_ID,),
        reports=(
            AttemptReport(
                job_id=_JOB_ID,
                task_index=0,
                epoch=1,
                state=AttemptState.SUCCEEDED,
                reason=_DONE,
                exit_code=0,
                usage=Usage(wall_s=1.5, cpu_s=1.4),
            ),
        ),
        checkpoints=(SavedCheckpoint(job_id=_JOB_ID, task_index=1, epoch=1, checkpoint=_CHECKPOINT),),
    ),
    ExchangeAnswer(
        grants=(
            Grant(
                job_id=_JOB_ID,
                attempts=((1, 1),),
                resume=(ResumePoint(task_index=1, checkpoint=_CHECKPOINT),),
            ),
        ),
        lease_ttl_s=10,
        poll_s=3,
    ),
    ErrorBody(
        code="invalid_input",
        message="unknown field.",
        field="requirements.cpu",
        hint="Did you mean 'cpus'?",
    ),
)
