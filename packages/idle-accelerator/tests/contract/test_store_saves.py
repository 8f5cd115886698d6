"""Checkpoints and progress in the store: fenced as reports are, the newest two kept, gone with their task."""

import hashlib

import pytest
from pool_builders import command_spec, report, succeeded
from sqlalchemy import select
from store_bench import StoreBench

from idle_accelerator.scheduler.store.saves import list_checkpoints, list_notes
from idle_accelerator.scheduler.store.schema import checkpoints, notes
from idle_accelerator.wire.checkpoints import (
    Checkpoint,
    Progress,
    ProgressNote,
    Resumed,
    ResumePoint,
    SavedCheckpoint,
)
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState, TaskState

S = AttemptState


def checkpoint(step: int, what: str = "") -> Checkpoint:
    manifest = hashlib.sha256(f"{step}{what}".encode()).hexdigest()
    return Checkpoint(step=step, manifest=manifest, size_bytes=2**40, files=1)


def saved(ref: AttemptRef, step: int, what: str = "") -> SavedCheckpoint:
    return SavedCheckpoint(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, checkpoint=checkpoint(step, what)
    )


def note(ref: AttemptRef, ratio: float, refused: Reason | None = None) -> ProgressNote:
    return ProgressNote(
        job_id=ref.job_id,
        task_index=ref.task_index,
        epoch=ref.epoch,
        progress=Progress(done_ratio=ratio),
        refused=refused,
    )


def kept(bench: StoreBench) -> list[tuple[int, int, int]]:
    """(task, epoch, step), newest first."""
    rows = bench.look(select(checkpoints))
    return sorted(((row.task_index, row.epoch, row.step) for row in rows), reverse=True)


def points(granted: tuple[ResumePoint, ...]) -> list[tuple[int, int]]:
    return [(point.task_index, point.checkpoint.step) for point in granted]


def leased_again(bench: StoreBench, node: str, job: str) -> AttemptRef:
    (ref,) = bench.lease(node, job)
    return ref


def test_the_newest_two_are_kept_and_granted_newest_first(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec())
    (first,) = bench.lease(node, job)
    for step in (1, 5, 9):
        bench.exchange(node, holding=[first], checkpoints=[saved(first, step)])
    assert kept(bench) == [(0, 1, 9), (0, 1, 5)]
    bench.exchange(node, holding=[], reports=[report(first, S.VACATED)])
    granted = bench.grant(node, job)
    assert points(granted.resume) == [(0, 9), (0, 5)]
    assert granted.resume[0].checkpoint == checkpoint(9)
    again = bench.exchange(node, holding=[]).granted_again
    assert points(again[0].resume) == [(0, 9), (0, 5)], (
        "a lease that the agent did not hear of says the same again"
    )


def test_a_task_without_a_checkpoint_is_granted_none(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec(tasks=3))
    refs = bench.lease(node, job, 2)
    bench.exchange(node, holding=refs, checkpoints=[saved(refs[1], 4)])
    bench.exchange(node, holding=[], reports=[report(ref, S.VACATED) for ref in refs])
    assert points(bench.grant(node, job, 3).resume) == [(1, 4)]


def test_a_checkpoint_of_an_attempt_that_is_over_changes_nothing(bench: StoreBench) -> None:
    one, other, job = bench.enrol("one"), bench.enrol("other"), bench.submit(command_spec())
    (lost,) = bench.lease(one, job)
    bench.exchange(one, holding=[lost], checkpoints=[saved(lost, 1)])
    bench.now += 60
    bench.expire()
    (second,) = bench.lease(other, job)
    bench.exchange(one, holding=[lost], checkpoints=[saved(lost, 7)])
    bench.exchange(one, holding=[], checkpoints=[saved(second, 8)])
    assert kept(bench) == [(0, 1, 1)], "neither by a stale epoch nor by a node that does not hold it"
    bench.exchange(other, holding=[second], checkpoints=[saved(second, 2)])
    assert kept(bench) == [(0, 2, 2), (0, 1, 1)]


def test_what_a_later_attempt_saved_is_newer_whatever_its_step(bench: StoreBench) -> None:
    """It began anew or from an older one, because the higher ones could not be had."""
    node, job = bench.enrol(), bench.submit(command_spec())
    (first,) = bench.lease(node, job)
    for step in (8, 9):
        bench.exchange(node, holding=[first], checkpoints=[saved(first, step)])
    bench.exchange(node, holding=[], reports=[report(first, S.VACATED)])
    (second,) = bench.lease(node, job)
    bench.exchange(node, holding=[second], checkpoints=[saved(second, 2)])
    assert kept(bench) == [(0, 2, 2), (0, 1, 9)]
    bench.exchange(node, holding=[], reports=[report(second, S.VACATED)])
    assert points(bench.grant(node, job).resume) == [(0, 2), (0, 9)]


