"""Plain data is opened from any node, a pickle only from a trusted one; what failed is raised as what it was."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from pool_builders import JOB_ID, NODE_ID, digest_of, node_facts, resources
from scripted_scheduler import Asked, Reply, ScriptedScheduler, scripted

from idle_accelerator.errors import (
    IdleError,
    InvalidInput,
    RemoteException,
    ResultTimeout,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    Untrusted,
)
from idle_accelerator.sdk.client import AsyncClient
from idle_accelerator.sdk.results import ResultReader
from idle_accelerator.sdk.session import open_session
from idle_accelerator.settings import Connection
from idle_accelerator.wire.codec import encode
from idle_accelerator.wire.jobs import ResultPage, TaskCounts, TaskResult
from idle_accelerator.wire.nodes import NodeView
from idle_accelerator.wire.payload import Payload, RemoteError, inline_payload
from idle_accelerator.wire.reasons import reason, view
from idle_accelerator.wire.states import JobState, TaskState

scheduler = pytest.fixture(scripted)
ran: list[str] = []


class Bomb:
    """Pickles to a call of ``blow_up``."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return blow_up, ()


def blow_up() -> str:
    ran.append("code of the node ran here")
    return "opened"


def finished(**fields: Any) -> TaskResult:
    plain: dict[str, Any] = {
        "index": 0,
        "state": TaskState.SUCCEEDED,
        "epoch": 1,
        "node_id": NODE_ID,
        "node_name": "alpha",
    }
    return TaskResult(**{**plain, **fields})


def pickled() -> TaskResult:
    return finished(encoding="pickle", result=inline_payload(pickle.dumps(Bomb())))


def serve(scheduler: ScriptedScheduler, *results: TaskResult, state: JobState = JobState.SUCCEEDED) -> None:
    """A function job whose tasks have ended with these results."""
    total = len(results)
    counts = TaskCounts(total=total, queued=0, active=0, succeeded=total, failed=0, cancelled=0)

    def page(asked: Asked) -> Reply:
        after = int(asked.params["after"])
        left = results[after:]
        found = ResultPage(results=left, next_after=max(after, total), job_state=state, counts=counts)
        return Reply(body=found.model_dump_json().encode())

    scheduler.answer("POST /v1/jobs", Reply(status=201, body=b'{"job_id":"%s"}' % JOB_ID.encode()))
    scheduler.routes[f"GET /v1/jobs/{JOB_ID}/results"] = page


def serve_node(scheduler: ScriptedScheduler, *, loopback: bool) -> None:
    from datetime import UTC, datetime

    node = NodeView(
        node_id=NODE_ID,
        facts=node_facts("alpha"),
        lending="available",
        free=resources(),
        reasons=(),
        running=0,
        enrolled_at=datetime.now(UTC),
        last_seen_at=None,
        loopback=loopback,
    )
    scheduler.answer(f"GET /v1/nodes/{NODE_ID}", Reply(body=node.model_dump_json().encode()))


async def result_of(scheduler: ScriptedScheduler, trust: tuple[str, ...] = ()) -> Any:
    ran.clear()
    async with AsyncClient(scheduler.url, trust=trust) as client:
        handle = await client.submit_function(len, "x")
        return await handle.result(timeout=20)


async def test_a_pickle_from_a_strange_node_is_not_opened_and_the_error_says_how_to_allow_it(
    scheduler: ScriptedScheduler,
) -> None:
    serve(scheduler, pickled())
    serve_node(scheduler, loopback=False)
    with pytest.raises(Untrusted) as refused:
        await result_of(scheduler)
    assert "trust=['alpha']" in str(refused.value)
    assert "results='data'" in str(refused.value)
    assert ran == []


@pytest.mark.parametrize("word", ["alpha", NODE_ID])
async def test_a_pickle_from_a_node_trusted_by_name_or_id_is_opened(
    scheduler: ScriptedScheduler, word: str
) -> None:
    serve(scheduler, pickled())
    serve_node(scheduler, loopback=False)
    assert await result_of(scheduler, trust=(word,)) == "opened"
    assert scheduler.count(f"GET /v1/nodes/{NODE_ID}") == 0


@pytest.mark.parametrize("word", ["alph", "alpha-2", "ALPHA", "*", ""])
async def test_trust_is_by_the_whole_name(scheduler: ScriptedScheduler, word: str) -> None:
    serve(scheduler, pickled())
    serve_node(scheduler, loopback=False)
    with pytest.raises(Untrusted):
        await result_of(scheduler, trust=(word,))
    assert ran == []


