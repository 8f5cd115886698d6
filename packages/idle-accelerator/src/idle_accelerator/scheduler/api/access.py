"""What routes depend on: the scheduler's state, and who is asking."""

from typing import Annotated, cast

from fastapi import Depends, Request

from idle_accelerator.errors import Forbidden, Unauthorized
from idle_accelerator.scheduler.auth import bearer, token_hash
from idle_accelerator.scheduler.state import SchedulerState
from idle_accelerator.scheduler.store.nodes import node_by_token


async def state_of(request: Request) -> SchedulerState:  # async, or it would be called in a thread
    return cast("SchedulerState", request.app.state.scheduler)


State = Annotated[SchedulerState, Depends(state_of)]


async def require_user(request: Request, state: State) -> None:
    state.gate.check_user(request.headers)


async def node_identity(request: Request, state: State) -> str | None:
    """The id of the node whose token the request carries; None when it carries none that is known."""
    secret = bearer(request.headers)
    if secret is None:
        return None
    hashed, now = token_hash(secret), state.clock.now()
    known = state.tokens.get(hashed, now=now)
    if known is None:
        row = await state.store.read(lambda connection: node_by_token(connection, hashed))
        if row is None:
            return None
        known = str(row.node_id)
        state.tokens.keep(hashed, known, now=now)
    return known


async def require_node(request: Request, state: State, node: str) -> str:
    """The node that the path names, proven by its own token. Raises Unauthorized or Forbidden."""
    known = await node_identity(request, state)
    if known is None:
        raise Unauthorized(
            "this node's token is not known here.", field="Authorization", hint="Enrol again: POST /v1/nodes."
        )
    if known != node:
        raise Forbidden("a node may speak for itself only.", field="node")
    return known


async def require_user_or_node(request: Request, state: State) -> None:
    if not state.gate.is_user(request.headers) and await node_identity(request, state) is None:
        state.gate.check_user(request.headers)


User = Depends(require_user)
UserOrNode = Depends(require_user_or_node)
NodeOfPath = Annotated[str, Depends(require_node)]
