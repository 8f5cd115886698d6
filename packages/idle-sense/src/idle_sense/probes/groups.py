"""Groups that the operating system itself counts for: control groups of Linux, job objects of Windows.

What is in them is counted exactly, whatever becomes of the processes. ``guests`` has the register.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol


class Whereabouts:
    """Where one process is. What groups read for that is read once for all of them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @cached_property
    def cgroup(self) -> bytes:
        """Its membership in control groups, as ``Cgroup.holds`` takes it."""
        from idle_sense.platform import cgroups  # noqa: PLC0415 - only where it is used

        return cgroups.membership_of(self.pid)


class Group(Protocol):
    """What the ledger asks of a group. Nothing here raises: one that is gone answers None, nobody, False."""

    @property
    def name(self) -> str:
        """No other group of this system has the same."""
        ...

    @property
    def is_inherited(self) -> bool:
        """Whether a process outside inherits what its children inside have spent, so that it must not count again."""
        ...

    def cpu_s(self) -> float | None:
        """Processor time of all that ever ran in it, the ended with the living."""
        ...

    def disk_bytes(self) -> Mapping[str, tuple[int, int]] | None:
        """(read, written) by device. None: nobody counts."""
        ...

    def pids(self) -> set[int]:
        """Processes in it and below."""
        ...

    def contains(self, process: Whereabouts) -> bool: ...

    def is_below(self, other: "Group") -> bool:
        """Whether the other one counts for it as well."""
        ...


def inside(pid: int, groups: Sequence[Group]) -> bool:
    if not groups or pid < 1:
        return False
    process = Whereabouts(pid)
    return any(group.contains(process) for group in groups)


def topmost(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Those that are not below another one, which counts for them as well."""
    every = list(groups)
    return tuple(one for one in every if not any(one.is_below(other) for other in every))


class Meters:
    """What groups counted since they were added; never falls, and keeps what was counted when a group is gone."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], float | None]] = {}
        self._last: dict[str, float] = {}
        self._total: float | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def add(self, name: str, read: Callable[[], float | None]) -> None:
        self._readers[name] = read
        self._total = self._total or 0.0
        value = read()
        if value is not None:
            self._last[name] = value

    def settle(self, name: str) -> None:
        """Counts it for the last time."""
        if name in self._readers:
            self._look(name)
            del self._readers[name]
            self._last.pop(name, None)

    def total(self) -> float | None:
        """None: there never were any."""
        for name in self._readers:
            self._look(name)
        return self._total

    def _look(self, name: str) -> None:
        value = self._readers[name]()
        if value is None:
            return
        last = self._last.get(name, value)
        # One that counts from 0 again was removed and made anew.
        self._total = (self._total or 0.0) + (value - last if value >= last else value)
        self._last[name] = value
