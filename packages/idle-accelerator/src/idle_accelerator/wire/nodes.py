"""Nodes: how they enrol, what they are, what they lend."""

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from idle_accelerator.wire.ids import JobId, NodeId
from idle_accelerator.wire.isolation import ISOLATION_LINES, Isolation, holds
from idle_accelerator.wire.jobs import OS
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.network import NO_OFFER, NetworkOffer
from idle_accelerator.wire.reasons import Reason, ReasonView
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.texts import Text

__all__ = [
    "ISOLATION_LINES",
    "ONLY_WASM",
    "Enrolled",
    "Enrolment",
    "Isolation",
    "Lending",
    "NodeFacts",
    "NodePage",
    "NodeView",
    "Offer",
    "WarmJob",
    "holds",
]

ONLY_WASM: Final = "wasm"
"""The tier of a node that has no sandbox but WebAssembly, and takes nothing else."""
Lending = Literal["available", "settling", "in_use", "paused", "lent", "draining", "offline"]
"""available: idle and lent · settling: idle, but not yet for long enough · in_use: its owner needs it · paused: by its
owner's word · lent: by its owner's word or file, though in use · draining: takes nothing new · offline: the scheduler hears nothing."""


class NodeFacts(WireModel):
    """What the agent found out about its machine when it started."""

    name: Text
    os: OS
    arch: Text
    python: Annotated[str, Field(pattern=r"^3\.\d{1,3}$")]
    cpu_model: Text = ""
    resources: Resources = Field(description="All that the owner lends at most.")
    gpu_names: tuple[Text, ...] = Field(default=(), strict=False, max_length=100)
    labels: dict[Text, Text] = Field(default_factory=dict, max_length=100)
    sandbox_tier: Text = Field(
        default="process", description="'process' is a plain subprocess: no isolation."
    )
    isolation: Isolation | None = Field(
        default=None, description="What the tier was found to hold; None from agents that do not say."
    )
    wasm: Text = Field(
        default="", description="What runs WebAssembly there, such as 'wasmtime 50.0.1'; empty: nothing."
    )
    network: NetworkOffer = NO_OFFER
    agent_version: Text = ""
    idleness: tuple[Text, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="What this machine takes as idleness, in sentences.",
    )


class Enrolment(WireModel):
    facts: NodeFacts


class Enrolled(WireModel):
    """The node's identity. The token is shown once; the scheduler keeps only its hash."""

    node_id: NodeId
    name: str
    token: str


class WarmJob(WireModel):
    """A job that has warm function processes on the node."""

    job_id: JobId
    slots: int = Field(ge=0, le=100_000)
    queued: int = Field(
        ge=0, le=1_000_000, description="Leased tasks of the job that no slot has started yet."
    )


class Offer(WireModel):
    """What a node lends right now."""

    lending: Lending
    free: Resources = Resources()
    only_jobs: tuple[JobId, ...] | None = Field(
        default=None,
        strict=False,
        max_length=10_000,
        description="By its owner's word, lent to these jobs only.",
    )
    warm: tuple[WarmJob, ...] = Field(default=(), strict=False, max_length=10_000)
    reasons: tuple[Reason, ...] = Field(default=(), strict=False, max_length=50)


class NodeView(WireModel):
    node_id: NodeId
    facts: NodeFacts
    lending: Lending
    free: Resources
    reasons: tuple[ReasonView, ...] = Field(strict=False, description="Why it is, or is not, lent.")
    running: int = Field(description="Live attempts.")
    enrolled_at: datetime
    last_seen_at: datetime | None
    loopback: bool = Field(description="The agent speaks to the scheduler from the same machine.")


class NodePage(WireModel):
    nodes: tuple[NodeView, ...] = Field(strict=False)
