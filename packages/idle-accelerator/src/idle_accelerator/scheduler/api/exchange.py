"""The conversation with agents. The protocol is in wire.exchange."""

import asyncio

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from idle_accelerator.core.resources import demand as demand_of
from idle_accelerator.core.resources import minus
from idle_accelerator.core.snapshot import NodeDemand
from idle_accelerator.scheduler.api.access import NodeOfPath, State
from idle_accelerator.scheduler.api.bodies import (
    EXCHANGE_BODY_LIMIT_BYTES,
    answer,
    body_of,
    errors,
    read_body,
)
from idle_accelerator.scheduler.checkpoints import whole_ones
from idle_accelerator.scheduler.state import HOLDING_POLL_S, RESTING_POLL_S, SchedulerState
from idle_accelerator.scheduler.store.leases import LEASE_TTL_S, Exchanged, Granted, apply_exchange
from idle_accelerator.scheduler.store.logs import add_logs
from idle_accelerator.scheduler.store.rows import load_facts
from idle_accelerator.scheduler.store.waiting import load_requirements
from idle_accelerator.wire.exchange import ExchangeAnswer, ExchangeRequest, Grant
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])
_DRAINING = {"lending": "draining"}
"""A draining node waits like any other, for orders and for the end of its drain, and is given nothing."""


@router.post(
    "/{node}/exchange",
    response_model=ExchangeAnswer,
    responses=errors(404, 413, 422, 503, 507),
    openapi_extra=body_of(ExchangeRequest),
)
async def exchange(request: Request, state: State, node: NodeOfPath) -> Response:
    """Heartbeat, lease renewal, reports and demand for work at once; answered with leases and orders. Node token only."""
    said = await read_body(request, ExchangeRequest, limit_bytes=EXCHANGE_BODY_LIMIT_BYTES)
    if said.checkpoints:
        whole = await asyncio.to_thread(whole_ones, state.blobs, said.checkpoints)
        said = said.model_copy(update={"checkpoints": whole})
    now = state.clock.now()

    def change(connection: Connection) -> tuple[Exchanged, set[str]]:
        outcome = apply_exchange(connection, node, said, now=now)
        return outcome, add_logs(connection, node, said.logs)

    # What the agent forgets once this is answered must be on disk; a heartbeat need not.
    durable = bool(said.logs or said.checkpoints) or any(
        item.state not in LIVE_ATTEMPT_STATES for item in said.reports
    )
    outcome, logged = await state.store.write(change, durable=durable)
    # From here to the matchmaker's door nothing is awaited: whoever has changed something since finds the node waiting.
    for job_id in outcome.jobs_moved | logged:
        state.signals.call(job_id)
    if outcome.some_queued:
        state.matchmaker.wake()
    if not outcome.fresh:
        return answer(_answer(said, outcome, [], superseded=True))
    state.matchmaker.release(node)
    granted = [*outcome.granted_again, *await _ask(request, state, node, said, outcome)]
    return answer(_answer(said, outcome, granted, superseded=False))


async def _ask(
    request: Request,
    state: SchedulerState,
    node_id: str,
    said: ExchangeRequest,
    outcome: Exchanged,
) -> list[Granted]:
    free = said.offer.free
    for line in outcome.granted_again:
        free = _less(free, line)
    has_news = bool((said.reports or said.logs or said.checkpoints) and not said.news_can_wait)
    has_answer = bool(outcome.granted_again or outcome.orders)
    wanted = NodeDemand(
        node_id=node_id,
        facts=load_facts(outcome.facts_json),
        offer=said.offer.model_copy(
            update={"free": free, **_DRAINING} if outcome.draining else {"free": free}
        ),
        heard=(said.incarnation, said.seq),
    )
    demand = state.matchmaker.enter(wanted, wait_s=0.0 if has_news or has_answer else said.wait_s)
    if demand.answer.done():
        return state.matchmaker.leave(demand)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait(
            {demand.answer, leaving},
            timeout=said.wait_s if demand.held else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        if not leaving.done():
            state.heard_until[node_id] = state.clock.now()
        leaving.cancel()
        granted = state.matchmaker.leave(demand)
    return granted


async def _gone(request: Request) -> None:
    """Ends when the agent has closed its connection: then nobody waits for the answer, and the node is not heard of."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _less(free: Resources, line: Granted) -> Resources:
    return minus(free, demand_of(load_requirements(line.requirements_json)), len(line.attempts))


def _answer(
    said: ExchangeRequest, outcome: Exchanged, granted: list[Granted], *, superseded: bool
) -> ExchangeAnswer:
    known = set(said.known_jobs)
    grants: list[Grant] = []
    for line in granted:
        spec = None if line.job_id in known else JobSpec.model_validate_json(line.spec_json)
        known.add(line.job_id)
        grants.append(Grant(job_id=line.job_id, spec=spec, attempts=line.attempts, resume=line.resume))
    holds = bool(said.holding or granted)
    return ExchangeAnswer(
        grants=tuple(grants),
        orders=tuple(outcome.orders),
        lease_ttl_s=LEASE_TTL_S,
        poll_s=HOLDING_POLL_S if holds else RESTING_POLL_S,
        superseded=superseded,
        drain=outcome.draining,
    )
