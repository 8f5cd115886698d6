"""Nodes: enrol, list, drain, remove."""

import secrets
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Connection

from idle_accelerator.scheduler.api.access import State, User, require_user
from idle_accelerator.scheduler.api.bodies import SMALL_BODY_LIMIT_BYTES, answer, body_of, errors, read_body
from idle_accelerator.scheduler.api.standing import node_view
from idle_accelerator.scheduler.auth import is_loopback, new_secret, token_hash
from idle_accelerator.scheduler.store import nodes as stored
from idle_accelerator.wire.ids import from_random
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.nodes import Enrolled, Enrolment, NodePage, NodeView

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])


class Drain(WireModel):
    drain: bool


@router.post(
    "",
    status_code=201,
    response_model=Enrolled,
    responses=errors(413, 422, 503, 507),
    dependencies=[Depends(require_user)],
    openapi_extra=body_of(Enrolment),
)
async def enrol(request: Request, state: State) -> Response:
    """Give a machine its identity. The token is shown this once."""
    enrolment = await read_body(request, Enrolment, limit_bytes=SMALL_BODY_LIMIT_BYTES)
    node_id = from_random("n", secrets.token_bytes(10))
    token = new_secret()
    now = state.clock.now()
    loopback = request.client is not None and is_loopback(request.client.host)
    name = await state.store.write(
        lambda connection: stored.add_node(
            connection,
            node_id=node_id,
            token_hash=token_hash(token),
            facts=enrolment.facts,
            loopback=loopback,
            now=now,
        )
    )
    return answer(Enrolled(node_id=node_id, name=name, token=token), 201)


@router.get("", response_model=NodePage, responses=errors(503), dependencies=[User])
async def list_nodes(state: State) -> Response:
    """Every enrolled machine, with the reason why it is, or is not, lent."""
    rows = await state.store.read(stored.list_nodes)
    return answer(NodePage(nodes=tuple(node_view(row, state) for row in rows)))


@router.get("/{node}", response_model=NodeView, responses=errors(404, 409, 422, 503), dependencies=[User])
async def get_node(node: str, state: State) -> Response:
    """One machine, by name, id or unique prefix of its id."""
    row = await state.store.read(lambda connection: stored.find_node(connection, node))
    return answer(node_view(row, state))


@router.post(
    "/{node}/drain",
    response_model=NodeView,
    responses=errors(404, 409, 413, 422, 503, 507),
    dependencies=[User],
    openapi_extra=body_of(Drain, {"drain": True}),
)
async def drain(node: str, request: Request, state: State) -> Response:
    """Give it nothing new (or something new again); what it runs, it finishes."""
    wanted = await read_body(request, Drain, limit_bytes=SMALL_BODY_LIMIT_BYTES)

    def change(connection: Connection) -> Any:
        row = stored.find_node(connection, node)
        stored.set_draining(connection, row.node_id, draining=wanted.drain)
        return stored.find_node(connection, row.node_id)

    row = await state.store.write(change)
    state.matchmaker.release(row.node_id)
    return answer(node_view(row, state))


@router.delete(
    "/{node}",
    status_code=204,
    response_class=Response,
    responses=errors(404, 409, 422, 503, 507),
    dependencies=[User],
)
async def remove(node: str, state: State) -> Response:
    """Forget a machine. Its token is worth nothing from then on."""

    def change(connection: Connection) -> str:
        row = stored.find_node(connection, node)
        stored.remove_node(connection, row.node_id)
        return str(row.node_id)

    node_id = await state.store.write(change)
    state.tokens.forget(node_id)
    state.heard_until.pop(node_id, None)
    state.matchmaker.release(node_id)
    return Response(status_code=204)
