"""The OpenAPI document is complete, and the API keeps to it."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from conftest import SchedulerProcess, unused_port
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from pool_builders import FakeAgent, UserClient, command_spec, digest_of, succeeded
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from idle_accelerator.scheduler.app import SchedulerConfig, create_app
from idle_accelerator.wire.model import ErrorBody

METHODS = {"get", "put", "post", "delete", "head", "patch"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app = create_app(SchedulerConfig(data_dir=tmp_path_factory.mktemp("document")))
    return json.loads(json.dumps(app.openapi()))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield f"{method.upper()} {path}", item[method]


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].removeprefix("#/components/schemas/")
    return document["components"]["schemas"][name]


def test_every_reference_has_its_target(document: dict[str, Any]) -> None:
    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                resolve(document, part)
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(document)


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("description"), name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (name, status)
        if "/v1/" in name:
            assert {"401", "403"} <= set(operation["responses"]), name
            assert operation["security"], name


def test_every_body_is_described_with_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bodies = [answer.get("content", {}) for answer in operation["responses"].values()]
        bodies.append(operation.get("requestBody", {}).get("content", {}))
        for body in bodies:
            schema = body.get("application/json", {}).get("schema")
            if schema is not None:
                assert resolve(document, schema)["examples"], (name, schema)


def test_every_field_of_ours_is_in_the_document(document: dict[str, Any]) -> None:
    assert set(document["components"]["schemas"]["ErrorBody"]["properties"]) == set(ErrorBody.model_fields)
    assert document["components"]["schemas"]["JobSpec"]["additionalProperties"] is False


class Pool:
    """A real scheduler with something in it, and its schema."""

    def __init__(self, folder: Path) -> None:
        self.process = SchedulerProcess(folder / "scheduler", unused_port())
        self.process.start()
        self.user = UserClient(self.process.url)
        agent = FakeAgent(self.process.url)
        self.job_id = self.user.submit(command_spec(tasks=3))
        agent.exchange()
        agent.exchange(reports=[succeeded(min(agent.held))])
        self.user.http.put(f"/v1/blobs/{digest_of(b'x')}", content=b"x")
        self.node_id = agent.node_id
        self.token = agent.identity.token


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(tmp_path_factory.mktemp("schemathesis"))
    yield made
    assert "Traceback" not in made.process.log(), made.process.log()
    made.process.close()


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = settings(
    max_examples=int(os.environ.get("IDLE_SCHEMATHESIS_EXAMPLES", "20")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_api_keeps_to_its_document_whatever_it_is_sent(pool: Pool) -> None:
    schema = schemathesis.openapi.from_url(f"{pool.process.url}/openapi.json")
    tried = 0
    problems: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            try:
                fuzz(pool, operation.as_strategy(generation_mode=mode))
            except Unsatisfiable:  # what takes nothing cannot be sent anything wrong
                assert mode is GenerationMode.NEGATIVE, operation.label
            except FailureGroup as error:
                problems += [
                    f"{operation.label}, {mode.value}: {str(item)[:1000]}" for item in error.exceptions
                ]
        tried += 1
    assert tried > 15
    assert not problems, "\n\n".join(problems)


def fuzz(pool: Pool, cases: Any) -> None:
    @EXAMPLES
    @given(cases)
    def run(case: schemathesis.Case) -> None:
        parameters = case.path_parameters or {}
        if "job" in parameters and len(str(parameters["job"])) % 2:
            parameters["job"] = pool.job_id
        if "node" in parameters:
            parameters["node"] = pool.node_id if case.method.upper() != "DELETE" else "nobody"
        for place in (case.query, case.body):
            if isinstance(place, dict) and isinstance(place.get("wait_s"), int | float):
                place["wait_s"] = 0
        token = {"Authorization": f"Bearer {pool.token}"} if case.path.endswith("/exchange") else {}
        response = case.call(headers=token)
        too_large = response.status_code == 413  # is a refusal too, which the check on bad data does not know
        checks = [check for check in CHECKS if not (too_large and check is negative_data_rejection)]
        case.validate_response(response, checks=checks)

    run()


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_page_needs_nobody_elsewhere(
    scheduler_process: SchedulerProcess, page: str
) -> None:
    with httpx2.Client(base_url=scheduler_process.url) as http:
        text = http.get(page).text
        assert re.findall(r"""(?:src|href)=["'](https?:)?//""", text) == []
        needed = re.findall(r"""(?:src|href)=["'](/[^"']+)["']""", text)
        assert needed
        assert [http.get(path).status_code for path in needed] == [200] * len(needed)
