"""The immutable view that decisions read."""

from dataclasses import dataclass

from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.nodes import NodeFacts, Offer


@dataclass(frozen=True, kw_only=True)
class WaitingJob:
    """A job with queued tasks. All of a job's tasks have the same requirements, so they are matched as one class."""

    job_id: str
    order_key: int
    """Rises with submission; breaks ties of priority, so that older work goes first."""
    priority: int
    requirements: Requirements
    queued: int
    is_function: bool
    mean_duration_s: float | None
    """Mean running time of its finished tasks; None before the first has finished."""


Heard = tuple[str, int]
"""An exchange of a node: (incarnation, seq)."""


@dataclass(frozen=True, kw_only=True)
class NodeDemand:
    """A node whose agent waits for work."""

    node_id: str
    facts: NodeFacts
    offer: Offer
    """With what was granted but is not in the agent's hands yet already taken off."""
    heard: Heard
    """The exchange that made the offer. The commit refuses grants to a node that has spoken since: it gets its own in the next round."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    jobs: tuple[WaitingJob, ...]
    demands: tuple[NodeDemand, ...]


@dataclass(frozen=True, kw_only=True)
class GrantLine:
    """Give ``count`` queued tasks of the job to the node. The commit may give fewer."""

    node_id: str
    heard: Heard
    job_id: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    grants: tuple[GrantLine, ...]
