"""The floor under the sandbox: one file per operating system, chosen here.

Each starts programs as guests, whole process trees that are frozen, thawed and killed reliably, and finds
what an agent that crashed has left behind. What every one of them promises stands in ``types``.
"""

import sys
from collections.abc import Iterable

from idle_accelerator.agent.host.types import (
    Forker,
    FreezeFailed,
    GroupHome,
    Guest,
    GuestExit,
    GuestRecord,
    GuestUsage,
    KillFailed,
    Launch,
    Mechanism,
    SpawnFailed,
    Verified,
)

if sys.platform == "linux":
    from idle_accelerator.agent.host.linux import VERIFIED, found_mechanisms, kill_leftovers, spawn
elif sys.platform == "darwin":
    from idle_accelerator.agent.host.macos import VERIFIED, found_mechanisms, kill_leftovers, spawn
elif sys.platform == "win32":
    from idle_accelerator.agent.host.windows import VERIFIED, found_mechanisms, kill_leftovers, spawn
else:
    raise ImportError(f"No agent runs on {sys.platform} yet: there are files for linux, darwin and win32.")

__all__ = [
    "VERIFIED",
    "Forker",
    "FreezeFailed",
    "GroupHome",
    "Guest",
    "GuestExit",
    "GuestRecord",
    "GuestUsage",
    "KillFailed",
    "Launch",
    "Mechanism",
    "SpawnFailed",
    "Verified",
    "cap_cpus",
    "group_home",
    "kill_leftovers",
    "mechanisms",
    "open_forker",
    "spawn",
    "thaw_groups",
]


def open_forker() -> Forker | None:
    """The quicker start of Python programs; None on systems where a running interpreter cannot be forked safely."""
    if sys.platform == "linux":
        from idle_accelerator.agent.host import forker  # noqa: PLC0415  # only agents that run functions need it

        return forker.Forker()
    return None


def mechanisms() -> tuple[Mechanism, ...]:
    """How this machine stops, kills, weighs and limits guests, found by trying once; each has a ``sentence`` for people.

    The first call may take some tens of milliseconds.
    """
    return found_mechanisms()


def cap_cpus(cores: float | None) -> bool:
    """All guests together get no more processors than this, whatever they ask for; None: as many as nobody else wants. False where
    the kernel cannot be told so, see ``mechanisms``."""
    if sys.platform == "linux":
        from idle_accelerator.agent.host import probing  # noqa: PLC0415  # of that system alone

        return probing.homes().cap(cores)
    return False


def group_home() -> GroupHome | None:
    """Where the control groups of all guests stand, for another process that freezes them; None where guests have none."""
    if sys.platform == "linux":
        from idle_accelerator.agent.host import probing  # noqa: PLC0415  # as above

        return probing.homes().shown()
    return None


def thaw_groups(folders: Iterable[str]) -> None:
    """Thaw guests by their ``GuestRecord.group``, which somebody else has frozen."""
    if sys.platform == "linux":
        from idle_accelerator.agent.host import cgroups  # noqa: PLC0415  # as above

        for folder in folders:
            cgroups.Group.found(folder).thaw()
