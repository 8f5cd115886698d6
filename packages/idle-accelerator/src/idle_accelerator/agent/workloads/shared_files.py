"""Files in a workspace that a function's process writes and the agent reads."""

import os
from pathlib import Path

from idle_accelerator.agent.folders import open_folder
from idle_accelerator.agent.workloads import frames, places
from idle_accelerator.agent.workloads.conversation import Call, Output, StreamName


class SharedFiles:
    """The agent opens them first, so that it never opens a name that the process has had in hand."""

    def __init__(self, workspace: Path) -> None:
        """Raises OSError."""
        folder = workspace / places.OURS
        self.workspace = open_folder(workspace)
        """Results are read below it; it stays open when the process has ended, for those that were not read yet."""
        self._descriptors: dict[str, int] = {}
        flags = (
            os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
        try:
            for name in (places.STDOUT, places.STDERR, places.REPLIES):
                self._descriptors[name] = os.open(folder / name, flags, 0o600)
        except OSError:
            self.close()
            self.workspace.close()
            raise

    def replies(self) -> bytes:
        """See ``frames.REPLIES_BYTES``."""
        descriptor = self._descriptors[places.REPLIES]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, frames.REPLIES_BYTES)

    def unsent_output(self, call: Call, stream: StreamName, *, position: int, offset: int) -> list[Output]:
        """The end of what the call wrote from ``position`` on, where ``offset`` is that within its own output."""
        descriptor = self._descriptors[stream]
        size = os.fstat(descriptor).st_size
        start = max(position, size - frames.KEPT_OUTPUT_BYTES)
        os.lseek(descriptor, start, os.SEEK_SET)
        outputs: list[Output] = []
        while start < size:
            data = os.read(descriptor, min(frames.OUTPUT_LIMIT_BYTES, size - start))
            if not data:
                break
            outputs.append(
                Output(
                    index=call.index,
                    epoch=call.epoch,
                    stream=stream,
                    offset=offset + start - position,
                    data=data,
                )
            )
            start += len(data)
        return outputs

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
