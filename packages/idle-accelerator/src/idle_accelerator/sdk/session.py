"""What the parts of one client share."""

from collections.abc import Iterable
from dataclasses import dataclass

from idle_accelerator.sdk.blobs import Blobs
from idle_accelerator.sdk.results import ResultReader
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.settings import Connection


@dataclass(frozen=True, kw_only=True)
class Session:
    transport: Transport
    blobs: Blobs
    reader: ResultReader


def open_session(connection: Connection, *, trust: Iterable[str], patience_s: float) -> Session:
    """Connects to nothing yet."""
    transport = Transport(connection, patience_s=patience_s)
    blobs = Blobs(transport)
    return Session(transport=transport, blobs=blobs, reader=ResultReader(transport, blobs, trust))
