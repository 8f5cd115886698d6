"""Checkpoints come home whole or not at all, whatever the node that saved them says."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoint_builders import blobs_of, checkpoint_of, manifest_of
from pool_builders import JOB_ID, digest_of
from scripted_scheduler import Reply, ScriptedScheduler, scripted

from idle_accelerator import Client
from idle_accelerator.errors import IdleError, InvalidInput, NotFound, StorageFull, Unavailable
from idle_accelerator.sdk import checkpoints
from idle_accelerator.sdk.handles import AsyncJobHandle, JobFacts, JobHandle
from idle_accelerator.wire.checkpoints import CHUNK_BYTES, Checkpoint, CheckpointView
from idle_accelerator.wire.jobs import TaskDetail, TaskView
from idle_accelerator.wire.states import TaskState

scheduler = pytest.fixture(scripted)
FILES = {"state.json": b'{"step": 7}', "deep/er/model.bin": bytes(range(256)) * 20_000, "empty": b""}
Offer = Callable[..., JobHandle[Any]]


@pytest.fixture
def offer(scheduler: ScriptedScheduler) -> Iterator[Offer]:
    """A task whose checkpoints are these, and blobs to go with them."""
    with Client(scheduler.url, patience_s=0.2) as client:

        def offer(blobs: Mapping[str, bytes], *kept: Checkpoint) -> JobHandle[Any]:
            views = tuple(
                CheckpointView(checkpoint=item, epoch=1, node_name="alpha", saved_at=datetime.now(UTC))
                for item in kept
            )
            detail = TaskDetail(
                job_id=JOB_ID,
                task=TaskView(index=0, state=TaskState.ACTIVE, epoch=1),
                attempts=(),
                checkpoints=views,
            )
            body = detail.model_dump_json().encode()
            scheduler.answer(f"GET /v1/jobs/{JOB_ID}/tasks/0", Reply(body=body))
            for digest, content in blobs.items():
                scheduler.answer(f"GET /v1/blobs/{digest}", Reply(body=content))
            facts = JobFacts(job_id=JOB_ID, kind="command", tasks=1)
            return AsyncJobHandle(client.core._session, facts).facade(client.portal)

        yield offer


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_newest_is_put_together_from_its_pieces(offer: Offer, tmp_path: Path) -> None:
    job = offer(
        {**blobs_of(FILES), **blobs_of({"a": b"1"})}, checkpoint_of(7, FILES), checkpoint_of(3, {"a": b"1"})
    )
    heard: list[int] = []
    assert (
        job.download_checkpoint(tmp_path / "new" / "saved", received=heard.append)
        == tmp_path / "new" / "saved" / "step-7"
    )
    assert read(tmp_path / "new" / "saved" / "step-7") == FILES
    assert len(FILES["deep/er/model.bin"]) > CHUNK_BYTES
    assert sum(heard) == sum(map(len, FILES.values()))
    assert [path.name for path in (tmp_path / "new" / "saved").iterdir()] == ["step-7"]
    assert job.download_checkpoint(tmp_path, step=3) == tmp_path / "step-3"
    assert read(tmp_path / "step-3") == {"a": b"1"}
    assert [item.checkpoint.step for item in job.checkpoints()] == [7, 3]


def test_what_is_not_kept_is_said_with_what_is(offer: Offer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no checkpoint of step 5") as refused:
        offer({}, checkpoint_of(7, FILES), checkpoint_of(3, {})).download_checkpoint(tmp_path, step=5)
    assert refused.value.hint == "These are kept: 7, 3."
    with pytest.raises(NotFound, match=r"task 0 of job j.* has no checkpoint"):
        offer({}).download_checkpoint(tmp_path)


def test_what_stands_there_already_is_left_alone(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-7" / "mine").write_text("x")
    with pytest.raises(InvalidInput, match="stands there already"):
        offer(blobs_of(FILES), checkpoint_of(7, FILES)).download_checkpoint(tmp_path)
    assert read(tmp_path) == {"step-7/mine": b"x"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_in_the_way_is_replaced_and_never_followed(offer: Offer, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "step-7.tmp").symlink_to(elsewhere)
    job = offer(blobs_of(FILES), checkpoint_of(7, FILES))
    job.download_checkpoint(tmp_path / "to")
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "to" / "step-7").is_symlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "step-7").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="stands there already"):
        job.download_checkpoint(tmp_path / "other")


def hostile(content: object, **fields: Any) -> tuple[dict[str, bytes], Checkpoint]:
    """A manifest that an honest agent would not write; the announcement fits as far as it can."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    plain: dict[str, Any] = {"step": 7, "manifest": digest_of(body), "size_bytes": 1, "files": 1}
    return {digest_of(body): body, digest_of(b"x"): b"x"}, Checkpoint(**{**plain, **fields})


