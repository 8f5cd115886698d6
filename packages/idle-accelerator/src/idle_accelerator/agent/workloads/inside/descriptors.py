"""File descriptors that the user's code is not likely to meet."""

import os
import sys
from typing import Final

if sys.platform != "win32":
    import fcntl

_FAR: Final = 200
"""Programs that close what they do not know begin at 3, and few count as far as this."""


def away(descriptor: int) -> int:
    """The same open file under a high number, which children do not inherit. The given one is closed."""
    moved = _duplicate(descriptor)
    os.close(descriptor)
    return moved


def _duplicate(descriptor: int) -> int:
    if sys.platform != "win32":
        try:
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FAR)
        except OSError:
            # The limit of open files is lower than that.
            return os.dup(descriptor)
    return os.dup(descriptor)
