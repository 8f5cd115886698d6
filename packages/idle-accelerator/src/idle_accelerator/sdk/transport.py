"""HTTP to the scheduler: retries, time limits, and errors as the tree of errors.py."""

import asyncio
import ipaddress
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import httpx2
from pydantic import ValidationError

from idle_accelerator.errors import BY_CODE, IdleError, Unavailable
from idle_accelerator.sdk.direct import SHORT_BYTES, DirectLine, LineBroken, open_line
from idle_accelerator.settings import Connection
from idle_accelerator.wire.model import WireModel

M = TypeVar("M", bound=WireModel)
Content = bytes | Callable[[], AsyncIterator[bytes]]
"""A body: bytes, or a function that begins it anew for each try."""

PATIENCE_S = 10.0
"""How long a call goes on trying while the scheduler does not answer."""
WAIT_PATIENCE_FACTOR = 30
"""Waiting for results, this many times as long: a scheduler may restart in the meantime."""
_CONNECT_S = 5.0
_READ_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_BY_STATUS = {cls.http_status: cls for cls in BY_CODE.values()}
_UNQUOTED = "/:@!$&'()*+,;=-._~%"
"""What stands for itself in a path (RFC 3986), and what was quoted already."""
_TRY_AGAIN = frozenset({502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    def read(self, model: type[M]) -> M:
        """The body as a wire model. Raises IdleError when something else than a scheduler of this version answered."""
        try:
            return model.model_validate_json(self.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise IdleError(
                f"the answer is not a {model.__name__} ({where or 'body'}: {first['msg']}).",
                code="bad_answer",
                hint="Is it an idle-accelerator scheduler, of the same version as this SDK?",
            ) from None


class Transport:
    """One scheduler, spoken to over kept-alive connections. Made in the event loop that uses it."""

    def __init__(self, connection: Connection, *, patience_s: float = PATIENCE_S) -> None:
        self.connection = connection
        self.patience_s = patience_s
        self.wait_patience_s = patience_s * WAIT_PATIENCE_FACTOR
        self._client: httpx2.AsyncClient | None = None
        self._line: DirectLine | None = None
        self._goes_directly = True

    @property
    def on_loopback(self) -> bool:
        return is_loopback_url(self.connection.url)

    async def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float | None] | None = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        held_s: float = 0.0,
        patience_s: float | None = None,
    ) -> Answer:
        """Sends until there is an answer. Every request that goes through here may be repeated without harm.

        ``held_s``: how long the scheduler may hold it. ``patience_s``: how long to go on trying while it is down.
        Raises the IdleError that the scheduler answers with, or Unavailable.
        """
        tries = _Tries(self.patience_s if patience_s is None else patience_s)
        while True:
            try:
                answer = await self._ask(
                    method, path, params=params, content=content, headers=headers, held_s=held_s
                )
            except (httpx2.TransportError, LineBroken, TimeoutError) as error:
                await tries.pause_or_raise(self._unreachable(error))
            else:
                if answer.status < 400:
                    return answer
                await tries.pause_or_raise(*self._refused(answer.status, answer.content, answer.headers))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float | None] | None = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        held_s: float = 0.0,
        patience_s: float | None = None,
    ) -> AsyncGenerator[tuple[Answer, httpx2.Response]]:
        """As request, but the body is read by the caller, whose errors of transport are its own to handle."""
        tries = _Tries(self.patience_s if patience_s is None else patience_s)
        while True:
            async with AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(
                        self._send(
                            method, path, params=params, content=content, headers=headers, held_s=held_s
                        )
                    )
                    ok = response.status_code < 400
                    raw = b"" if ok else await response.aread()
                except httpx2.TransportError as error:
                    problem: tuple[IdleError, float] = (self._unreachable(error), 0.0)
                else:
                    if ok:
                        yield (
                            Answer(status=response.status_code, headers=response.headers, content=raw),
                            response,
                        )
                        return
                    problem = self._refused(response.status_code, raw, response.headers)
            await tries.pause_or_raise(*problem)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float | None] | None,
        content: Content | None,
        headers: Mapping[str, str] | None,
        held_s: float,
    ) -> Answer:
        """One try. Raises LineBroken, TimeoutError or httpx2.TransportError."""
        line = None if method == "HEAD" else self._direct()
        if line is None or callable(content) or len(content or b"") > SHORT_BYTES:
            sending = self._send(method, path, params=params, content=content, headers=headers, held_s=held_s)
            async with sending as response:
                return Answer(
                    status=response.status_code, headers=response.headers, content=await response.aread()
                )
        answer = await line.request(
            method,
            quote(path, safe=_UNQUOTED) + _query(params),
            headers={**self._credentials(), **(headers or {})},
            content=b"" if content is None and method in ("POST", "PUT") else content,
            connect_s=_CONNECT_S,
            answer_s=_READ_S + held_s,
        )
        return Answer(status=answer.status, headers=answer.headers, content=answer.content)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float | None] | None,
        content: Content | None,
        headers: Mapping[str, str] | None,
        held_s: float,
    ) -> Any:
        client = self._open()
        body = content() if callable(content) else content
        known = _known(params)
        timeout = httpx2.Timeout(connect=_CONNECT_S, read=_READ_S + held_s, write=_READ_S, pool=None)
        return client.stream(method, path, params=known, content=body, headers=headers, timeout=timeout)

    def _direct(self) -> DirectLine | None:
        if self._line is None and self._goes_directly:
            self._line = open_line(self.connection.url, proxies=not self.on_loopback)
            self._goes_directly = self._line is not None
        return self._line

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.connection.key}"} if self.connection.key else {}

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            url = self.connection.url
            self._client = httpx2.AsyncClient(
                base_url=url,
                headers=self._credentials(),
                verify=url.startswith("https"),
                trust_env=not self.on_loopback,
                follow_redirects=False,
            )
        return self._client

    def _refused(self, status: int, raw: bytes, headers: Mapping[str, str]) -> tuple[IdleError, float]:
        """The error, and the pause before another try that was asked for. Raises the error where trying again is no use."""
        problem = error_of(status, raw, self.connection.url)
        if status not in _TRY_AGAIN:
            raise problem
        return problem, _retry_after(headers)

    def _unreachable(self, error: Exception) -> Unavailable:
        url, origin = self.connection.url, self.connection.origin
        said_by = "" if origin in ("default", "--scheduler") else f" (from {origin})"
        detail = str(error) or type(error).__name__
        return Unavailable(
            f"the scheduler at {url}{said_by} does not answer: {detail}.",
            hint="Is it running? python3 run.py up, or idlectl scheduler, starts one; --scheduler or IDLE_SCHEDULER names another.",
        )


