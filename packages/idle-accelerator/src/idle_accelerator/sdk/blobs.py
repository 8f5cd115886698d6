"""Content by its digest: up once, down verified."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import httpx2

from idle_accelerator.errors import (
    Damaged,
    IdleError,
    InvalidInput,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
)
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.wire.checkpoints import Asked, Missing
from idle_accelerator.wire.units import format_size

_JSON = {"Content-Type": "application/json"}
_PIECE_BYTES = 1024 * 1024
_TRIES = 2
"""A download that arrives damaged is tried once more."""
_NAME_SHOWN = 40
"""Letters of a name, of four bytes at most, that its unfinished file begins with: names end at 255 bytes."""
Sent = Callable[[int], None]


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Blobs:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def has(self, digest: str) -> bool:
        try:
            await self._transport.request("HEAD", f"/v1/blobs/{digest}")
        except NotFound:
            return False
        return True

    async def missing(self, digests: Sequence[str]) -> tuple[str, ...]:
        """Those that the scheduler does not have; at most MAX_ASKED in one question."""
        asked = Asked(digests=tuple(digests)).model_dump_json().encode()
        answer = await self._transport.request("POST", "/v1/blobs/missing", content=asked, headers=_JSON)
        return answer.read(Missing).digests

    async def put(self, digest: str, size: int, content: Callable[[], AsyncIterator[bytes]]) -> None:
        """Content of that size and digest; ``content`` begins it anew for each try. Raises InvalidInput when it is another."""
        await self._put(digest, size, content)

    async def upload_bytes(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if not await self.has(digest):
            await self._put(digest, len(content), content)
        return digest

    async def upload_file(self, path: Path, *, sent: Sent | None = None) -> str:
        """Sends a file unless the scheduler has its content already. ``sent`` hears of bytes done. Raises InvalidInput."""
        found, size = await asyncio.to_thread(measure_file, path)
        await self.send_file(path, found, size, sent=sent)
        return found

    async def send_file(self, path: Path, digest: str, size: int, *, sent: Sent | None = None) -> None:
        """As upload_file, for a file that is measured already."""
        if not await self.has(digest):
            await self._put(digest, size, lambda: _pieces(path, size, sent))
        elif sent is not None:
            sent(size)

    async def send_open(self, file: IO[bytes], digest: str, size: int) -> None:
        """As send_file, for a file that is open, of which ``size`` bytes from its beginning were measured."""
        if not await self.has(digest):
            await self._put(digest, size, lambda: _pieces_of(file, size))

    async def _put(self, digest: str, size: int, content: bytes | Callable[[], AsyncIterator[bytes]]) -> None:
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        await self._transport.request("PUT", f"/v1/blobs/{digest}", content=content, headers=headers)

    async def read(self, digest: str, limit_bytes: int) -> bytes:
        """The whole content, verified. Raises NotFound, TooLarge, Unavailable when it arrives damaged."""
        for _ in range(_TRIES):
            parts: list[bytes] = []
            hasher = hashlib.sha256()
            async for piece in self._receive(digest, limit_bytes):
                parts.append(piece)
                hasher.update(piece)
            if hasher.hexdigest() == digest:
                return b"".join(parts)
        raise _damaged(digest)

    async def download(self, digest: str, to: Path) -> None:
        """Writes the content to ``to``, which is replaced; goes on where it stopped when the connection breaks.

        Nothing is left behind unless the whole content has arrived and was verified.
        """
        partial = to.with_name(f".{to.name[:_NAME_SHOWN]}.{os.urandom(4).hex()}.part")
        try:
            await asyncio.to_thread(to.parent.mkdir, parents=True, exist_ok=True)
            for _ in range(_TRIES):
                hasher = hashlib.sha256()
                with partial.open("wb") as file:
                    async for piece in self._receive(digest, None):
                        await asyncio.to_thread(_write, file, hasher, piece)
                if hasher.hexdigest() == digest:
                    await asyncio.to_thread(partial.replace, to)
                    return
            raise _damaged(digest)
        except OSError as error:
            raise not_written(to, error) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    async def _receive(self, digest: str, limit_bytes: int | None) -> AsyncIterator[bytes]:
        """Pieces of the content, across broken connections; each piece is of about 1 MiB."""
        path = f"/v1/blobs/{digest}"
        loop = asyncio.get_running_loop()
        received, size = 0, None
        deadline = loop.time() + self._transport.patience_s
        while size is None or received < size:
            headers = {"Accept-Encoding": "identity"}
            if received:
                headers |= {"Range": f"bytes={received}-", "If-Range": f'"{digest}"'}
            try:
                async with self._transport.stream("GET", path, headers=headers) as (answer, response):
                    if received and answer.status != 206:
                        raise _damaged(digest)
                    announced = int(answer.headers.get("content-length", "0"))
                    size = received + announced
                    if limit_bytes is not None and size > limit_bytes:
                        raise TooLarge(
                            f"the blob is of {format_size(size)}, over the limit of {format_size(limit_bytes)}.",
                            field="digest",
                            hint="Download it to a file instead.",
                        )
                    async for piece in response.aiter_bytes(_PIECE_BYTES):
                        received += len(piece)
                        if received > size:
                            raise _damaged(digest)
                        yield piece
                        deadline = loop.time() + self._transport.patience_s
            except httpx2.TransportError as error:
                if loop.time() > deadline:
                    raise Unavailable(
                        f"the connection broke while blob {digest[:12]}… arrived: {error}.", hint="Try again."
                    ) from error
                await asyncio.sleep(0.1)


async def _pieces(path: Path, size: int, sent: Sent | None) -> AsyncIterator[bytes]:
    left = size
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                break
            yield piece
            if sent is not None:
                sent(len(piece))
    if left != 0:
        raise _changed(str(path), field="inputs")


async def _pieces_of(file: IO[bytes], size: int) -> AsyncIterator[bytes]:
    file.seek(0)
    left = size
    while left and (piece := await asyncio.to_thread(file.read, min(left, _PIECE_BYTES))):
        left -= len(piece)
        yield piece
    if left:
        raise _changed("the file", field="content")


def _changed(what: str, *, field: str) -> InvalidInput:
    return InvalidInput(
        f"{what} changed while it was sent.", field=field, hint="Submit again when nothing writes to it."
    )


def measure_file(path: Path) -> tuple[str, int]:
    """SHA-256 in lower-case hex, and how many bytes that was. Raises InvalidInput when it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, file.tell()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}.",
            field="inputs",
            hint="Check the path and its permissions.",
        ) from error


def _write(file: IO[bytes], hasher: _Hasher, piece: bytes) -> None:
    hasher.update(piece)
    file.write(piece)


def _damaged(digest: str) -> Damaged:
    return Damaged(
        f"blob {digest[:12]}… arrived damaged: its content has another digest. Nothing of it was kept.",
        hint="Try again; if it stays so, the file on the scheduler's disk is damaged.",
    )


def not_written(to: Path, error: OSError) -> IdleError:
    """What to raise where a file that was asked for cannot be written."""
    import errno  # noqa: PLC0415  # only here

    cls: Any = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else InvalidInput
    return cls(f"{to} cannot be written: {error.strerror or error}.", field="to", hint="Name another place.")
