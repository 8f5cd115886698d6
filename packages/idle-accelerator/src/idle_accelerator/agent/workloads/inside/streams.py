"""The user's stdout and stderr: two files that anything may write to at any speed, read here and sent in pieces.

Files, not pipes: C code that prints while it holds the interpreter would wait for ever for a reader in the same process.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

from idle_accelerator.agent.workloads.frames import (
    HEAD,
    KEPT_OUTPUT_BYTES,
    OUTPUT,
    OUTPUT_BODY,
    OUTPUT_LIMIT_BYTES,
    SHRUNK,
)
from idle_accelerator.agent.workloads.inside.descriptors import away

_SHRINK_AFTER_CALL_BYTES: Final = 1024 * 1024
_SHRINK_DURING_CALL_BYTES: Final = 64 * 1024 * 1024
_BINARY: Final = getattr(os, "O_BINARY", 0)
_CHOSEN: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | _BINARY


class Stream:
    """One of the two. ``number`` is its file descriptor in the process: 1 or 2."""

    def __init__(self, number: int, path: str) -> None:
        self._number = number
        self._writer = away(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _CHOSEN, 0o600))
        self._reader = away(os.open(path, os.O_RDONLY | _CHOSEN))
        self._position = 0
        """In the file: what stands before it has been sent or dropped."""
        self._offset = 0
        """The same in terms of what the running call has written."""
        self.attach()

    @property
    def descriptor(self) -> int:
        """Of the file, for writing; the user's code does not know it."""
        return self._writer

    def close(self) -> None:
        os.close(self._writer)
        os.close(self._reader)

    def attach(self) -> None:
        """Make the descriptor lead here, whatever the user's code has done to it."""
        os.dup2(self._writer, self._number)

    def collect(self, index: int, epoch: int) -> Iterator[bytes]:
        """Frames with what was written since the last time; of more than the limit, the end."""
        size = os.fstat(self._reader).st_size
        if size == self._position:
            return
        if size < self._position:
            # Somebody emptied the file by himself; how much was lost cannot be known, so a gap of one byte says it.
            self._position = 0
            self._offset += 1
            yield self._shrunk()
        dropped = max(0, size - self._position - KEPT_OUTPUT_BYTES)
        self._position += dropped
        self._offset += dropped
        os.lseek(self._reader, self._position, os.SEEK_SET)
        while self._position < size:
            piece = os.read(self._reader, min(OUTPUT_LIMIT_BYTES, size - self._position))
            if not piece:
                break
            body = OUTPUT_BODY.pack(index, epoch, self._number, self._offset, self._position) + piece
            self._position += len(piece)
            self._offset += len(piece)
            yield HEAD.pack(len(body), OUTPUT) + body
        if self._position > _SHRINK_DURING_CALL_BYTES:
            # What is written at this very moment may be lost: hence the gap.
            self._offset += 1
            yield self._empty()

    def end_call(self) -> Iterator[bytes]:
        """The next byte is the next call's first."""
        self._offset = 0
        if self._position > _SHRINK_AFTER_CALL_BYTES:
            yield self._empty()

    def _empty(self) -> bytes:
        os.ftruncate(self._writer, 0)
        self._position = 0
        return self._shrunk()

    def _shrunk(self) -> bytes:
        return HEAD.pack(1, SHRUNK) + bytes((self._number,))


class Console:
    """``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` as each call finds them."""

    def __init__(self) -> None:
        self._null = away(os.open(os.devnull, os.O_RDONLY | _BINARY))
        self._stdin = self._stdout = self._stderr = _open(0, "r")
        self.attach()

    def close(self) -> None:
        os.close(self._null)

    def attach(self) -> None:
        """Standard input is empty; the other two are what ``Stream.attach`` made of 1 and 2."""
        os.dup2(self._null, 0)
        if self._stdin.closed or sys.stdin is not self._stdin:
            self._stdin = sys.stdin = sys.__stdin__ = _open(0, "r")
        if self._stdout.closed or sys.stdout is not self._stdout:
            self._stdout = sys.stdout = sys.__stdout__ = _open(1, "w")
        if self._stderr.closed or sys.stderr is not self._stderr:
            self._stderr = sys.stderr = sys.__stderr__ = _open(2, "w")

    def flush(self) -> None:
        """Bring out what Python and C have not written yet."""
        for stream in {sys.stdout, sys.stderr, self._stdout, self._stderr}:
            # Whatever the user's code put there may fail in any way: closed, full disk, no stream at all.
            with contextlib.suppress(Exception):
                stream.flush()
        if "ctypes" in sys.modules:
            # Without it no compiled code was called by hand; with it, C's own buffer may hold output of this call.
            with contextlib.suppress(Exception):
                sys.modules["ctypes"].pythonapi.fflush(None)


def _open(number: int, mode: str) -> TextIO:
    raw = io.FileIO(number, mode, closefd=False)
    if mode == "r":
        return io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8", errors="surrogateescape")
    errors = "backslashreplace" if number == 2 else "surrogateescape"
    # By lines, so that a crash takes no finished line with it.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors=errors, line_buffering=True)
