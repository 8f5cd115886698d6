"""Arithmetic on resource vectors: how often a requirement fits into what is free."""

import math

from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.resources import Resources

_CPU_GRAIN = 1e-6
"""Below this a difference in cores is rounding, not capacity."""


def demand(requirements: Requirements) -> Resources:
    return Resources(
        cpus=requirements.cpus,
        memory_bytes=requirements.memory_bytes,
        disk_bytes=requirements.disk_bytes,
        gpus=requirements.gpus,
    )


def times(free: Resources, each: Resources) -> int:
    """How many of ``each`` fit into ``free`` at once; ``each`` needs some cpus, so the answer is finite."""
    limits = [math.floor((free.cpus + _CPU_GRAIN) / each.cpus)]
    if each.memory_bytes:
        limits.append(free.memory_bytes // each.memory_bytes)
    if each.disk_bytes:
        limits.append(free.disk_bytes // each.disk_bytes)
    if each.gpus:
        limits.append(free.gpus // each.gpus)
    return max(0, min(limits))


def minus(free: Resources, each: Resources, count: int = 1) -> Resources:
    """``free`` less ``count`` of ``each``, never below zero."""
    return Resources(
        cpus=max(0.0, free.cpus - each.cpus * count),
        memory_bytes=max(0, free.memory_bytes - each.memory_bytes * count),
        disk_bytes=max(0, free.disk_bytes - each.disk_bytes * count),
        gpus=max(0, free.gpus - each.gpus * count),
    )
