"""Functions through the whole loop: SDK, scheduler, agent, warm process, and back as data."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess

from idle_accelerator import Client
from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.agent.slots import LINGER_S
from idle_accelerator.errors import RemoteException, TaskCancelled, TaskFailed, Unavailable, Untrusted
from idle_accelerator.wire.states import JobState

WAIT_S = 60.0


@pytest.fixture
def agent(scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]) -> AgentProcess:
    return start_agent(scheduler_process.url)


@pytest.fixture
def client(scheduler_process: SchedulerProcess, agent: AgentProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as opened:
        yield opened


def test_a_thousand_calls_come_back_in_order_and_each_ran_once(client: Client) -> None:
    def square(value: int) -> int:
        return value * value

    assert list(client.map(square, range(1000))) == [value * value for value in range(1000)]


def test_an_exception_reaches_the_caller_with_its_remote_traceback(client: Client) -> None:
    def fail(value: int) -> None:
        raise ValueError(f"no {value}")

    with pytest.raises(RemoteException, match="no 3") as caught:
        client.submit_function(fail, 3).result(timeout=WAIT_S)
    assert caught.value.type_name == "ValueError"
    assert "in fail" in caught.value.traceback_text


def test_a_crash_in_native_code_costs_its_own_task_only(client: Client) -> None:
    def maybe_crash(value: int) -> int:
        if value == 3:
            os.abort()
        return value

    job = client.map(maybe_crash, range(20)).handle
    assert job is not None
    job.wait(timeout=WAIT_S)
    states = {item.index: item.state.value for item in job.as_finished(timeout=WAIT_S)}
    assert states.pop(3) == "FAILED"
    assert set(states.values()) == {"SUCCEEDED"}
    assert len(states) == 19


def test_what_a_function_prints_is_kept_with_its_own_task(client: Client) -> None:
    def speak(value: int) -> int:
        print(f"hello from {value}")
        print(f"trouble in {value}", file=sys.stderr)
        return value

    job = client.map(speak, range(5)).handle
    assert job is not None
    job.wait(timeout=WAIT_S)
    assert [job.logs(task=index) for index in range(5)] == [
        f"hello from {index}\n".encode() for index in range(5)
    ]
    assert job.logs(task=4, stream="stderr") == b"trouble in 4\n"


def test_processes_are_fresh_for_each_job_and_warm_within_it(client: Client) -> None:
    def count_calls() -> tuple[int, int]:
        import builtins

        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return os.getpid(), builtins.calls  # type: ignore[attr-defined]

    def call(_: int) -> tuple[int, int]:
        return count_calls()

    first = list(client.map(call, range(50)))
    second = list(client.map(call, range(50)))
    assert max(calls for _, calls in first) > 1, "calls of one job share a process"
    assert min(calls for _, calls in second) == 1, "another job begins anew"
    assert not {pid for pid, _ in first} & {pid for pid, _ in second}


def test_a_large_result_and_large_arguments_go_by_blob(client: Client) -> None:
    def doubled(block: bytes) -> bytes:
        return block * 2

    block = os.urandom(3_000_000)
    assert client.submit_function(doubled, block).result(timeout=WAIT_S) == block * 2


def test_a_pickled_result_is_opened_only_from_a_trusted_node(
    scheduler_process: SchedulerProcess, client: Client
) -> None:
    class Thing:
        value = 7

    def make() -> Thing:
        return Thing()

    own = client.submit_function(make, options={"results": "pickle"}).result(timeout=WAIT_S)
    assert own.value == 7, "a node on this machine is the submitter's own"
    with pytest.raises(TaskFailed, match="plain data"):
        client.submit_function(make).result(timeout=WAIT_S)
    assert Untrusted("x").error_code == "untrusted"


def test_a_function_with_files_gets_them_and_gives_some_back(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "numbers.txt"
    source.write_text("1\n2\n39\n", encoding="utf-8")

    def add_up() -> int:
        total = sum(map(int, Path("numbers.txt").read_text(encoding="utf-8").split()))
        Path("out").mkdir()
        Path("out/total.txt").write_text(str(total), encoding="utf-8")
        return total

    job = client.submit_function(add_up, options={"inputs": [str(source)], "outputs": ["out/*.txt"]})
    assert job.result(timeout=WAIT_S) == 42
    (fetched,) = job.download(tmp_path / "fetched")
    assert fetched.read_text(encoding="utf-8") == "42"


def test_a_timeout_stops_one_call_and_the_rest_go_on(client: Client) -> None:
    def nap(value: int) -> int:
        time.sleep(600 if value == 2 else 0)
        return value

    job = client.map(nap, range(6), options={"timeout": 1.0}).handle
    assert job is not None
    job.wait(timeout=WAIT_S)
    ends = {item.index: item for item in job.as_finished(timeout=WAIT_S)}
    assert ends[2].reason is not None
    assert ends[2].reason.code == "task.timeout"
    assert [index for index, item in ends.items() if item.state.value == "SUCCEEDED"].__len__() == 5


def has_running(agent: AgentProcess) -> bool:
    status = control.read_status(agent.data_dir)
    return status is not None and status.running > 0


def test_cancel_ends_running_calls_and_those_that_wait(client: Client, agent: AgentProcess) -> None:
    def nap(_: int) -> None:
        time.sleep(600)

    job = client.map(nap, range(50)).handle
    assert job is not None
    until(lambda: has_running(agent), what="some run")
    job.cancel()
    job.wait(timeout=WAIT_S)
    assert job.status.state is JobState.CANCELLED
    with pytest.raises(TaskCancelled):
        job.results(timeout=WAIT_S)


def test_pause_gives_back_what_has_not_begun(
    client: Client,
    agent: AgentProcess,
    start_agent: Callable[..., AgentProcess],
    scheduler_process: SchedulerProcess,
) -> None:
    def slow(value: int) -> int:
        time.sleep(0.2)
        return value

    result = client.map(slow, range(40))
    job = result.handle
    assert job is not None
    until(lambda: job.status.counts.succeeded >= 4, what="some are done")
    control.wait_applied(
        agent.data_dir, control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None)), WAIT_S
    )
    start_agent(scheduler_process.url)
    until(lambda: job.status.counts.succeeded >= 36, what="another machine does the rest")
    control.give_word(agent.data_dir, OwnerWord(kind="lend", for_s=600))
    assert list(result) == list(range(40))


def test_an_unreachable_scheduler_is_said_with_what_to_do() -> None:
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(Unavailable) as caught:
        nobody.submit(["true"])
    assert "127.0.0.1:9" in str(caught.value)
    assert "run.py up" in str(caught.value)


def test_the_process_of_a_job_that_is_over_is_gone_before_it_would_be_for_want_of_work(
    client: Client,
) -> None:
    """Warm processes are kept for ``LINGER_S`` in case more comes; for a job all of whose tasks have succeeded, nothing can."""
    ended: list[float] = []
    for _ in range(3):
        pid = client.submit_function(os.getpid).result(timeout=WAIT_S)
        began_s = time.monotonic()
        until(lambda pid=pid: not psutil.pid_exists(pid), what="the process ends")
        ended.append(time.monotonic() - began_s)
    assert min(ended) < LINGER_S
