"""Whose work is next: higher priority first, then greater age."""

from collections.abc import Iterable

from idle_accelerator.core.snapshot import WaitingJob


def in_order(jobs: Iterable[WaitingJob]) -> list[WaitingJob]:
    return sorted(jobs, key=lambda job: (-job.priority, job.order_key))
