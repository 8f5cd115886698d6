"""Limits of each process of a guest, and what an environment can hold: the same in all tiers of Linux."""

import resource
import sys
from typing import Final

from idle_accelerator.agent.sandbox.types import GuestSpec, SpawnFailed

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_FILES_SOFT: Final = 1024
_FILES_HARD: Final = 16_384
_WORD_BYTES: Final = 131_072
"""MAX_ARG_STRLEN of execve(2)."""


def of_each() -> dict[int, tuple[int, int]]:
    """Soft and hard limits by their number. None on how many processes there are: where a user namespace does not bound it, that
    counts what the owner runs too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES_HARD if hard == resource.RLIM_INFINITY else min(hard, _FILES_HARD)
    return {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (min(files, _FILES_SOFT), files)}


def check_environment(spec: GuestSpec) -> None:
    """Raises SpawnFailed for what no environment and no command line can hold."""
    if any("\0" in word for word in spec.argv):
        raise SpawnFailed("There is a NUL in the command.", hint="No argument of a program can hold one.")
    if any(len(word) >= _WORD_BYTES for word in spec.argv):
        raise SpawnFailed(
            "An argument of the command is too long.",
            hint=f"Linux takes less than {_WORD_BYTES >> 10} KiB in one: put it into a file.",
        )
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name + value:
            raise SpawnFailed(
                f"The variable {name!r} cannot be in an environment.",
                hint="Names are not empty and have no '='; neither names nor values hold a NUL.",
                field="env",
            )
