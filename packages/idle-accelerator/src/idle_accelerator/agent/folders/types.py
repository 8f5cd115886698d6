"""What a folder offers, whatever the system."""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from typing import Final, Protocol, Self


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder, and what stood there when it was read: a hint, which opening decides."""

    name: str
    """Bytes that are no UTF-8 stand in it as lone surrogates (PEP 383)."""
    is_folder: bool
    is_link: bool
    is_file: bool
    """Regular; pipes, sockets and devices are none of the three."""


class Folder(Protocol):
    """An open folder. Paths are relative, with forward slashes and without ``.`` and ``..``.

    All raise OSError: ELOOP or ENOTDIR for a link on the way, EXDEV for what is mounted there, EINVAL for a path that is none.
    """

    def folder(self, path: str) -> "Folder":
        """A folder below, opened."""
        ...

    def file(self, path: str) -> FileIO:
        """Whatever stands there, opened for reading without waiting: its ``fstat`` tells whether it is a file at all."""
        ...

    def create(self, path: str) -> None:
        """A new, empty file. Raises FileExistsError for whatever stands there, links too."""
        ...

    def unlink(self, path: str) -> None:
        """Removes a name that is no folder's."""
        ...

    def look(self, name: str) -> os.stat_result:
        """What stands under a name of this folder now; no link is followed."""
        ...

    def entries(self) -> AbstractContextManager[Iterator[Entry]]:
        """In the system's order, a few at a time."""
        ...

    def status(self) -> os.stat_result: ...

    def close(self) -> None:
        """Harmless when repeated. A folder that nothing refers to any more closes itself."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


_LOOKS: Final = 4


def is_only_name(folder: Folder, name: str, opened: os.stat_result) -> bool:
    """Whether what was opened stands under that name of the folder and under no other, so that it is nobody else's.

    The number of names alone does not tell: a second one, of a file of the owner's, may be gone for a moment just when it is counted. One look
    sees both, the name and the number; to deceive it a name must go between the halves of one system call, and here of several in a row.
    """
    for _ in range(_LOOKS):
        named = folder.look(name)
        if named.st_nlink > 1 or (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
            return False
    return True


def parts_of(path: str) -> list[str]:
    """Raises OSError (EINVAL) for what may not be followed."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return parts
