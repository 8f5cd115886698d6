"""While a task runs its newest checkpoint leaves, and the scheduler hears of it; at its end the last one goes first, in bounded time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from checkpoint_folders import BlobsInMemory, SavingTask
from pool_builders import command_spec, report

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.checkpoints import saves as module
from idle_accelerator.agent.checkpoints.saves import Saves, Watch
from idle_accelerator.agent.journal import Journal
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.errors import Forbidden, IdleError, StorageFull, Unavailable
from idle_accelerator.wire.checkpoints import Checkpoint, Resumed, SavedCheckpoint
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.states import AttemptState

REF = AttemptRef("j" + "a" * 16, 0, 3)
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    monkeypatch.setattr(module, "_FULL_RETRY_S", 0.02)


@pytest.fixture
def task(tmp_path: Path) -> SavingTask:
    (tmp_path / "work").mkdir()
    return SavingTask(tmp_path / "work")


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def outbox(journal_path: Path) -> Outbox:
    journal = Journal(journal_path)
    journal.open()
    outbox = Outbox(journal)
    outbox.hold(REF)
    return outbox


@pytest.fixture
def line() -> BlobsInMemory:
    return BlobsInMemory()


@pytest.fixture
async def saves(line: BlobsInMemory, outbox: Outbox) -> AsyncIterator[Saves]:
    saves = Saves(cast("Any", line), outbox, upload_bytes_per_s=None)
    yield saves
    await saves.close()


def attempt(base: int | None = None) -> Attempt:
    found = Attempt(ref=REF, spec=command_spec(), grace_s=5.0)
    if base is not None:
        digest = "0" * 64
        found.resumed = Resumed(checkpoint=Checkpoint(step=base, manifest=digest, size_bytes=0, files=0))
    return found


async def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def told(outbox: Outbox) -> list[int]:
    return [item.checkpoint.step for item in outbox.take().checkpoints]


def refused(watch: Watch) -> str | None:
    return None if watch.refused is None else watch.refused.code


async def test_what_is_committed_is_told_while_the_task_runs_and_only_the_newest(
    task: SavingTask, saves: Saves, outbox: Outbox
) -> None:
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    await until(lambda: told(outbox) == [1])
    assert outbox.news.is_set() is False, "take() took it"
    task.commit(2)
    await until(lambda: told(outbox) == [2])
    assert watch.saved is not None
    watch.stop()
    task.commit(3)
    await asyncio.sleep(0.1)
    assert told(outbox) == [2], "nothing is looked for after the end"


async def test_while_one_is_sent_the_newest_of_those_that_wait_is_next(
    task: SavingTask, saves: Saves, line: BlobsInMemory, outbox: Outbox
) -> None:
    began = list[int]()
    real = module.send_checkpoint

    async def send(line: Any, look: Any, step: int, **options: Any) -> Checkpoint:
        began.append(step)
        if step == 1:
            for later in (2, 3, 4):
                task.commit(later)
                await asyncio.sleep(0.1)
        return await real(line, look, step, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "send_checkpoint", send)
        watch = saves.begin(attempt(), task.workspace)
        task.commit(1)
        await until(lambda: told(outbox) == [4])
    assert began == [1, 4]
    watch.stop()


async def test_progress_goes_along_and_hurries_nothing(
    task: SavingTask, saves: Saves, outbox: Outbox
) -> None:
    watch = saves.begin(attempt(), task.workspace)
    task.say('{"done_ratio": 0.5}')
    await until(lambda: outbox.take().progress)
    assert not outbox.news.is_set()
    batch = outbox.take()
    (note,) = batch.progress
    assert note.progress is not None
    assert (note.progress.done_ratio, note.epoch, note.refused) == (0.5, 3, None)
    assert not batch.has_news
    outbox.acknowledge(batch)
    assert outbox.take().progress == ()
    watch.stop()


async def test_what_is_not_taken_is_said_until_a_later_one_is(
    task: SavingTask, saves: Saves, outbox: Outbox
) -> None:
    watch = saves.begin(attempt(), task.workspace)
    folder = task.write(1, {"a": b"a"})
    (folder / "b").symlink_to("a")
    task.name("step-1")
    await until(lambda: refused(watch) == "checkpoint.refused")
    (note,) = outbox.take().progress
    assert note.refused is not None
    assert [cause.code for cause in note.refused.because] == ["task.output_link"]
    task.name("nonsense")
    await until(lambda: refused(watch) == "checkpoint.latest")
    task.commit(2)
    await until(lambda: told(outbox) == [2])
    assert watch.refused is None
    assert outbox.take().progress[0].refused is None
    watch.stop()


@pytest.mark.parametrize("base", [None, 5])
async def test_steps_rise_above_what_the_attempt_began_with(
    task: SavingTask, saves: Saves, outbox: Outbox, base: int | None
) -> None:
    watch = saves.begin(attempt(base), task.workspace)
    for step in (4, 5):
        task.commit(step)
        if base is not None:
            await until(lambda: refused(watch) == "checkpoint.not_newer")
            watch.refused = None
        else:
            await until(lambda step=step: told(outbox) == [step])
    task.commit(6)
    await until(lambda: told(outbox) == [6])
    task.commit(2)
    await until(lambda: refused(watch) == "checkpoint.not_newer")
    assert told(outbox) == [6]
    watch.stop()


@pytest.mark.parametrize("problem", [Unavailable("away"), StorageFull("full")])
async def test_it_waits_for_a_scheduler_that_is_away_or_full(
    task: SavingTask, saves: Saves, line: BlobsInMemory, outbox: Outbox, problem: IdleError
) -> None:
    left = [problem] * 5

    def fail() -> None:
        if left:
            raise left.pop()

    line.before_piece = fail
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    if isinstance(problem, StorageFull):
        await until(lambda: refused(watch) == "checkpoint.storage_full")
    await until(lambda: told(outbox) == [1])
    assert (left, watch.refused) == ([], None)
    watch.stop()


async def test_what_the_scheduler_refuses_is_said_and_not_repeated(
    task: SavingTask, saves: Saves, line: BlobsInMemory
) -> None:
    tries = list[int]()

    def fail() -> None:
        tries.append(1)
        raise Forbidden("no.")

    line.before_piece = fail
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    await until(lambda: refused(watch) == "checkpoint.not_sent")
    await asyncio.sleep(0.1)
    assert tries == [1]
    watch.stop()


async def test_at_the_end_the_last_commit_is_sent_though_nobody_has_looked(
    task: SavingTask, saves: Saves, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3600.0)
    watch = saves.begin(attempt(), task.workspace)
    task.commit(8)
    saved = await watch.end(within_s=DEADLINE_S)
    assert saved is not None
    assert saved.step == 8
    assert told(outbox) == [8]
    watch.stop()


async def test_at_the_end_what_a_round_has_seen_and_not_brought_yet_is_sent_too(
    task: SavingTask, saves: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3600.0)
    watch = saves.begin(attempt(), task.workspace)
    task.commit(8)
    assert watch.looked() is not None
    saved = await watch.end(within_s=DEADLINE_S)
    assert saved is not None
    watch.stop()


async def test_an_end_without_anything_new_gives_what_was_saved_before(
    task: SavingTask, saves: Saves
) -> None:
    watch = saves.begin(attempt(), task.workspace)
    assert await watch.end(within_s=DEADLINE_S) is None
    watch.stop()
    again = saves.begin(attempt(), task.workspace)
    task.commit(1)
    await until(lambda: again.saved)
    (task.write(2, {}) / "link").symlink_to("x")
    task.name("step-2")
    saved = await again.end(within_s=DEADLINE_S)
    assert saved is not None
    assert saved.step == 1
    assert refused(again) == "checkpoint.refused"
    again.stop()


class StuckLine(BlobsInMemory):
    """A line on which a piece never arrives."""

    async def store_piece(self, content: bytes, digest: str, slices: Any) -> None:
        await asyncio.Event().wait()


async def test_an_end_waits_no_longer_than_it_may(task: SavingTask, outbox: Outbox) -> None:
    saves = Saves(cast("Any", StuckLine()), outbox, upload_bytes_per_s=None)
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    assert await asyncio.wait_for(watch.end(within_s=0.05), DEADLINE_S) is None
    assert refused(watch) == "checkpoint.slow"
    watch.stop()
    await saves.close()


async def test_an_end_that_has_time_is_hurried_when_the_machine_is_wanted(
    task: SavingTask, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AFTER_NOTICE_S", 0.05)
    saves = Saves(cast("Any", StuckLine()), outbox, upload_bytes_per_s=None)
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    watch.hurry()  # a notice while the task runs: its time begins when it has ended
    ending = asyncio.create_task(watch.end(within_s=3600, patiently=True))
    await asyncio.sleep(0.1)
    assert not ending.done()
    watch.hurry()
    watch.hurry()
    assert await asyncio.wait_for(ending, DEADLINE_S) is None
    watch.stop()
    await saves.close()


async def test_a_scheduler_that_is_away_counts_against_nobody_who_left_by_himself(
    task: SavingTask, saves: Saves, line: BlobsInMemory
) -> None:
    is_away = True

    def fail() -> None:
        if is_away:
            raise Unavailable("away")

    line.before_piece = fail
    watch = saves.begin(attempt(), task.workspace)
    task.commit(1)
    assert await asyncio.wait_for(watch.end(within_s=0.05), DEADLINE_S) is None, (
        "who had to leave does not wait"
    )
    ending = asyncio.create_task(watch.end(within_s=0.05, patiently=True))
    await asyncio.sleep(0.3)
    assert not ending.done()
    is_away = False
    saved = await asyncio.wait_for(ending, DEADLINE_S)
    assert saved is not None
    watch.stop()


async def test_a_notice_long_before_the_end_takes_nothing_of_its_time(
    task: SavingTask, saves: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grace may be longer than an upload may take."""
    monkeypatch.setattr(module, "AFTER_NOTICE_S", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3600.0)
    watch = saves.begin(attempt(), task.workspace)
    watch.hurry()
    task.commit(1)
    assert await watch.end(within_s=DEADLINE_S) is not None
    watch.stop()


