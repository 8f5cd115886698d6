"""Bad input to a real scheduler: a clear error that names the field and the fix, and nothing half done."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from conftest import SchedulerProcess, unused_port
from pool_builders import UserClient, command_spec, digest_of, function_spec

from idle_accelerator.wire.model import ErrorBody
from idle_accelerator.wire.packing import pack
from idle_accelerator.wire.payload import inline_payload

PLAIN: dict[str, Any] = {"workload": {"kind": "command", "argv": ["true"]}}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserClient]:
    process = SchedulerProcess(tmp_path_factory.mktemp("pool") / "scheduler", unused_port())
    process.start()
    client = UserClient(process.url)
    yield client
    client.close()
    process.close()


def refusal(response: httpx2.Response, status: int = 422) -> ErrorBody:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return ErrorBody.model_validate_json(response.content)


def jobs(user: UserClient) -> int:
    found = user.http.get("/v1/jobs", params={"limit": 500}).json()
    assert found["next_cursor"] is None
    return len(found["jobs"])


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"retrys": 3}, "retrys", "retries"),
        ({"requirements": {"memory_bytes": -1}}, "requirements.memory_bytes", "greater than or equal to 0"),
        ({"requirements": {"cpus": -1}}, "requirements.cpus", "greater than or equal to"),
        ({"workload": {"kind": "command", "argv": []}}, "workload.argv", "at least 1 item"),
        ({"workload": {"kind": "command", "argv": [""]}}, "workload", "program"),
        ({"workload": {"kind": "command", "argv": ["a\0b"]}}, "workload.argv.0", "NUL"),
        ({"outputs": ["../../etc/*"]}, "outputs.0", "may not leave the workspace"),
        ({"outputs": ["/etc/*"]}, "outputs.0", "relative"),
        ({"tasks": 0}, "tasks", "greater than or equal to 1"),
        ({"tasks": False}, "tasks", "integer"),
        ({"inputs": [{"path": "../x", "digest": "0" * 64, "size_bytes": 0}]}, "inputs.0.path", "workspace"),
        ({"name": "two\nlines"}, "name", "newlines"),
        ({"env": {"A B": "x"}}, "env.A B", "letters"),
        ({"env": {"IDLE_JOB_ID": "x"}}, "env.IDLE_JOB_ID", "set by the agent"),
        ({"timeout_s": -1}, "timeout_s", "greater than 0"),
        ({"retries": 10**30}, "retries", "less than or equal"),
    ],
)
def test_a_bad_job_is_refused_with_field_and_fix(
    user: UserClient, change: dict[str, Any], field: str, says: str
) -> None:
    before = jobs(user)
    error = refusal(user.http.post("/v1/jobs", json={**PLAIN, **change}))
    assert error.code == "invalid_input"
    assert error.field == field
    assert says in f"{error.message} {error.hint}"
    assert jobs(user) == before


def test_an_input_that_was_not_uploaded_is_named_with_the_way_to_upload_it(user: UserClient) -> None:
    digest = digest_of(b"nowhere")
    job = {**PLAIN, "inputs": [{"path": "data.csv", "digest": digest, "size_bytes": 7}]}
    error = refusal(user.http.post("/v1/jobs", json=job))
    assert error.field == "inputs.0.digest"
    assert error.hint is not None
    assert f"PUT /v1/blobs/{digest}" in error.hint


def test_arguments_must_be_one_for_each_task(user: UserClient) -> None:
    spec = function_spec(3)
    wrong = spec.model_copy(
        update={"workload": spec.workload.model_copy(update={"arguments": inline_payload(pack([b"a"]))})}
    )
    error = refusal(user.http.post("/v1/jobs", content=wrong.model_dump_json()))
    assert error.field == "workload.arguments"
    junk = spec.workload.model_copy(update={"arguments": inline_payload(b"no pack at all")})
    error = refusal(
        user.http.post("/v1/jobs", content=spec.model_copy(update={"workload": junk}).model_dump_json())
    )
    assert error.field == "workload.arguments"


@pytest.mark.parametrize("name", ["😀 frames", "👩‍🔬", "画像\u3000一", "naïve"])
def test_names_in_any_script_come_back_as_they_were(user: UserClient, name: str) -> None:
    job_id = user.submit(command_spec("echo", name, name=name))
    assert user.job(job_id).view.name == name


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"{}" * 2, b'{"name":"\\ud800"}']
)
def test_what_is_no_job_at_all_is_refused(user: UserClient, raw: bytes) -> None:
    refusal(user.http.post("/v1/jobs", content=raw))


def test_ten_megabytes_of_json_are_refused_at_once_and_say_what_to_do(user: UserClient) -> None:
    for body in (
        b'{"name":"' + b"x" * 10_000_000 + b'"}',
        b"[" * 10_000_000,
        json.dumps({**PLAIN, "env": {f"V{number}": "x" for number in range(700_000)}}).encode(),
    ):
        assert len(body) > 9_000_000
        error = refusal(user.http.post("/v1/jobs", content=body), 413)
        assert error.field == "body"
        assert error.hint is not None
        assert "blob" in error.hint
    in_pieces = user.http.post("/v1/jobs", content=iter([b"x" * 100_000] * 100))
    refusal(in_pieces, 413)


def test_a_client_that_looks_for_an_answer_only_at_the_end_gets_it_too(user: UserClient) -> None:
    request = urllib.request.Request(
        f"{user.http.base_url}/v1/jobs".replace("//v1", "/v1"), data=b"x" * 10_000_000
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 413
    assert ErrorBody.model_validate_json(caught.value.read()).field == "body"


def test_as_many_mistakes_as_fit_in_a_body_are_still_one_short_answer(user: UserClient) -> None:
    body = ("{" + ",".join(f'"a{number}":1' for number in range(300_000)) + "}").encode()
    error = refusal(user.http.post("/v1/jobs", content=body))
    assert "more problem(s)" in error.message
    refusal(user.http.post("/v1/jobs", content=b'{"workload":' + b"[" * 1_000_000))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=false",
        "/v1/jobs?limit=99999999999999999999999",
        "/v1/jobs?cursor=x",
        "/v1/jobs?cursor=%C2%B2",
        "/v1/jobs?cursor=99999999999999999999",
        "/v1/jobs?state=DONE",
        "/v1/jobs/j%00",
        "/v1/jobs/%F0%9F%98%80",
        "/v1/jobs/..%2f..%2fetc",
        "/v1/jobs/jnone/results?after=-1",
        "/v1/jobs/jnone/results?wait_s=nan",
        "/v1/jobs/jnone/results?wait_s=1e9",
        "/v1/jobs/jnone/tasks/-1",
        "/v1/jobs/jnone/tasks/99999999999999999999",
        "/v1/jobs/jnone/tasks/0/logs?stream=stdin",
        "/v1/jobs/jnone/tasks/0/logs?offset=99999999999999999999",
        "/v1/nodes/none",
        "/v1/blobs/xyz",
        "/v1/blobs/" + "A" * 64,
        "/v1/blobs/" + "0" * 64,
        "/nothing/here",
        "/v1/../../etc/passwd",
    ],
)
def test_a_bad_address_is_an_error_of_the_one_shape_and_never_a_defect(user: UserClient, path: str) -> None:
    response = user.http.get(path)
    error = refusal(response, response.status_code)
    assert response.status_code in (404, 422)
    assert error.message
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/v1/jobs", 405),
        ("PUT", "/healthz", 405),
        ("POST", "/v1/blobs/" + "0" * 64, 405),
        ("HEAD", "/nothing", 404),
    ],
)
def test_a_wrong_method_says_which_there_are(user: UserClient, method: str, path: str, status: int) -> None:
    response = user.http.request(method, path)
    assert response.status_code == status
    if method != "HEAD":
        refusal(response, status)
    if status == 405:
        assert response.headers["allow"]


def test_a_prefix_of_several_jobs_is_refused_as_ambiguous(user: UserClient) -> None:
    user.submit(command_spec())
    user.submit(command_spec())
    error = refusal(user.http.get("/v1/jobs/j"), 409)
    assert (error.code, error.field) == ("conflict", "job")


@pytest.mark.parametrize(
    "change",
    [{"name": "a\nb"}, {"os": "plan9"}, {"python": "2.7"}, {"resources": {"cpus": -1}}, {"shoe_size": 43}],
)
def test_a_machine_with_bad_facts_is_not_enrolled(user: UserClient, change: dict[str, Any]) -> None:
    facts = {"name": "x", "os": "linux", "arch": "x86_64", "python": "3.11", "resources": {}}
    error = refusal(user.http.post("/v1/nodes", json={"facts": {**facts, **change}}))
    assert error.field is not None
    assert error.field.startswith("facts.")
    assert user.http.get("/v1/nodes").json() == {"nodes": []}


def test_an_idempotency_key_is_not_empty(user: UserClient) -> None:
    error = refusal(user.http.post("/v1/jobs", json=PLAIN, headers={"Idempotency-Key": ""}))
    assert error.field == "idempotency-key"
