"""Opaque bytes on their way: small ones travel inside the message, large ones as a blob by digest."""

from typing import Self

from pydantic import Field, model_validator

from idle_accelerator.wire.ids import Digest
from idle_accelerator.wire.model import WireModel

INLINE_LIMIT_BYTES = 64 * 1024
"""Larger payloads go by blob, so that exchanges and rows stay small."""


class Payload(WireModel):
    """Exactly one of ``inline`` (base64 in JSON, at most 64 KiB) and ``blob``."""

    inline: bytes | None = Field(default=None, max_length=INLINE_LIMIT_BYTES)
    blob: Digest | None = None
    size_bytes: int = Field(ge=0, le=1 << 50)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.inline is None) == (self.blob is None):
            raise ValueError("give exactly one of 'inline' and 'blob'")
        if self.inline is not None and len(self.inline) != self.size_bytes:
            raise ValueError("'size_bytes' does not match the length of 'inline'")
        return self


def inline_payload(content: bytes) -> Payload:
    return Payload(inline=content, size_bytes=len(content))


class RemoteError(WireModel):
    """An exception of a user's function, as data. Texts are cut by the agent."""

    type_name: str = Field(max_length=300)
    text: str = Field(max_length=20_000)
    traceback_text: str = Field(max_length=100_000)
