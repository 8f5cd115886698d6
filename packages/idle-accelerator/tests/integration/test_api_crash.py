"""A scheduler that is killed, stopped or started twice loses nothing that it has answered for."""

import contextlib
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest
from conftest import SchedulerProcess
from pool_builders import FakeAgent, UserClient, command_spec, offer, report, succeeded
from store_bench import StoreBench

from idle_accelerator.errors import Conflict, InvalidInput
from idle_accelerator.scheduler.listener import listen
from idle_accelerator.scheduler.state import SWEEP_S
from idle_accelerator.scheduler.store.engines import writer_engine
from idle_accelerator.wire.states import AttemptState, JobState

PATIENT_S = 60.0


def work(
    agent: FakeAgent, until: threading.Event, done: Counter[tuple[int, int]], failures: list[Exception]
) -> None:
    """Takes and finishes tasks until told to end; a scheduler that is away is asked again."""
    to_report: list = []
    while not until.is_set():
        try:
            answer = agent.exchange(reports=to_report, wait_s=0.5 if not to_report else 0.0)
        except httpx2.TransportError:
            time.sleep(0.02)
            continue
        except Exception as error:
            failures.append(error)
            return
        for order in answer.orders:
            agent.held = {
                ref for ref in agent.held if ref[:3] != (order.job_id, order.task_index, order.epoch)
            }
        to_report = [succeeded(ref, f"{agent.node_id}.{ref.epoch}".encode()) for ref in sorted(agent.held)]
        done.update((ref.task_index, ref.epoch) for ref in agent.held)


def test_killed_in_mid_run_every_task_has_exactly_one_accepted_result(
    scheduler_process: SchedulerProcess,
) -> None:
    user = UserClient(scheduler_process.url)
    agents = [FakeAgent(scheduler_process.url, name=name) for name in ("alpha", "beta")]
    job_id = user.submit(command_spec(tasks=400))
    ended, done, failures = threading.Event(), Counter(), []
    threads = [threading.Thread(target=work, args=(agent, ended, done, failures)) for agent in agents]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + PATIENT_S
        for share in (60, 250):
            while user.job(job_id).view.counts.succeeded < share:
                assert time.monotonic() < deadline
                assert not failures, failures
            scheduler_process.restart()
        while user.job(job_id).view.state is not JobState.SUCCEEDED:
            assert time.monotonic() < deadline, user.job(job_id)
            assert not failures, failures
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    seen: Counter[int] = Counter()
    after = 0
    while page := user.results(job_id, after=after, limit=150).results:
        seen.update(item.index for item in page)
        after += len(page)
    assert seen == Counter(range(400))
    assert user.results(job_id, limit=1).results[0].reason is not None
    scheduler_process.kill9()
    bench = StoreBench(writer_engine(scheduler_process.data_dir / "scheduler.sqlite3"))
    bench.do(lambda _connection: None)
    bench.close()


def test_what_was_accepted_is_there_after_a_kill(scheduler_process: SchedulerProcess) -> None:
    user = UserClient(scheduler_process.url)
    for number in range(2):
        job_id = user.submit(command_spec(tasks=3, name=f"job {number}"), idempotency_key=f"key {number}")
        scheduler_process.restart()
        assert user.job(job_id).view.counts.queued == 3
        assert (
            user.submit(command_spec(tasks=3, name=f"job {number}"), idempotency_key=f"key {number}")
            == job_id
        )


def test_a_lease_survives_the_schedulers_restart(scheduler_process: SchedulerProcess) -> None:
    user, agent = UserClient(scheduler_process.url), FakeAgent(scheduler_process.url)
    job_id = user.submit(command_spec())
    agent.exchange()
    (ref,) = agent.held
    agent.exchange(reports=[report(ref, AttemptState.RUNNING)])
    scheduler_process.restart()
    answer = agent.exchange(reports=[succeeded(ref)])
    assert answer.orders == ()
    task = user.task(job_id, 0)
    assert (task.task.state, task.task.epoch) == ("SUCCEEDED", 1)


