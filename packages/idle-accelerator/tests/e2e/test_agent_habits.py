"""A node learns what its machine's days are like while it does its work."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess

from idle_sense.history import read_habits


@pytest.mark.skipif(sys.platform != "linux", reason="the test leads its state folder away by XDG_STATE_HOME")
def test_an_agent_feeds_its_machines_history_over_restarts(
    scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    path = tmp_path / "state" / "idle-sense" / "history-server.json"
    agent = start_agent(scheduler_process.url)
    assert agent.stop() == 0
    first_s = read_habits(path).watched_s
    assert first_s > 0
    agent.start()
    assert agent.stop() == 0
    until(
        lambda: read_habits(path).watched_s > first_s,
        what="the second run adds to what the first has learned",
    )
