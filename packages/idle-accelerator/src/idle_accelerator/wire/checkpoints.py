"""Checkpoints: what a task saved so that a later attempt can go on from there, and how far it says it is."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from idle_accelerator.wire.ids import MAX_EPOCH, MAX_TASKS, Digest, JobId
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.texts import Text, WorkspacePath

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Files are cut into pieces of this size, the last one shorter; a piece that the scheduler has is not sent again."""
MAX_FILES: Final = 10_000


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
    """What the next attempt of a task goes on from."""

    task_index: int = Field(ge=0, lt=MAX_TASKS)
    checkpoint: Checkpoint


class Progress(WireModel):
    """How far a task says it is."""

    done_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    note: Text = ""


class ProgressNote(WireModel):
    """The newest word of a running attempt."""

    job_id: JobId
    task_index: int = Field(ge=0, lt=MAX_TASKS)
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    progress: Progress


class CheckpointView(WireModel):
    """A checkpoint as shown."""

    checkpoint: Checkpoint
    epoch: int = Field(description="The attempt that saved it.")
    node_name: str
    saved_at: datetime
    resumed_by: tuple[int, ...] = Field(
        default=(), strict=False, description="Epochs of the attempts that went on from it."
    )
