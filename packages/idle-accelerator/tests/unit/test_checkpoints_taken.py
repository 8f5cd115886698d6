"""A checkpoint is taken whole and as it was committed, or not at all, whatever the task put there; and what was taken comes back the same."""

import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from checkpoint_folders import BlobsInMemory, SavingTask, files_below

from idle_accelerator.agent.checkpoints import taking
from idle_accelerator.agent.checkpoints.looking import Look, Seen
from idle_accelerator.agent.checkpoints.pacing import Pace
from idle_accelerator.agent.checkpoints.reader import QuietReader
from idle_accelerator.agent.checkpoints.restoring import Restored, restore
from idle_accelerator.agent.checkpoints.sending import send_checkpoint
from idle_accelerator.agent.checkpoints.taking import Refused
from idle_accelerator.errors import StorageFull, Unavailable
from idle_accelerator.scheduler.checkpoints import whole_ones
from idle_accelerator.wire.checkpoints import (
    CHUNK_BYTES,
    Checkpoint,
    CheckpointFile,
    Manifest,
    SavedCheckpoint,
)

MIB = 1024 * 1024
LARGE = random.Random(1).randbytes(2 * CHUNK_BYTES + 100)
LIMIT = 1024 * MIB
unix = pytest.mark.skipif(sys.platform == "win32", reason="what is made here is POSIX's")


@pytest.fixture
def task(tmp_path: Path) -> SavingTask:
    (tmp_path / "work").mkdir()
    return SavingTask(tmp_path / "work")


@pytest.fixture
def line() -> BlobsInMemory:
    return BlobsInMemory()


@pytest.fixture
async def reader() -> AsyncIterator[QuietReader]:
    reader = QuietReader()
    yield reader
    await reader.close()
    assert reader._held == 0, "nothing stays open"


async def send(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, step: int, *, limit_bytes: int = LIMIT
) -> Checkpoint:
    look = Look(task.workspace)
    try:
        return await send_checkpoint(
            line, look, step, limit_bytes=limit_bytes, pace=Pace(None), reader=reader
        )
    finally:
        look.close()


async def refusal(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, step: int, *, limit_bytes: int = LIMIT
) -> str:
    with pytest.raises(Refused) as caught:
        await send(task, line, reader, step, limit_bytes=limit_bytes)
    return caught.value.cause.code


class Kept:
    def __init__(self, blobs: dict[str, bytes]) -> None:
        self._blobs = blobs

    def size_of(self, digest: str) -> int | None:
        return len(self._blobs[digest]) if digest in self._blobs else None

    def read(self, digest: str) -> bytes:
        return self._blobs[digest]


def is_whole(line: BlobsInMemory, checkpoint: Checkpoint) -> bool:
    """As the scheduler sees it."""
    saved = SavedCheckpoint(job_id="j" + "a" * 16, task_index=0, epoch=1, checkpoint=checkpoint)
    return whole_ones(Kept(line.blobs), [saved]) == (saved,)


async def put_back(line: BlobsInMemory, at: Path, *points: Checkpoint, limit_bytes: int = LIMIT) -> Restored:
    at.mkdir(exist_ok=True)
    restored = await restore(line, at, points, limit_bytes=limit_bytes)
    assert restored is not None
    return restored


FILES = {"state": b"1", "deep/er/model.bin": LARGE, ".hidden": b"h", "empty": b"", "same": LARGE}


async def test_what_is_taken_comes_back_the_same(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path
) -> None:
    folder = task.commit(3, FILES)
    (folder / "state").chmod(0o755)
    checkpoint = await send(task, line, reader, 3)
    assert (checkpoint.step, checkpoint.files) == (3, 5)
    assert checkpoint.size_bytes == 2 * len(LARGE) + 2
    assert is_whole(line, checkpoint)
    assert len(line.sent) == len(set(line.sent)) == 3 + 2 + 1, (
        "three pieces once, two short files, the manifest"
    )
    restored = await put_back(line, tmp_path / "next", checkpoint)
    assert restored.path == tmp_path / "next" / ".idle" / "resume" / "step-3"
    assert files_below(restored.path) == FILES
    assert restored.resumed.checkpoint == checkpoint
    assert restored.resumed.reason is None
    if sys.platform != "win32":
        assert (restored.path / "state").stat().st_mode & 0o777 == 0o700
        assert (restored.path / "same").stat().st_mode & 0o777 == 0o600


