"""Blobs: content by its SHA-256, in by PUT, out by GET with ranges."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from idle_accelerator.errors import IdleError, InvalidInput, NotFound
from idle_accelerator.scheduler.api.access import State, UserOrNode
from idle_accelerator.scheduler.api.bodies import (
    JOB_BODY_LIMIT_BYTES,
    announced_bytes,
    answer,
    body_of,
    error_answer,
    errors,
    read_body,
)
from idle_accelerator.scheduler.state import SchedulerState
from idle_accelerator.wire.checkpoints import Asked, Missing

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


@router.post(
    "/missing",
    response_model=Missing,
    responses=errors(413, 422, 503),
    openapi_extra=body_of(Asked),
)
async def missing(request: Request, state: State) -> Response:
    """Which of these blobs are not kept yet: ask before sending many."""
    asked = await read_body(request, Asked, limit_bytes=JOB_BODY_LIMIT_BYTES)

    def look() -> tuple[str, ...]:
        return tuple(digest for digest in dict.fromkeys(asked.digests) if not state.blobs.has(digest))

    return answer(Missing(digests=await asyncio.to_thread(look)))


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
    size_bytes = announced_bytes(request)
    if size_bytes is None:
        raise InvalidInput("missing.", field="Content-Length", hint="Send the size of the blob in bytes.")
    new = await state.blobs.put(digest, size_bytes, request.stream())
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


class _BlobResponse(FileResponse):
    """A file whose refusals of a Range are in the one error shape too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: list[Message] = []

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused.append(message)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, pass_on)
        if refused:
            answered = error_answer(_BadRange(refused[0]["status"]))
            content_range = Headers(raw=refused[0]["headers"]).get("content-range")
            if content_range is not None:
                answered.headers["Content-Range"] = content_range
            await answered(scope, receive, send)


class _BadRange(IdleError):
    def __init__(self, status: int) -> None:
        message = "the range lies outside the blob." if status == 416 else "the range cannot be read."
        super().__init__(message, field="Range", hint="Write it as bytes=FIRST-LAST.", code=f"http_{status}")
        self.http_status = status  # pyright: ignore[reportAttributeAccessIssue]  # per answer, not per class


def _file(digest: str, state: SchedulerState) -> FileResponse:
    if not state.blobs.has(digest):
        raise NotFound(
            f"there is no blob {digest}.", field="digest", hint="Upload it with PUT to the same address."
        )
    # The name is the content's digest, so it is its own strong validator.
    return _BlobResponse(
        state.blobs.path(digest), media_type="application/octet-stream", headers={"ETag": f'"{digest}"'}
    )
