"""Running guests: one file per mechanism, chosen here. The rest of the agent knows only these names.

Today's only tier is ``process``, a plain subprocess: its whole tree is frozen, thawed and killed
reliably, but it is not isolated. It reads and writes whatever the agent's user may.
"""

from collections.abc import Iterable

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox.process import ProcessSandbox
from idle_accelerator.agent.sandbox.types import (
    FIRST_INPUT_LIMIT_BYTES,
    FreezeFailed,
    Guest,
    GuestExit,
    GuestRecord,
    GuestSpec,
    GuestUsage,
    KillFailed,
    Sandbox,
    SpawnFailed,
)

__all__ = [
    "FIRST_INPUT_LIMIT_BYTES",
    "FreezeFailed",
    "Guest",
    "GuestExit",
    "GuestRecord",
    "GuestSpec",
    "GuestUsage",
    "KillFailed",
    "Sandbox",
    "SpawnFailed",
    "kill_leftovers",
    "open_sandbox",
]


def open_sandbox() -> Sandbox:
    """The strongest sandbox that this machine offers."""
    return ProcessSandbox()


def kill_leftovers(records: Iterable[GuestRecord]) -> int:
    """Kill what still runs of the recorded guests of an agent that crashed, and return how many processes that were.

    A process that merely got a recorded pid later is left alone. Blocks for some milliseconds, longer
    only while killed processes take their time to go. Raises KillFailed when some have not gone after 10 s.
    """
    return host.kill_leftovers(records)
