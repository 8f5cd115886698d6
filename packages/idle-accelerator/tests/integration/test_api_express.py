"""The short way and the long one give the same answers: nobody can tell which a request took."""

from collections.abc import Iterator

import httpx2
import pytest
from conftest import SchedulerProcess, unused_port
from pool_builders import FakeAgent, UserClient, command_spec

from idle_accelerator.scheduler.api.express import Express

KEY_TOO_LONG = "k" * 65
UNKNOWN = {"of_no_meaning": "1"}
"""A parameter that the short way does not know, and the long one passes over."""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchedulerProcess]:
    made = SchedulerProcess(tmp_path_factory.mktemp("pool") / "scheduler", unused_port())
    made.start()
    yield made
    assert "Traceback" not in made.log(), made.log()
    made.close()


@pytest.fixture(scope="module")
def user(process: SchedulerProcess) -> UserClient:
    return UserClient(process.url)


@pytest.fixture(scope="module")
def job_id(process: SchedulerProcess, user: UserClient) -> str:
    """A job of three tasks that have succeeded."""
    made = user.submit(command_spec(tasks=3))
    agent = FakeAgent(process.url)
    while agent.finish_all(wait_s=1.0) == 0:
        pass
    agent.close()
    return made


def said(response: httpx2.Response) -> tuple[int, str | None, object]:
    return response.status_code, response.headers.get("content-type"), response.json()


@pytest.mark.parametrize(
    "query",
    [{}, {"after": "1"}, {"limit": "2"}, {"wait_s": "0.5"}, {"after": "3", "wait_s": "5", "limit": "9"}],
)
def test_results_are_the_same_both_ways(user: UserClient, job_id: str, query: dict[str, str]) -> None:
    path = f"/v1/jobs/{job_id}/results"
    short, long = user.http.get(path, params=query), user.http.get(path, params={**query, **UNKNOWN})
    assert short.status_code == 200
    assert said(short) == said(long)


def test_a_prefix_of_an_id_serves_and_an_unknown_job_is_refused_both_ways(
    user: UserClient, job_id: str
) -> None:
    for name, status in ((job_id[:-2], 200), ("jzzzz", 404)):
        short = user.http.get(f"/v1/jobs/{name}/results")
        assert short.status_code == status
        assert said(short) == said(user.http.get(f"/v1/jobs/{name}/results", params=UNKNOWN))


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "2001"},
        {"wait_s": "31"},
        {"wait_s": "nan"},
        {"after": "-1"},
        {"after": ""},
        {"limit": "x"},
    ],
)
def test_a_query_that_is_wrong_is_refused_with_its_field(
    user: UserClient, job_id: str, query: dict[str, str]
) -> None:
    refused = user.http.get(f"/v1/jobs/{job_id}/results", params=query)
    assert refused.status_code == 422
    assert refused.json()["field"] == next(iter(query))


@pytest.mark.parametrize("key", ["", KEY_TOO_LONG])
def test_an_idempotency_key_of_the_wrong_length_is_refused(user: UserClient, key: str) -> None:
    refused = user.http.post(
        "/v1/jobs", content=command_spec().model_dump_json(), headers={"Idempotency-Key": key}
    )
    assert refused.status_code == 422
    assert refused.json()["field"] == "idempotency-key"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers"),
    [
        ("GET", "/v1/jobs", b"", []),
        ("POST", "/v1/jobs/", b"", []),
        ("POST", "/v1/jobs", b"", [(b"idempotency-key", KEY_TOO_LONG.encode())]),
        ("GET", "/v1/nodes/n/exchange", b"", []),
        ("POST", "/v1/nodes/n/m/exchange", b"", []),
        ("HEAD", "/v1/jobs/j/results", b"", []),
        ("GET", "/v1/jobs/j/results", b"after=+1", []),
        ("GET", "/v1/jobs/j/results", "limit=\u0663".encode(), []),
        ("GET", "/v1/jobs/j/results", b"wait_s=inf", []),
        ("GET", "/v1/jobs/j/results", b"after=99999999999", []),
    ],
)
async def test_what_is_not_plainly_well_formed_takes_the_long_way(
    method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    passed_on: list[str] = []

    async def long_way(scope, _receive, _send) -> None:
        passed_on.append(scope["path"])

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
    express = Express(long_way, state=None)  # type: ignore[arg-type]  # nothing of it may be touched
    await express(scope, None, None)  # type: ignore[arg-type]
    assert passed_on == [path]
