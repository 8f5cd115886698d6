"""Where things stand in a workspace. All that is not the task's own lies in one folder with a dot.

Imports nothing at run time: it is also read inside the guest, which has to start fast.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

OURS: Final = ".idle"
VACATE: Final = "vacate"
CHECKPOINT: Final = "checkpoint"
LATEST: Final = "LATEST"
"""In the folder CHECKPOINT: names the newest checkpoint."""
RESUME: Final = "resume"
PROGRESS: Final = "progress"
TEMPORARY: Final = "tmp"
CACHE: Final = "cache"
RESULTS: Final = "results"
REPLIES: Final = "replies"
STDOUT: Final = "stdout"
STDERR: Final = "stderr"


def vacate_file(workspace: "Path") -> "Path":
    """Appears when the task is to save and leave."""
    return workspace / OURS / VACATE


def checkpoint_dir(workspace: "Path") -> "Path":
    return workspace / OURS / CHECKPOINT


def progress_file(workspace: "Path") -> "Path":
    """Where a task says how far it is."""
    return workspace / OURS / PROGRESS


def temporary_dir(workspace: "Path") -> "Path":
    return workspace / OURS / TEMPORARY


def cache_dir(workspace: "Path") -> "Path":
    """For what libraries keep for the next time; never an output."""
    return workspace / OURS / CACHE


def result_name(index: int, epoch: int) -> str:
    """Of a large result's file, in the folder RESULTS."""
    return f"{index}.{epoch}"


def make(workspace: "Path") -> None:
    """Make the folders. Harmless where they exist. Raises OSError."""
    ours = workspace / OURS
    ours.mkdir(mode=0o700, exist_ok=True)
    for name in (CHECKPOINT, TEMPORARY, CACHE, RESULTS):
        (ours / name).mkdir(mode=0o700, exist_ok=True)
