"""Linux, macOS and other systems of that kind: by openat2 where the kernel has it, else one component at a time."""

import contextlib
import errno
import os
import sys
import weakref
from collections.abc import Generator, Iterator
from io import FileIO
from pathlib import Path
from typing import Self

from idle_accelerator.agent.folders import openat2
from idle_accelerator.agent.folders.types import Entry, parts_of

if sys.platform == "win32":
    raise ImportError("This file is for systems with openat.")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PosixFolder:
    """See ``types.Folder``."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._closing = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def at(cls, path: Path) -> Self:
        return cls(os.open(path, _FOLDER))

    def folder(self, path: str) -> "PosixFolder":
        return PosixFolder(open_below(self.descriptor, path, _FOLDER))

    def file(self, path: str) -> FileIO:
        return FileIO(open_below(self.descriptor, path, _FILE), "rb")

    def create(self, path: str) -> None:
        descriptor = open_below(self.descriptor, path, _NEW, 0o600)
        try:
            # Guests may be another user than the agent, and the agent's own umask says nothing of them.
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)

    def unlink(self, path: str) -> None:
        *parents, name = parts_of(path)
        if not parents:
            os.unlink(name, dir_fd=self.descriptor)
            return
        with self.folder("/".join(parents)) as parent:
            os.unlink(name, dir_fd=parent.descriptor)

    def look(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    @contextlib.contextmanager
    def entries(self) -> Generator[Iterator[Entry]]:
        with os.scandir(self.descriptor) as found:
            yield (
                Entry(
                    item.name,
                    item.is_dir(follow_symlinks=False),
                    item.is_symlink(),
                    item.is_file(follow_symlinks=False),
                )
                for item in found
            )

    def status(self) -> os.stat_result:
        return os.fstat(self.descriptor)

    def close(self) -> None:
        self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_below(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of what stands at ``path`` below an open folder; see ``types.Folder`` for what it raises."""
    parts_of(path)
    if openat2.is_available():
        return openat2.open_beneath(folder, path, flags, mode)
    return open_by_components(folder, path, flags, mode)


def open_by_components(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """The same without openat2.

    What is mounted is told by the number of its mount where Linux says it in /proc, else by the number of the device: then what
    was bound from the same file system is not told apart. Only root of this machine could have bound it.
    """
    *parents, name = parts_of(path)
    home = _mount(folder)
    current = folder
    try:
        for part in parents:
            below = os.open(part, _FOLDER, dir_fd=current)
            if current != folder:
                os.close(current)
            current = below
            _check_mount(current, home, path)
        found = os.open(name, flags, mode, dir_fd=current)
    finally:
        if current != folder:
            os.close(current)
    try:
        _check_mount(found, home, path)
    except OSError:
        os.close(found)
        raise
    return found


def _check_mount(descriptor: int, home: tuple[int, int], path: str) -> None:
    if _mount(descriptor) != home:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def _mount(descriptor: int) -> tuple[int, int]:
    """Device, and number of the mount where it can be known, else -1."""
    number = -1
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError), open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:  # noqa: PTH123  # quicker
            for line in file:
                if line.startswith(b"mnt_id:"):
                    number = int(line[7:])
    return os.fstat(descriptor).st_dev, number