async def test_no_limit_holds_for_a_scheduler_on_this_machine(line: BlobsInMemory, outbox: Outbox) -> None:
    saves = Saves(cast("Any", line), outbox, upload_bytes_per_s=1.0)
    await asyncio.wait_for(saves.pace.take(1 << 30), DEADLINE_S)
    line.on_loopback = False
    slow = Saves(cast("Any", line), outbox, upload_bytes_per_s=1.0)
    await slow.pace.take(1 << 30)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow.pace.take(1), 0.05)
    await saves.close()
    await slow.close()


# What is told is told until it is acknowledged.


def saved(step: int, ref: AttemptRef = REF) -> SavedCheckpoint:
    checkpoint = Checkpoint(step=step, manifest="0" * 64, size_bytes=0, files=0)
    return SavedCheckpoint(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, checkpoint=checkpoint
    )


async def test_a_checkpoint_is_told_until_it_is_acknowledged_and_no_older_acknowledgement_takes_it(
    outbox: Outbox,
) -> None:
    outbox.saved(saved(1))
    batch = outbox.take()
    assert batch.has_news
    assert not outbox.is_empty
    outbox.saved(saved(2))
    outbox.acknowledge(batch)
    assert outbox.news.is_set()
    assert told(outbox) == [2]
    outbox.acknowledge(outbox.take())
    assert told(outbox) == []
    assert outbox.is_empty


