"""How a node keeps its guests apart from its owner, as it was tried there."""

from datetime import datetime
from typing import Final

from pydantic import Field

from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.texts import Text


class Isolation(WireModel):
    """How a node keeps its guests apart from its owner, one line for each thing that an owner may ask.

    A line names what does it, as it was tried at the agent's start; it begins with ``none`` where nothing is claimed, and with
    ``fails`` where what was claimed did not hold.
    """

    tier: Text
    fs: Text = Field(description="The owner's files, and writing outside the workspace.")
    net: Text = Field(description="Other machines, and the owner's own ports and sockets.")
    pidns: Text = Field(description="The owner's processes: seeing, signalling, tracing them.")
    calls: Text = Field(description="System calls that no task needs.")
    mem: Text = Field(description="A limit on memory.")
    disk: Text = Field(description="A limit on what is written.")
    freeze: Text = Field(description="Standing still when the owner returns.")
    prio: Text = Field(description="Staying at the lowest priority.")
    kill: Text = Field(description="Leaving nothing behind.")
    gpu: Text = Field(description="Devices of graphics cards.")
    probed_at: datetime | None = Field(default=None, description="None: this tier claims nothing to try.")
    most_memory_bytes: int | None = Field(
        default=None,
        description="Tasks that ask for more are not taken, since nothing there limits memory hard.",
    )


ISOLATION_LINES: Final = frozenset(Isolation.model_fields) - {"tier", "probed_at", "most_memory_bytes"}


def holds(isolation: Isolation, line: str) -> bool:
    """Whether something is claimed for this line, which was then tried. Raises AttributeError for what is no line."""
    text: str = getattr(isolation, line)
    return bool(text) and not text.startswith(("none", "fails"))


class RanUnder(WireModel):
    """Which isolation an attempt had: the node's, as it was tried at that moment of the node's own clock."""

    tier: Text
    probed_at: datetime
