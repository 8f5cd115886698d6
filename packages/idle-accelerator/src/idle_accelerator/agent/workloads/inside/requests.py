"""Frames from the agent."""

import io
import os

from idle_accelerator.agent.workloads.frames import HEAD

_CHUNK_BYTES = 1024 * 1024


class Requests:
    """Reads as much as the pipe holds at once: hundreds of short calls come with one system call."""

    def __init__(self, pipe: int) -> None:
        self.descriptor = pipe
        self._file = io.FileIO(pipe, closefd=False)
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._read = os.read  # not looked up later: the user's code may replace what is in modules

    def take(self) -> tuple[int, memoryview] | None:
        """(kind, body) of the next frame that is wholly here; None when more has to be waited for."""
        start = self._position + HEAD.size
        if start > len(self._buffer):
            return None
        length, kind = HEAD.unpack_from(self._buffer, self._position)
        if start + length > len(self._buffer):
            return None
        end = start + length
        body = memoryview(self._buffer)[start:end]
        if end == len(self._buffer):
            # The body alone keeps the memory now: long arguments go when the call lets go of them.
            self._buffer, end = b"", 0
        self._position = end
        return kind, body

    def wait(self) -> bool:
        """Block until there is more; False at the end."""
        rest = bytes(self._buffer[self._position :])
        if len(rest) >= HEAD.size:
            length = HEAD.size + HEAD.unpack_from(rest)[0]
            if length > _CHUNK_BYTES:
                return self._fill(rest, length)
        chunk = self._read(self.descriptor, _CHUNK_BYTES)
        self._buffer = rest + chunk
        self._position = 0
        return bool(chunk)

    def close_in_fork(self) -> None:
        """In a process that the user's function forked: this is not its conversation."""
        os.close(self.descriptor)

    def _fill(self, rest: bytes, length: int) -> bool:
        """One long frame, without copying it for each piece that comes."""
        whole = bytearray(length)
        whole[: len(rest)] = rest
        done = len(rest)
        with memoryview(whole) as view:
            while done < length:
                count = self._file.readinto(view[done:])
                if not count:
                    return False
                done += count
        self._buffer = whole
        self._position = 0
        return True
