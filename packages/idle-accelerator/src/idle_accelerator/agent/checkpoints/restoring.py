"""A checkpoint put back for the attempt that goes on from it: whole and verified, or not at all."""

import asyncio
import errno
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from idle_accelerator.agent.outputs import OutputCaps, name_problem
from idle_accelerator.agent.workloads import places
from idle_accelerator.errors import Damaged, IdleError, NotFound, StorageFull, TooLarge
from idle_accelerator.wire.checkpoints import (
    CHUNK_BYTES,
    MANIFEST_LIMIT_BYTES,
    Checkpoint,
    CheckpointFile,
    Manifest,
    Resumed,
)
from idle_accelerator.wire.reasons import Reason, reason

_log = logging.getLogger(__name__)
_LOST: Final = (NotFound, Damaged, TooLarge)
"""Trying again, or on another machine, does not help: an older checkpoint may."""


class Source(Protocol):
    """Where content comes from: the agent's link."""

    async def read_blob(self, digest: str, limit_bytes: int) -> bytes:
        """All of it, verified."""
        ...


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What an attempt goes on from."""

    path: Path | None
    """The folder ``step-N``; None: it begins anew."""
    resumed: Resumed


class _Unusable(Exception):
    """This one cannot be had; the text says why."""


async def restore(
    source: Source, workspace: Path, points: Sequence[Checkpoint], *, limit_bytes: int
) -> Restored | None:
    """The first of these that can be had, in the workspace; None where there are none at all.

    Raises Unavailable or StorageFull, or OSError for a full disk: then it may be had later or elsewhere, and nothing older is used in its place.
    """
    if not points:
        return None
    causes: list[Reason] = []
    for checkpoint in points:
        try:
            path = await _restore_one(source, workspace, checkpoint, limit_bytes=limit_bytes)
        except _Unusable as problem:
            _log.warning("checkpoint step-%d cannot be had: %s", checkpoint.step, problem)
            causes.append(reason("checkpoint.unfetchable", step=checkpoint.step, detail=str(problem)[:500]))
        else:
            why = reason("checkpoint.older", because=causes) if causes else None
            return Restored(path=path, resumed=Resumed(checkpoint=checkpoint, reason=why))
    return Restored(path=None, resumed=Resumed(reason=reason("checkpoint.anew", because=causes)))


async def _restore_one(source: Source, workspace: Path, checkpoint: Checkpoint, *, limit_bytes: int) -> Path:
    """Raises _Unusable, and what ``restore`` raises; then nothing of it is left."""
    if checkpoint.size_bytes > limit_bytes:
        raise _Unusable(f"it is of {checkpoint.size_bytes} bytes, over the task's limit of {limit_bytes}")
    home = workspace / places.OURS / places.RESUME
    part, whole = home / f"step-{checkpoint.step}.part", home / f"step-{checkpoint.step}"
    try:
        manifest = await _manifest(source, checkpoint)
        await asyncio.to_thread(_begin, part, checkpoint.size_bytes)
        for file in manifest.files:
            await _restore_file(source, part, file)
        await asyncio.to_thread(part.rename, whole)
    except _LOST as error:
        raise _Unusable(error.message) from error
    except IdleError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _Unusable(f"it cannot be written here: {error.strerror or error}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
    return whole


async def _manifest(source: Source, checkpoint: Checkpoint) -> Manifest:
    content = await source.read_blob(checkpoint.manifest, MANIFEST_LIMIT_BYTES)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _Unusable("its manifest cannot be read") from error
    if (len(manifest.files), manifest.size_bytes) != (checkpoint.files, checkpoint.size_bytes):
        raise _Unusable("its manifest is about something else")
    for file in manifest.files:
        # It was made on another machine, which may have been anybody's.
        if name_problem(file.path, OutputCaps()) is not None:
            raise _Unusable(f"it names a file that not every system stores: {file.path!r}")
    return manifest


def _begin(part: Path, size_bytes: int) -> None:
    part.mkdir(mode=0o700, parents=True)
    free_bytes = shutil.disk_usage(part).free
    if free_bytes < size_bytes:
        raise StorageFull(
            f"the checkpoint is of {size_bytes} bytes, and {free_bytes} are free.",
            hint="Make room on this machine.",
        )


async def _restore_file(source: Source, folder: Path, file: CheckpointFile) -> None:
    target = folder / file.path
    await asyncio.to_thread(target.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
    left = file.size_bytes
    known: tuple[str, bytes] = ("", b"")
    with target.open("xb") as out:
        for digest in file.chunks:
            wanted = min(left, CHUNK_BYTES)
            left -= wanted
            if known[0] != digest:  # long stretches of nothing are the same piece again and again
                known = (digest, await source.read_blob(digest, wanted))
            if len(known[1]) != wanted:
                raise _Unusable(f"a piece of {file.path!r} has the wrong size")
            await asyncio.to_thread(out.write, known[1])
    target.chmod(0o700 if file.executable else 0o600)
