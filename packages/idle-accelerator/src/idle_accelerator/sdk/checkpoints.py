"""Checkpoints of tasks brought home: put together again from their pieces, each of which is verified.

What is read came from a node, so it is data and hostile: its manifest may name any path, any size and any pieces. All of it goes
into a new folder that nobody else has put anything into, under names that this system can hold; no link is ever made, and no
file becomes a program.
"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from idle_accelerator.errors import IdleError, InvalidInput, NotFound, StorageFull, TooLarge, Unavailable
from idle_accelerator.sdk.abreast import abreast
from idle_accelerator.sdk.artifacts import Placer
from idle_accelerator.sdk.blobs import Blobs, not_written
from idle_accelerator.wire.checkpoints import (
    CHUNK_BYTES,
    MANIFEST_LIMIT_BYTES,
    Checkpoint,
    CheckpointFile,
    CheckpointView,
    Manifest,
)
from idle_accelerator.wire.units import format_size

_AT_ONCE: Final = 4
"""Pieces that are fetched side by side, and are in memory together."""
_SPARE_BYTES: Final = 64 * 1024 * 1024
"""Of the disk, that a download leaves free."""

Received = Callable[[int], None]
"""Hears of bytes as they are written."""


def chosen(checkpoints: Sequence[CheckpointView], step: int | None, *, what: str) -> Checkpoint:
    """The one of this step, or the newest. Raises NotFound. ``what`` names whose they are."""
    found = [item.checkpoint for item in checkpoints if step is None or item.checkpoint.step == step]
    if found:
        return found[0]
    if not checkpoints:
        raise NotFound(
            f"{what} has no checkpoint.",
            field="step",
            hint="It saves one as docs/howto/checkpoints.md shows; those of a task that has ended are not kept.",
        )
    kept = ", ".join(str(item.checkpoint.step) for item in checkpoints)
    raise NotFound(f"{what} has no checkpoint of step {step}.", field="step", hint=f"These are kept: {kept}.")


async def download(blobs: Blobs, checkpoint: Checkpoint, to: Path, received: Received | None) -> Path:
    """Makes the folder ``to/step-N``, which must not be there yet; it appears when all of it is there and verified.

    Raises InvalidInput (the folder is there, or cannot be written, or the manifest is refused), NotFound, StorageFull, Unavailable.
    """
    manifest = await _manifest(blobs, checkpoint)
    folder = to / f"step-{checkpoint.step}"
    partial = folder.with_name(f"{folder.name}.tmp")
    try:
        await asyncio.to_thread(_begin, folder, partial, checkpoint.size_bytes)
        placer = Placer(
            partial, windows=sys.platform == "win32", ignores_case=sys.platform in ("win32", "darwin")
        )
        for file, target in [(file, placer.place(None, file.path)) for file in manifest.files]:
            await _write_file(blobs, file, target, received)
        await asyncio.to_thread(partial.rename, folder)
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
    return folder


async def _manifest(blobs: Blobs, checkpoint: Checkpoint) -> Manifest:
    try:
        content = await blobs.read(checkpoint.manifest, MANIFEST_LIMIT_BYTES)
        manifest = Manifest.model_validate_json(content)
    except TooLarge as error:
        raise _refused(checkpoint, error.message) from error
    except ValidationError as error:
        raise _refused(checkpoint, error.errors(include_url=False)[0]["msg"]) from error
    if (len(manifest.files), manifest.size_bytes) != (checkpoint.files, checkpoint.size_bytes):
        raise _refused(checkpoint, "its files are not as many, or not as large, as was announced")
    return manifest


def _refused(checkpoint: Checkpoint, why: str) -> InvalidInput:
    return InvalidInput(
        f"the checkpoint of step {checkpoint.step} was not taken: {why}.",
        field="step",
        hint="The node that saved it did not keep to the rules: try an older step, and mind that node.",
    )


def _begin(folder: Path, partial: Path, size_bytes: int) -> None:
    """Makes ``partial``, empty. Raises InvalidInput where ``folder`` is there, StorageFull where there is no room, and OSError."""
    if folder.exists() or folder.is_symlink():
        raise InvalidInput(
            f"{folder} stands there already.", field="to", hint="Remove it, or name another place."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder.parent).free
    if free_bytes < size_bytes + _SPARE_BYTES:
        raise StorageFull(
            f"the checkpoint is of {format_size(size_bytes)}, and {folder.parent} has {format_size(free_bytes)} free.",
            field="to",
            hint="Name a place with more room.",
        )
    if partial.is_symlink() or partial.is_file():
        partial.unlink()
    elif partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700)


async def _write_file(blobs: Blobs, file: CheckpointFile, target: Path, received: Received | None) -> None:
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)

    async def piece(line: tuple[str, int]) -> bytes:
        digest, size_bytes = line
        try:
            content = await blobs.read(digest, size_bytes)
        except NotFound as error:
            raise NotFound(
                f"a piece of {file.path!r} is not on the scheduler any more.",
                field="step",
                hint="Ask for the newest checkpoint.",
            ) from error
        except TooLarge as error:
            raise _wrong_size(file) from error
        if len(content) != size_bytes:
            raise _wrong_size(file)
        return content

    with await asyncio.to_thread(target.open, "xb") as opened:
        lines = list(_pieces(file))
        for start in range(0, len(lines), _AT_ONCE):
            for content in await abreast(piece, lines[start : start + _AT_ONCE], at_once=_AT_ONCE):
                await asyncio.to_thread(_write, opened, content)
                if received is not None:
                    received(len(content))


def _pieces(file: CheckpointFile) -> Iterator[tuple[str, int]]:
    """Digest and size of each."""
    left = file.size_bytes
    for digest in file.chunks:
        yield digest, min(left, CHUNK_BYTES)
        left -= CHUNK_BYTES


def _write(opened: IO[bytes], content: bytes) -> None:
    opened.write(content)


def _wrong_size(file: CheckpointFile) -> IdleError:
    return Unavailable(
        f"a piece of {file.path!r} has not the size that was announced. Nothing of it was kept.",
        hint="Try an older step: the node that saved this one did not keep to the rules.",
    )
