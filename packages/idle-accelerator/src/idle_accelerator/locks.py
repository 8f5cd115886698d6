"""A lock on a file that the system gives back when its holder ends, however it ends."""

import sys
from pathlib import Path
from typing import IO


def take(path: Path) -> IO[str] | None:
    """The open, locked file, which is to be kept open for as long as the lock is meant; None when another holds it.

    Raises OSError when the file can be neither opened nor made.
    """
    handle = path.open("a+", encoding="utf-8")
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415  # there is none elsewhere

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415  # there is none on Windows

            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        handle = take(path)
    except OSError:
        return False
    if handle is None:
        return True
    handle.close()
    return False
