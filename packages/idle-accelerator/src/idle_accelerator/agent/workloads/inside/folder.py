"""The working directory between two calls: what a call left there is removed, what stood there before it stays."""

import os
import stat
from time import time_ns
from typing import Final

from idle_accelerator.agent.workloads.places import CHECKPOINT, OURS, TEMPORARY

_TRUSTED_AGE_NS: Final = 50_000_000
"""Times of change are as coarse as the kernel's tick: a folder that changed more recently is looked through again."""


class Folder:
    """Remembers the workspace as it was made. A folder that has not changed since is not looked through."""

    def __init__(self, workspace: str) -> None:
        self._known: dict[str, frozenset[str]] = {}
        """Folder to the names in it that stay; parents come first."""
        self._clean_at_ns: dict[str, int] = {}
        """Folder to its time of change when it held nothing else."""
        for path, folders, files in os.walk(workspace):
            if path == workspace and OURS in folders:
                folders.remove(OURS)
            self._known[path] = frozenset((*folders, *files))
        self._known[workspace] |= {OURS}
        self._emptied = tuple(os.path.join(workspace, OURS, name) for name in (TEMPORARY, CHECKPOINT))  # noqa: PTH118  # pathlib is slow to load
        self._known |= dict.fromkeys(self._emptied, frozenset[str]())

    def clean(self) -> None:
        """Raises OSError when something cannot be removed."""
        gone: list[str] = []
        for path, kept in self._known.items():
            # A folder that a call replaced by a link may lead anywhere, and so may all below it.
            if any(path.startswith(above) for above in gone):
                continue
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                gone.append(path + os.sep)
                if path in self._emptied:
                    os.makedirs(path, mode=0o700)  # noqa: PTH103  # as above
                continue
            if not stat.S_ISDIR(status.st_mode):
                gone.append(path + os.sep)
            elif self._clean_at_ns.get(path) != status.st_mtime_ns:
                _clear(path, kept)
                changed_at_ns = os.lstat(path).st_mtime_ns
                if time_ns() - changed_at_ns > _TRUSTED_AGE_NS:
                    self._clean_at_ns[path] = changed_at_ns


def _clear(path: str, kept: frozenset[str]) -> None:
    with os.scandir(path) as entries:
        left = [entry.path for entry in entries if entry.name not in kept]
    if left:
        os.chmod(path, stat.S_IRWXU)  # noqa: PTH101  # pathlib is slow to load
    for entry in left:
        _remove(entry)


def _remove(path: str) -> None:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)  # noqa: PTH108  # pathlib is slow to load
        return
    os.chmod(path, stat.S_IRWXU)  # noqa: PTH101  # as above
    _clear(path, frozenset())
    os.rmdir(path)  # noqa: PTH106  # as above
