"""The conversation between agents and a real scheduler: prompt, patient, and the same when repeated."""

import itertools
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from conftest import SchedulerProcess, unused_port
from pool_builders import (
    FakeAgent,
    UserClient,
    command_spec,
    granted,
    node_facts,
    offer,
    report,
    resources,
    succeeded,
)

from idle_accelerator.wire.exchange import ExchangeAnswer, ExchangeRequest, LogChunk
from idle_accelerator.wire.jobs import JobSpec, LogPage, Requirements
from idle_accelerator.wire.nodes import NodeView
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState, JobState

PATIENT_S = 30.0
S = AttemptState
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchedulerProcess]:
    made = SchedulerProcess(tmp_path_factory.mktemp("pool") / "scheduler", unused_port())
    made.start()
    yield made
    assert "Traceback" not in made.log(), made.log()
    made.close()


@pytest.fixture
def user(process: SchedulerProcess) -> UserClient:
    return UserClient(process.url)


@pytest.fixture
def agent(process: SchedulerProcess) -> Iterator[FakeAgent]:
    """A machine of this test's own; the jobs of ``spec`` run on no other."""
    made = FakeAgent(process.url, name=f"node-{next(_NUMBERS)}")
    yield made
    made.close()


def spec(agent: FakeAgent, **fields) -> JobSpec:
    return command_spec(requirements=Requirements(node=agent.node_id), **fields)


class Held:
    """A request that is answered later, in a thread of its own."""

    def __init__(self, agent: FakeAgent, request: ExchangeRequest) -> None:
        self.begun = time.monotonic()
        self.answer: ExchangeAnswer | None = None
        self.took_s = 0.0
        self._agent = agent
        self._thread = threading.Thread(target=self._run, args=(request,))
        self._thread.start()

    def _run(self, request: ExchangeRequest) -> None:
        response = self._agent.send(request)
        self.took_s = time.monotonic() - self.begun
        self.answer = ExchangeAnswer.model_validate_json(response.content)

    def result(self) -> ExchangeAnswer:
        self._thread.join(PATIENT_S + 10)
        assert self.answer is not None
        return self.answer

    @property
    def waiting(self) -> bool:
        return self._thread.is_alive()


def wait_until_held(user: UserClient, agent: FakeAgent, request: ExchangeRequest) -> None:
    """Until the scheduler has taken the request in (its sequence number shows in what it last heard)."""
    deadline = time.monotonic() + PATIENT_S
    wanted = [item.code for item in request.offer.reasons]
    while True:
        node = NodeView.model_validate_json(user.http.get(f"/v1/nodes/{agent.node_id}").content)
        if [item.code for item in node.reasons] == wanted and node.last_seen_at is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_waiting_agent_is_given_work_as_soon_as_there_is_some(user: UserClient, agent: FakeAgent) -> None:
    request = agent.request(wait_s=PATIENT_S)
    held = Held(agent, request)
    wait_until_held(user, agent, request)
    user.submit(spec(agent))
    assert len(granted(held.result())) == 1
    assert held.took_s < PATIENT_S / 2


def test_reports_are_answered_at_once_and_are_on_disk_then(
    user: UserClient, agent: FakeAgent, process: SchedulerProcess
) -> None:
    job_id = user.submit(spec(agent))
    agent.exchange()
    (ref,) = agent.held
    begun = time.monotonic()
    agent.exchange(reports=[succeeded(ref, b"42")], wait_s=PATIENT_S)
    assert time.monotonic() - begun < PATIENT_S / 2
    process.restart()
    (result,) = user.results(job_id).results
    assert result.result is not None
    assert (result.result.inline, result.node_name) == (b"42", agent.identity.name)


def test_reports_that_can_wait_are_on_disk_at_once_and_acknowledged_with_the_next_work(
    user: UserClient, agent: FakeAgent, process: SchedulerProcess
) -> None:
    first = user.submit(spec(agent))
    agent.exchange()
    (ref,) = agent.held
    request = agent.request(reports=[succeeded(ref, b"42")], wait_s=PATIENT_S, news_can_wait=True)
    held = Held(agent, request)
    (result,) = user.results(first, wait_s=PATIENT_S).results
    assert result.result is not None
    assert result.result.inline == b"42"
    second = user.submit(spec(agent))
    assert [leased.job_id for leased in granted(held.result())] == [second]
    assert held.took_s < PATIENT_S / 2
    process.restart()
    assert len(user.results(first).results) == 1


def test_a_newer_request_supersedes_the_held_one_at_once(user: UserClient, agent: FakeAgent) -> None:
    first = agent.request(wait_s=PATIENT_S, lends=offer("in_use", reasons=(reason("owner.paused"),)))
    held = Held(agent, first)
    wait_until_held(user, agent, first)
    agent.exchange()
    answer = held.result()
    assert (answer.grants, answer.orders) == ((), ())
    assert held.took_s < PATIENT_S / 2


def test_an_older_request_that_comes_late_is_told_so_at_once(agent: FakeAgent) -> None:
    old = agent.request(wait_s=PATIENT_S)
    agent.exchange()
    begun = time.monotonic()
    answer = ExchangeAnswer.model_validate_json(agent.send(old).content)
    assert answer.superseded
    assert answer.grants == ()
    assert time.monotonic() - begun < PATIENT_S / 2


def test_an_exchange_repeated_after_a_lost_answer_grants_the_same_leases(
    user: UserClient, agent: FakeAgent
) -> None:
    user.submit(spec(agent, tasks=3))
    lost = granted(ExchangeAnswer.model_validate_json(agent.send(agent.request()).content))
    assert len(lost) == 3
    assert sorted(granted(agent.exchange())) == sorted(lost)
    assert agent.exchange().grants == ()


