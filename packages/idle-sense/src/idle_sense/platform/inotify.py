"""Changes of files and folders, told by the kernel (inotify(7)): one file descriptor, nothing to poll."""

import contextlib
import os
import struct
import sys
from collections.abc import Collection
from typing import NamedTuple

IN_OPEN = 0x20
IN_CLOSE = 0x08 | 0x10
"""Closed after writing, or after reading alone."""
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_CLOSE_WRITE = 0x08
IN_IGNORED = 0x8000
"""The watch is gone: its file was deleted, or its file system unmounted."""
IN_Q_OVERFLOW = 0x4000
"""Events were lost: look at everything anew."""
_IN_NONBLOCK = os.O_NONBLOCK if sys.platform != "win32" else 0
_IN_CLOEXEC = os.O_CLOEXEC if sys.platform != "win32" else 0


class Event(NamedTuple):
    path: str
    """What was watched; empty for ``IN_Q_OVERFLOW``."""
    mask: int
    name: str
    """In a watched folder, the file that it is about."""


class Inotify:
    """Watches of this process. Where the kernel gives none (no inotify, too many in use), ``fileno`` is None and nothing
    is ever told: whoever uses it polls then."""

    def __init__(self) -> None:
        self.problem = ""
        """Why nothing can be watched; empty while all is well."""
        self._paths: dict[int, str] = {}
        import ctypes  # noqa: PLC0415 - many machines have nothing to watch

        self._errno = ctypes.get_errno
        self._library = ctypes.CDLL(None, use_errno=True)
        self._library.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._fd: int | None = None
        descriptor = int(self._library.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
        if descriptor < 0:
            self.problem = os.strerror(self._errno())
        else:
            self._fd = descriptor

    def filenos(self) -> Collection[int]:
        return () if self._fd is None else (self._fd,)

    @property
    def watched(self) -> frozenset[str]:
        return frozenset(self._paths.values())

    def watch(self, path: str, mask: int) -> bool:
        """Whether ``path`` is watched now. inotify(7) asks for the right to read it."""
        if self._fd is None:
            return False
        number = int(self._library.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if number < 0:
            self.problem = os.strerror(self._errno())
            return False
        self._paths[number] = path
        return True

    def taken(self) -> tuple[Event, ...]:
        """What has happened since the last call; never waits."""
        events: list[Event] = []
        while self._fd is not None:
            try:
                raw = os.read(self._fd, 65536)
            except BlockingIOError:
                break
            offset = 0
            while offset + 16 <= len(raw):
                number, mask, _, length = struct.unpack_from("=iIII", raw, offset)
                name = raw[offset + 16 : offset + 16 + length].rstrip(b"\0")
                offset += 16 + length
                path = self._paths.get(number, "")
                if mask & IN_IGNORED:
                    self._paths.pop(number, None)
                events.append(Event(path, mask, os.fsdecode(name)))
            if len(raw) < 32768:
                break
        return tuple(events)

    def close(self) -> None:
        """Twice is once."""
        descriptor, self._fd = self._fd, None
        self._paths.clear()
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)