async def test_the_last_checkpoint_survives_a_crash_with_the_end_of_its_attempt(
    outbox: Outbox, journal_path: Path
) -> None:
    outbox.saved(saved(4))
    outbox.finish(report(REF, AttemptState.VACATED))
    outbox.take()
    journal = Journal(journal_path)
    journal.open()
    again = Outbox(journal)
    again.recover(journal.unacknowledged)
    batch = again.take()
    assert [item.checkpoint.step for item in batch.checkpoints] == [4]
    assert [item.state for item in batch.reports] == [AttemptState.VACATED]


async def test_an_end_is_not_told_before_its_checkpoint(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idle_accelerator.agent.outbox.SAVES_AT_ONCE", 1)
    other = AttemptRef("j" + "b" * 16, 0, 1)
    outbox.hold(other)
    outbox.saved(saved(1, other))
    outbox.saved(saved(2))
    outbox.finish(report(REF, AttemptState.VACATED))
    batch = outbox.take()
    assert [item.job_id for item in batch.checkpoints] == [other.job_id]
    assert batch.reports == ()
    assert not outbox.tells_all(batch)
    outbox.acknowledge(batch)
    batch = outbox.take()
    assert [item.checkpoint.step for item in batch.checkpoints] == [2]
    assert len(batch.reports) == 1


async def test_nothing_is_told_of_an_attempt_that_is_stale(outbox: Outbox) -> None:
    outbox.saved(saved(1))
    outbox.forget(REF)
    assert outbox.is_empty
