"""The agent's line to its scheduler: it only ever dials out."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from idle_accelerator.errors import BY_CODE, IdleError, InvalidInput, NotFound, Unavailable
from idle_accelerator.wire.exchange import ExchangeAnswer, ExchangeRequest
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.nodes import Enrolled, Enrolment, NodeFacts

M = TypeVar("M", bound=WireModel)
_CONNECT_S = 5.0
_ANSWER_S = 20.0
_PIECE_BYTES = 1024 * 1024
_BLOB_RETRIES = 6
_FIRST_PAUSE_S = 0.2


class Link:
    """HTTP to one scheduler. Raises errors of ``idle_accelerator.errors``; Unavailable for what may pass by itself."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=16, keepalive_expiry=60),
            trust_env=False,
        )
        self._token = ""

    def use_token(self, token: str) -> None:
        """The node's own, for everything but enrolment."""
        self._token = token

    async def close(self) -> None:
        await self._client.aclose()

    async def enrol(self, facts: NodeFacts, *, key: str | None) -> Enrolled:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = Enrolment(facts=facts).model_dump_json()
        return await self._post("/v1/nodes", body, Enrolled, headers=headers, timeout_s=_ANSWER_S)

    async def exchange(self, node_id: str, request: ExchangeRequest) -> ExchangeAnswer:
        return await self._post(
            f"/v1/nodes/{node_id}/exchange",
            request.model_dump_json(exclude_defaults=True),
            ExchangeAnswer,
            headers=self._own_headers(),
            timeout_s=request.wait_s + _ANSWER_S,
        )

    async def fetch_blob(self, digest: str, to: Path) -> None:
        """Puts the blob at ``to``, verified; there is nothing at ``to`` before. Tries again over short failures.

        Raises NotFound when the scheduler has none, InvalidInput when what came is something else, OSError of the disk.
        """
        await _again_over_failures(lambda: self._fetch_once(digest, to))

    async def _fetch_once(self, digest: str, to: Path) -> None:
        temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
        hasher = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                async with self._client.stream(
                    "GET", f"/v1/blobs/{digest}", headers=self._own_headers()
                ) as answer:
                    if answer.status_code != 200:
                        raise _error_of(answer.status_code, await answer.aread())
                    async for piece in answer.aiter_bytes(_PIECE_BYTES):
                        hasher.update(piece)
                        await asyncio.to_thread(file.write, piece)
            if hasher.hexdigest() != digest:
                raise InvalidInput(
                    f"the scheduler sent something else for blob {digest}.",
                    field="digest",
                    hint="Its disk may be damaged.",
                )
            temporary.replace(to)
        except httpx2.TransportError as error:
            raise _unreachable(self.url, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    async def store_blob(self, path: Path, digest: str, size_bytes: int) -> None:
        """Has the scheduler keep the file; on return it is on its disk. Tries again over short failures."""
        await _again_over_failures(lambda: self._store_once(digest, size_bytes, lambda: _pieces(path)))

    async def store_bytes(self, content: bytes) -> str:
        """As ``store_blob``, for bytes in memory; returns their digest."""
        digest = hashlib.sha256(content).hexdigest()
        await _again_over_failures(lambda: self._store_once(digest, len(content), lambda: content))
        return digest

    async def _store_once(
        self, digest: str, size_bytes: int, content: Callable[[], bytes | AsyncIterator[bytes]]
    ) -> None:
        headers = self._own_headers()
        try:
            known = await self._client.head(f"/v1/blobs/{digest}", headers=headers)
            if known.status_code == 200:
                return
            answer = await self._client.put(
                f"/v1/blobs/{digest}",
                headers={**headers, "Content-Length": str(size_bytes)},
                content=content(),
            )
        except httpx2.TransportError as error:
            raise _unreachable(self.url, error) from error
        if answer.status_code not in (200, 201):
            raise _error_of(answer.status_code, answer.content)

    async def _post(
        self, path: str, body: str, model: type[M], *, headers: dict[str, str], timeout_s: float
    ) -> M:
        try:
            answer = await self._client.post(
                path,
                content=body,
                headers={**headers, "Content-Type": "application/json"},
                timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            )
        except httpx2.TransportError as error:
            raise _unreachable(self.url, error) from error
        if answer.status_code not in (200, 201):
            raise _error_of(answer.status_code, answer.content)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise InvalidInput(
                f"{self.url} answered with something that is no {model.__name__}.",
                field="--scheduler",
                hint="See that the URL is that of an idle-accelerator scheduler of this version.",
            ) from error

    def _own_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}


async def _again_over_failures(once: Callable[[], Awaitable[None]]) -> None:
    """Raises what the last try raised."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_BLOB_RETRIES - 1):
        try:
            return await once()
        except Unavailable:
            await asyncio.sleep(pause_s)
            pause_s *= 2
    return await once()


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece


def digest_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file; blocks while it reads."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, os.fstat(file.fileno()).st_size


def _unreachable(url: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"the scheduler at {url} cannot be reached: {str(error) or type(error).__name__}.",
        field="--scheduler",
        hint="See that it runs and that this machine can reach it.",
    )


def _error_of(status: int, body: bytes) -> IdleError:
    """The scheduler's own error, or what the status alone tells."""
    try:
        values: dict[str, Any] = httpx2.Response(status, content=body).json()
        kind = BY_CODE.get(str(values["code"]))
        if kind is not None:
            return kind(str(values["message"]), field=values.get("field"), hint=values.get("hint"))
    except (ValueError, KeyError, TypeError, AttributeError):
        values = {}
    text = f"the scheduler answered with status {status}."
    if status == 404:
        return NotFound(text)
    if status in (408, 425, 429) or status >= 500:
        return Unavailable(text, hint="See the scheduler's log.")
    return InvalidInput(text, hint="See that the URL is that of an idle-accelerator scheduler.")
