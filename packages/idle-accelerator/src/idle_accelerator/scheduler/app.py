"""The scheduler as a process: the API on uvicorn, over one data directory."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from idle_accelerator import __version__
from idle_accelerator.errors import Forbidden, InvalidInput
from idle_accelerator.scheduler.api import blobs, exchange, health, jobs, nodes, tasks
from idle_accelerator.scheduler.api.bodies import error_answer
from idle_accelerator.scheduler.api.document import describe
from idle_accelerator.scheduler.api.express import Express
from idle_accelerator.scheduler.api.failures import answer_errors
from idle_accelerator.scheduler.auth import Gate, is_loopback, load_or_make_key, token_hash
from idle_accelerator.scheduler.listener import listen
from idle_accelerator.scheduler.state import SchedulerConfig, SchedulerState

__all__ = ["SchedulerConfig", "create_app", "serve"]

_DESCRIPTION = (
    "One pool out of the machines that sit idle. Errors have one shape: code, message, field, hint."
)
_STOP_S = 5


def create_app(config: SchedulerConfig) -> FastAPI:
    """The API over ``config.data_dir``, which is made when it is missing; it opens with the app's lifespan.

    Raises InvalidInput when the directory cannot be made.
    """
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"{config.data_dir} cannot be made: {error.strerror}.",
            field="--data-dir",
            hint="Give a directory that you may write to.",
        ) from error
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

    # With its own copies of what the page at /docs needs: a pool may have no way out, and asks nobody's CDN.
    app = FastAPIOffline(
        title="idle-accelerator", version=__version__, description=_DESCRIPTION, lifespan=lifespan
    )
    app.state.scheduler = state
    for noun in (jobs, tasks, nodes, exchange, blobs, health):
        app.include_router(noun.router)
    app.add_middleware(Express, state=state)
    app.add_middleware(_OriginCheck, gate=gate)  # the last one added is the first one asked
    answer_errors(app)
    describe(app, key_needed=key is not None)
    return app


def serve(config: SchedulerConfig) -> None:
    """Serves until SIGINT or SIGTERM; then answers whoever waits, commits what was accepted, and returns.

    Raises Conflict when the port is taken or another scheduler has the data directory open, InvalidInput when the address
    cannot be listened on, StorageFull when the store cannot be made.
    """
    with listen(config.host, config.port) as listener:
        app = create_app(config)
        settings = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",  # the store opens before the server starts, so that its errors reach the caller as they are
            timeout_graceful_shutdown=_STOP_S,
            timeout_keep_alive=75,
            server_header=False,
        )
        state: SchedulerState = app.state.scheduler
        with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
            runner.run(_serve(_Server(settings, state), state, listener))


async def _serve(server: uvicorn.Server, state: SchedulerState, listener: socket.socket) -> None:
    await state.open()
    try:
        await server.serve(sockets=[listener])
    finally:
        await state.close()


class _Server(uvicorn.Server):
    """uvicorn waits for open requests before the app may close, so held requests must be answered first."""

    def __init__(self, config: uvicorn.Config, state: SchedulerState) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature is uvicorn's
        # Not the inherited one: it raises the signal again after the stop, and a stop that was asked for is no failure.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
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