async def test_only_pieces_that_are_new_are_sent(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader
) -> None:
    task.commit(1, {"model": LARGE})
    await send(task, line, reader, 1)
    line.sent.clear()
    changed = LARGE[:CHUNK_BYTES] + b"X" + LARGE[CHUNK_BYTES + 1 :]
    task.commit(2, {"model": changed})
    checkpoint = await send(task, line, reader, 2)
    assert line.sent == [
        hashlib.sha256(changed[CHUNK_BYTES : 2 * CHUNK_BYTES]).hexdigest(),
        checkpoint.manifest,
    ]


async def test_a_checkpoint_without_files_is_one(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path
) -> None:
    task.commit(1, {})
    checkpoint = await send(task, line, reader, 1)
    assert is_whole(line, checkpoint)
    restored = await put_back(line, tmp_path / "next", checkpoint)
    assert restored.path is not None
    assert list(restored.path.iterdir()) == []


@unix
@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("link", "task.output_link"),
        ("link to a folder", "task.output_link"),
        ("pipe", "task.output_special"),
        ("hard link", "task.output_hard_link"),
        ("name", "task.output_name"),
        ("deep", "task.output_deep"),
        ("sparse", "task.output_too_large"),
        ("many", "task.output_too_many"),
        ("folder is a link", "checkpoint.gone"),
        ("folder is missing", "checkpoint.gone"),
        ("folder is a file", "checkpoint.gone"),
    ],
)
async def test_nothing_of_a_hostile_folder_is_taken(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path, what: str, code: str
) -> None:
    owners = tmp_path / "owners"
    owners.mkdir()
    (owners / "secret").write_bytes(b"secret")
    folder = task.commit(1, {"a": b"a", "z": b"z"})
    match what:
        case "link":
            (folder / "b").symlink_to(owners / "secret")
        case "link to a folder":
            (folder / "b").symlink_to(owners)
        case "pipe":
            os.mkfifo(folder / "b")
        case "hard link":
            os.link(owners / "secret", folder / "b")
        case "name":
            (folder / "b\\c").write_bytes(b"x")
        case "deep":
            (folder / "/".join("d" * 70)).mkdir(parents=True)
        case "sparse":
            with (folder / "b").open("wb") as file:
                file.truncate(1 << 40)
        case "many":
            for number in range(100_000):
                os.close(os.open(folder / f"n{number}", os.O_CREAT | os.O_WRONLY))
        case _:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            if what == "folder is a link":
                folder.symlink_to(owners)
            elif what == "folder is a file":
                folder.write_bytes(b"x")
    assert await refusal(task, line, reader, 1) == code
    assert line.blobs == {}


async def test_more_than_the_task_has_disk_for_is_not_taken(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader
) -> None:
    task.commit(1, {"a": bytes(600), "b": bytes(600)})
    assert await refusal(task, line, reader, 1, limit_bytes=1000) == "task.outputs_too_large"
    await send(task, line, reader, 1, limit_bytes=1200)


@pytest.mark.parametrize("when", ["before the piece is read again", "after all pieces were read"])
async def test_a_checkpoint_that_is_written_to_meanwhile_is_never_used_torn(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, when: str
) -> None:
    """Short files too: they are read once, and written to at another time."""
    folder = task.commit(1, {"a": LARGE, "b": LARGE[1:]})
    pieces = 6 if when.startswith("after") else 1

    def write() -> None:
        if len(line.sent) + 1 == pieces:
            with (folder / "b").open("r+b") as file:
                file.write(b"torn")

    line.before_piece = write
    assert await refusal(task, line, reader, 1) == "checkpoint.changed"
    manifests = [content for content in line.blobs.values() if content.startswith(b'{"')]
    assert manifests == [], "without a manifest there is no checkpoint"


