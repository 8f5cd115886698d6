"""Whether a checkpoint is whole: its manifest and every piece that it names are on this scheduler's disk."""

import logging
from collections.abc import Iterable
from typing import Protocol

from pydantic import ValidationError

from idle_accelerator.wire.checkpoints import (
    CHUNK_BYTES,
    MANIFEST_LIMIT_BYTES,
    Checkpoint,
    Manifest,
    SavedCheckpoint,
)

_log = logging.getLogger(__name__)


class Kept(Protocol):
    """The blobs that are kept."""

    def size_of(self, digest: str) -> int | None:
        """None when it is not kept."""
        ...

    def read(self, digest: str) -> bytes: ...


def whole_ones(blobs: Kept, saved: Iterable[SavedCheckpoint]) -> tuple[SavedCheckpoint, ...]:
    """Without those that nobody could go on from. Blocks: it looks for every piece.

    Blobs are never removed, so what is whole now is so when it is written down.
    """
    whole: list[SavedCheckpoint] = []
    for item in saved:
        problem = _problem(blobs, item.checkpoint)
        if problem is None:
            whole.append(item)
        else:
            _log.warning(
                "checkpoint step-%d of task %s.%d.%d is not taken: %s",
                item.checkpoint.step,
                item.job_id,
                item.task_index,
                item.epoch,
                problem,
            )
    return tuple(whole)


def _problem(blobs: Kept, checkpoint: Checkpoint) -> str | None:
    size_bytes = blobs.size_of(checkpoint.manifest)
    if size_bytes is None:
        return "its manifest is not here"
    if size_bytes > MANIFEST_LIMIT_BYTES:
        return f"its manifest is of {size_bytes} bytes, over the limit of {MANIFEST_LIMIT_BYTES}"
    try:
        manifest = Manifest.model_validate_json(blobs.read(checkpoint.manifest))
    except ValidationError as error:
        return f"its manifest cannot be read ({error.errors(include_url=False)[0]['msg']})"
    if (len(manifest.files), manifest.size_bytes) != (checkpoint.files, checkpoint.size_bytes):
        return "its manifest is about something else"
    seen: set[tuple[str, int]] = set()
    for file in manifest.files:
        left = file.size_bytes
        for digest in file.chunks:
            wanted = min(left, CHUNK_BYTES)
            left -= wanted
            if (digest, wanted) not in seen:
                seen.add((digest, wanted))
                if blobs.size_of(digest) != wanted:
                    return f"a piece of {file.path!r} is not here"
    return None
