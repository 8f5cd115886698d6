"""Blobs: whole and on disk, or not there at all."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pool_builders import digest_of

from idle_accelerator.errors import InvalidInput, StorageFull
from idle_accelerator.scheduler.blobs import BlobStore


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "blobs")
    made.open()
    return made


def files(blobs: BlobStore) -> list[Path]:
    return sorted(path for path in blobs._directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 3 * 1024 * 1024 + 1])
async def test_content_comes_back_as_it_was(blobs: BlobStore, size: int) -> None:
    content = os.urandom(size)
    digest = digest_of(content)
    assert not blobs.has(digest)
    assert await blobs.put(digest, size, stream(content[: size // 2], content[size // 2 :]))
    assert blobs.has(digest)
    assert blobs.path(digest).read_bytes() == content
    assert files(blobs) == [blobs.path(digest)]


@pytest.mark.parametrize(
    ("announced", "pieces", "digest"),
    [
        (3, (b"ab",), digest_of(b"ab")),
        (1, (b"ab",), digest_of(b"ab")),
        (1, (b"a", b"b"), digest_of(b"a")),
        (2, (b"ab",), digest_of(b"other")),
        (0, (b"a",), digest_of(b"")),
    ],
)
async def test_wrong_size_or_digest_is_refused_and_nothing_kept(
    blobs: BlobStore, announced: int, pieces: tuple[bytes, ...], digest: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await blobs.put(digest, announced, stream(*pieces))
    assert caught.value.hint
    assert files(blobs) == []


async def test_an_upload_that_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 * 1024 * 1024)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put("0" * 64, 1 << 30, broken())
    assert files(blobs) == []


async def test_two_uploads_of_the_same_at_once_both_succeed(blobs: BlobStore) -> None:
    content = os.urandom(100_000)
    digest = digest_of(content)
    pieces = [content[place : place + 1000] for place in range(0, len(content), 1000)]
    new = await asyncio.gather(*(blobs.put(digest, len(content), stream(*pieces)) for _ in range(8)))
    assert any(new)
    assert files(blobs) == [blobs.path(digest)]
    assert blobs.path(digest).read_bytes() == content


async def test_a_slow_upload_does_not_hold_up_others(blobs: BlobStore) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await gate.wait()
        yield b"b"

    slow_one = asyncio.ensure_future(blobs.put(digest_of(b"ab"), 2, slow()))
    assert await blobs.put(digest_of(b"c"), 1, stream(b"c"))
    gate.set()
    assert await slow_one


@pytest.mark.parametrize("step", ["mkstemp", "fsync"])
async def test_a_full_disk_is_said_wherever_it_is_met(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_args, **_named) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        f"idle_accelerator.scheduler.blobs.{'tempfile' if step == 'mkstemp' else 'os'}.{step}", full
    )
    with pytest.raises(StorageFull) as caught:
        await blobs.put(digest_of(b"a"), 1, stream(b"a"))
    assert caught.value.hint
    monkeypatch.undo()
    assert files(blobs) == []
    assert await blobs.put(digest_of(b"a"), 1, stream(b"a"))


async def test_what_a_crash_left_behind_is_removed_at_the_next_start(blobs: BlobStore) -> None:
    (blobs._incoming / "leftover").write_bytes(b"half")
    await blobs.put(digest_of(b"a"), 1, stream(b"a"))
    blobs.open()
    assert files(blobs) == [blobs.path(digest_of(b"a"))]
