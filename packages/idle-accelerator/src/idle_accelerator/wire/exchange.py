"""The one conversation between an agent and its scheduler.

A request is heartbeat, lease renewal, reports and demand for work at once. It is level-triggered: it says what the
agent holds, and the answer says what it should hold; either may be lost or repeated without harm.

- A request that carries reports, logs or checkpoints is answered at once, after they are on disk: an answer to a request
  acknowledges all of them. Whatever was refused as stale is acknowledged too: there is nothing left to do.
- Checkpoints count before the reports of the same request: the end of an attempt may come along with its last checkpoint.
- Progress goes along with the next request, whatever that is about, and hurries none.
- One with ``news_can_wait`` is held like any other: its agent has nothing else in hand, and asks for more in the same breath.
- A request with nothing to say is held for up to ``wait_s``, until there are leases or orders for the node.
- A newer request of the node (higher ``seq``) supersedes the held one, which is answered at once, empty.
- Leases that the agent does not list in ``holding`` are granted again while they are LEASED; an attempt that it
  reported before and does not list any more is LOST at once.
"""

from typing import Annotated, Literal

from pydantic import Field

from idle_accelerator.wire.checkpoints import ProgressNote, Resumed, ResumePoint, SavedCheckpoint
from idle_accelerator.wire.ids import MAX_EPOCH, MAX_TASKS, JobId
from idle_accelerator.wire.jobs import Artifact, JobSpec, Usage
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.nodes import NodeFacts, Offer
from idle_accelerator.wire.payload import Payload, RemoteError
from idle_accelerator.wire.reasons import Reason
from idle_accelerator.wire.states import AttemptState

PROTOCOL = 1

TaskEpoch = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_TASKS)], Annotated[int, Field(ge=1, le=MAX_EPOCH)]],
    Field(strict=False, description="[task index, epoch]"),
]


class HeldAttempts(WireModel):
    """Attempts of one job that the agent holds and whose end it has not yet had acknowledged."""

    job_id: JobId
    attempts: tuple[TaskEpoch, ...] = Field(strict=False)


class AttemptReport(WireModel):
    """Where an attempt stands. Moves in between may be left out: each report says the newest state only."""

    job_id: JobId
    task_index: int = Field(ge=0, lt=MAX_TASKS)
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    state: AttemptState = Field(strict=False)
    reason: Reason | None = None
    exit_code: int | None = Field(default=None, ge=-(2**31), lt=2**32)
    encoding: Literal["data", "pickle"] | None = None
    result: Payload | None = None
    error: RemoteError | None = None
    artifacts: tuple[Artifact, ...] = Field(default=(), strict=False, max_length=10_000)
    usage: Usage | None = None
    resumed: Resumed | None = Field(
        default=None, description="What it went on from, once that is known; None where it was given nothing."
    )


class LogChunk(WireModel):
    """Bytes of one stream from ``offset`` on. A gap to the previous chunk means that the agent dropped what lay between."""

    job_id: JobId
    task_index: int = Field(ge=0, lt=MAX_TASKS)
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    stream: Literal["stdout", "stderr"]
    offset: int = Field(ge=0, le=2**62)
    data: bytes = Field(max_length=256 * 1024)


class ExchangeRequest(WireModel):
    protocol: Literal[1] = PROTOCOL
    incarnation: str = Field(
        min_length=1, max_length=64, description="Drawn anew at each start of the agent."
    )
    seq: int = Field(ge=1, le=2**62, description="Rises with each request of an incarnation.")
    wait_s: float = Field(default=0.0, ge=0, le=120)
    news_can_wait: bool = Field(
        default=False, description="The acknowledgement of its reports may come with the next leases."
    )
    facts: NodeFacts | None = Field(
        default=None, description="In the first exchange of an incarnation and after changes."
    )
    offer: Offer
    holding: tuple[HeldAttempts, ...] = Field(default=(), strict=False)
    known_jobs: tuple[JobId, ...] = Field(
        default=(), strict=False, description="Jobs whose spec the agent still has."
    )
    reports: tuple[AttemptReport, ...] = Field(default=(), strict=False, max_length=10_000)
    logs: tuple[LogChunk, ...] = Field(default=(), strict=False, max_length=1000)
    checkpoints: tuple[SavedCheckpoint, ...] = Field(default=(), strict=False, max_length=1000)
    progress: tuple[ProgressNote, ...] = Field(default=(), strict=False, max_length=1000)


class Grant(WireModel):
    """Leases of tasks of one job."""

    job_id: JobId
    spec: JobSpec | None = Field(
        default=None, description="Left out when the request named the job in known_jobs."
    )
    attempts: tuple[TaskEpoch, ...] = Field(strict=False)
    resume: tuple[ResumePoint, ...] = Field(
        default=(), strict=False, description="For those of the tasks that have a checkpoint, newest first."
    )


class Order(WireModel):
    """The desired state of an attempt that the agent holds; repeated in every answer until it is reached."""

    job_id: JobId
    task_index: int
    epoch: int
    desired: Literal["CANCELLED"]
    reason: Reason


class ExchangeAnswer(WireModel):
    grants: tuple[Grant, ...] = Field(default=(), strict=False)
    orders: tuple[Order, ...] = Field(default=(), strict=False)
    lease_ttl_s: float = Field(
        description="Granted and renewed leases last this long from now, on the agent's own clock."
    )
    poll_s: float = Field(
        description="Wait that the scheduler would like in the next request that has nothing to say."
    )
    superseded: bool = False
    drain: bool = Field(default=False, description="Take nothing new.")
