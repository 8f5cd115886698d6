"""What the agent asks of a sandbox, and what it gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from idle_accelerator.agent.host.types import (
    Guest,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Output,
    SpawnFailed,
    Stdin,
    Verified,
)

__all__ = [
    "Guest",
    "GuestExit",
    "GuestRecord",
    "GuestSpec",
    "GuestUsage",
    "KillFailed",
    "Output",
    "Sandbox",
    "SpawnFailed",
    "Stdin",
    "Verified",
]


@dataclass(frozen=True, kw_only=True)
class GuestSpec:
    """One program that is to run as a guest."""

    argv: tuple[str, ...]
    """Program and arguments. A bare program name is looked up in ``env``'s PATH, one with a slash from
    ``workspace``."""
    workspace: Path
    """The working directory; must exist."""
    env: Mapping[str, str]
    """The complete environment: nothing is inherited from the agent."""
    stdin: Stdin = "null"
    stdout: Output = "pipe"
    stderr: Output = "pipe"
    nice: bool = True
    """Run at the lowest priority for CPU and disk that needs no privilege."""


class Sandbox(Protocol):
    """A way to run guests."""

    @property
    def tier(self) -> str:
        """How well guests are kept apart from the owner; ``process`` means not at all."""
        ...

    @property
    def verified(self) -> Verified:
        """How far this was tried on the present operating system."""
        ...

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        ...
