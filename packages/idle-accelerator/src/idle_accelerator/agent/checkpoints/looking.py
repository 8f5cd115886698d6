"""A look into an attempt's folder, once a second: has anything new been committed or said? Next to nothing is read while nothing has changed."""

import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from idle_accelerator.agent.folders import Folder, is_only_name, open_folder
from idle_accelerator.agent.workloads import places
from idle_accelerator.wire.checkpoints import Progress
from idle_accelerator.wire.reasons import Reason, reason

PROGRESS_LIMIT_BYTES: Final = 4096
LATEST_LIMIT_BYTES: Final = 100
_STEP: Final = re.compile(rb"step-(0|[1-9][0-9]{0,17})\s*")
Mark = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is new since the look before."""

    step: int | None = None
    """LATEST names this checkpoint now."""
    problem: Reason | None = None
    """LATEST is there and names none."""
    progress: Progress | None = None


class _Unfit(Exception):
    """Whatever stands there is no small file of the task's own."""


NOTHING: Final = Seen()


class Look:
    """One attempt's. Every call may be made in another thread."""

    def __init__(self, workspace: Path) -> None:
        self._door = threading.Lock()
        self._path = workspace
        self._workspace: Folder | None = None
        self._latest: Mark | None = None
        self._progress: Mark | None = None

    def look(self, *, anew: bool = False) -> Seen:
        """What is new, or with ``anew`` what there is. Never raises: whatever a task has put there, or taken away, at worst nothing is seen."""
        with self._door:
            if anew:
                self._latest = None
            try:
                with self._opened().folder(places.OURS) as ours:
                    progress = self._look_at_progress(ours)
                    with ours.folder(places.CHECKPOINT) as checkpoints:
                        return self._look_at_latest(checkpoints, progress)
            except OSError:
                return NOTHING

    def open(self, step: int) -> Folder:
        """The folder of a checkpoint. Raises OSError."""
        with self._door:
            return self._opened().folder(f"{places.OURS}/{places.CHECKPOINT}/step-{step}")

    def close(self) -> None:
        with self._door:
            if self._workspace is not None:
                self._workspace.close()
                self._workspace = None

    def _opened(self) -> Folder:
        if self._workspace is None:
            self._workspace = open_folder(self._path)
        return self._workspace

    def _look_at_latest(self, folder: Folder, progress: Progress | None) -> Seen:
        mark = _mark(folder, places.LATEST)
        if mark is None or mark == self._latest:
            return Seen(progress=progress) if progress is not None else NOTHING
        self._latest = mark
        try:
            named = _STEP.fullmatch(_read(folder, places.LATEST, LATEST_LIMIT_BYTES))
        except (_Unfit, OSError):
            named = None
        if named is None:
            return Seen(problem=reason("checkpoint.latest"), progress=progress)
        return Seen(step=int(named[1]), progress=progress)

    def _look_at_progress(self, folder: Folder) -> Progress | None:
        mark = _mark(folder, places.PROGRESS)
        if mark is None or mark == self._progress:
            return None
        self._progress = mark
        try:
            return Progress.model_validate_json(_read(folder, places.PROGRESS, PROGRESS_LIMIT_BYTES))
        except (_Unfit, OSError, ValidationError):
            return None


def _mark(folder: Folder, name: str) -> Mark | None:
    """Changes with every other file that is put in its place."""
    try:
        status = folder.look(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(folder: Folder, name: str, limit_bytes: int) -> bytes:
    """Raises _Unfit or OSError."""
    if not stat.S_ISREG(folder.look(name).st_mode):
        raise _Unfit  # not opened at all: opening a device may do something
    with folder.file(name) as file:
        status = os.fstat(file.fileno())
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_size > limit_bytes
            or status.st_uid != folder.status().st_uid
            or not is_only_name(folder, name, status)
        ):
            raise _Unfit
        content = b""
        while len(content) <= limit_bytes and (piece := file.read(limit_bytes + 1 - len(content))):
            content += piece
    if len(content) > limit_bytes:
        raise _Unfit
    return content