def test_a_long_outage_of_the_scheduler_is_not_the_agents_fault(scheduler_process: SchedulerProcess) -> None:
    user, agent = UserClient(scheduler_process.url), FakeAgent(scheduler_process.url)
    job_id = user.submit(command_spec())
    agent.exchange()
    (ref,) = agent.held
    agent.exchange(reports=[report(ref, AttemptState.RUNNING)])
    scheduler_process.kill9()
    with contextlib.closing(sqlite3.connect(scheduler_process.data_dir / "scheduler.sqlite3")) as connection:
        connection.execute("UPDATE attempts SET lease_expires_at = 1")  # as if it had been away for years
        connection.commit()
    scheduler_process.start()
    deadline = time.monotonic() + 2.5 * SWEEP_S
    while time.monotonic() < deadline:
        assert user.task(job_id, 0).task.attempt_state is AttemptState.RUNNING
        time.sleep(0.05)
    agent.exchange(reports=[succeeded(ref)])
    assert user.task(job_id, 0).task.epoch == 1


def test_a_stop_answers_everybody_who_waits_and_exits_cleanly(scheduler_process: SchedulerProcess) -> None:
    user, agent = UserClient(scheduler_process.url), FakeAgent(scheduler_process.url)
    job_id = user.submit(command_spec(tasks=2))
    agent.exchange()
    answers: list[tuple[str, int]] = []

    def ask(name: str, call: Callable[[], httpx2.Response]) -> None:
        answers.append((name, call().status_code))

    idle = agent.request(wait_s=30, lends=offer("in_use"))
    calls: dict[str, Callable[[], httpx2.Response]] = {
        "exchange": lambda: agent.send(idle),
        "results": lambda: httpx2.get(
            f"{scheduler_process.url}/v1/jobs/{job_id}/results?wait_s=30", timeout=40
        ),
        "logs": lambda: httpx2.get(
            f"{scheduler_process.url}/v1/jobs/{job_id}/tasks/0/logs?wait_s=30", timeout=40
        ),
    }
    threads = [threading.Thread(target=ask, args=item) for item in calls.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENT_S
    while connections(scheduler_process) < 4 or lending(user) != "in_use":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begun = time.monotonic()
    assert scheduler_process.stop() == 0
    took_s = time.monotonic() - begun
    for thread in threads:
        thread.join(PATIENT_S)
    assert sorted(answers) == [("exchange", 200), ("logs", 200), ("results", 200)]
    assert took_s < 10, "nobody waited for a poll to end"
    assert "Traceback" not in scheduler_process.log()


def connections(process: SchedulerProcess) -> int:
    found = psutil.Process(process.pid).net_connections("tcp")
    return sum(1 for item in found if item.status == psutil.CONN_ESTABLISHED)


def lending(user: UserClient) -> str:
    return user.http.get("/v1/nodes").json()["nodes"][0]["lending"]


def test_a_second_scheduler_on_the_same_directory_is_refused_and_harms_nothing(
    scheduler_process: SchedulerProcess, start_scheduler: Callable[..., SchedulerProcess]
) -> None:
    user = UserClient(scheduler_process.url)
    job_id = user.submit(command_spec())
    with pytest.raises(AssertionError, match="another scheduler has the data directory") as caught:
        start_scheduler(scheduler_process.data_dir)
    assert "--data-dir" in str(caught.value)
    assert user.job(job_id).view.counts.queued == 1
    user.submit(command_spec())


def test_a_taken_port_names_the_option(tmp_path: Path, scheduler_process: SchedulerProcess) -> None:
    with pytest.raises(Conflict) as caught:
        listen("127.0.0.1", scheduler_process.port)
    assert caught.value.field == "--port"
    second = SchedulerProcess(tmp_path / "other", scheduler_process.port)
    second.start()  # the first one answers in its place
    assert second._process is not None
    assert second._process.wait(PATIENT_S) != 0
    assert "--port" in second.log()
    assert not (tmp_path / "other" / "scheduler.sqlite3").exists(), "nothing half done"


@pytest.mark.parametrize(
    ("host", "port", "field"),
    [("203.0.113.1", 0, "--host"), ("no.such.host.invalid", 0, "--host"), ("127.0.0.1", 70_000, "--port")],
)
def test_an_address_that_cannot_be_listened_on_names_the_option(host: str, port: int, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        listen(host, port)
    assert caught.value.field == field


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_what_the_store_holds_is_the_owners_alone(scheduler_process: SchedulerProcess) -> None:
    assert scheduler_process.data_dir.stat().st_mode & 0o077 == 0
    with sqlite3.connect(scheduler_process.data_dir / "scheduler.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_free_port_is_found_for_zero() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] != 0