class _Tries:
    """Of one request, while the scheduler does not answer."""

    def __init__(self, patience_s: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + patience_s
        self._pause_s = _FIRST_PAUSE_S

    async def pause_or_raise(self, problem: IdleError, asked_pause_s: float = 0.0) -> None:
        """Until the next try. Raises the problem when there is to be none."""
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise problem
        pause_s = self._pause_s * random.uniform(0.7, 1.3)  # noqa: S311  # spreads clients out
        await asyncio.sleep(min(left_s, max(asked_pause_s, pause_s)))
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


def _known(params: Mapping[str, str | int | float | None] | None) -> dict[str, str | int | float]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _query(params: Mapping[str, str | int | float | None] | None) -> str:
    known = _known(params)
    return f"?{urlencode(known)}" if known else ""


def error_of(status: int, raw: bytes, url: str) -> IdleError:
    """An error answer as the exception that the scheduler raised. One without a body, as HEAD has it, by its status."""
    if not raw and status in _BY_STATUS:
        return _BY_STATUS[status](f"{url} answered with HTTP status {status}.")
    try:
        parsed: Any = json.loads(raw)
    except (ValueError, UnicodeDecodeError):
        parsed = None
    if not isinstance(parsed, dict):
        kind = Unavailable if status in _TRY_AGAIN else IdleError
        return kind(
            f"{url} answered with HTTP status {status}, and not as a scheduler does.",
            hint="Is it an idle-accelerator scheduler, or does a proxy stand in between?",
        )
    body = cast("dict[str, Any]", parsed)
    code, message, field, hint = (body.get(name) for name in ("code", "message", "field", "hint"))
    text = message if isinstance(message, str) else f"HTTP status {status}."
    where = {
        "field": field if isinstance(field, str) else None,
        "hint": hint if isinstance(hint, str) else None,
    }
    cls = BY_CODE.get(code) if isinstance(code, str) else None
    if cls is not None:
        return cls(text, **where)
    return IdleError(text, **where, code=code if isinstance(code, str) else None)


def is_loopback_url(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _retry_after(headers: Mapping[str, str]) -> float:
    said = headers.get("retry-after", "")
    return min(float(said), _LONGEST_PAUSE_S) if said.isascii() and said.isdigit() else 0.0
