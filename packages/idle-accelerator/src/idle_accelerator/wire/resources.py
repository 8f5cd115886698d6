"""Amounts that a task asks for and a node offers."""

from pydantic import Field

from idle_accelerator.wire.model import WireModel


class Resources(WireModel):
    """A vector of amounts. cpus may be fractional; memory and disk are bytes."""

    cpus: float = Field(default=0.0, ge=0, le=100_000)
    memory_bytes: int = Field(default=0, ge=0, le=1 << 60)
    disk_bytes: int = Field(default=0, ge=0, le=1 << 60)
    gpus: int = Field(default=0, ge=0, le=10_000)
