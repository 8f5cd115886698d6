"""Blobs: files named by the SHA-256 of their content. A blob that is there is whole, and on disk."""

import asyncio
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Protocol

from idle_accelerator.errors import InvalidInput, StorageFull

_PIECE_BYTES = 1024 * 1024


class BlobStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._incoming = directory / "incoming"

    def open(self) -> None:
        """Makes the folders, and removes what uploads that never ended left behind."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size_of(self, digest: str) -> int | None:
        """None when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: str) -> bytes:
        """All of it, into memory. Raises FileNotFoundError."""
        return self.path(digest).read_bytes()

    async def put(self, digest: str, size_bytes: int, content: AsyncIterator[bytes]) -> bool:
        """Keeps the content under its digest; True when it is new.

        Raises InvalidInput when size or digest do not match, StorageFull when the disk cannot hold it; then nothing is kept.
        """
        temporary: Path | None = None
        try:
            handle, name = tempfile.mkstemp(dir=self._incoming)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                await self._receive(file, digest, size_bytes, content)
            return await asyncio.to_thread(self._settle, temporary, digest)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    "the scheduler's disk is full; nothing of the upload was kept.",
                    field="blob",
                    hint="Make room in its data directory, then upload again.",
                ) from error
            raise
        finally:
            if temporary is not None:
                await asyncio.to_thread(temporary.unlink, missing_ok=True)

    async def _receive(
        self, file: IO[bytes], digest: str, size_bytes: int, content: AsyncIterator[bytes]
    ) -> None:
        hasher = hashlib.sha256()
        received = 0
        piece = bytearray()
        async for chunk in content:
            received += len(chunk)
            if received > size_bytes:
                break
            piece += chunk
            if len(piece) >= _PIECE_BYTES:
                await asyncio.to_thread(_write, file, hasher, bytes(piece))
                piece.clear()
        if received != size_bytes:
            raise InvalidInput(
                f"announced {size_bytes} bytes, but {'more' if received > size_bytes else received} came.",
                field="Content-Length",
                hint="Upload again.",
            )
        _write(file, hasher, bytes(piece))
        if hasher.hexdigest() != digest:
            raise InvalidInput(
                f"the content's SHA-256 is {hasher.hexdigest()}, not {digest}.",
                field="digest",
                hint="The file changed on its way, or while it was read: upload again.",
            )
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())

    def _settle(self, temporary: Path, digest: str) -> bool:
        final = self.path(digest)
        new = not final.is_file()
        if new:
            final.parent.mkdir(exist_ok=True)
            temporary.replace(final)
        # Whoever finds it here already may be faster than the one who has just put it here, so both make sure.
        if sys.platform != "win32":
            for directory in (final.parent, self._directory):
                descriptor = os.open(directory, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        return new


class _Hasher(Protocol):
    def update(self, piece: bytes, /) -> None: ...


def _write(file: IO[bytes], hasher: _Hasher, piece: bytes) -> None:
    hasher.update(piece)
    file.write(piece)
