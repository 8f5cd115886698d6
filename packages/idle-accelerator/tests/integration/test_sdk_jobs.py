"""The SDK against a real scheduler, with an agent that does as the test says."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SchedulerProcess
from pool_builders import FakeAgent, digest_of, offer, report, resources, succeeded

from idle_accelerator import AsyncClient, Client
from idle_accelerator.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    RemoteException,
    ResultTimeout,
    TaskCancelled,
    TaskFailed,
    Unavailable,
)
from idle_accelerator.wire.codec import encode
from idle_accelerator.wire.exchange import AttemptReport, LogChunk
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Artifact
from idle_accelerator.wire.payload import RemoteError
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

Work = Callable[[AttemptRef], AttemptReport]


class WorkingAgent:
    """Takes what it gets and reports as ``work`` says, in a thread; outlasts restarts of the scheduler."""

    def __init__(self, url: str) -> None:
        self.agent = FakeAgent(url)
        self.work: Work = lambda ref: succeeded(ref, encode(ref.task_index))
        self.logs: Callable[[AttemptRef], list[LogChunk]] = lambda ref: []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        import httpx2

        while not self._stopped.is_set():
            held = sorted(self.agent.held)
            said = [self.work(ref) for ref in held]
            logs = [chunk for ref in held for chunk in self.logs(ref)]
            try:
                self.agent.exchange(
                    reports=said, logs=logs, wait_s=0.0 if said else 0.2, lends=offer(free=resources(cpus=50))
                )
            except (httpx2.TransportError, AssertionError):  # it restarts
                time.sleep(0.05)

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(40)
        self.agent.close()


@pytest.fixture
def agent(scheduler_process: SchedulerProcess) -> Iterator[WorkingAgent]:
    working = WorkingAgent(scheduler_process.url)
    yield working
    working.stop()


@pytest.fixture
def client(scheduler_process: SchedulerProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as made:
        yield made


def chunk(ref: AttemptRef, stream: Any, offset: int, data: bytes) -> LogChunk:
    return LogChunk(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, stream=stream, offset=offset, data=data
    )


def test_a_function_gives_its_value(client: Client, agent: WorkingAgent) -> None:
    agent.work = lambda ref: succeeded(ref, encode({"answer": 42}))
    agent.start()
    handle = client.submit_function(lambda: None)
    assert handle.result(timeout=60) == {"answer": 42}
    assert handle.status.state is JobState.SUCCEEDED
    assert handle.detail().spec.workload.kind == "function"


def test_map_gives_values_in_the_order_of_the_items_whatever_the_order_of_their_ends(
    client: Client, agent: WorkingAgent
) -> None:
    waiting: list[AttemptRef] = []

    def backwards(ref: AttemptRef) -> AttemptReport:
        waiting.append(ref)
        if len({item.task_index for item in waiting}) < 40:
            return report(ref, AttemptState.RUNNING)
        return succeeded(ref, encode(ref.task_index * 10))

    agent.work = backwards
    agent.start()
    values = client.map(lambda item: item * 10, range(40))
    assert list(values) == [item * 10 for item in range(40)]
    assert values.handle.status.counts.succeeded == 40
    assert list(values) == []


def test_map_over_nothing_is_nothing(client: Client) -> None:
    empty = client.map(abs, [])
    assert list(empty) == []
    assert client.jobs().jobs == ()
    with pytest.raises(InvalidInput):
        _ = empty.handle


def test_map_raises_at_the_item_that_failed_after_those_before_it(
    client: Client, agent: WorkingAgent
) -> None:
    def third_fails(ref: AttemptRef) -> AttemptReport:
        if ref.task_index != 2:
            return succeeded(ref, encode(ref.task_index))
        error = RemoteError(type_name="ZeroDivisionError", text="by zero", traceback_text="  here")
        why = reason("task.exception", type_name="ZeroDivisionError")
        return report(ref, AttemptState.FAILED, reason=why, error=error)

    agent.work = third_fails
    agent.start()
    values = client.map(abs, range(5))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(RemoteException, match="by zero") as raised:
        next(values)
    assert raised.value.task_index == 2
    assert "here" in str(raised.value)
    handle = values.handle
    handle.wait(timeout=60)
    with pytest.raises(RemoteException):
        handle.results(timeout=60)
    assert any("ZeroDivisionError" in sentence for sentence in handle.explain())
    opened = [handle.value(item) for item in handle.as_finished() if item.state is TaskState.SUCCEEDED]
    assert sorted(opened) == [0, 1, 3, 4]


def test_large_arguments_and_code_go_as_blobs(
    client: Client, agent: WorkingAgent, scheduler_process: Any
) -> None:
    agent.start()
    large = b"x" * 300_000
    handle = client.submit_function(lambda: large, large)
    assert handle.result(timeout=60) == 0
    workload = handle.detail().spec.workload
    assert workload.kind == "function"
    assert (workload.code.inline, workload.arguments.inline) == (None, None)
    assert workload.arguments.blob is not None
    assert large in client.read_blob(workload.arguments.blob, 10_000_000)


def test_a_command_gives_its_output_and_exit_code(client: Client, agent: WorkingAgent) -> None:
    agent.logs = lambda ref: [chunk(ref, "stdout", 0, b"42\n"), chunk(ref, "stderr", 0, b"warned\n")]
    agent.work = lambda ref: report(ref, AttemptState.SUCCEEDED, exit_code=0)
    agent.start()
    result = client.submit(["python3", "-c", "print(6*7)"]).result(timeout=60)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"42\n", b"warned\n")


def test_a_command_that_fails_raises_with_its_reason(client: Client, agent: WorkingAgent) -> None:
    agent.work = lambda ref: report(
        ref, AttemptState.FAILED, exit_code=3, reason=reason("task.exit_code", exit_code=3)
    )
    agent.start()
    handle = client.submit(["false"])
    with pytest.raises(TaskFailed, match="exited with status 3"):
        handle.result(timeout=60)


def test_an_array_has_results_by_index_and_no_single_one(client: Client, agent: WorkingAgent) -> None:
    agent.logs = lambda ref: [chunk(ref, "stdout", 0, b"%d" % ref.task_index)]
    agent.work = lambda ref: report(ref, AttemptState.SUCCEEDED, exit_code=0)
    agent.start()
    handle = client.submit(["x"], array=5)
    assert [item.stdout for item in handle.results(timeout=60)] == [b"0", b"1", b"2", b"3", b"4"]
    with pytest.raises(InvalidInput, match="5 tasks"):
        handle.result()
    page = handle.tasks(limit=3)
    assert [item.index for item in page.tasks] == [0, 1, 2]
    assert [item.index for item in handle.tasks(cursor=page.next_cursor).tasks] == [3, 4]
    assert handle.task(4).attempts[0].node_name == "alpha"


def test_a_timeout_ends_the_wait_says_why_and_leaves_the_job(client: Client) -> None:
    handle = client.submit(["true"])
    with pytest.raises(ResultTimeout, match="no node has joined"):
        handle.result(timeout=0.2)
    assert handle.status.state is JobState.QUEUED
    assert any("no node" in sentence for sentence in handle.explain())


def test_cancelling_ends_a_wait_in_another_thread(client: Client) -> None:
    handle = client.submit(["true"], array=3)
    canceller = threading.Timer(0.2, handle.cancel)
    canceller.start()
    assert handle.wait(timeout=60).state is JobState.CANCELLED
    with pytest.raises(TaskCancelled):
        handle.results(timeout=60)
    canceller.join()


def test_jobs_are_found_by_a_unique_prefix(client: Client) -> None:
    first, second = client.submit(["a"]), client.submit(["b"])
    shared = next(place for place in range(17) if first.id[place] != second.id[place])
    assert client.job(first.id[: shared + 1]).id == first.id
    with pytest.raises(Conflict):
        client.job("j")
    with pytest.raises(NotFound):
        client.job("jaaaa")
    assert [view.job_id for view in client.jobs().jobs] == [second.id, first.id]
    page = client.jobs(limit=1, state="QUEUED")
    assert [view.job_id for view in client.jobs(limit=1, cursor=page.next_cursor).jobs] == [first.id]


def test_a_found_command_job_gives_command_results(client: Client, agent: WorkingAgent) -> None:
    agent.work = lambda ref: report(ref, AttemptState.SUCCEEDED, exit_code=0)
    agent.start()
    submitted = client.submit(["x"])
    assert client.job(submitted.id).result(timeout=60).exit_code == 0


def test_nodes_can_be_seen_drained_and_removed(client: Client, agent: WorkingAgent) -> None:
    name = client.nodes()[0].facts.name
    assert client.drain(name).node_id == client.node(name).node_id
    agent.agent.exchange()
    assert client.node(name).lending == "draining"
    assert client.drain(name, drain=False).lending != "draining"
    client.remove_node(name)
    assert client.nodes() == ()


def test_logs_are_followed_to_their_end_across_attempts(client: Client, agent: WorkingAgent) -> None:
    pieces = {1: [b"one ", b"two "], 2: [b"three"]}

    def run(ref: AttemptRef) -> AttemptReport:
        if ref.epoch == 1:
            return report(ref, AttemptState.FAILED, reason=reason("task.exit_code", exit_code=1))
        return report(ref, AttemptState.SUCCEEDED, exit_code=0)

    def logs(ref: AttemptRef) -> list[LogChunk]:
        found, offset = [], 0
        for data in pieces[ref.epoch]:
            found.append(chunk(ref, "stdout", offset, data))
            offset += len(data)
        return found

    agent.work, agent.logs = run, logs
    handle = client.submit(["x"], retries=1)
    heard: list[bytes] = []
    listener = threading.Thread(target=lambda: heard.extend(handle.follow_logs()))
    listener.start()
    agent.start()
    listener.join(60)
    assert not listener.is_alive()
    assert b"".join(heard) == b"one two three"
    assert handle.logs(epoch=1) == b"one two "
    assert handle.logs() == b"three"
    assert handle.logs(stream="stderr") == b""
    with pytest.raises(NotFound):
        handle.logs(epoch=9)
    with pytest.raises(NotFound):
        handle.logs(task=7)


def test_outputs_are_downloaded_into_folders_by_index(
    client: Client, agent: WorkingAgent, tmp_path: Path
) -> None:
    (tmp_path / "made").write_bytes(b"picture")
    digest = client.upload(tmp_path / "made")
    made = Artifact(path="out/a.png", digest=digest, size_bytes=7)
    agent.work = lambda ref: report(ref, AttemptState.SUCCEEDED, exit_code=0, artifacts=(made,))
    agent.start()
    handle = client.submit(["x"], array=2, outputs=["out/*.png"])
    handle.wait(timeout=60)
    to = tmp_path / "to"
    assert handle.download(to) == [to / "0" / "out" / "a.png", to / "1" / "out" / "a.png"]
    assert (to / "1" / "out" / "a.png").read_bytes() == b"picture"
    assert handle.download(tmp_path / "one", task=1) == [tmp_path / "one" / "1" / "out" / "a.png"]
    single = client.submit(["x"], outputs=["out/*.png"])
    single.wait(timeout=60)
    assert single.download(str(tmp_path / "single")) == [tmp_path / "single" / "out" / "a.png"]


def test_an_input_file_goes_up_once_however_often_it_is_used(
    client: Client, scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"same content")
    (tmp_path / "b").write_bytes(b"same content")
    (tmp_path / "c").write_bytes(b"other")
    told: list[tuple[int, int]] = []
    paths = [tmp_path / name for name in "abc"]
    handle = client.submit(["x"], inputs=paths, progress=lambda done, total: told.append((done, total)))
    client.submit(["x"], inputs=paths)
    digests = {item.path: item.digest for item in handle.detail().spec.inputs}
    assert digests == {
        "a": digest_of(b"same content"),
        "b": digest_of(b"same content"),
        "c": digest_of(b"other"),
    }
    assert told[-1] == (17, 17)
    assert client.read_blob(digests["c"], 100) == b"other"


def test_nothing_is_sent_when_anything_is_wrong(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(InvalidInput) as refused:
        client.submit(["x"], inputs=[tmp_path / "a"], outputs=["../x"])
    assert refused.value.field == "outputs[0]"
    with pytest.raises(NotFound):
        client.read_blob(digest_of(b"content"), 100)
    assert client.jobs().jobs == ()


async def test_the_async_client_and_the_blocking_one_work_in_a_running_loop(
    scheduler_process: SchedulerProcess, agent: WorkingAgent
) -> None:
    agent.start()
    async with AsyncClient(scheduler_process.url) as client:
        values = await client.map(abs, range(10))
        handles = await asyncio.gather(*(client.submit_function(abs, 1) for _ in range(5)))
        assert [value async for value in values] == list(range(10))
        assert [await handle.result(timeout=60) for handle in handles] == [0] * 5
    with Client(scheduler_process.url) as blocking:
        assert list(blocking.map(abs, range(3))) == [0, 1, 2]


def test_a_wait_outlasts_a_scheduler_that_is_killed_and_started_again(
    client: Client, agent: WorkingAgent, scheduler_process: SchedulerProcess
) -> None:
    allowed = threading.Event()
    agent.work = lambda ref: (
        succeeded(ref, encode(ref.task_index))
        if ref.task_index < 5 or allowed.is_set()
        else report(ref, AttemptState.RUNNING)
    )
    agent.start()
    values = client.map(abs, range(20))
    single = client.submit_function(abs, 1)
    waited: list[Any] = []
    waiter = threading.Thread(target=lambda: waited.append(single.wait(timeout=120).state))
    waiter.start()
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    scheduler_process.kill9()
    with pytest.raises(ResultTimeout):
        single.wait(timeout=0.3)
    scheduler_process.start()
    allowed.set()
    assert list(values) == list(range(5, 20))
    waiter.join(120)
    assert waited == [JobState.SUCCEEDED]


def test_a_wait_for_a_job_that_is_gone_ends_with_an_error(
    scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    with Client(scheduler_process.url) as client:
        handle = client.submit(["true"])
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                handle.wait()
            except NotFound as error:
                raised.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        scheduler_process.kill9()
        scheduler_process.data_dir.rename(tmp_path / "lost")
        scheduler_process.start()
        waiter.join(120)
        assert not waiter.is_alive()
        assert len(raised) == 1


def test_a_wait_for_a_scheduler_that_does_not_come_back_ends_too(scheduler_process: SchedulerProcess) -> None:
    with Client(scheduler_process.url, patience_s=0.02) as client:
        handle = client.submit(["true"])
        scheduler_process.kill9()
        with pytest.raises(Unavailable, match="does not answer"):
            handle.result()
        with pytest.raises(Unavailable):
            client.submit(["true"])


def test_five_thousand_results_cost_the_client_little(client: Client, agent: WorkingAgent) -> None:
    agent.start()
    values = client.map(abs, range(5000))
    values.handle.wait(timeout=120)
    began = time.process_time()
    assert list(values) == list(range(5000))
    assert (
        time.process_time() - began < 2.5
    )  # as aimed at it is 0.1 s; this bound only catches what is out of hand
