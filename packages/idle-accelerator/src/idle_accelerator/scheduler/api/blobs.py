"""Blobs: content by its SHA-256, in by PUT, out by GET with ranges."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse

from idle_accelerator.errors import InvalidInput, NotFound
from idle_accelerator.scheduler.api.access import State, UserOrNode
from idle_accelerator.scheduler.api.bodies import errors
from idle_accelerator.scheduler.state import SchedulerState

router = APIRouter(prefix="/v1/blobs", tags=["blobs"], dependencies=[UserOrNode])
Digest = Annotated[
    str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, lower-case hex.")
]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_NO_CONTENT = {"description": "Kept, and on disk"}


@router.put(
    "/{digest}",
    status_code=201,
    response_class=Response,
    responses={200: {"description": "It was here already"}, 201: _NO_CONTENT, **errors(422, 503, 507)},
    openapi_extra=_BODY,
)
async def put_blob(digest: Digest, request: Request, state: State) -> Response:
    """Keep content under its digest. Needs Content-Length; refused when size or digest does not match."""
    if state.blobs.has(digest):
        async for _ in request.stream():
            pass
        return Response(status_code=200)
    announced = request.headers.get("content-length", "")
    if not announced.isdigit():
        raise InvalidInput("missing.", field="Content-Length", hint="Send the size of the blob in bytes.")
    new = await state.blobs.put(digest, int(announced), request.stream())
    return Response(status_code=201 if new else 200)


@router.get(
    "/{digest}",
    response_class=FileResponse,
    responses={206: {"description": "The range asked for"}, **errors(404, 416, 422)},
)
async def get_blob(digest: Digest, state: State) -> FileResponse:
    """The content; Range and If-Range are understood."""
    return _file(digest, state)


@router.head("/{digest}", response_class=FileResponse, responses=errors(404, 422))
async def head_blob(digest: Digest, state: State) -> FileResponse:
    """Whether it is here, and its size."""
    return _file(digest, state)


def _file(digest: str, state: SchedulerState) -> FileResponse:
    if not state.blobs.has(digest):
        raise NotFound(
            f"there is no blob {digest}.", field="digest", hint="Upload it with PUT to the same address."
        )
    # The name is the content's digest, so it is its own strong validator.
    return FileResponse(
        state.blobs.path(digest), media_type="application/octet-stream", headers={"ETag": f'"{digest}"'}
    )
