"""Whatever goes wrong, in the one error shape."""

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from idle_accelerator.errors import IdleError, InvalidInput, NotFound
from idle_accelerator.scheduler.api.bodies import error_answer

_log = logging.getLogger(__name__)
_NOBODY_LISTENS = 499
"""As in nginx's log: the client hung up before it was answered. Nobody gets to see it."""


def answer_errors(app: FastAPI) -> None:
    """Every error of the app leaves it in the one shape."""
    app.add_exception_handler(IdleError, _on_idle_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_hang_up)
    app.add_exception_handler(Exception, _on_defect)


async def _on_idle_error(request: Request, error: Exception) -> Response:
    return error_answer(error) if isinstance(error, IdleError) else await _on_defect(request, error)


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
    answered = error_answer(_HttpError(status, f"{detail}."))
    if isinstance(error, HTTPException) and error.headers:
        answered.headers.update(error.headers)
    return answered


async def _on_hang_up(_request: Request, _error: Exception) -> Response:
    return nobody_listens()


def nobody_listens() -> Response:
    return Response(status_code=_NOBODY_LISTENS)


async def _on_defect(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_answer(
        IdleError(
            "the scheduler failed at this; it is a defect.", code="internal", hint="Its log has the details."
        )
    )