def test_a_cancel_reaches_the_agent_while_it_waits(user: UserClient, agent: FakeAgent) -> None:
    job_id = user.submit(spec(agent))
    agent.exchange()
    (ref,) = agent.held
    agent.exchange(reports=[report(ref, S.RUNNING)])
    request = agent.request(wait_s=PATIENT_S, lends=offer("in_use", reasons=(reason("owner.paused"),)))
    held = Held(agent, request)
    wait_until_held(user, agent, request)
    user.http.post(f"/v1/jobs/{job_id}/cancel")
    held.result()
    assert held.took_s < PATIENT_S / 2
    (order,) = agent.exchange().orders
    assert (order.task_index, order.reason.code) == (0, "task.cancelled")
    agent.exchange(reports=[report(ref, S.VACATING)])
    agent.exchange(reports=[report(ref, S.CANCELLED)])
    assert user.job(job_id).view.state is JobState.CANCELLED


def test_a_draining_node_waits_in_peace_and_is_given_nothing(user: UserClient, agent: FakeAgent) -> None:
    user.http.post(f"/v1/nodes/{agent.node_id}/drain", json={"drain": True}).raise_for_status()
    user.submit(spec(agent))
    assert agent.exchange().drain
    request = agent.request(wait_s=PATIENT_S)
    held = Held(agent, request)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert held.waiting, "answered at once, it would ask again and again"
        time.sleep(0.02)
    user.http.post(f"/v1/nodes/{agent.node_id}/drain", json={"drain": False}).raise_for_status()
    held.result()
    assert held.took_s < PATIENT_S / 2
    assert len(granted(agent.exchange())) == 1


def test_an_agent_that_hangs_up_is_no_longer_held(
    user: UserClient, agent: FakeAgent, process: SchedulerProcess
) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{process.url}/v1/nodes/{agent.node_id}/exchange",
            content=agent.request(wait_s=PATIENT_S).model_dump_json(),
            headers={"Authorization": f"Bearer {agent.identity.token}"},
            timeout=0.3,
        )
    user.submit(spec(agent))
    assert len(granted(agent.exchange())) == 1
    assert "Traceback" not in process.log()


def test_a_job_never_waits_without_a_reason(user: UserClient, agent: FakeAgent) -> None:
    job_id = user.submit(spec(agent))
    name = agent.identity.name
    why = user.job(job_id).view.waiting[0]
    assert why.sentence == f"{name}: enrolled, but has not connected yet"
    agent.exchange(lends=offer("in_use", free=resources(), reasons=(reason("owner.returned"),)))
    why = user.job(job_id).view.waiting[0]
    assert why.sentence == f"{name}: the owner came back"
    agent.exchange(lends=offer(free=resources(cpus=0)))
    why = user.job(job_id).view.waiting[0]
    assert "are taken" in why.sentence
    agent.exchange()
    assert user.job(job_id).view.waiting == ()


def test_results_come_to_whoever_waits_for_them(user: UserClient, agent: FakeAgent) -> None:
    job_id = user.submit(spec(agent, tasks=2))
    agent.exchange()
    pages: list[int] = []

    def wait() -> None:
        after = 0
        while after < 2:
            page = user.results(job_id, after=after, wait_s=PATIENT_S)
            pages.append(len(page.results))
            after = page.next_after

    thread = threading.Thread(target=wait)
    thread.start()
    for ref in sorted(agent.held):
        agent.exchange(reports=[succeeded(ref)])
    thread.join(PATIENT_S / 2)
    assert not thread.is_alive(), "its wait was to end with the result, not with its time"
    assert sum(pages) == 2


def test_output_is_followed_while_it_is_written(user: UserClient, agent: FakeAgent) -> None:
    job_id = user.submit(spec(agent))
    agent.exchange()
    (ref,) = agent.held
    text = b"line\n" * 1000
    read: list[bytes] = []

    def follow() -> None:
        offset, page = 0, None
        while page is None or not page.finished:
            raw = user.http.get(
                f"/v1/jobs/{job_id}/tasks/0/logs", params={"offset": offset, "wait_s": PATIENT_S}
            ).content
            page = LogPage.model_validate_json(raw)
            read.append(page.data)
            offset = page.next_offset

    thread = threading.Thread(target=follow)
    thread.start()
    for start in range(0, len(text), 700):
        piece = LogChunk(
            job_id=job_id,
            task_index=0,
            epoch=1,
            stream="stdout",
            offset=start,
            data=text[start : start + 700],
        )
        agent.exchange(logs=[piece])
    agent.exchange(reports=[succeeded(ref)])
    thread.join(PATIENT_S / 2)
    assert not thread.is_alive(), "its wait was to end with the output, not with its time"
    assert b"".join(read) == text


def test_a_node_cannot_take_the_name_by_which_another_is_trusted(
    process: SchedulerProcess, user: UserClient
) -> None:
    trusted = FakeAgent(process.url, name="trusted")
    thief = FakeAgent(process.url, name="other")
    thief.exchange(facts=node_facts("trusted"))
    user.submit(command_spec(requirements=Requirements(node="trusted")))
    assert thief.exchange(facts=node_facts("trusted")).grants == ()
    assert len(granted(trusted.exchange())) == 1


def test_many_tasks_are_taken_and_reported_once_each(user: UserClient, process: SchedulerProcess) -> None:
    big = FakeAgent(process.url, name="big")
    job_id = user.submit(spec(big, tasks=600))
    done = 0
    while done < 600:
        finished = [succeeded(ref) for ref in sorted(big.held)]
        big.exchange(reports=finished, lends=offer(free=resources(cpus=200, memory_bytes=1 << 40)))
        done += len(finished)
    assert user.job(job_id).view.state is JobState.SUCCEEDED
    assert len(user.results(job_id, limit=1000).results) == 600
