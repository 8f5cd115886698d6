"""Beyond loopback nobody gets in without a key, and a node's token opens only what a node needs."""

from collections.abc import Callable

import httpx2
import pytest
from conftest import SchedulerProcess
from pool_builders import FakeAgent, command_spec, digest_of, node_facts

from idle_accelerator.wire.model import ErrorBody
from idle_accelerator.wire.nodes import Enrolment

JOB = command_spec().model_dump_json()
FACTS = Enrolment(facts=node_facts("thief")).model_dump_json()
USER_ONLY: list[tuple[str, str, str | None]] = [
    ("GET", "/v1/jobs", None),
    ("POST", "/v1/jobs", JOB),
    ("GET", "/v1/jobs/j", None),
    ("POST", "/v1/jobs/j/cancel", None),
    ("GET", "/v1/jobs/j/results", None),
    ("GET", "/v1/jobs/j/tasks", None),
    ("GET", "/v1/jobs/j/tasks/0", None),
    ("GET", "/v1/jobs/j/tasks/0/logs", None),
    ("GET", "/v1/nodes", None),
    ("POST", "/v1/nodes", FACTS),
    ("GET", "/v1/nodes/alpha", None),
    ("POST", "/v1/nodes/alpha/drain", '{"drain":true}'),
    ("DELETE", "/v1/nodes/alpha", None),
]


@pytest.fixture
def guarded(start_scheduler: Callable[..., SchedulerProcess]) -> SchedulerProcess:
    return start_scheduler(host="0.0.0.0")


def status(process: SchedulerProcess, method: str, path: str, body: str | None, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = httpx2.request(method, process.url + path, content=body, headers=headers)
    if response.status_code >= 400:
        assert ErrorBody.model_validate_json(response.content).message
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    return response.status_code


def test_every_door_is_shut_without_the_key_and_open_with_it(guarded: SchedulerProcess) -> None:
    agent = FakeAgent(guarded.url, key=guarded.key)
    for method, path, body in USER_ONLY[:-1]:
        for token in (None, "idle_wrong", agent.identity.token):
            assert status(guarded, method, path, body, token) == 401, (method, path, token)
        assert status(guarded, method, path, body, guarded.key) in (200, 201, 404, 409), (method, path)
    assert status(guarded, "DELETE", "/v1/nodes/alpha", None, None) == 401
    blob = f"/v1/blobs/{digest_of(b'x')}"
    for token in (None, "idle_wrong"):
        assert status(guarded, "PUT", blob, "x", token) == 401
        assert status(guarded, "GET", blob, None, token) == 401
    for token in (guarded.key, agent.identity.token):
        assert status(guarded, "PUT", blob, "x", token) in (200, 201)
        assert status(guarded, "GET", blob, None, token) == 200
    assert status(guarded, "GET", "/healthz", None, None) == 200
    assert status(guarded, "GET", "/readyz", None, None) == 200


def test_a_node_speaks_for_itself_only(guarded: SchedulerProcess) -> None:
    one, two = (FakeAgent(guarded.url, key=guarded.key, name=name) for name in ("one", "two"))
    body = two.request().model_dump_json()
    address = f"/v1/nodes/{two.node_id}/exchange"
    assert status(guarded, "POST", address, body, one.identity.token) == 403
    assert status(guarded, "POST", address, body, guarded.key) == 401, "the user's key is no node's token"
    assert status(guarded, "POST", address, body, None) == 401
    assert status(guarded, "POST", address, body, two.identity.token) == 200


def test_a_removed_nodes_token_is_worth_nothing(guarded: SchedulerProcess) -> None:
    agent = FakeAgent(guarded.url, key=guarded.key)
    assert status(guarded, "DELETE", f"/v1/nodes/{agent.node_id}", None, guarded.key) == 204
    assert agent.send(agent.request()).status_code == 401
    assert status(guarded, "PUT", f"/v1/blobs/{digest_of(b'y')}", "y", agent.identity.token) == 401


def test_the_key_outlives_the_scheduler_and_is_never_shown(guarded: SchedulerProcess) -> None:
    key = guarded.key
    guarded.restart()
    assert guarded.key == key
    assert status(guarded, "GET", "/v1/jobs", None, key) == 200
    assert key not in guarded.log()
    assert httpx2.get(guarded.url + "/openapi.json").text.count(key) == 0


def test_a_web_page_cannot_reach_a_loopback_scheduler(scheduler_process: SchedulerProcess) -> None:
    foreign = [
        ({"Host": "evil.example"}, "Host"),
        ({"Host": "127.0.0.1.evil.example:8000"}, "Host"),
        ({"Origin": "https://evil.example"}, "Origin"),
        ({"Origin": "null"}, "Origin"),
    ]
    for headers, field in foreign:
        for method, path in (
            ("GET", "/v1/jobs"),
            ("POST", "/v1/jobs"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
        ):
            response = httpx2.request(method, scheduler_process.url + path, content=JOB, headers=headers)
            assert response.status_code == 403
            assert ErrorBody.model_validate_json(response.content).field == field
    assert httpx2.get(f"{scheduler_process.url}/v1/jobs").json()["jobs"] == []


def test_names_that_the_owner_allows_reach_it(start_scheduler: Callable[..., SchedulerProcess]) -> None:
    process = start_scheduler(allowed_hosts=("pool.lan",))
    allowed = {"Host": "pool.lan:8000", "Origin": "http://pool.lan:8501"}
    assert httpx2.get(f"{process.url}/v1/jobs", headers=allowed).status_code == 200