def test_within_an_attempt_steps_only_rise(bench: StoreBench) -> None:
    """A request that comes late or twice brings what has been overtaken."""
    node, job = bench.enrol(), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    for step, what in ((5, ""), (5, "other"), (3, "")):
        bench.exchange(node, holding=[ref], checkpoints=[saved(ref, step, what)])
    (row,) = bench.look(select(checkpoints))
    assert (row.step, row.manifest) == (5, checkpoint(5).manifest)


def test_the_end_of_an_attempt_may_come_along_with_its_last_checkpoint(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    bench.exchange(node, checkpoints=[saved(ref, 3)], reports=[report(ref, S.VACATED)])
    assert points(bench.grant(node, job).resume) == [(0, 3)]


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled running", "cancelled queued"])
def test_what_a_task_saved_and_said_goes_with_its_end_and_nothing_else_does(
    bench: StoreBench, how: str
) -> None:
    node, job, other = bench.enrol(), bench.submit(command_spec()), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    (stays,) = bench.lease(node, other)
    bench.exchange(
        node,
        holding=[ref, stays],
        checkpoints=[saved(ref, 3), saved(stays, 4)],
        progress=[note(ref, 0.5), note(stays, 0.25)],
    )
    if how == "succeeded":
        bench.exchange(node, holding=[stays], reports=[succeeded(ref)])
    elif how == "failed":
        bench.exchange(node, holding=[stays], reports=[report(ref, S.FAILED)])
    elif how == "cancelled queued":
        bench.exchange(node, holding=[stays], reports=[report(ref, S.VACATED)])
        assert len(kept(bench)) == 2
        bench.cancel(job)
    else:
        bench.exchange(node, holding=[ref, stays], reports=[report(ref, S.RUNNING)])
        bench.cancel(job)
        bench.exchange(node, holding=[stays], reports=[report(ref, S.CANCELLED)])
    assert TaskState(bench.task(job).state) in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
    assert kept(bench) == [(0, 1, 4)]
    (row,) = bench.look(select(notes))
    assert row.job_seq == bench.job(other).job_seq


def test_a_failed_attempt_with_a_retry_left_keeps_its_checkpoint(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec(retries=1))
    (ref,) = bench.lease(node, job)
    bench.exchange(node, holding=[ref], checkpoints=[saved(ref, 3)])
    bench.exchange(node, holding=[], reports=[report(ref, S.FAILED)])
    assert points(bench.grant(node, job).resume) == [(0, 3)]


def test_who_saved_and_who_went_on_is_kept(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    bench.exchange(node, holding=[ref], checkpoints=[saved(ref, 3)])
    bench.exchange(node, holding=[], reports=[report(ref, S.VACATED)])
    (second,) = bench.lease(node, job)
    why = reason("checkpoint.unfetchable", step=9, detail="x")
    resumed = Resumed(checkpoint=checkpoint(3), reason=why)
    bench.exchange(node, holding=[second], reports=[report(second, S.RUNNING, resumed=resumed)])
    stored = bench.attempt(second).resumed
    assert Resumed.model_validate_json(stored) == resumed
    job_seq = bench.job(job).job_seq
    (row,) = bench.do(lambda connection: list_checkpoints(connection, job_seq, 0))
    assert (row.epoch, row.step, row.node_id, row.size_bytes) == (1, 3, node, 2**40)


def test_the_newest_word_of_an_attempt_takes_the_place_of_older_ones(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec(tasks=3))
    refs = bench.lease(node, job, 3)
    refused = reason("task.output_link", path="x")
    bench.exchange(node, holding=refs, progress=[note(refs[0], 0.1), note(refs[1], 0.2), note(refs[0], 0.3)])
    bench.exchange(node, holding=refs, progress=[note(refs[2], 0.9, refused)])
    job_seq = bench.job(job).job_seq
    found = bench.do(lambda connection: list_notes(connection, job_seq, 0, 2))
    said = {index: Progress.model_validate_json(row.progress).done_ratio for index, row in found.items()}
    assert said == {0: 0.3, 1: 0.2, 2: 0.9}
    assert Reason.model_validate_json(found[2].refused) == refused
    assert found[0].refused is None
    assert set(bench.do(lambda connection: list_notes(connection, job_seq, 1, 1))) == {1}


def test_the_word_of_an_attempt_that_is_over_is_not_heard(bench: StoreBench) -> None:
    node, job = bench.enrol(), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    bench.exchange(node, holding=[], reports=[report(ref, S.VACATED)])
    bench.exchange(node, holding=[], progress=[note(ref, 0.5)])
    assert bench.look(select(notes)) == []


def test_a_job_that_saves_nothing_is_not_marked(bench: StoreBench) -> None:
    """Only so does it cost the tasks of all others nothing."""
    node, job = bench.enrol(), bench.submit(command_spec())
    (ref,) = bench.lease(node, job)
    bench.exchange(node, holding=[ref], reports=[report(ref, S.RUNNING)])
    assert not bench.job(job).has_saves
    bench.exchange(node, holding=[ref], progress=[note(ref, 0.5)])
    assert bench.job(job).has_saves
