"""Control groups of Linux, both versions: what the processes in one have spent, and which processes those are.

cgroups(7); version 2: kernel documentation ``admin-guide/cgroup-v2`` (``cpu.stat`` is there whether or not the controller
is enabled, ``io.stat`` only with it); version 1: ``cgroup-v1/cpuacct``. On a hybrid system either may be used.
"""

import os
import re
from typing import NamedTuple

from idle_sense.errors import SenseError
from idle_sense.probes.groups import Group, Whereabouts

MOUNTS = "/proc/self/mountinfo"
PROC = "/proc"
DEEPEST = 8
"""Of groups within groups that are looked into."""


class Mount(NamedTuple):
    """One hierarchy, as this program sees it."""

    place: str
    root: str
    """Which group is seen at ``place``; another than ``/`` in some containers."""
    version: int
    controllers: frozenset[str]


class Cgroup:
    """One group with all that are below it: a ``groups.Group``. Reading one that was removed yields None."""

    def __init__(self, path: str, mount: Mount) -> None:
        self.path = path
        self._mount = mount
        relative = path[len(mount.place) :].strip("/")
        self._name = f"{mount.root.rstrip('/')}/{relative}".rstrip("/") or "/"

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def is_inherited(self) -> bool:
        """Linux hands what a child spent to the parent that waits for it, wherever the two are."""
        return True

    @property
    def version(self) -> int:
        return self._mount.version

    def cpu_s(self) -> float | None:
        """Processor time of all that ever ran in it. ``usage_usec`` of cpu.stat, or nanoseconds in cpuacct.usage."""
        if self._mount.version == 1:
            text = _bytes(f"{self.path}/cpuacct.usage")
            return None if text is None or not text.strip().isdigit() else int(text) / 1e9
        text = _bytes(f"{self.path}/cpu.stat")
        found = None if text is None else re.search(rb"^usage_usec (\d+)$", text, re.MULTILINE)
        return None if found is None else int(found[1]) / 1e6

    def disk_bytes(self) -> dict[str, tuple[int, int]] | None:
        """(read, written) by device ``major:minor``, from version 2's io.stat, which also sees what is written back later.
        None: nobody counts. Version 1 does not see what is written back later, so it is not asked."""
        text = None if self._mount.version == 1 else _bytes(f"{self.path}/io.stat")
        if text is None:
            return None
        found: dict[str, tuple[int, int]] = {}
        for line in text.splitlines():
            device, _, rest = line.partition(b" ")
            values = dict(pair.split(b"=", 1) for pair in rest.split() if b"=" in pair)
            try:
                found[device.decode("ascii")] = (int(values[b"rbytes"]), int(values[b"wbytes"]))
            except (KeyError, ValueError):
                # A device that nobody used yet stands there without numbers.
                continue
        return found

    def contains(self, process: Whereabouts) -> bool:
        return self.holds(process.cgroup)

    def is_below(self, other: Group) -> bool:
        return self.path != other.name and self.path.startswith(f"{other.name.rstrip('/')}/")

    def holds(self, membership: bytes) -> bool:
        """``membership``: of one process, as ``membership_of`` reads it."""
        for line in membership.splitlines():
            number, controllers, name = line.split(b":", 2)
            if self._mount.version == 2:
                if number != b"0" or controllers:
                    continue
            elif not self._mount.controllers & set(controllers.decode("ascii", "replace").split(",")):
                continue
            found = os.fsdecode(name)
            return self._name in ("/", found) or found.startswith(f"{self._name}/")
        return False

    def pids(self) -> set[int]:
        """Processes in it and below. One look of a few small files, no scan of all processes."""
        found: set[int] = set()
        pending = [(self.path, 0)]
        while pending:
            path, depth = pending.pop()
            text = _bytes(f"{path}/cgroup.procs")
            if text is None:
                continue
            found.update(int(pid) for pid in text.split() if pid.isdigit())
            if depth < DEEPEST:
                try:
                    with os.scandir(path) as entries:
                        pending += [(entry.path, depth + 1) for entry in entries if entry.is_dir()]
                except OSError:
                    # Removed meanwhile.
                    continue
        return found - {0}


def cgroup_at(path: str, mounts: str = MOUNTS) -> Cgroup:
    """The group whose folder this is. Raises SenseError where it is none, or nobody counts processor time there."""
    path = os.path.realpath(path)  # version 1's hierarchies have links as second names
    if not os.path.isdir(path):  # noqa: PTH112
        raise SenseError(f"There is no folder {path}.", hint="Make the control group before you add it.")
    text = _bytes(mounts) or b""
    inside = [
        mount
        for mount in mounts_in(text)
        if path == mount.place or path.startswith(f"{mount.place.rstrip('/')}/")
    ]
    if not inside:
        raise SenseError(
            f"{path} is no control group.",
            hint="Give a folder below /sys/fs/cgroup, as mounted on this system.",
        )
    group = Cgroup(path, max(inside, key=lambda mount: len(mount.place)))
    if group.cpu_s() is None:
        raise SenseError(
            f"{path} does not tell processor time.",
            hint="Use a group of version 2, or of version 1's cpuacct hierarchy.",
        )
    return group


def mounts_in(mountinfo: bytes) -> tuple[Mount, ...]:
    """proc_pid_mountinfo(5): ``id parent dev ROOT PLACE options… - TYPE source SUPEROPTIONS``."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(b" - ")
        fields, kinds = left.split(b" "), right.split(b" ")
        if len(fields) < 5 or len(kinds) < 3 or kinds[0] not in (b"cgroup", b"cgroup2"):
            continue
        found.append(
            Mount(
                place=_unescaped(fields[4]),
                root=_unescaped(fields[3]),
                version=2 if kinds[0] == b"cgroup2" else 1,
                controllers=frozenset(kinds[2].decode("ascii", "replace").split(",")) - {"rw", "ro"},
            )
        )
    return tuple(found)


def membership_of(pid: int, proc: str = PROC) -> bytes:
    """cgroups(7), /proc/PID/cgroup; empty for a process that is gone."""
    return _bytes(f"{proc}/{pid}/cgroup") or b""


def _unescaped(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field))


def _bytes(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
            return file.read()
    except OSError:
        return None
