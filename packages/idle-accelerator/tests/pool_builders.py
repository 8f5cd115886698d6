"""Ready-made records and a scripted agent for tests; every argument that a test does not care about has a plain value."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import httpx2

from idle_accelerator.wire.exchange import (
    AttemptReport,
    ExchangeAnswer,
    ExchangeRequest,
    HeldAttempts,
    LogChunk,
)
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import (
    Command,
    Function,
    JobAccepted,
    JobDetail,
    JobSpec,
    Requirements,
    ResultPage,
    TaskDetail,
    TaskPage,
    Usage,
)
from idle_accelerator.wire.nodes import Enrolled, Enrolment, Lending, NodeFacts, Offer, WarmJob
from idle_accelerator.wire.packing import pack
from idle_accelerator.wire.payload import inline_payload
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, AttemptState

GIB = 1024**3
JOB_ID = "j" + "a" * 16
NODE_ID = "n" + "a" * 16


def command_spec(*argv: str, **fields: Any) -> JobSpec:
    """A job of one command; ``fields`` are those of JobSpec."""
    return JobSpec(workload=Command(argv=argv or ("true",)), **fields)


def function_spec(tasks: int = 1, **fields: Any) -> JobSpec:
    """A function job whose code nobody opens: good for schedulers, not for agents."""
    return JobSpec(
        workload=Function(
            name="f",
            code=inline_payload(b"code"),
            arguments=inline_payload(pack([b"a"] * min(tasks, 1000))),
            python="3.11",
        ),
        tasks=tasks,
        **fields,
    )


def resources(
    cpus: float = 4.0, memory_bytes: int = 8 * GIB, disk_bytes: int = 100 * GIB, gpus: int = 0
) -> Resources:
    return Resources(cpus=cpus, memory_bytes=memory_bytes, disk_bytes=disk_bytes, gpus=gpus)


def node_facts(name: str = "alpha", **fields: Any) -> NodeFacts:
    plain: dict[str, Any] = {"os": "linux", "arch": "x86_64", "python": "3.11", "resources": resources()}
    return NodeFacts(name=name, **{**plain, **fields})


def offer(lending: Lending = "available", free: Resources | None = None, **fields: Any) -> Offer:
    return Offer(lending=lending, free=resources() if free is None else free, **fields)


def requirements(**fields: Any) -> Requirements:
    return Requirements(**fields)


def report(ref: AttemptRef, state: AttemptState, **fields: Any) -> AttemptReport:
    """What an agent says of an attempt; ends get a reason, as real agents give one."""
    plain: dict[str, Any] = {}
    if state not in LIVE_ATTEMPT_STATES:
        plain = {"reason": _end_reason(state), "usage": Usage(wall_s=0.01)}
    return AttemptReport(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, state=state, **{**plain, **fields}
    )


def succeeded(ref: AttemptRef, result: bytes = b"1", **fields: Any) -> AttemptReport:
    plain: dict[str, Any] = {"exit_code": 0, "encoding": "data", "result": inline_payload(result)}
    return report(ref, AttemptState.SUCCEEDED, **{**plain, **fields})


def holdings(refs: Iterable[AttemptRef]) -> tuple[HeldAttempts, ...]:
    ordered = sorted(refs)
    return tuple(
        HeldAttempts(job_id=job_id, attempts=tuple((ref.task_index, ref.epoch) for ref in group))
        for job_id, group in itertools.groupby(ordered, key=lambda ref: ref.job_id)
    )


def granted(answer: ExchangeAnswer) -> list[AttemptRef]:
    return [AttemptRef(grant.job_id, *pair) for grant in answer.grants for pair in grant.attempts]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _end_reason(state: AttemptState) -> Reason:
    if state is AttemptState.SUCCEEDED:
        return reason("task.done")
    if state is AttemptState.FAILED:
        return reason("task.exit_code", exit_code=1)
    return reason("owner.returned")


class FakeAgent:
    """Speaks the exchange protocol as a test tells it to, over HTTP. Keeps what it holds; starts nothing."""

    def __init__(
        self, url: str, *, name: str = "alpha", key: str | None = None, facts: NodeFacts | None = None
    ) -> None:
        self.client = httpx2.Client(base_url=url, timeout=40)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = Enrolment(facts=facts or node_facts(name)).model_dump_json()
        response = self.client.post("/v1/nodes", content=body, headers=headers)
        assert response.status_code == 201, response.text
        self.identity = Enrolled.model_validate_json(response.content)
        self.incarnation = "first"
        self.seq = 0
        self.held: set[AttemptRef] = set()
        self.known_jobs: set[str] = set()

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    def request(
        self,
        *,
        reports: Sequence[AttemptReport] = (),
        logs: Sequence[LogChunk] = (),
        wait_s: float = 0.0,
        lends: Offer | None = None,
        facts: NodeFacts | None = None,
        warm: Sequence[WarmJob] = (),
        news_can_wait: bool = False,
    ) -> ExchangeRequest:
        """The next request, with all that the agent holds now."""
        self.seq += 1
        return ExchangeRequest(
            incarnation=self.incarnation,
            seq=self.seq,
            wait_s=wait_s,
            news_can_wait=news_can_wait,
            facts=facts,
            offer=lends or offer(warm=tuple(warm)),
            holding=holdings(self.held),
            known_jobs=tuple(sorted(self.known_jobs)),
            reports=tuple(reports),
            logs=tuple(logs),
        )

    def send(self, request: ExchangeRequest) -> httpx2.Response:
        return self.client.post(
            f"/v1/nodes/{self.node_id}/exchange",
            content=request.model_dump_json(),
            headers={"Authorization": f"Bearer {self.identity.token}"},
        )

    def exchange(self, **said: Any) -> ExchangeAnswer:
        """Sends the next request and takes in the answer: grants are held from now on, what ended is let go."""
        request = self.request(**said)
        response = self.send(request)
        assert response.status_code == 200, response.text
        answer = ExchangeAnswer.model_validate_json(response.content)
        self.held -= {
            AttemptRef(item.job_id, item.task_index, item.epoch)
            for item in request.reports
            if item.state not in LIVE_ATTEMPT_STATES
        }
        self.held |= set(granted(answer))
        self.known_jobs |= {grant.job_id for grant in answer.grants}
        return answer

    def finish_all(self, *, wait_s: float = 0.0) -> int:
        """Takes and finishes work until there is none; returns how many tasks."""
        done = 0
        while True:
            finished = [succeeded(ref) for ref in sorted(self.held)]
            done += len(finished)
            if not self.exchange(reports=finished, wait_s=wait_s).grants and not self.held:
                return done

    def close(self) -> None:
        self.client.close()


class UserClient:
    """The user's side of the API, thin enough to see every status."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx2.Client(base_url=url, timeout=40, headers=headers)

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> str:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = self.http.post("/v1/jobs", content=spec.model_dump_json(), headers=headers)
        assert response.status_code == 201, response.text
        return JobAccepted.model_validate_json(response.content).job_id

    def job(self, job_id: str) -> JobDetail:
        return JobDetail.model_validate_json(self._got(f"/v1/jobs/{job_id}"))

    def tasks(self, job_id: str, **params: Any) -> TaskPage:
        return TaskPage.model_validate_json(self._got(f"/v1/jobs/{job_id}/tasks", **params))

    def task(self, job_id: str, index: int) -> TaskDetail:
        return TaskDetail.model_validate_json(self._got(f"/v1/jobs/{job_id}/tasks/{index}"))

    def results(self, job_id: str, **params: Any) -> ResultPage:
        return ResultPage.model_validate_json(self._got(f"/v1/jobs/{job_id}/results", **params))

    def _got(self, path: str, **params: Any) -> bytes:
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.content

    def close(self) -> None:
        self.http.close()
