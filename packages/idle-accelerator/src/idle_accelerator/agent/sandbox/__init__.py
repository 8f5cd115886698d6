"""Running guests: one file per mechanism, chosen by ``choice``. The rest of the agent knows only these names.

Two tiers: ``process``, a plain subprocess, whose whole tree is frozen, thawed and killed reliably, but which reads and writes
whatever the agent's user may; and, on Linux, ``bubblewrap``, which sees nothing of the owner's.
"""

from collections.abc import Iterable

from idle_accelerator.agent import host
from idle_accelerator.agent.host.threads import lower_this_thread
from idle_accelerator.agent.sandbox.process import ProcessSandbox, start_plain
from idle_accelerator.agent.sandbox.types import (
    FIRST_INPUT_LIMIT_BYTES,
    FreezeFailed,
    Guest,
    GuestExit,
    GuestNetwork,
    GuestRecord,
    GuestSpec,
    GuestUsage,
    KillFailed,
    Mechanism,
    NoSandbox,
    Sandbox,
    SpawnFailed,
)

cap_cpus = host.cap_cpus
group_home = host.group_home
thaw_groups = host.thaw_groups

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
    "Sandbox",
    "SpawnFailed",
    "cap_cpus",
    "group_home",
    "kill_leftovers",
    "lower_this_thread",
    "mechanisms",
    "open_sandbox",
    "start_plain",
    "thaw_groups",
]


def open_sandbox() -> Sandbox:
    """Plain processes, for who trusts what they run; ``choice.choose`` finds what there is for others."""
    return ProcessSandbox()


def mechanisms() -> tuple[Mechanism, ...]:
    """How this machine stops, kills, weighs and limits the guests of every tier, found by trying."""
    return host.mechanisms()


def kill_leftovers(records: Iterable[GuestRecord]) -> int:
    """Kill what still runs of the recorded guests of an agent that crashed, and return how many processes that were.

    A process that merely got a recorded pid later is left alone. Blocks for some milliseconds, longer
    only while killed processes take their time to go. Raises KillFailed when some have not gone after 10 s.
    """
    return host.kill_leftovers(records)
