"""Reading and writing wire models, and the one error shape.

Bodies are validated from JSON itself, not from already-decoded Python values: only so is ``false`` no integer and base64
bytes. FastAPI learns their schemas from ``body_of`` and ``answers``.
"""

from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from idle_accelerator.errors import IdleError, TooLarge
from idle_accelerator.scheduler.api.mistakes import describe
from idle_accelerator.wire.model import ErrorBody, WireModel
from idle_accelerator.wire.units import format_size

M = TypeVar("M", bound=WireModel)
JOB_BODY_LIMIT_BYTES = 4 * 1024 * 1024
EXCHANGE_BODY_LIMIT_BYTES = 64 * 1024 * 1024
SMALL_BODY_LIMIT_BYTES = 64 * 1024
_READ_THOUGH_REFUSED_BYTES = 128 * 1024 * 1024
"""A body that is too large is still read up to here, and thrown away: many clients look for an answer only after they have
sent everything, and would see a broken connection instead."""


async def read_body(request: Request, model: type[M], *, limit_bytes: int) -> M:
    """The request's body as a wire model. Raises TooLarge, or InvalidInput naming the field."""
    raw = await _read_limited(request, limit_bytes)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise describe(error, model) from None


async def _read_limited(request: Request, limit_bytes: int) -> bytes:
    too_large = TooLarge(
        f"the body is larger than {format_size(limit_bytes)}.",
        field="body",
        hint="Large data goes by blob: as input files, or from the SDK, which does so by itself.",
    )
    refused = announced_bytes(request) or 0
    if refused > _READ_THOUGH_REFUSED_BYTES:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _READ_THOUGH_REFUSED_BYTES:
            raise too_large
        if max(size, refused) <= limit_bytes:
            parts.append(chunk)
        else:
            parts.clear()
    if size > limit_bytes:
        raise too_large
    return b"".join(parts)


def announced_bytes(request: Request) -> int | None:
    """The request's Content-Length; None when there is none that can be read."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdecimal() and len(announced) < 19 else None


def answer(model: WireModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status_code=status, media_type="application/json")


def error_answer(error: IdleError) -> Response:
    headers = {"Retry-After": "1"} if error.http_status == 503 else {}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = ErrorBody.model_validate(error.as_body())
    return Response(
        body.model_dump_json(), status_code=error.http_status, media_type="application/json", headers=headers
    )


def body_of(model: type[WireModel], example: dict[str, Any] | None = None) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads this model."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: which errors it answers with, all in the one shape."""
    return {
        status: {"model": ErrorBody, "description": _MEANING[status]} for status in (400, 401, 403, *statuses)
    }


_MEANING = {
    400: "The request cannot be read",
    401: "No key, or not this scheduler's",
    403: "Not allowed: wrong Host, Origin, or somebody else's",
    404: "There is no such thing",
    405: "This path has no such method",
    409: "Ambiguous, or not in a state that allows this",
    411: "Content-Length is missing",
    413: "Too large",
    416: "The range lies outside the blob",
    422: "The input is wrong; 'field' says where",
    503: "Try again after Retry-After seconds",
    507: "The scheduler's disk is full; nothing was changed",
}
