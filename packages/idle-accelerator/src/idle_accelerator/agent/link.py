"""The agent's line to its scheduler: it only ever dials out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from io import FileIO
from pathlib import Path

from idle_accelerator.errors import Unavailable
from idle_accelerator.sdk.blobs import Blobs
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.settings import Connection
from idle_accelerator.wire.exchange import ExchangeAnswer, ExchangeRequest
from idle_accelerator.wire.nodes import Enrolled, Enrolment, NodeFacts

ANSWER_S = 20.0
"""An exchange that is not answered this long after its wait is given up: the network swallows packets."""
BLOB_PATIENCE_S = 15.0
"""How long a blob's transfer goes on trying while the scheduler does not answer."""


class Link:
    """One scheduler. Raises the errors that it answers with; Unavailable for what may pass by itself."""

    def __init__(self, url: str, *, on_moved: Callable[[int], None] = lambda _count: None) -> None:
        """``on_moved`` hears how many bytes a blob's transfer moved over the network: they are not the owner's."""
        self.url = url.rstrip("/")
        self._on_moved = on_moved
        self._open(key=None)

    def _open(self, *, key: str | None) -> None:
        connection = Connection(url=self.url, key=key, origin="--scheduler")
        self._transport = Transport(connection, patience_s=BLOB_PATIENCE_S)
        self._blobs = Blobs(self._transport)

    async def close(self) -> None:
        await self._transport.close()

    async def use_token(self, token: str) -> None:
        """The node's own, for everything but enrolment."""
        await self._transport.close()
        self._open(key=token)

    async def enrol(self, facts: NodeFacts, *, key: str | None) -> Enrolled:
        answer = await self._transport.request(
            "POST",
            "/v1/nodes",
            content=Enrolment(facts=facts).model_dump_json().encode(),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            patience_s=0.0,
        )
        return answer.read(Enrolled)

    async def exchange(self, node_id: str, request: ExchangeRequest) -> ExchangeAnswer:
        """One try."""
        try:
            async with asyncio.timeout(request.wait_s + ANSWER_S):
                answer = await self._transport.request(
                    "POST",
                    f"/v1/nodes/{node_id}/exchange",
                    content=request.model_dump_json(exclude_defaults=True).encode(),
                    held_s=request.wait_s,
                    patience_s=0.0,
                )
        except TimeoutError as error:
            raise Unavailable(
                f"the scheduler at {self.url} has not answered for {ANSWER_S:.0f} s.",
                hint="See that it is not overloaded, and that the network is not broken.",
            ) from error
        return answer.read(ExchangeAnswer)

    async def fetch_blob(self, digest: str, to: Path) -> None:
        """Puts the blob at ``to``, verified. Raises NotFound, Unavailable, or StorageFull of this machine's disk."""
        await self._blobs.download(digest, to)
        self._moved((await asyncio.to_thread(to.stat)).st_size)

    async def store_open(self, file: FileIO, digest: str, size_bytes: int) -> None:
        """Has the scheduler keep the first ``size_bytes`` of an open file; on return they are on its disk.

        Raises InvalidInput when they are not what the digest says: something still writes to it.
        """
        await self._blobs.send_open(file, digest, size_bytes)
        self._moved(size_bytes)

    async def store_bytes(self, content: bytes) -> str:
        """As ``store_open``, for bytes in memory; returns their digest."""
        digest = await self._blobs.upload_bytes(content)
        self._moved(len(content))
        return digest

    @property
    def on_loopback(self) -> bool:
        """The scheduler is on this machine."""
        return self._transport.on_loopback

    async def missing(self, digests: list[str]) -> tuple[str, ...]:
        """Those that the scheduler does not have; at most MAX_ASKED in one question."""
        return await self._blobs.missing(digests)

    async def store_piece(
        self, content: bytes, digest: str, slices: Callable[[], AsyncIterator[bytes]]
    ) -> None:
        """Has the scheduler keep this content, sent as it comes out of ``slices``; on return it is on its disk."""
        await self._blobs.put(digest, len(content), slices)
        self._moved(len(content))

    async def read_blob(self, digest: str, limit_bytes: int) -> bytes:
        """All of it, verified. Raises NotFound, TooLarge, Damaged, Unavailable."""
        content = await self._blobs.read(digest, limit_bytes)
        self._moved(len(content))
        return content

    def _moved(self, byte_count: int) -> None:
        if not self._transport.on_loopback:
            self._on_moved(byte_count)
