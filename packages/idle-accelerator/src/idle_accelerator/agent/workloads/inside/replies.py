"""Frames on their way to the agent, gathered so that thousands of short calls a second cost few writes."""

import os
from _thread import RLock
from errno import EBADF
from mmap import mmap
from time import perf_counter
from typing import Final

from idle_accelerator.agent.workloads.frames import REPLIES_BYTES, REPLIES_HEAD

AGENT_GONE: Final = 74
"""Exit status when nobody is left to answer to (EX_IOERR of sysexits.h)."""
BROKEN: Final = 70
"""Exit status when the user's code broke this program, such as by closing its files (EX_SOFTWARE)."""


class Replies:
    """Frames are kept in memory that is shared with a file: should the process die with some unsent, by a crash in a later
    call or by a kill while it is frozen, the agent reads them there, and no finished call is lost or blamed.

    Used by two threads. ``lock`` may be held over several calls to keep their frames together.
    """

    def __init__(self, pipe: int, memory: mmap) -> None:
        """``memory``: REPLIES_BYTES of the file."""
        self.lock = RLock()
        self.flushed_s = 0.0
        """When all had been sent last; of time.perf_counter."""
        self._pipe = pipe
        self._memory = memory
        self._used = REPLIES_HEAD.size
        self._write = os.write  # not looked up later: the user's code may replace what is in modules

    @property
    def are_waiting(self) -> bool:
        return self._used > REPLIES_HEAD.size

    def add(self, frame: bytes) -> None:
        with self.lock:
            end = self._used + len(frame)
            if end > REPLIES_BYTES:
                self.flush()
                end = self._used + len(frame)
                if end > REPLIES_BYTES:
                    self._send(frame)
                    return
            self._memory[self._used : end] = frame
            self._used = end
            # Only now does the frame count, for whoever reads the file.
            REPLIES_HEAD.pack_into(self._memory, 0, end - REPLIES_HEAD.size)

    def flush(self) -> None:
        """Send everything; blocks while the agent does not read."""
        with self.lock:
            if self._used > REPLIES_HEAD.size:
                self._send(self._memory[REPLIES_HEAD.size : self._used])
                self._used = REPLIES_HEAD.size
                REPLIES_HEAD.pack_into(self._memory, 0, 0)
            self.flushed_s = perf_counter()

    def close_in_fork(self) -> None:
        """In a process that the user's function forked: this is not its conversation."""
        os.close(self._pipe)

    def _send(self, frames: bytes) -> None:
        view = memoryview(frames)
        try:
            while view:
                view = view[self._write(self._pipe, view) :]
        except OSError as error:
            # Either way this process is of no more use.
            os._exit(BROKEN if error.errno == EBADF else AGENT_GONE)
