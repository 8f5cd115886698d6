"""The scheduler as a process: the API on uvicorn, over one data directory."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from idle_accelerator import __version__
from idle_accelerator.errors import Forbidden, IdleError, InvalidInput, NotFound
from idle_accelerator.scheduler.api import blobs, exchange, health, jobs, nodes, tasks
from idle_accelerator.scheduler.api.bodies import error_answer
from idle_accelerator.scheduler.auth import Gate, is_loopback, load_or_make_key, token_hash
from idle_accelerator.scheduler.state import SchedulerConfig, SchedulerState
from idle_accelerator.wire.exchange import ExchangeRequest
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.model import ErrorBody, WireModel
from idle_accelerator.wire.nodes import Enrolment

__all__ = ["SchedulerConfig", "create_app", "serve"]

_log = logging.getLogger(__name__)
_DESCRIPTION = (
    "One pool out of the machines that sit idle. Errors have one shape: code, message, field, hint."
)
_STOP_S = 5


def create_app(config: SchedulerConfig) -> FastAPI:
    """The API over ``config.data_dir``, which is made when it is missing; it opens with the app's lifespan."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = None if is_loopback(config.host) else load_or_make_key(config.data_dir / "scheduler.key")
    gate = Gate(key_hash=token_hash(key) if key else None, allowed_hosts=config.allowed_hosts)
    state = SchedulerState(config=config, gate=gate)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        await state.open()
        try:
            yield
        finally:
            await state.close()

    app = FastAPI(title="idle-accelerator", version=__version__, description=_DESCRIPTION, lifespan=lifespan)
    app.state.scheduler = state
    for noun in (jobs, tasks, nodes, exchange, blobs, health):
        app.include_router(noun.router)
    app.add_middleware(_OriginCheck, gate=gate)
    app.add_exception_handler(IdleError, _on_idle_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_defect)
    _describe_bodies(app, JobSpec, Enrolment, ExchangeRequest, nodes.Drain)
    return app


def serve(config: SchedulerConfig) -> None:
    """Serves until SIGINT or SIGTERM; then answers whoever waits, commits what was accepted, and returns."""
    app = create_app(config)
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=_STOP_S,
            timeout_keep_alive=75,
            server_header=False,
        ),
        app.state.scheduler,
    )
    server.run()


class _Server(uvicorn.Server):
    """uvicorn waits for open requests before the app may close, so held requests must be answered first."""

    def __init__(self, config: uvicorn.Config, state: SchedulerState) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        with contextlib.suppress(RuntimeError):  # no loop: the server had not begun
            asyncio.get_running_loop().call_soon_threadsafe(self._state.begin_stop)


class _OriginCheck:
    """Refuses requests that a web page may have made, before anything else looks at them."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._gate.check_origin(Headers(scope=scope))
            except Forbidden as error:
                await error_answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _on_idle_error(_request: Request, error: Exception) -> Response:
    return error_answer(error) if isinstance(error, IdleError) else await _on_defect(_request, error)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    first: dict[str, Any] = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    field = str(first.get("loc", ("request",))[-1])
    return error_answer(InvalidInput(f"{first.get('msg', 'not valid')}.", field=field, hint="See /docs."))


class _HttpError(IdleError):
    """An error of the web framework itself, in our shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, code=f"http_{status}", hint="The paths and methods are listed at /docs.")
        self.http_status = status  # pyright: ignore[reportAttributeAccessIssue]  # per answer, not per class


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return error_answer(
            NotFound(f"there is nothing at {request.url.path}.", hint="The paths are listed at /docs.")
        )
    detail = str(error.detail) if isinstance(error, HTTPException) else "error"
    return error_answer(_HttpError(status, f"{detail}."))


async def _on_defect(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_answer(
        IdleError(
            "the scheduler failed at this; it is a defect.", code="internal", hint="Its log has the details."
        )
    )


def _describe_bodies(app: FastAPI, *models: type[WireModel]) -> None:
    """Routes read their bodies themselves (api.bodies says why), so their schemas are added to the OpenAPI document here."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            parts = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (*models, ErrorBody):
                described = model.model_json_schema(ref_template="#/components/schemas/{model}")
                for name, part in described.pop("$defs", {}).items():
                    parts.setdefault(name, part)
                parts[model.__name__] = described
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi
