"""What the outbox says of itself: whether a request that tells the rest may wait for more work."""

from pathlib import Path

import pytest
from pool_builders import succeeded

from idle_accelerator.agent.journal import Journal
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.ids import AttemptRef

ONE, OTHER = AttemptRef("jaaaaaaaaaaaaaaaa", 0, 1), AttemptRef("jaaaaaaaaaaaaaaaa", 1, 1)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.open()
    return Outbox(journal)


def test_a_batch_tells_all_when_it_ends_everything_in_hand(outbox: Outbox) -> None:
    outbox.hold(ONE)
    outbox.hold(OTHER)
    outbox.finish(succeeded(ONE))
    assert not outbox.all_ended
    assert not outbox.tells_all(outbox.take())
    outbox.finish(succeeded(OTHER))
    assert outbox.all_ended
    assert outbox.tells_all(outbox.take())


def test_a_batch_does_not_tell_all_while_output_is_left(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idle_accelerator.agent.outbox.LOG_CHUNKS_AT_ONCE", 1)
    outbox.hold(ONE)
    chunks = [
        LogChunk(job_id=ONE.job_id, task_index=0, epoch=1, stream="stdout", offset=offset, data=b"x")
        for offset in range(2)
    ]
    outbox.finish(succeeded(ONE), chunks)
    batch = outbox.take()
    assert not outbox.tells_all(batch)
    outbox.acknowledge(batch)
    assert outbox.news.is_set()
    assert outbox.tells_all(outbox.take())


def test_what_came_after_the_batch_was_taken_is_not_in_it(outbox: Outbox) -> None:
    outbox.hold(ONE)
    outbox.finish(succeeded(ONE))
    batch = outbox.take()
    outbox.hold(OTHER)
    assert not outbox.tells_all(batch)
