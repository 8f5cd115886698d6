"""Jobs: submit, list, look, cancel, and the results of their tasks."""

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import Connection

from idle_accelerator.core.explain import why_waiting
from idle_accelerator.errors import InvalidInput
from idle_accelerator.scheduler.api.access import State, User
from idle_accelerator.scheduler.api.bodies import JOB_BODY_LIMIT_BYTES, answer, body_of, errors, read_body
from idle_accelerator.scheduler.api.standing import standings
from idle_accelerator.scheduler.signals import called
from idle_accelerator.scheduler.state import SchedulerState
from idle_accelerator.scheduler.store import jobs as stored
from idle_accelerator.scheduler.store.rows import counts, job_view, task_result
from idle_accelerator.scheduler.store.waiting import load_requirements
from idle_accelerator.wire import packing
from idle_accelerator.wire.ids import from_random
from idle_accelerator.wire.jobs import JobAccepted, JobDetail, JobPage, JobSpec, JobView, ResultPage
from idle_accelerator.wire.reasons import ReasonView, view
from idle_accelerator.wire.states import TERMINAL_JOB_STATES, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[User])
_EXAMPLE = {"workload": {"kind": "command", "argv": ["python3", "-c", "print(6*7)"]}, "tasks": 1}
RESULTS_LIMIT = 2000
_RESULT_BYTES = 16 * 1024 * 1024
MAX_WAIT_S = 30.0
IDEMPOTENCY_KEY_LENGTH = 64


@router.post(
    "",
    status_code=201,
    response_model=JobAccepted,
    responses=errors(409, 413, 422, 503, 507),
    openapi_extra=body_of(JobSpec, _EXAMPLE),
)
async def submit(
    request: Request,
    state: State,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=IDEMPOTENCY_KEY_LENGTH,
            description="A repeated submit with it gives the same job.",
        ),
    ] = None,
) -> Response:
    """Accept a job. When this answers, the job is on disk."""
    spec = await read_body(request, JobSpec, limit_bytes=JOB_BODY_LIMIT_BYTES)
    check_blobs(state, spec)
    check_arguments(state, spec)
    job_id = from_random("j", secrets.token_bytes(10))
    now = state.clock.now()
    accepted = await state.store.write(
        lambda connection: stored.add_job(
            connection, job_id=job_id, spec=spec, idempotency_key=idempotency_key, now=now
        )
    )
    if accepted == job_id:
        state.signals.begin(job_id)
    state.matchmaker.wake()
    return answer(JobAccepted(job_id=accepted), 201)


def check_blobs(state: SchedulerState, spec: JobSpec) -> None:
    """A job is accepted only when all that it needs is here. Raises InvalidInput naming what is not."""
    wanted: list[tuple[str, str]] = [
        (f"inputs.{place}.digest", item.digest) for place, item in enumerate(spec.inputs)
    ]
    if spec.workload.kind == "function":
        for name, payload in (("code", spec.workload.code), ("arguments", spec.workload.arguments)):
            if payload.blob is not None:
                wanted.append((f"workload.{name}.blob", payload.blob))
    for field, digest in wanted:
        if not state.blobs.has(digest):
            raise InvalidInput(
                f"no blob {digest} is here.",
                field=field,
                hint=f"Upload it first: PUT /v1/blobs/{digest}; then submit again.",
            )


def check_arguments(state: SchedulerState, spec: JobSpec) -> None:
    """A function job brings the arguments of each of its tasks, else they would fail one by one on their nodes."""
    if spec.workload.kind != "function":
        return
    payload = spec.workload.arguments
    try:
        if payload.inline is not None:
            found = packing.count(payload.inline)
        else:
            with state.blobs.path(str(payload.blob)).open("rb") as file:
                found = packing.count_of_head(file.read(packing.HEAD_BYTES))
    except InvalidInput as error:
        raise InvalidInput(
            error.message,
            field="workload.arguments",
            hint="Submit functions through the SDK, which packs them.",
        ) from None
    if found != spec.tasks:
        raise InvalidInput(
            f"there are arguments for {found} task(s), but 'tasks' is {spec.tasks}.",
            field="workload.arguments",
            hint="Pack one (args, kwargs) for each task.",
        )


