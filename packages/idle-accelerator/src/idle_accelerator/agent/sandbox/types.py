"""What the agent asks of a sandbox, and what it gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol

from idle_accelerator.agent.host.types import (
    FIRST_INPUT_LIMIT_BYTES,
    FreezeFailed,
    Guest,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Mechanism,
    Output,
    SpawnFailed,
    Stdin,
    Verified,
)
from idle_accelerator.errors import IdleError

__all__ = [
    "FIRST_INPUT_LIMIT_BYTES",
    "FreezeFailed",
    "Guest",
    "GuestExit",
    "GuestNetwork",
    "GuestRecord",
    "GuestSpec",
    "GuestUsage",
    "KillFailed",
    "Mechanism",
    "NoSandbox",
    "Output",
    "Sandbox",
    "SpawnFailed",
    "Stdin",
    "Verified",
]


TRUST: Final = (
    "or name another way: --sandbox wasm to take WebAssembly alone, --sandbox container where you have podman, --sandbox landlock where you trust who submits by name,"
    " --sandbox process where you trust everybody who has the pool's key"
)
"""The end of every hint of NoSandbox."""


class NoSandbox(IdleError):
    """This machine cannot keep guests apart from its owner as the owner asks for."""

    code: ClassVar[str] = "no_sandbox"

    def __init__(self, message: str, *, failing: str, hint: str) -> None:
        super().__init__(message, field="--sandbox", hint=hint)
        self.failing: Final = failing
        """The line of ``wire.nodes.Isolation`` that does not hold, the first if there are several; ``tier`` when no guest
        starts at all."""


class GuestNetwork(Protocol):
    """What a sandbox does for a guest's network, at the moments that it alone knows."""

    @property
    def settings(self) -> Mapping[str, str]:
        """Files of its /etc, by their paths."""
        ...

    async def attach(self, pid: int) -> None:
        """``pid`` is the first process of the guest's network namespace; the program has not begun. Raises SpawnFailed."""
        ...

    def hold(self) -> None:
        """The guest stands still: nothing is to move for it. Idempotent."""
        ...

    def go(self) -> None:
        """It goes on. Idempotent."""
        ...

    def close(self) -> None:
        """It has ended. Idempotent."""
        ...


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
    first_input: bytes = b""
    """What stands in its standard input (``pipe``) from the start, at most FIRST_INPUT_LIMIT_BYTES: the guest need not wait
    until the agent has taken charge of it."""
    memory_bytes: int | None = None
    """Its tree may have no more, where the system can limit it; one that wants more is killed whole. None: no limit."""
    processes: int | None = None
    """Its tree may have no more processes and threads at a time, where the system can limit them. None: no limit."""
    network: GuestNetwork | None = None
    """Its way out of a sandbox that has no network. None: it has none; a plain process reaches what its user may."""
    devices: tuple[Path, ...] = ()
    """Devices that it sees in a sandbox, which else shows none of the machine's. A plain process sees them all."""
    descriptors: tuple[int, ...] = ()
    """Open files of the agent that a plain process gets under the same numbers: for programs of the agent's own."""


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

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``, for ``argv == (sys.executable, "-I", FILE)``: FILE is a Python program whose top level only
        imports, and which defines ``main()``.

        Where the system allows, a pristine template process that has loaded FILE and never runs anything foreign
        forks the guest, which takes 3 ms instead of 40, or 1 where the fork could be made beforehand: from the first
        such start on, one is held in reserve. Both end when nothing was started for a minute. Elsewhere, and when
        the template fails, it is ``start``. The promises are the same.
        """
        ...

    async def close(self) -> None:
        """End the helpers that ``start_forked`` keeps. Guests are not touched; either start may be used again."""
        ...
