"""Windows: no call opens below a folder there, so the path that was really opened is asked for and must be the one expected.

Signature-only: written after Microsoft's documentation of GetFinalPathNameByHandleW, and not tried on Windows.
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Generator, Iterator
from io import FileIO
from pathlib import Path
from typing import Final, Self

from idle_accelerator.agent.folders.types import Entry, parts_of

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

import msvcrt

_READ: Final = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_NOINHERIT
_PATH_LIMIT: Final = 32_768


class WindowsFolder:
    """See ``types.Folder``. Holds no descriptor: each step looks for reparse points (links, junctions, mounts)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def at(cls, path: Path) -> Self:
        real = path.resolve()
        # ``path`` itself may be no link; what leads there may.
        if path.absolute().parent.resolve() / path.name != real or not real.is_dir():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        return cls(real)

    def folder(self, path: str) -> "WindowsFolder":
        place = self._checked(path)
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return WindowsFolder(place)

    def file(self, path: str) -> FileIO:
        place = self._checked(path)
        file = FileIO(os.open(place, _READ), "rb")
        if not _is_at(file.fileno(), place):
            file.close()
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return file

    def create(self, path: str) -> None:
        *parents, name = parts_of(path)
        folder = self._checked("/".join(parents)) if parents else self._path
        os.close(os.open(folder / name, _NEW, 0o600))

    def unlink(self, path: str) -> None:
        self._checked(path).unlink()

    def look(self, name: str) -> os.stat_result:
        return (self._path / name).lstat()

    @contextlib.contextmanager
    def entries(self) -> Generator[Iterator[Entry]]:
        with os.scandir(self._path) as found:
            yield (
                Entry(
                    item.name,
                    item.is_dir(follow_symlinks=False) and not _leads_away(item.stat(follow_symlinks=False)),
                    _leads_away(item.stat(follow_symlinks=False)),
                    item.is_file(follow_symlinks=False),
                )
                for item in found
            )

    def status(self) -> os.stat_result:
        return self._path.stat()

    def close(self) -> None:
        """There is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _checked(self, path: str) -> Path:
        place = self._path
        for part in parts_of(path):
            if ":" in part or "\\" in part:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            place /= part
            if _leads_away(place.lstat()):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return place


def _leads_away(status: os.stat_result) -> bool:
    return bool(status.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _is_at(descriptor: int, place: Path) -> bool:
    """Whether what was opened is there, with every link followed."""
    buffer = ctypes.create_unicode_buffer(_PATH_LIMIT)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    if not 0 < kernel.GetFinalPathNameByHandleW(handle, buffer, _PATH_LIMIT, 0) < _PATH_LIMIT:
        return False
    path = buffer.value.replace("\\\\?\\UNC\\", "\\\\", 1).removeprefix("\\\\?\\")
    return os.path.normcase(path) == os.path.normcase(place)