async def test_a_file_that_is_put_in_the_place_of_another_is_noticed(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idle_accelerator.agent.checkpoints.reader.HELD_LIMIT", 0)
    folder = task.commit(1, {"a": LARGE, "b": LARGE[1:]})

    def swap() -> None:
        new = folder.parent / "new"
        new.write_bytes(LARGE[1:])
        new.replace(folder / "b")

    line.before_piece = swap
    assert await refusal(task, line, reader, 1) == "checkpoint.changed"


@unix
@pytest.mark.parametrize("held", [True, False])
async def test_a_checkpoint_may_be_removed_while_it_is_sent_where_it_is_held_open(
    task: SavingTask,
    line: BlobsInMemory,
    reader: QuietReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: bool,
) -> None:
    monkeypatch.setattr("idle_accelerator.agent.checkpoints.reader.HELD_LIMIT", 128 if held else 0)
    folder = task.commit(1, {"a": LARGE, "b": b"short"})

    def remove() -> None:
        for path in folder.iterdir():
            path.unlink()

    line.before_piece = remove
    if not held:
        assert await refusal(task, line, reader, 1) == "checkpoint.gone"
        return
    checkpoint = await send(task, line, reader, 1)
    restored = await put_back(line, tmp_path / "next", checkpoint)
    assert restored.path is not None
    assert files_below(restored.path) == {"a": LARGE, "b": b"short"}


async def test_an_upload_that_breaks_off_goes_on_where_it_was(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader
) -> None:
    task.commit(1, {"a": LARGE})

    def break_off() -> None:
        if len(line.sent) == 2:
            raise Unavailable("the line is cut.")

    line.before_piece = break_off
    with pytest.raises(Unavailable):
        await send(task, line, reader, 1)
    first = list(line.sent)
    line.before_piece = lambda: None
    assert is_whole(line, await send(task, line, reader, 1))
    assert len(line.sent) == len(set(line.sent)) == 4
    assert line.sent[:2] == first


@pytest.mark.parametrize("how", ["missing", "damaged", "longer"])
@pytest.mark.parametrize("what", ["piece", "manifest"])
async def test_where_the_newest_cannot_be_had_the_one_before_it_is(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path, how: str, what: str
) -> None:
    task.commit(1, {"state": b"one"})
    older = await send(task, line, reader, 1)
    task.commit(2, {"state": b"two", "more": LARGE})
    newest = await send(task, line, reader, 2)
    spoilt = newest.manifest if what == "manifest" else hashlib.sha256(LARGE[-100:]).hexdigest()
    content = line.blobs.pop(spoilt)
    if how == "damaged":
        line.blobs[spoilt] = bytes(len(content))
    elif how == "longer":
        line.blobs[spoilt] = content + b"x"
    restored = await put_back(line, tmp_path / "next", newest, older)
    assert restored.path is not None
    assert files_below(restored.path) == {"state": b"one"}
    assert restored.resumed.checkpoint == older
    assert restored.resumed.reason is not None
    assert restored.resumed.reason.code == "checkpoint.older"
    assert [path.name for path in restored.path.parent.iterdir()] == ["step-1"], "nothing torn is left"


async def test_where_none_can_be_had_it_begins_anew_and_says_so(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path
) -> None:
    task.commit(1)
    checkpoint = await send(task, line, reader, 1)
    line.blobs.clear()
    restored = await put_back(line, tmp_path / "next", checkpoint)
    assert (restored.path, restored.resumed.checkpoint) == (None, None)
    assert restored.resumed.reason is not None
    assert restored.resumed.reason.code == "checkpoint.anew"
    assert [cause.code for cause in restored.resumed.reason.because] == ["checkpoint.unfetchable"]


async def test_a_scheduler_that_does_not_answer_and_a_full_disk_are_no_reason_for_an_older_one(
    task: SavingTask,
    line: BlobsInMemory,
    reader: QuietReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task.commit(1)
    older = await send(task, line, reader, 1)
    task.commit(2, {"state": LARGE})
    newest = await send(task, line, reader, 2)
    read = line.read_blob

    async def away(digest: str, limit_bytes: int) -> bytes:
        if digest == newest.manifest:
            return await read(digest, limit_bytes)
        raise Unavailable("it does not answer.")

    monkeypatch.setattr(line, "read_blob", away)
    with pytest.raises(Unavailable):
        await put_back(line, tmp_path / "next", newest, older)
    monkeypatch.undo()
    monkeypatch.setattr(
        "idle_accelerator.agent.checkpoints.restoring.shutil.disk_usage",
        lambda _path: type("Usage", (), {"free": 1000}),
    )
    with pytest.raises(StorageFull):
        await put_back(line, tmp_path / "next", newest, older)
    assert files_below(tmp_path / "next") == {}


@pytest.mark.parametrize(
    "paths",
    [["../out"], ["/out"], ["a\\..\\out"], ["a", "a/b"], ["con"], ["a", "a"], ["a/../../out"], ["trailing."]],
)
async def test_a_manifest_that_leads_elsewhere_is_not_followed(
    line: BlobsInMemory, tmp_path: Path, paths: list[str]
) -> None:
    """It comes from a machine that may be anybody's."""
    digest = hashlib.sha256(b"x").hexdigest()
    files = tuple(
        CheckpointFile.model_construct(path=path, size_bytes=1, executable=False, chunks=(digest,))
        for path in paths
    )
    manifest = Manifest.model_construct(version=1, files=files).model_dump_json().encode()
    line.blobs = {digest: b"x", hashlib.sha256(manifest).hexdigest(): manifest}
    checkpoint = Checkpoint(
        step=1, manifest=hashlib.sha256(manifest).hexdigest(), size_bytes=len(paths), files=len(paths)
    )
    restored = await put_back(line, tmp_path / "next", checkpoint)
    assert restored.path is None
    assert files_below(tmp_path) == {}


async def test_what_is_larger_than_the_task_has_disk_for_is_not_put_back(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, tmp_path: Path
) -> None:
    task.commit(1, {"state": bytes(1000)})
    checkpoint = await send(task, line, reader, 1)
    assert (await put_back(line, tmp_path / "next", checkpoint, limit_bytes=999)).path is None


@pytest.mark.parametrize("gone", ["manifest", "piece"])
async def test_the_scheduler_takes_no_checkpoint_that_is_not_whole(
    task: SavingTask, line: BlobsInMemory, reader: QuietReader, gone: str
) -> None:
    task.commit(1, {"state": LARGE})
    checkpoint = await send(task, line, reader, 1)
    assert is_whole(line, checkpoint)
    assert not is_whole(line, checkpoint.model_copy(update={"size_bytes": 5})), "nor one that it lies about"
    del line.blobs[checkpoint.manifest if gone == "manifest" else hashlib.sha256(LARGE[-100:]).hexdigest()]
    assert not is_whole(line, checkpoint)


async def test_a_piece_of_another_size_is_no_piece(line: BlobsInMemory) -> None:
    digest = hashlib.sha256(b"xx").hexdigest()
    file = CheckpointFile(path="a", size_bytes=1, chunks=(digest,))
    manifest = Manifest(files=(file,)).model_dump_json().encode()
    name = hashlib.sha256(manifest).hexdigest()
    line.blobs = {digest: b"xx", name: manifest}
    assert not is_whole(line, Checkpoint(step=1, manifest=name, size_bytes=1, files=1))


# What a look sees.


@pytest.fixture
def look(task: SavingTask) -> Look:
    return Look(task.workspace)


def test_a_look_sees_each_commit_once_and_reads_nothing_else(
    task: SavingTask, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look.look() == Seen()
    task.write(1, {"state": b"1"})
    assert look.look() == Seen(), "what LATEST does not name is not committed"
    task.commit(1)
    assert look.look() == Seen(step=1)
    monkeypatch.setattr("idle_accelerator.agent.checkpoints.looking._read", None)
    assert look.look() == Seen()
    monkeypatch.undo()
    task.commit(22)
    assert look.look() == Seen(step=22)
    assert look.look(anew=True) == Seen(step=22)


@pytest.mark.parametrize(
    "text",
    ["", "step-", "step-01", "step--1", "../step-1", "step-1/..", "step-1\nstep-2", "step-" + "9" * 19],
)
def test_a_latest_that_names_no_checkpoint_is_said(task: SavingTask, look: Look, text: str) -> None:
    task.name(text)
    seen = look.look()
    assert seen.step is None
    assert seen.problem is not None
    assert seen.problem.code == "checkpoint.latest"
    assert look.look() == Seen(), "once"


@unix
@pytest.mark.parametrize("what", ["link", "pipe", "hard link", "large", "folder"])
@pytest.mark.parametrize("name", ["LATEST", "progress"])
def test_what_is_no_file_of_the_tasks_own_is_not_read(
    task: SavingTask, look: Look, tmp_path: Path, what: str, name: str
) -> None:
    place = task.home / "LATEST" if name == "LATEST" else task.home.parent / "progress"
    bait = tmp_path / "bait"
    bait.write_text("step-1" if name == "LATEST" else '{"note": "bait"}')
    match what:
        case "link":
            place.symlink_to(bait)
        case "pipe":
            os.mkfifo(place)
        case "hard link":
            os.link(bait, place)
        case "large":
            place.write_text(bait.read_text() + " " * 5000)
        case _:
            place.mkdir()
    seen = look.look()
    assert (seen.step, seen.progress) == (None, None)
    assert (seen.problem is not None) == (name == "LATEST")


@unix
@pytest.mark.parametrize("part", [".idle", ".idle/checkpoint", "."])
def test_a_folder_on_the_way_that_is_a_link_is_not_followed(
    task: SavingTask, look: Look, tmp_path: Path, part: str
) -> None:
    other = SavingTask(tmp_path)
    other.commit(5)
    place = task.workspace / part
    place.resolve().rename(tmp_path / "away")
    place.symlink_to(tmp_path / part)
    assert look.look() == Seen()


def test_progress_is_seen_when_it_changes(task: SavingTask, look: Look) -> None:
    task.say('{"done_ratio": 0.25, "note": "a"}')
    seen = look.look().progress
    assert seen is not None
    assert (seen.done_ratio, seen.note) == (0.25, "a")
    assert look.look().progress is None
    task.say("{}")
    assert look.look().progress is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"done_ratio": 2}',
        '{"done_ratio": NaN}',
        '{"note": "a\\nb"}',
        '{"more": 1}',
        '{"note": 1}',
    ],
)
def test_progress_that_is_none_is_passed_over(task: SavingTask, look: Look, text: str) -> None:
    task.say(text)
    assert look.look() == Seen()


async def test_the_pace_is_kept_over_all_that_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, slept = 100.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        slept.append(seconds)
        now_s += seconds

    monkeypatch.setattr("idle_accelerator.agent.checkpoints.pacing.time.monotonic", lambda: now_s)
    monkeypatch.setattr("idle_accelerator.agent.checkpoints.pacing.asyncio.sleep", sleep)
    pace = Pace(1000.0)
    for _ in range(11):
        await pace.take(500)
    assert now_s == pytest.approx(105.0)
    now_s += 60
    await pace.take(500)
    assert now_s == pytest.approx(165.0), "what was not used is not saved up"
    await pace.take(500)
    assert now_s == pytest.approx(165.5)
    await Pace(None).take(1 << 40)
    assert sum(slept) == pytest.approx(5.5)


def test_a_large_checkpoint_is_read_a_few_mib_at_a_time(task: SavingTask) -> None:
    """So that attempts take turns in the one thread."""
    task.commit(1, {"a": LARGE, "b": LARGE})
    reader = QuietReader()
    look = Look(task.workspace)
    taken = taking.Taking(look.open(1), 1, LIMIT, reader)
    turns = 0
    while taken.go_on():
        turns += 1
    assert turns >= 6
    taken.close()
    look.close()
