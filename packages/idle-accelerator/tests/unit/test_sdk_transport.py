"""Answers of the scheduler come back as the errors it raised; what is down for a moment is tried again."""

import json
from typing import Any

import pytest
from scripted_scheduler import Reply, ScriptedScheduler, scripted

from idle_accelerator.errors import BY_CODE, IdleError, InvalidInput, NotFound, Unauthorized, Unavailable
from idle_accelerator.sdk.client import AsyncClient
from idle_accelerator.sdk.transport import is_loopback_url

scheduler = pytest.fixture(scripted)
HEALTH = Reply(body=b'{"status":"ok","version":"1"}')
GONE = "http://127.0.0.1:1"


def error_reply(cls: type[IdleError], **fields: Any) -> Reply:
    body = {"message": "a sentence.", "field": "here", "hint": "Do this.", **fields, "code": cls.code}
    return Reply(status=cls.http_status, body=json.dumps(body).encode())


@pytest.mark.parametrize("cls", [cls for cls in BY_CODE.values() if cls is not Unavailable])
async def test_an_error_answer_is_raised_as_what_it_was(
    scheduler: ScriptedScheduler, cls: type[IdleError]
) -> None:
    scheduler.answer("GET /healthz", error_reply(cls))
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(cls) as raised:
            await client.health()
    assert (raised.value.message, raised.value.field, raised.value.hint) == (
        "a sentence.",
        "here",
        "Do this.",
    )
    assert scheduler.count("GET /healthz") == 1


async def test_an_unknown_code_keeps_its_words(scheduler: ScriptedScheduler) -> None:
    scheduler.answer(
        "GET /healthz", Reply(status=418, body=b'{"code":"teapot","message":"short and stout."}')
    )
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(IdleError, match="short and stout") as raised:
            await client.health()
    assert raised.value.error_code == "teapot"


@pytest.mark.parametrize(
    "body", [b"<html>nginx</html>", b"", b"[1]", b'"text"', b"\xff\xfe", b'{"code": 3, "message": []}']
)
async def test_what_is_no_error_body_of_ours_is_still_an_error_of_ours(
    scheduler: ScriptedScheduler, body: bytes
) -> None:
    scheduler.answer("GET /healthz", Reply(status=403, body=body))
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(IdleError, match="403"):
            await client.health()


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"status":"ok"}', b'{"status":1,"version":"1"}'])
async def test_an_answer_that_is_not_a_schedulers_says_so(scheduler: ScriptedScheduler, body: bytes) -> None:
    scheduler.answer("GET /healthz", Reply(body=body))
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(IdleError) as raised:
            await client.health()
    assert raised.value.error_code == "bad_answer"
    assert "Is it an idle-accelerator scheduler" in str(raised.value)


async def test_a_scheduler_that_is_busy_for_a_moment_is_asked_again(scheduler: ScriptedScheduler) -> None:
    busy = error_reply(Unavailable)
    scheduler.answer(
        "GET /healthz", busy, Reply(status=502, body=b"bad gateway"), Reply(announced=50), HEALTH
    )
    async with AsyncClient(scheduler.url) as client:
        assert (await client.health()).version == "1"
    assert scheduler.count("GET /healthz") == 4


async def test_a_scheduler_that_stays_busy_is_given_up_with_its_own_words(
    scheduler: ScriptedScheduler,
) -> None:
    scheduler.answer("GET /healthz", error_reply(Unavailable))
    async with AsyncClient(scheduler.url, patience_s=0.3) as client:
        with pytest.raises(Unavailable, match="a sentence"):
            await client.health()
    assert scheduler.count("GET /healthz") > 1


async def test_an_unreachable_scheduler_is_named_with_the_way_to_start_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDLE_SCHEDULER", GONE)
    async with AsyncClient(patience_s=0.2) as client:
        with pytest.raises(Unavailable) as raised:
            await client.nodes()
    assert f"{GONE} (from IDLE_SCHEDULER)" in str(raised.value)
    assert "run.py up" in str(raised.value)


async def test_the_key_goes_with_every_request(scheduler: ScriptedScheduler) -> None:
    scheduler.answer("GET /healthz", HEALTH)
    async with AsyncClient(scheduler.url, "idle_secret") as client:
        await client.health()
    assert scheduler.asked[0].headers["authorization"] == "Bearer idle_secret"


async def test_a_submit_that_is_repeated_carries_the_same_key_so_that_there_is_one_job(
    scheduler: ScriptedScheduler,
) -> None:
    accepted = Reply(status=201, body=b'{"job_id":"jaaaaaaaaaaaaaaaa"}')
    scheduler.answer("POST /v1/jobs", Reply(announced=50), error_reply(Unavailable), accepted)
    async with AsyncClient(scheduler.url) as client:
        handle = await client.submit(["true"])
        await client.submit(["true"])
    keys = [asked.headers["idempotency-key"] for asked in scheduler.asked]
    assert handle.id == "j" + "a" * 16
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert scheduler.asked[0].body == scheduler.asked[2].body


async def test_no_redirect_is_followed_with_the_key(scheduler: ScriptedScheduler) -> None:
    scheduler.answer("GET /healthz", Reply(status=302, headers={"Location": f"{scheduler.url}/stolen"}))
    async with AsyncClient(scheduler.url, "idle_secret") as client:
        with pytest.raises(IdleError):
            await client.health()
    assert [asked.path for asked in scheduler.asked] == ["/healthz"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../jobs"])
async def test_a_node_name_never_becomes_another_address(scheduler: ScriptedScheduler, name: str) -> None:
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(InvalidInput) as raised:
            await client.node(name)
    assert raised.value.field == "node"
    assert scheduler.asked == []


@pytest.mark.parametrize("name", ["räum 12", "a?b#c", "50%", "a%2Fb", "😀"])
async def test_a_node_name_arrives_as_it_is(scheduler: ScriptedScheduler, name: str) -> None:
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(NotFound):
            await client.node(name)
    from urllib.parse import unquote

    assert unquote(scheduler.asked[0].path) == f"/v1/nodes/{name}"


@pytest.mark.parametrize("job", ["", "..", "j/../x", "J", "j" + "a" * 20, "j a"])
async def test_a_job_id_never_becomes_another_address(scheduler: ScriptedScheduler, job: str) -> None:
    async with AsyncClient(scheduler.url) as client:
        with pytest.raises(InvalidInput):
            await client.job(job)
    assert scheduler.asked == []


async def test_a_wrong_key_is_not_tried_again(scheduler: ScriptedScheduler) -> None:
    scheduler.answer("GET /v1/nodes", error_reply(Unauthorized))
    async with AsyncClient(scheduler.url, "wrong") as client:
        with pytest.raises(Unauthorized):
            await client.nodes()
    assert scheduler.count("GET /v1/nodes") == 1


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("http://[::1]:8000", True),
        ("http://127.9.9.9", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
    ],
)
def test_loopback_is_told_from_the_address(url: str, loopback: bool) -> None:
    assert is_loopback_url(url) is loopback
