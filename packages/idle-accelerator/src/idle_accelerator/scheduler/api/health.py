"""Health: alive, and ready to work."""

from fastapi import APIRouter, Response
from sqlalchemy import text

from idle_accelerator import __version__
from idle_accelerator.errors import Unavailable
from idle_accelerator.scheduler.api.access import State
from idle_accelerator.scheduler.api.bodies import answer, errors
from idle_accelerator.wire.model import WireModel

router = APIRouter(tags=["health"])


class Health(WireModel):
    status: str
    version: str


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """The process is alive."""
    return answer(Health(status="ok", version=__version__))


@router.get("/readyz", response_model=Health, responses=errors(503))
async def readyz(state: State) -> Response:
    """The store answers and the scheduler takes work."""
    if not state.ready:
        raise Unavailable("the scheduler is starting or stopping.", hint="Try again in a few seconds.")
    await state.store.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    return answer(Health(status="ready", version=__version__))
