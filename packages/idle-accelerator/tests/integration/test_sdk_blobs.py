"""Content arrives whole and verified, or not at all."""

from pathlib import Path

import pytest
from conftest import SchedulerProcess
from pool_builders import digest_of
from scripted_scheduler import Asked, Reply, ScriptedScheduler, scripted

from idle_accelerator.errors import IdleError, InvalidInput, NotFound, TooLarge, Unavailable
from idle_accelerator.sdk.client import AsyncClient, Client

scheduler = pytest.fixture(scripted)
CONTENT = bytes(range(256)) * 20_000
DIGEST = digest_of(CONTENT)
BLOB = f"GET /v1/blobs/{DIGEST}"


def test_what_goes_up_comes_down(scheduler_process: SchedulerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with Client(scheduler_process.url) as client:
        assert client.upload(tmp_path / "file") == DIGEST
        assert client.download(DIGEST, tmp_path / "new" / "copy") == tmp_path / "new" / "copy"
        assert client.read_blob(DIGEST, len(CONTENT)) == CONTENT
        with pytest.raises(TooLarge, match="limit"):
            client.read_blob(DIGEST, len(CONTENT) - 1)
        (tmp_path / "empty").write_bytes(b"")
        assert client.read_blob(client.upload(tmp_path / "empty"), 0) == b""
        client.download(digest_of(b""), tmp_path / "empty-copy")
    assert (tmp_path / "new" / "copy").read_bytes() == CONTENT
    assert (tmp_path / "empty-copy").read_bytes() == b""


def test_a_blob_that_rotted_on_the_schedulers_disk_is_refused_and_nothing_is_left(
    scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    to = tmp_path / "to"
    to.mkdir()
    (to / "copy").write_text("what stood there before")
    with Client(scheduler_process.url) as client:
        client.upload(tmp_path / "file")
        stored = next(scheduler_process.data_dir.rglob(DIGEST))
        stored.write_bytes(b"y" + CONTENT[1:])
        with pytest.raises(Unavailable, match="damaged"):
            client.download(DIGEST, to / "copy")
        with pytest.raises(Unavailable, match="damaged"):
            client.read_blob(DIGEST, 10_000_000)
    assert [path.name for path in to.iterdir()] == ["copy"]
    assert (to / "copy").read_text() == "what stood there before"


def test_a_file_is_sent_only_if_the_scheduler_lacks_it(scheduler: ScriptedScheduler, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    scheduler.answer(f"PUT /v1/blobs/{DIGEST}", Reply(status=201))
    with Client(scheduler.url) as client:
        client.upload(tmp_path / "file")
        scheduler.answer(f"HEAD /v1/blobs/{DIGEST}", Reply(announced=len(CONTENT)))
        client.upload(tmp_path / "file")
    assert [asked.method for asked in scheduler.asked] == ["HEAD", "PUT", "HEAD"]
    assert scheduler.asked[1].body == CONTENT


async def test_a_broken_download_goes_on_where_it_stopped(
    scheduler: ScriptedScheduler, tmp_path: Path
) -> None:
    asked_from: list[int] = []

    def serve(asked: Asked) -> Reply:
        start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        asked_from.append(start)
        part = CONTENT[start : start + 2_000_000]
        return Reply(status=206 if start else 200, body=part, announced=len(CONTENT) - start)

    scheduler.routes[BLOB] = serve
    async with AsyncClient(scheduler.url) as client:
        await client.download(DIGEST, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert len(asked_from) >= 3
    assert asked_from == sorted(set(asked_from))


async def test_a_download_that_never_ends_is_given_up_and_leaves_nothing(
    scheduler: ScriptedScheduler, tmp_path: Path
) -> None:
    scheduler.answer(BLOB, Reply(body=b"", announced=100))
    async with AsyncClient(scheduler.url, patience_s=0.3) as client:
        with pytest.raises(Unavailable):
            await client.download(DIGEST, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


async def test_a_resumed_download_of_other_content_is_refused(
    scheduler: ScriptedScheduler, tmp_path: Path
) -> None:
    scheduler.answer(BLOB, Reply(body=CONTENT[:2_000_000], announced=len(CONTENT)), Reply(body=CONTENT))
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(Unavailable, match="damaged"):
            await client.download(DIGEST, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(scheduler_process: SchedulerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    with Client(scheduler_process.url) as client:
        digest = client.upload(tmp_path / "file")
        for to in (tmp_path / "folder", tmp_path / "file" / "below"):
            with pytest.raises(InvalidInput) as refused:
                client.download(digest, to)
            assert refused.value.field == "to"
    assert sorted(path.name for path in tmp_path.rglob("*") if "scheduler" not in str(path)) == [
        "file",
        "folder",
    ]


def test_what_is_no_digest_never_becomes_part_of_an_address(
    scheduler: ScriptedScheduler, tmp_path: Path
) -> None:
    with Client(scheduler.url) as client:
        for digest in ("", "..", "A" * 64, DIGEST[:-1], f"{DIGEST}/.."):
            with pytest.raises(InvalidInput):
                client.download(digest, tmp_path / "copy")
        with pytest.raises(NotFound):
            client.download(DIGEST, tmp_path / "copy")
        with pytest.raises(IdleError, match="missing"):
            client.upload(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
