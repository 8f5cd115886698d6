"""Checkpoints: what a task saved so that a later attempt can go on from there, and how far it says it is."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from idle_accelerator.wire.ids import MAX_EPOCH, MAX_TASKS, Digest, JobId
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.reasons import Reason, ReasonView
from idle_accelerator.wire.texts import Text, WorkspacePath

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Files are cut into pieces of this size, the last one shorter; a piece that the scheduler has is not sent again."""
MAX_FILES: Final = 10_000
MANIFEST_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""About 4 TiB in files of any size."""
MAX_ASKED: Final = 50_000
"""Digests in one question."""
GO_ON_ELSEWHERE: Final = frozenset({85, 75})
"""Exit statuses of a task that has saved a checkpoint and wants to go on from it on another node. 85 is HTCondor's, 75 is EX_TEMPFAIL of
sysexits(3)."""


class CheckpointFile(WireModel):
    """One regular file of a checkpoint, as the digests of its pieces in order."""

    path: WorkspacePath
    size_bytes: int = Field(ge=0, le=1 << 50)
    executable: bool = False
    chunks: tuple[Digest, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if len(self.chunks) != -(-self.size_bytes // CHUNK_BYTES):
            raise ValueError(f"'chunks' must be one for every {CHUNK_BYTES} bytes of 'size_bytes'")
        return self


class Manifest(WireModel):
    """All files of one checkpoint; itself a blob, whose digest names the checkpoint."""

    version: Literal[1] = 1
    files: tuple[CheckpointFile, ...] = Field(strict=False, max_length=MAX_FILES)

    @model_validator(mode="after")
    def _paths_differ(self) -> Self:
        paths = {item.path for item in self.files}
        if len(paths) != len(self.files):
            raise ValueError("two files have the same path")
        for path in paths:
            parts = path.split("/")
            if any("/".join(parts[:depth]) in paths for depth in range(1, len(parts))):
                raise ValueError(f"{path!r} lies below a file")
        return self

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.files)


class Asked(WireModel):
    """Which of these are not kept yet?"""

    digests: tuple[Digest, ...] = Field(strict=False, max_length=MAX_ASKED)


class Missing(WireModel):
    """Those of the digests asked for that are not kept, in the order of the question."""

    digests: tuple[Digest, ...] = Field(strict=False)


class Checkpoint(WireModel):
    """A committed checkpoint. Its manifest and all its pieces are on the scheduler's disk."""

    step: int = Field(ge=0, le=2**62, description="The number in its folder's name, step-N.")
    manifest: Digest
    size_bytes: int = Field(ge=0, le=1 << 50)
    files: int = Field(ge=0, le=MAX_FILES)


class SavedCheckpoint(WireModel):
    """An attempt's newest checkpoint."""

    job_id: JobId
    task_index: int = Field(ge=0, lt=MAX_TASKS)
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    checkpoint: Checkpoint


class ResumePoint(WireModel):
    """What the next attempt of a task goes on from. A task may have two: the newest comes first, the older one is for when that cannot be had."""

    task_index: int = Field(ge=0, lt=MAX_TASKS)
    checkpoint: Checkpoint


class Resumed(WireModel):
    """What an attempt went on from, of what it was given."""

    checkpoint: Checkpoint | None = Field(default=None, description="None: it began anew.")
    reason: Reason | None = Field(default=None, description="Why it is not the newest; None when it is.")


class ResumedView(WireModel):
    """As shown."""

    step: int | None = Field(default=None, description="None: it began anew, though there was a checkpoint.")
    reason: ReasonView | None = Field(default=None, description="Why it is not the newest; None when it is.")


class Progress(WireModel):
    """How far a task says it is."""

    done_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    note: Text = ""


class ProgressNote(WireModel):
    """The newest word of a running attempt."""

    job_id: JobId
    task_index: int = Field(ge=0, lt=MAX_TASKS)
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    progress: Progress | None = None
    refused: Reason | None = Field(
        default=None,
        description="Why its newest checkpoint was not taken; None when it was, or there is none.",
    )


class CheckpointView(WireModel):
    """A checkpoint as shown."""

    checkpoint: Checkpoint
    epoch: int = Field(description="The attempt that saved it.")
    node_name: str
    saved_at: datetime
    resumed_by: tuple[int, ...] = Field(
        default=(), strict=False, description="Epochs of the attempts that went on from it."
    )
