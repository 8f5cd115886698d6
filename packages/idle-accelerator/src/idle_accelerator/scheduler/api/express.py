"""The short way for the requests that every task makes: its submit, its node's exchanges, the wait for its result.

FastAPI documents these routes and can serve them, but finding one and solving its parameters costs it more CPU than the
scheduler's own work. Only what is plainly well-formed goes this way; everything else takes the long one, which knows all
that may be wrong with it. The functions that answer are the same.
"""

import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from idle_accelerator.errors import IdleError
from idle_accelerator.scheduler.api.access import require_node, require_user
from idle_accelerator.scheduler.api.bodies import error_answer
from idle_accelerator.scheduler.api.exchange import exchange
from idle_accelerator.scheduler.api.failures import nobody_listens
from idle_accelerator.scheduler.api.jobs import (
    IDEMPOTENCY_KEY_LENGTH,
    MAX_WAIT_S,
    RESULTS_LIMIT,
    results,
    submit,
)
from idle_accelerator.scheduler.state import SchedulerState

_EXCHANGE = re.compile(r"/v1/nodes/([^/]+)/exchange")
_RESULTS = re.compile(r"/v1/jobs/([^/]+)/results")
_QUERY = {
    "after": re.compile(r"[0-9]{1,9}"),
    "limit": re.compile(r"[0-9]{1,9}"),
    "wait_s": re.compile(r"[0-9]{1,9}(\.[0-9]{1,18})?"),
}
"""What of a query is understood here: a part of what the long way accepts."""

Serve = Callable[[Request], Awaitable[Response]]


class Express:
    """Serves those requests, and passes all others on to ``app``."""

    def __init__(self, app: ASGIApp, state: SchedulerState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._find(scope) if scope["type"] == "http" else None
        if serve is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await serve(Request(scope, receive, send))
        except IdleError as error:
            response = error_answer(error)
        except ClientDisconnect:
            response = nobody_listens()
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> Serve | None:
        path, method = scope["path"], scope["method"]
        if method == "POST":
            if path == "/v1/jobs":
                return self._submit_of(scope)
            named = _EXCHANGE.fullmatch(path)
            return self._exchange_of(named[1]) if named else None
        named = _RESULTS.fullmatch(path) if method == "GET" else None
        return self._results_of(named[1], scope["query_string"]) if named else None

    def _submit_of(self, scope: Scope) -> Serve | None:
        key = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"idempotency-key"), None
        )
        if key is not None and not 1 <= len(key) <= IDEMPOTENCY_KEY_LENGTH:
            return None

        async def serve(request: Request) -> Response:
            await require_user(request, self._state)
            return await submit(request, self._state, key)

        return serve

    def _exchange_of(self, node: str) -> Serve:
        async def serve(request: Request) -> Response:
            return await exchange(request, self._state, await require_node(request, self._state, node))

        return serve

    def _results_of(self, job: str, query: bytes) -> Serve | None:
        given = {"after": "0", "limit": "1000", "wait_s": "0"}
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if name not in _QUERY or not _QUERY[name].fullmatch(value):
                return None
            given[name] = value
        after, limit, wait_s = int(given["after"]), int(given["limit"]), float(given["wait_s"])
        if not 1 <= limit <= RESULTS_LIMIT or wait_s > MAX_WAIT_S:
            return None

        async def serve(request: Request) -> Response:
            await require_user(request, self._state)
            return await results(job, self._state, after=after, limit=limit, wait_s=wait_s)

        return serve
