"""For programs that run as a task: save now and then, go on from what was saved, hear when it is time to leave, say how far it is.

::

    import json
    from idle_accelerator import task

    state = {"step": 0, "x": 10.0}
    if (saved := task.resume_from()) is not None:
        state = json.loads((saved / "state.json").read_text())
    due = task.every(60)
    while state["step"] < 100_000:
        state = {"step": state["step"] + 1, "x": state["x"] * 0.9999}
        if due():
            with task.checkpoint(state["step"]) as folder:
                (folder / "state.json").write_text(json.dumps(state))
            task.progress(state["step"] / 100_000)
            if task.should_stop():
                task.leave()

Needs nothing but Python 3.9 and its library: on a node every Python program finds it, installed or not. The same program runs
outside of a pool: then nothing tells it to stop, and what it saves is dropped, unless ``IDLE_CHECKPOINT_DIR`` names a folder that
is to keep it. In a function, checkpoints work where it has a process of its own; see docs/reference/task-module.md.

What is written, and in which order, is the contract in docs/reference/task-contract.md; a kill at any moment leaves the last
checkpoint that was whole.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import FrameType
    from typing import NoReturn

__all__ = [
    "LEFT",
    "Every",
    "attempt",
    "checkpoint",
    "commit",
    "count",
    "every",
    "index",
    "leave",
    "progress",
    "resume_from",
    "resume_step",
    "should_stop",
]

LEFT: Final = 85
"""Exit status of a task that has saved and wants to go on elsewhere."""
_LATEST: Final = "LATEST"
_STEP: Final = re.compile(r"step-(\d{1,18})", re.ASCII)
_PARTIAL: Final = re.compile(r"step-(\d{1,18})(\.old)?\.tmp", re.ASCII)
_STEP_LIMIT: Final = 10**18
_LOOK_EVERY_S: Final = 0.05
_PROGRESS_EVERY_S: Final = 0.25
_NOTE_LIMIT: Final = 200
_PATIENCE_S: Final = 2.0
"""On Windows nobody can rename what somebody else is reading at that moment."""


class _Notice:
    """Whether this process was told to leave."""

    def __init__(self) -> None:
        self.given = False
        self.looked_at_s = -math.inf
        self.listening = False
        self.pid = 0

    def listen(self) -> None:
        """Take over the signal, unless the program has a handler of its own: then that one's word is enough."""
        if self.listening or threading.current_thread() is not threading.main_thread():
            return
        self.listening = True
        self.pid = os.getpid()
        for name in ("SIGTERM", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self.pid or _vacate_file_exists():
            self.given = True
            return
        # A worker that this program forked, and wants to end, as multiprocessing does.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


_notice = _Notice()
_said_at_s = -math.inf


def should_stop() -> bool:
    """Whether it is time to save and leave: the owner of the machine wants it back, or the job was cancelled.

    For an inner loop: it takes well under a microsecond, and looks at the disk 20 times a second at most. The first call in the
    main thread takes over SIGTERM (CTRL_BREAK on Windows), which would end the program, unless it has a handler already.
    Outside of a pool False, and no signal is touched.
    """
    if _notice.given:
        return True
    if not _notice.listening:
        if not os.environ.get("IDLE_VACATE_FILE"):
            return False
        _notice.listen()
    now_s = time.monotonic()
    if now_s - _notice.looked_at_s >= _LOOK_EVERY_S:
        _notice.looked_at_s = now_s
        _notice.given = _vacate_file_exists()
    return _notice.given


def leave() -> NoReturn:
    """Ends the program with the status that says: checkpointed, go on elsewhere. Raises SystemExit, so ``finally`` is run."""
    raise SystemExit(LEFT)


class Every:
    """Calling it says whether it is time again; see ``every``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began_s = time.monotonic()

    def __call__(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._began_s < self.seconds and not should_stop():
            return False
        self._began_s = now_s
        return True


def every(seconds: float) -> Every:
    """What to ask in a loop: ``due = every(60)``, then ``if due():``. True each time when so many seconds have passed, and at
    once when it is time to leave.

    What a move to another machine costs is at most this interval, and what a checkpoint costs is paid once in it: choose some
    twenty times what saving takes. Raises ValueError for a number below zero.
    """
    if not seconds >= 0:
        raise ValueError(f"every: {seconds!r} is no number of seconds")
    return Every(seconds)


def resume_from() -> Path | None:
    """The folder of the checkpoint to go on from; None at the first start.

    It is the newest that this machine has: one that an earlier process of this attempt committed, or else the one that came from
    another node. To be read, not to be written to.
    """
    root = _checkpoint_dir()
    newest = None if root is None else _latest(root)
    if newest is not None:
        return newest
    given = os.environ.get("IDLE_RESUME_FROM")
    return Path(given) if given else None


def resume_step() -> int:
    """The number of that checkpoint's step; 0 at the first start."""
    folder = resume_from()
    found = None if folder is None else _STEP.fullmatch(folder.name)
    return int(found[1]) if found else 0


@contextmanager
def checkpoint(step: int) -> Generator[Path, None, None]:
    """Saves a checkpoint: an empty folder to write into, committed when the ``with`` block ends well.

    All files and folders are on the disk before the checkpoint counts. After an exception, or a kill at any moment, the checkpoint
    before counts still, and nothing else. Of those on this machine the last two are kept. The same number again replaces. One at a
    time: where several processes work together, let one of them save.

    Raises ValueError for a step that is no whole number from 0 to 10**18 - 1, and OSError when it cannot be written.
    """
    number = _checked_step(step)
    root = _checkpoint_dir()
    if root is None:
        with tempfile.TemporaryDirectory(prefix="idle-checkpoint-") as dropped:
            yield Path(dropped)
        return
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f"step-{number}.tmp"
    _remove(partial)
    partial.mkdir(mode=0o700)
    try:
        yield partial
        _sync(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _publish(root, number, partial)


def commit(step: int, files: Mapping[str, bytes | Path]) -> None:
    """A checkpoint of these files: by name within it, the bytes, or the file to copy. Raises as ``checkpoint`` does, and
    ValueError for a name that leads out of it."""
    with checkpoint(step) as folder:
        for name, content in files.items():
            place = Path(name)
            if not place.parts or place.anchor or ".." in place.parts:
                raise ValueError(f"commit: {name!r} is no name within a checkpoint")
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)


def progress(done_ratio: float | None, note: str = "") -> None:
    """How far it is, from 0 to 1 (None where it cannot be known), and a few words; people see both beside the job.

    Of what is said more often than four times a second the rest is left out, but for a 1. Never fails for want of a disk, and does
    nothing outside of a pool. Raises ValueError for a ratio that is no number.
    """
    global _said_at_s  # noqa: PLW0603  # one process has one word
    ratio = None if done_ratio is None else _checked_ratio(done_ratio)
    place = os.environ.get("IDLE_PROGRESS_FILE")
    now_s = time.monotonic()
    if not place or (now_s - _said_at_s < _PROGRESS_EVERY_S and ratio != 1):
        return
    _said_at_s = now_s
    words = "".join(mark if mark.isprintable() else " " for mark in note)[:_NOTE_LIMIT]
    partial = f"{place}.{os.getpid()}.tmp"
    with suppress(OSError):
        Path(partial).write_text(json.dumps({"done_ratio": ratio, "note": words}), encoding="utf-8")
        _patiently(lambda: os.replace(partial, place))  # noqa: PTH105  # as text all the way


def index() -> int:
    """Which task of its job this is, from 0; 0 outside of a pool."""
    return int(os.environ.get("IDLE_TASK_INDEX") or 0)


def count() -> int:
    """How many tasks the job has; 1 outside of a pool."""
    return int(os.environ.get("IDLE_TASK_COUNT") or 1)


def attempt() -> int:
    """1 at first, and higher at each later try; 1 outside of a pool."""
    return int(os.environ.get("IDLE_ATTEMPT") or 1)


def _vacate_file_exists() -> bool:
    place = os.environ.get("IDLE_VACATE_FILE")
    return bool(place) and os.path.exists(place)  # noqa: PTH110  # pathlib takes twice as long


def _checkpoint_dir() -> Path | None:
    """Where checkpoints go; None is nowhere."""
    place = os.environ.get("IDLE_CHECKPOINT_DIR")
    return Path(place) if place else None


def _checked_step(step: int) -> int:
    try:
        number = step.__index__()  # numpy's whole numbers have it as well
    except AttributeError:
        number = -1
    if not 0 <= number < _STEP_LIMIT:
        raise ValueError(f"checkpoint: {step!r} is no step: use whole numbers from 0 that rise")
    return number


def _checked_ratio(ratio: float) -> float:
    number = float(ratio)
    if math.isnan(number):
        raise ValueError("progress: 'done_ratio' is not a number")
    return min(1.0, max(0.0, number))


def _latest(root: Path) -> Path | None:
    """The committed checkpoint that LATEST names."""
    try:
        name = (root / _LATEST).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = root / name
    return folder if _STEP.fullmatch(name) and folder.is_dir() else None


def _publish(root: Path, number: int, partial: Path) -> None:
    """Makes what is written the newest checkpoint; whatever is done, LATEST names a whole one at every moment, or there is none."""
    final = root / f"step-{number}"
    before = _latest(root)
    if final.exists():
        if before == final:
            before = _second(root, final)
            _point(root, before)
        _take_away(final)
    _patiently(lambda: partial.rename(final))
    _sync_folder(root)
    _point(root, final)
    _prune(root, number, keep={final, before, Path(os.environ.get("IDLE_RESUME_FROM") or root)})


def _second(root: Path, newest: Path) -> Path | None:
    """The highest of the others."""
    steps = {int(found[1]): path for path in root.iterdir() if (found := _STEP.fullmatch(path.name))}
    return max(((step, path) for step, path in steps.items() if path != newest), default=(0, None))[1]


def _point(root: Path, folder: Path | None) -> None:
    """LATEST names this one from now on, or none."""
    latest = root / _LATEST
    if folder is None:
        _patiently(lambda: latest.unlink(missing_ok=True))
    else:
        partial = root / f"{_LATEST}.tmp"
        with partial.open("w", encoding="ascii") as file:
            file.write(folder.name)
            file.flush()
            os.fsync(file.fileno())
        _patiently(lambda: partial.replace(latest))
    _sync_folder(root)


def _prune(root: Path, number: int, *, keep: set[Path | None]) -> None:
    """Old checkpoints go, and what killed processes left of theirs. What cannot be removed now is tried with the next."""
    for path in list(root.iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if partial and (partial[2] or int(partial[1]) < number):
            shutil.rmtree(path, ignore_errors=True)
        elif _STEP.fullmatch(path.name) and path not in keep:
            with suppress(OSError):
                _take_away(path)


def _take_away(folder: Path) -> None:
    """Renamed first: at no moment is there a step of which half is gone."""
    aside = folder.with_name(f"{folder.name}.old.tmp")
    _remove(aside)
    _patiently(lambda: folder.rename(aside))
    shutil.rmtree(aside, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def _sync(folder: Path) -> None:
    """All that is in it is on the disk."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _sync(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                _sync_file(entry.path)
    _sync_folder(folder)


def _sync_file(path: str) -> None:
    try:
        # Windows flushes only what was opened to be written.
        number = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except PermissionError:
        if sys.platform == "win32":  # a file that is marked read-only: the system writes it in its own time
            return
        raise
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(number)


def _patiently(act: Callable[[], object]) -> None:
    """Once more and again while somebody has the file open, where that stands in the way."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            act()
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
        else:
            return