def one(path: str, *, size: int = 1, chunks: int = 1, **more: Any) -> dict[str, Any]:
    return {"path": path, "size_bytes": size, "chunks": [digest_of(b"x")] * chunks, **more}


@pytest.mark.parametrize(
    "manifest",
    [
        {"files": [one("../out")]},
        {"files": [one("/etc/cron.d/x")]},
        {"files": [one("a/../../out")]},
        {"files": [one("C:evil")]},
        {"files": [one("a\\..\\..\\out")]},
        {"files": [one("a\nb")]},
        {"files": [one("")]},
        {"files": [one("a", link="/etc/passwd")]},
        {"files": [one("a", size=0, chunks=0), one("a")], "two": True},
        {"files": [one("a", size=0, chunks=0), one("a/b")]},
        {"files": [one("a", size=1 << 51, chunks=1)]},
        {"files": [one("a", size=1, chunks=2)]},
        {"files": [one("a", size=-1, chunks=0)]},
        {"version": 2, "files": [one("a")]},
        {"files": "a"},
        b"\xff\xfe",
        b"[" * 100_000,
        {"files": [one("a"), one("b")]},
    ],
    ids=str,
)
def test_a_hostile_manifest_is_refused_and_leaves_nothing(
    offer: Offer, tmp_path: Path, manifest: object
) -> None:
    blobs, checkpoint = hostile(manifest)
    with pytest.raises(InvalidInput, match="was not taken") as refused:
        offer(blobs, checkpoint).download_checkpoint(tmp_path / "to")
    assert refused.value.field == "step"
    assert refused.value.hint
    assert not (tmp_path / "to").exists()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_manifest_larger_than_any_is_not_read(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MANIFEST_LIMIT_BYTES", 100)
    with pytest.raises(InvalidInput, match="over the limit of 100 B"):
        offer(blobs_of(FILES), checkpoint_of(7, FILES)).download_checkpoint(tmp_path)


@pytest.mark.parametrize("piece", [b"", b"xx", b"y"])
def test_a_piece_of_another_size_or_content_leaves_nothing(
    offer: Offer, tmp_path: Path, piece: bytes
) -> None:
    files = {"first": b"fine", "second": b"x"}
    blobs = {**blobs_of(files), digest_of(b"x"): piece}
    with pytest.raises(IdleError) as refused:
        offer(blobs, checkpoint_of(7, files)).download_checkpoint(tmp_path / "to")
    assert isinstance(refused.value, Unavailable)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_piece_of_another_size_that_its_digest_names_leaves_nothing(offer: Offer, tmp_path: Path) -> None:
    manifest = {"files": [{"path": "a", "size_bytes": 3, "chunks": [digest_of(b"x")]}]}
    blobs, checkpoint = hostile(manifest, size_bytes=3)
    with pytest.raises(Unavailable, match="has not the size"):
        offer(blobs, checkpoint).download_checkpoint(tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_piece_that_is_gone_is_said(offer: Offer, tmp_path: Path) -> None:
    blobs = blobs_of(FILES)
    del blobs[digest_of(FILES["state.json"])]
    with pytest.raises(NotFound, match=r"a piece of 'state\.json'"):
        offer(blobs, checkpoint_of(7, FILES)).download_checkpoint(tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    offer: Offer, tmp_path: Path, scheduler: ScriptedScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(StorageFull, match="free"):
        offer(blobs_of(FILES), checkpoint_of(7, FILES)).download_checkpoint(tmp_path)
    assert scheduler.count(f"GET /v1/blobs/{digest_of(FILES['state.json'])}") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such right there")
def test_nothing_that_comes_home_is_a_program(offer: Offer, tmp_path: Path) -> None:
    manifest = manifest_of({"a": b"x"})
    program = manifest.model_copy(
        update={"files": tuple(file.model_copy(update={"executable": True}) for file in manifest.files)}
    )
    blobs, checkpoint = hostile(program.model_dump_json().encode())
    folder = offer(blobs, checkpoint).download_checkpoint(tmp_path)
    assert not os.access(folder / "a", os.X_OK)
