"""The part of a Linux machine that a container may use: what the control group at the root of its view allows and has used.

Seen from outside of a container that group is the real root, which has no limits (cgroups(7), kernel documentation
``admin-guide/cgroup-v2`` and ``cgroup-v1/memory``). A limit on this program's own service is none of the machine's.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

LIMITS_HOLD_S = 60.0
"""How long it is believed that limits did not change."""
UNLIMITED_BYTES = 1 << 60
"""Version 1 writes no limit as a number that no memory reaches."""


class Room(NamedTuple):
    limit_bytes: int
    left_bytes: int


class Container:
    def __init__(self, *, groups: str = "/sys/fs/cgroup", now: Callable[[], float] = time.monotonic) -> None:
        self._groups = groups
        self._now = now
        self._looked_at_s: float | None = None
        self._cores: float | None = None
        self._limit_bytes: int | None = None
        self._began_s = now()

    def cpu_times_s(self) -> tuple[float, float] | None:
        """(busy, all) since some moment; all: what the quota allowed. None: there is no quota."""
        self._look_at_limits()
        if self._cores is None:
            return None
        used_s = self._used_s()
        return None if used_s is None else (used_s, (self._now() - self._began_s) * self._cores)

    def memory(self) -> Room | None:
        """What is left of the container's own memory; files that can be dropped count as left. None: there is no limit."""
        self._look_at_limits()
        limit = self._limit_bytes
        if limit is None:
            return None
        used, dropped = self._number("memory.current"), "inactive_file"
        stat = self._text("memory.stat")
        if used is None:
            used, dropped = self._number("memory/memory.usage_in_bytes"), "total_inactive_file"
            stat = self._text("memory/memory.stat")
        if used is None:
            return None
        for line in stat.splitlines():
            name, _, value = line.partition(" ")
            if name == dropped and value.isdigit():
                used = max(0, used - int(value))
        return Room(limit, max(0, limit - used))

    def _look_at_limits(self) -> None:
        now_s = self._now()
        if self._looked_at_s is not None and 0 <= now_s - self._looked_at_s < LIMITS_HOLD_S:
            return
        self._looked_at_s = now_s
        cores = self._quota()
        if cores != self._cores:
            # All that was allowed is counted anew: a reader sees less than before, and begins again.
            self._cores, self._began_s = cores, now_s
        limit = self._number("memory.max")
        if limit is None:
            limit = self._number("memory/memory.limit_in_bytes")
        self._limit_bytes = limit if limit is not None and 0 < limit < UNLIMITED_BYTES else None

    def _quota(self) -> float | None:
        quota, _, period = self._text("cpu.max").partition(" ")
        if not period:
            quota, period = self._text("cpu/cpu.cfs_quota_us"), self._text("cpu/cpu.cfs_period_us")
        if not quota.isdigit() or not period.isdigit() or int(period) == 0:
            return None
        return int(quota) / int(period) or None

    def _used_s(self) -> float | None:
        for line in self._text("cpu.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec" and value.isdigit():
                return int(value) / 1e6
        used_ns = self._number("cpuacct/cpuacct.usage")
        return None if used_ns is None else used_ns / 1e9

    def _number(self, name: str) -> int | None:
        text = self._text(name)
        return int(text) if text.isdigit() else None

    def _text(self, name: str) -> str:
        """Empty where there is no such file."""
        try:
            with open(f"{self._groups}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
                return file.read().decode("ascii", "replace").strip()
        except OSError:
            return ""