@router.get("", response_model=JobPage, responses=errors(422, 503))
async def list_jobs(
    state: State,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=18)] = None,
    job_state: Annotated[JobState | None, Query(alias="state")] = None,
) -> Response:
    """Jobs, newest first."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
        raise InvalidInput(
            "not a cursor of this listing.", field="cursor", hint="Use next_cursor of the page before."
        )
    rows = await state.store.read(
        lambda connection: stored.list_jobs(
            connection, state=job_state, before_seq=int(cursor) if cursor else None, limit=limit + 1
        )
    )
    more = len(rows) > limit
    page = rows[:limit]
    return answer(
        JobPage(
            jobs=tuple(job_view(row) for row in page), next_cursor=str(page[-1].job_seq) if more else None
        )
    )


@router.get("/{job}", response_model=JobDetail, responses=errors(404, 409, 422, 503))
async def get_job(job: str, state: State) -> Response:
    """A job with its spec, and why its queued tasks wait."""

    def look(connection: Connection) -> tuple[Any, tuple[ReasonView, ...]]:
        row = stored.find_job(connection, job)
        return row, _waiting(connection, state, row)

    row, waiting = await state.store.read(look)
    return answer(JobDetail(view=job_view(row, waiting), spec=JobSpec.model_validate_json(row.spec)))


def _waiting(connection: Connection, state: SchedulerState, row: Any) -> tuple[ReasonView, ...]:
    if not row.queued:
        return ()
    nodes = standings(connection, state)
    return tuple(view(item) for item in why_waiting(row.job_id, load_requirements(row.requirements), nodes))


@router.post("/{job}/cancel", response_model=JobView, responses=errors(404, 409, 422, 503, 507))
async def cancel(job: str, state: State) -> Response:
    """Cancel what has not finished. Queued tasks end at once, running ones are told to leave, then killed."""
    now = state.clock.now()

    def change(connection: Connection) -> tuple[Any, set[str]]:
        row = stored.find_job(connection, job)
        holders = stored.cancel_job(connection, row.job_seq, now=now)
        return stored.find_job(connection, row.job_id), holders

    row, holders = await state.store.write(change)
    state.signals.call(row.job_id)
    for node_id in holders:
        state.matchmaker.release(node_id)
    return answer(job_view(row))


@router.get("/{job}/results", response_model=ResultPage, responses=errors(404, 409, 422, 503))
async def results(
    job: str,
    state: State,
    after: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=RESULTS_LIMIT)] = 1000,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0,
) -> Response:
    """Finished tasks in the order in which they finished; held until there are some past ``after``, or the job ends."""

    def look(connection: Connection) -> tuple[Any, list[Any]]:
        row = stored.job_standing(connection, job)
        if row.succeeded + row.failed + row.cancelled <= after:
            return row, []
        return row, stored.finished_tasks(connection, row.job_seq, after=after, limit=limit)

    deadline = asyncio.get_running_loop().time() + wait_s
    if wait_s > 0 and state.signals.is_silent(job):  # so a look would find nothing
        first = state.signals.listen(job)
        try:
            await called(first, within_s=wait_s)
        finally:
            state.signals.forget(job, first)
    topic: str | None = None
    while True:
        signal = state.signals.listen(topic) if topic is not None else None
        try:
            row, rows = await state.store.read(look)
            left = deadline - asyncio.get_running_loop().time()
            if rows or JobState(row.state) in TERMINAL_JOB_STATES or left <= 0 or state.signals.closed:
                break
            if signal is not None:
                await called(signal, within_s=left)
        finally:
            if signal is not None and topic is not None:
                state.signals.forget(topic, signal)
        topic = str(row.job_id)
    size = 0
    page: list[Any] = []
    for item in rows:
        size += len(item.result_inline or b"") + len(item.error or "")
        if page and size > _RESULT_BYTES:
            break
        page.append(item)
    return answer(
        ResultPage(
            results=tuple(task_result(item) for item in page),
            next_after=page[-1].finish_seq if page else after,
            job_state=JobState(row.state),
            counts=counts(row),
        )
    )
