"""``idle_accelerator.task`` in functions: those with a process of their own save and move, calls that share one do neither."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from agent_process import AgentProcess
from conftest import SchedulerProcess

from idle_accelerator import Client
from idle_accelerator.errors import RemoteException

cloudpickle.register_pickle_by_value(sys.modules[__name__])
LIMIT_S = 120.0


@pytest.fixture
def client(scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]) -> Iterator[Client]:
    start_agent(scheduler_process.url, "--policy", "server", "--lend-for", "1h", "--cpus", "1")
    with Client(scheduler_process.url) as client:
        yield client


def count_to(goal: int) -> dict[str, Any]:
    """One step in each attempt."""
    from idle_accelerator import task

    saved = task.resume_from()
    seen = int((saved / "seen").read_text()) if saved else 0
    if seen + 1 < goal:
        task.progress(seen / goal)
        task.commit(seen + 1, {"seen": str(seen + 1).encode()})
        task.leave()
    return {"seen": seen + 1, "attempt": task.attempt()}


def save_and_look(text: str) -> list[Any]:
    from idle_accelerator import task

    saved = task.resume_from()
    task.commit(1, {"text": text.encode()})
    own = task.resume_from()
    return [
        task.index(),
        task.count(),
        task.should_stop(),
        saved is None,
        own is not None and (own / "text").read_text(),
    ]


def leave() -> None:
    from idle_accelerator import task

    task.leave()


def test_a_function_with_a_process_of_its_own_saves_leaves_and_goes_on(client: Client) -> None:
    job = client.submit_function(count_to, 3, options={"outputs": ["nothing"]})
    assert job.result(timeout=LIMIT_S) == {"seen": 3, "attempt": 3}
    assert [item.resumed.step if item.resumed else None for item in job.task(0).attempts] == [None, 1, 2]


def test_a_call_that_shares_its_process_finds_nothing_of_another_call(client: Client) -> None:
    found = list(client.map(save_and_look, ["a", "b", "c"]))
    assert found == [[number, 3, False, True, text] for number, text in enumerate("abc")]


def test_a_call_that_shares_its_process_cannot_leave(client: Client) -> None:
    job = client.submit_function(leave)
    with pytest.raises(RemoteException, match="SystemExit: 85"):
        job.result(timeout=LIMIT_S)
