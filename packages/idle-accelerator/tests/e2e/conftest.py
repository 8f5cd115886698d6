"""Real agents beside the real schedulers of the folder above."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents: ``start_agent(url, *options)``; each has a data directory of its own, and they are gone at the end."""
    started: list[AgentProcess] = []

    def start(url: str, *options: str) -> AgentProcess:
        agent = AgentProcess(url, tmp_path / f"agent{len(started)}", *options, state_dir=tmp_path / "state")
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        agent.close()
