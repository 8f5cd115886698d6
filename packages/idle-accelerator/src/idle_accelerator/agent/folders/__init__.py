"""Folders that strangers have filled, opened once and then read by descriptors.

Below an open folder nothing leads out of it: no link, no ``..``, nothing that was mounted there. What was opened is what is looked at
and read; no name is looked up twice, so nothing can be put in its place between look and use.
"""

import sys
from pathlib import Path

from idle_accelerator.agent.folders.types import Entry, Folder, is_only_name

__all__ = ["Entry", "Folder", "is_only_name", "open_folder"]

if sys.platform == "win32":
    from idle_accelerator.agent.folders.windows import WindowsFolder as SystemFolder
else:
    from idle_accelerator.agent.folders.posix import PosixFolder as SystemFolder


def open_folder(path: Path) -> Folder:
    """The folder itself, no link to it. What leads there is the agent's own and is followed. Raises OSError."""
    return SystemFolder.at(path)
