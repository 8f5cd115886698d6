"""Whether a node is heard of: by its last word, by its open request, and by the end of one that waited."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pool_builders import NODE_ID, node_facts, offer

from idle_accelerator.scheduler.api.standing import standing
from idle_accelerator.scheduler.auth import Gate
from idle_accelerator.scheduler.state import QUIET_AFTER_S, SchedulerConfig, SchedulerState


@pytest.fixture
def state(tmp_path: Path) -> SchedulerState:
    return SchedulerState(config=SchedulerConfig(data_dir=tmp_path), gate=Gate(key_hash=None))


def row(last_seen_at: float, **said: object) -> SimpleNamespace:
    return SimpleNamespace(
        node_id=NODE_ID,
        facts=node_facts().model_dump_json(),
        offer=offer(**said).model_dump_json(),  # type: ignore[arg-type]
        offered_at=last_seen_at,
        last_seen_at=last_seen_at,
        draining=False,
    )


def test_a_node_that_has_been_silent_for_long_is_offline(state: SchedulerState) -> None:
    now = state.clock.now()
    assert standing(row(now - 1), state).offer.lending == "available"
    assert standing(row(now - QUIET_AFTER_S - 1), state).offer.lending == "offline"


def test_a_node_whose_wait_has_just_ended_is_not_silent(state: SchedulerState) -> None:
    now = state.clock.now()
    state.heard_until[NODE_ID] = now - 1
    assert standing(row(now - 30), state).offer.lending == "available"
    state.heard_until[NODE_ID] = now - QUIET_AFTER_S - 1
    assert standing(row(now - 30), state).offer.lending == "offline"
