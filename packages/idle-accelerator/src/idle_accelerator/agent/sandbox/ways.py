"""The lines of ``wire.nodes.Isolation``: how they are read, and what the host's mechanisms say in them."""

from typing import Final

import psutil

from idle_accelerator.agent import host
from idle_accelerator.wire.nodes import Isolation

FAILS: Final = "fails"
NONE: Final = "none"
_SHARE_WITHOUT_LIMIT: Final = 4
LINES: Final = ("fs", "net", "pidns", "calls", "mem", "disk", "freeze", "prio", "kill", "gpu")


def of(purpose: str) -> str:
    """The kernel's name for what serves this purpose here; empty where nothing does."""
    return next((found.how for found in host.mechanisms() if found.purpose == purpose), "")


def memory() -> str:
    """How guests' memory is limited."""
    how = of("memory")
    return f"{how}, at what a task asks for" if how else f"{NONE}: a guest may take all that there is"


def most_memory_bytes() -> int | None:
    """What a task of somebody else's may ask for at most: where nothing limits it hard, a quarter of the machine's. None: no such limit."""
    return None if of("memory") else psutil.virtual_memory().total // _SHARE_WITHOUT_LIMIT


def failing(isolation: Isolation) -> dict[str, str]:
    """What was claimed and did not hold, by line."""
    lines = {name: str(getattr(isolation, name)) for name in LINES}
    return {name: text.removeprefix(f"{FAILS}: ") for name, text in lines.items() if text.startswith(FAILS)}


def of_process() -> Isolation:
    """Tier ``process`` claims nothing but what the host does for every guest."""
    nothing = f"{NONE}: as the agent's own user"
    return Isolation(
        tier="process",
        fs=nothing,
        net=nothing,
        pidns=nothing,
        calls=nothing,
        mem=memory(),
        disk=f"{NONE}: a guest may write until the disk is full",
        freeze=of("freeze"),
        prio=of("cpu"),
        kill=of("kill"),
        gpu=nothing,
    )