async def test_a_pickle_from_this_very_machine_is_opened(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, pickled())
    serve_node(scheduler, loopback=True)
    assert await result_of(scheduler) == "opened"


async def test_a_node_that_is_gone_is_a_strange_node(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, pickled())
    with pytest.raises(Untrusted):
        await result_of(scheduler)
    assert ran == []


async def test_what_a_remote_scheduler_says_of_loopback_counts_for_nothing() -> None:
    remote = Connection(url="http://pool.example:8000", key=None, origin="--scheduler")
    session = open_session(remote, trust=(), patience_s=0.1)
    reader: ResultReader = session.reader
    ran.clear()
    with pytest.raises(Untrusted):
        await reader.value(JOB_ID, pickled(), {})
    assert ran == []


async def test_a_result_without_a_node_is_not_trusted_by_a_none(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, pickled().model_copy(update={"node_id": None, "node_name": None}))
    with pytest.raises(Untrusted):
        await result_of(scheduler, trust=("",))
    assert ran == []


async def test_plain_data_is_opened_from_any_node(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, finished(encoding="data", result=inline_payload(encode({"a": [1, 2]}))))
    assert await result_of(scheduler) == {"a": [1, 2]}


async def test_a_pickle_that_claims_to_be_data_is_damaged_data(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, pickled().model_copy(update={"encoding": "data"}))
    with pytest.raises(InvalidInput) as refused:
        await result_of(scheduler)
    assert refused.value.field == "result of task 0"
    assert ran == []


async def test_a_pickle_that_cannot_be_opened_says_what_is_missing(scheduler: ScriptedScheduler) -> None:
    serve(scheduler, finished(encoding="pickle", result=inline_payload(b"cno_such_module\nx\n.")))
    with pytest.raises(IdleError, match="no_such_module"):
        await result_of(scheduler, trust=("alpha",))


async def test_an_exception_comes_back_with_its_traceback_as_text(scheduler: ScriptedScheduler) -> None:
    error = RemoteError(type_name="ValueError", text="no such luck", traceback_text="Traceback …\n  line 3")
    why = view(reason("task.exception", type_name="ValueError"))
    serve(scheduler, finished(state=TaskState.FAILED, error=error, reason=why), state=JobState.FAILED)
    with pytest.raises(RemoteException) as raised:
        await result_of(scheduler)
    assert (raised.value.type_name, raised.value.text) == ("ValueError", "no such luck")
    assert "line 3" in str(raised.value)
    assert (raised.value.job_id, raised.value.task_index) == (JOB_ID, 0)


async def test_other_ends_are_raised_with_the_reasons_sentence(scheduler: ScriptedScheduler) -> None:
    why = view(reason("task.host_died", exit_code=139, detail="ended with exit status 139"))
    serve(scheduler, finished(state=TaskState.FAILED, reason=why), state=JobState.FAILED)
    with pytest.raises(TaskFailed, match="exit status 139"):
        await result_of(scheduler)
    serve(scheduler, finished(state=TaskState.CANCELLED), state=JobState.CANCELLED)
    with pytest.raises(TaskCancelled):
        await result_of(scheduler)


async def test_a_large_result_is_fetched_and_verified(scheduler: ScriptedScheduler) -> None:
    content = encode(b"x" * 3_000_000)
    digest = digest_of(content)
    serve(scheduler, finished(encoding="data", result=Payload(blob=digest, size_bytes=len(content))))
    scheduler.answer(f"GET /v1/blobs/{digest}", Reply(body=content))
    assert await result_of(scheduler) == b"x" * 3_000_000
    scheduler.answer(f"GET /v1/blobs/{digest}", Reply(body=content[:-1] + b"y"))
    with pytest.raises(Unavailable, match="damaged"):
        await result_of(scheduler)


async def test_a_wait_that_ends_says_what_the_job_waits_for(
    scheduler: ScriptedScheduler, tmp_path: Path
) -> None:
    counts = TaskCounts(total=1, queued=1, active=0, succeeded=0, failed=0, cancelled=0)
    page = ResultPage(results=(), next_after=0, job_state=JobState.QUEUED, counts=counts)
    serve(scheduler)
    scheduler.answer(f"GET /v1/jobs/{JOB_ID}/results", Reply(body=page.model_dump_json().encode()))
    async with AsyncClient(scheduler.url) as client:
        handle = await client.submit_function(len, "x")
        with pytest.raises(ResultTimeout) as raised:
            await handle.result(timeout=0)
        with pytest.raises(TimeoutError):
            await handle.wait(timeout=0)
        with pytest.raises(InvalidInput):
            await handle.wait(timeout=-1)
    assert JOB_ID in str(raised.value)
