"""What an agent said or started is known after it was killed."""

from pathlib import Path

from pool_builders import JOB_ID, report, succeeded

from idle_accelerator.agent.journal import CLEAR_OVER_BYTES, EndedAttempt, Journal
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.agent.output import cut
from idle_accelerator.agent.sandbox import GuestRecord
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.states import AttemptState

REF = AttemptRef(JOB_ID, 0, 1)


def opened(path: Path) -> Journal:
    journal = Journal(path)
    journal.open()
    return journal


def ended(ref: AttemptRef = REF) -> EndedAttempt:
    return EndedAttempt(report=succeeded(ref), logs=tuple(cut(ref, "stdout", 5, b"bye\xff")))


def test_an_end_survives_a_killed_agent_until_it_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = opened(path)
    first.ended(ended())
    first.flush()  # and never closed: the agent is killed here
    second = opened(path)
    assert second.unacknowledged == (ended(),)
    second.acknowledged([REF])
    second.flush()
    assert opened(path).unacknowledged == ()


def test_guests_that_may_still_run_are_known_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = opened(path)
    stays = GuestRecord(pid=123, started="77", brand="b")
    goes = GuestRecord(pid=124, started="78", brand="c")
    first.guest_started(stays)
    first.guest_started(goes)
    first.guest_gone(goes)
    first.flush()
    assert opened(path).leftover_guests == (stays,)


def test_a_line_cut_short_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = opened(path)
    first.ended(ended())
    first.flush()
    with path.open("ab") as file:
        file.write(b'{"end": {"job_id": "j')
    second = opened(path)
    assert second.unacknowledged == (ended(),)
    later = ended(AttemptRef(JOB_ID, 1, 1))
    second.ended(later)
    second.flush()
    assert opened(path).unacknowledged == (ended(), later)


def test_the_file_does_not_grow_with_what_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = opened(path)
    for index in range(2000):
        ref = AttemptRef(JOB_ID, index, 1)
        journal.ended(ended(ref))
        journal.flush()
        journal.acknowledged([ref])
        journal.flush()
    assert path.stat().st_size <= 2 * CLEAR_OVER_BYTES


def test_an_end_is_held_and_said_until_an_answer_has_come(tmp_path: Path) -> None:
    outbox = Outbox(opened(tmp_path / "journal.jsonl"))
    assert outbox.hold(REF)
    assert not outbox.hold(REF), "a lease granted again is the same lease"
    outbox.finish(succeeded(REF))
    lost = outbox.take()
    assert lost.reports
    assert outbox.holding()[0].attempts == ((0, 1),)
    again = outbox.take()
    assert again.reports == lost.reports
    outbox.acknowledge(again)
    assert outbox.holding() == ()
    assert outbox.take().reports == ()


def test_the_end_of_a_task_is_never_told_before_its_output(tmp_path: Path) -> None:
    outbox = Outbox(opened(tmp_path / "journal.jsonl"))
    outbox.hold(REF)
    for number in range(6):
        for chunk in cut(REF, "stdout" if number % 2 else "stderr", number * 100, b"x" * 100):
            outbox.log(chunk)
    outbox.finish(succeeded(REF))
    batch = outbox.take()
    assert len(batch.logs) == 6
    assert len(batch.reports) == 1


def test_output_that_was_on_its_way_survives_with_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    outbox = Outbox(opened(path))
    outbox.hold(REF)
    for chunk in cut(REF, "stdout", 0, b"first "):
        outbox.log(chunk)
    outbox.finish(succeeded(REF), cut(REF, "stdout", 6, b"last"))
    outbox.take()  # written to the journal; the agent is killed before the answer comes
    second = Outbox(opened(path))
    second.recover(opened(path).unacknowledged)
    assert [chunk.data for chunk in second.take().logs] == [b"first ", b"last"]


def test_only_the_newest_state_is_told(tmp_path: Path) -> None:
    outbox = Outbox(opened(tmp_path / "journal.jsonl"))
    outbox.hold(REF)
    outbox.state(report(REF, AttemptState.STAGING))
    outbox.state(report(REF, AttemptState.RUNNING))
    batch = outbox.take()
    assert [item.state for item in batch.reports] == [AttemptState.RUNNING]
    outbox.state(report(REF, AttemptState.SUSPENDED))
    outbox.acknowledge(batch)
    assert [item.state for item in outbox.take().reports] == [AttemptState.SUSPENDED]


def test_output_that_outruns_the_line_loses_its_oldest_bytes(tmp_path: Path) -> None:
    outbox = Outbox(opened(tmp_path / "journal.jsonl"))
    outbox.hold(REF)
    block = b"x" * 100_000
    for number in range(50):
        for chunk in cut(REF, "stdout", number * len(block), block):
            outbox.log(chunk)
    logs = outbox.take().logs
    assert sum(len(chunk.data) for chunk in logs) <= 1024 * 1024
    assert logs[-1].offset == 49 * len(block)
