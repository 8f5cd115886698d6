"""A guest whose main process, as ``host`` sees it, is a program that made the sandbox, and around the task's own."""

import asyncio
from dataclasses import replace
from typing import Final

from idle_accelerator.agent.sandbox.types import Guest, GuestExit, GuestRecord, GuestUsage

_SIGNALLED: Final = range(129, 193)
"""Exit codes by which such programs, as shells do, tell of a program that a signal ended."""


class Around:
    """What is the same of the guest inside and of the one that ``host`` supervises."""

    def __init__(self, outer: Guest) -> None:
        self._outer = outer

    @property
    def pid(self) -> int:
        return self._outer.pid

    @property
    def record(self) -> GuestRecord:
        return self._outer.record

    @property
    def job(self) -> str | None:
        return self._outer.job

    @property
    def cgroup(self) -> str | None:
        return self._outer.cgroup

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        return self._outer.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        return self._outer.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        return self._outer.stderr

    def begin_freeze(self) -> None:
        self._outer.begin_freeze()

    def freeze(self) -> None:
        self._outer.freeze()

    def thaw(self) -> None:
        self._outer.thaw()


def as_told(ended: GuestExit) -> GuestExit:
    """The end of the program inside, as the one around it tells it by its exit code."""
    if ended.exit_code is not None and ended.exit_code in _SIGNALLED:
        return replace(ended, exit_code=None, signal=ended.exit_code - _SIGNALLED.start + 1)
    return ended


def without(usage: GuestUsage, processes: int) -> GuestUsage:
    """The programs around are no part of it, but for the memory that they take."""
    return replace(usage, processes=max(0, usage.processes - processes))
