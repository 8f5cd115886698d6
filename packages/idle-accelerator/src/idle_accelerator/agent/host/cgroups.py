"""Linux's control groups: one for each guest, in which its whole tree lives, is frozen, limited and killed as one.

See cgroups(7), the kernel's ``admin-guide/cgroup-v2`` and ``cgroup-v1/freezer-subsystem``. Which of it this machine allows is found
in ``probing``. In each hierarchy that serves there is a *home* below the group that this program was started in; it is named after
this program, and the guests' groups stand in it, named after their brands. So limits that somebody else has set
for this program hold for its guests too, and another agent's groups are never mistaken for one's own.

A process that is moved into a group waits some milliseconds for the kernel (an RCU grace period), one that is born there does not:
see ``template``, which makes the guests' processes where they belong.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from idle_accelerator.agent.host import procfs
from idle_accelerator.agent.host.types import GroupHome

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

NEW: Final = 2
"""The version of control groups that has one hierarchy for all."""
HOME_PREFIX: Final = "idle-guests-"
MEMBERS: Final = "cgroup.procs"
_POLL_S: Final = 0.000_2
_EMPTY_POLL_S: Final = 0.01
_POLL_MAX_S: Final = 0.002
_HALT_TO_KILL_S: Final = 0.2
_FILE_BYTES: Final = 4096
_LOWEST_SHARES: Final = "2"
_PERIOD_US: Final = 20_000
"""In which a quota of processors is given out: short, so that a guest which has spent its part is soon told to stand still."""
_USUAL: Final = (("cpu.idle", "0"), ("cpu.weight", "100"), ("cpu.shares", "1024"))
"""What a new group has."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of this program's homes, one for each use; None where there is no such hierarchy, or it may not be used."""

    tree: str | None = None
    """Where whole trees are frozen and killed: version 2, or version 1's freezer."""
    version: int = 2
    """Of ``tree``."""
    kills: bool = False
    """Groups in ``tree`` have cgroup.kill."""
    controllers: frozenset[str] = frozenset()
    """What groups in ``tree`` can weigh and limit, in version 2: of cpu, memory, pids."""
    cpu: str | None = None
    """In version 1, one group for all guests of the lowest priority: what is forked in it stays in it."""
    memory: str | None = None
    """In version 1."""
    pids: str | None = None
    """In version 1."""

    @property
    def metered(self) -> str | None:
        """Where the kernel counts the processor time of all guests that have groups; None where it does not."""
        if self.version == NEW:
            return self.tree
        if self.cpu is not None and os.path.exists(f"{os.path.dirname(self.cpu)}/cpuacct.usage"):  # noqa: PTH110, PTH120
            return self.cpu
        return None

    def all(self) -> Iterator[str]:
        """Each home once: hierarchies may have several controllers."""
        yield from dict.fromkeys(
            place for place in (self.tree, self.cpu, self.memory, self.pids) if place is not None
        )


class Weight:
    """The least share of the processors, for all in one group."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lifted: set[str] = set()

    def lift(self, whose: str) -> None:
        """Who is to be frozen must be given a processor once, also when the owner's programs take all of them."""
        if not self._lifted:
            for name, value in _USUAL:
                if os.path.exists(f"{self._folder}/{name}"):  # noqa: PTH110
                    with contextlib.suppress(OSError):
                        write(f"{self._folder}/{name}", value)
                    break
        self._lifted.add(whose)

    def lower(self, whose: str) -> None:
        """It stands still, or is not waited for any more."""
        if whose in self._lifted:
            self._lifted.discard(whose)
            if not self._lifted:
                with contextlib.suppress(OSError):
                    be_idle(self._folder)


class Group:
    """The group of one guest, in one or several hierarchies."""

    def __init__(
        self,
        tree: str,
        *,
        version: int,
        kills: bool,
        others: Iterable[str] = (),
        weight: Weight | None = None,
    ) -> None:
        """``tree`` is the folder in which it is frozen and killed; ``others`` limit it, in version 1."""
        self.tree: Final = tree
        self._weight = weight
        self.version: Final = version
        self.kills: Final = kills
        self.others: Final = tuple(others)

    @classmethod
    def found(cls, tree: str) -> "Group":
        """That of an agent that has ended."""
        version = 1 if os.path.exists(f"{tree}/freezer.state") else 2  # noqa: PTH110
        return cls(tree, version=version, kills=os.path.exists(f"{tree}/cgroup.kill"))  # noqa: PTH110

    @property
    def name(self) -> str:
        return os.path.basename(self.tree)  # noqa: PTH119

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.tree, *self.others)

    def add(self, pid: int) -> None:
        """Move a process in; its threads come with it, its children do not. Blocks for some milliseconds. Raises OSError."""
        for folder in self.folders:
            write(f"{folder}/{MEMBERS}", str(pid))

    def open_doors(self, opened: contextlib.ExitStack) -> list[int]:
        """Descriptors by which a process of any user can be made a member, as ``template.MAKE`` tells. Raises OSError."""
        doors: list[int] = []
        paths = [(self.tree, os.O_RDONLY | os.O_DIRECTORY)] if self.version == NEW else []
        for path, mode in (*paths, *((f"{folder}/{MEMBERS}", os.O_WRONLY) for folder in self.folders)):
            doors.append(os.open(path, mode | os.O_CLOEXEC))
            opened.callback(os.close, doors[-1])
        return doors

    def pids(self) -> set[int]:
        """Those that have not ended, also in groups that the guest has made below."""
        return {pid for folder in _below(self.tree) for pid in pids_in(folder)}

    def begin_freeze(self) -> None:
        """Have the kernel stop each process of it before its next instruction. To trap it, each must be given a processor once."""
        name, value = ("cgroup.freeze", "1") if self.version == NEW else ("freezer.state", "FROZEN")
        if self._weight is not None:
            self._weight.lift(self.tree)
        with contextlib.suppress(OSError):  # it was removed
            write(f"{self.tree}/{name}", value)

    def freeze(self, limit_s: float) -> bool:
        """Stop all of it; True when the kernel says that it stands still, False when it did not within the time."""
        self.begin_freeze()
        try:
            return self._stands_still_within(limit_s)
        finally:
            if self._weight is not None:
                self._weight.lower(self.tree)

    def _stands_still_within(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        pause_s = _POLL_S
        while not self.is_frozen():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(_POLL_MAX_S, pause_s * 2)
        return True

    def is_frozen(self) -> bool:
        """As the kernel tells it: nothing in it executes another instruction before ``thaw``."""
        if self.version == 1:
            return read(f"{self.tree}/freezer.state") == b"FROZEN\n"
        return b"frozen 1" in read(f"{self.tree}/cgroup.events").splitlines()

    def thaw(self) -> None:
        name, value = ("cgroup.freeze", "0") if self.version == NEW else ("freezer.state", "THAWED")
        with contextlib.suppress(OSError):  # it was removed
            write(f"{self.tree}/{name}", value)

    def kill(self) -> None:
        """Have all of it die, frozen or not. Whether that has happened is to be looked at."""
        if self.kills:
            with contextlib.suppress(OSError):
                write(f"{self.tree}/cgroup.kill", "1")
            return
        # What forks is stopped first, so that one round finds all of it. A frozen process of version 1 dies when thawed.
        if self.pids():
            self.freeze(_HALT_TO_KILL_S)
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        self.thaw()

    def limit(self, *, memory_bytes: int | None, processes: int | None) -> None:
        """Bind it, as far as its hierarchies can; None is no limit. Raises OSError."""
        for folder in self.folders:
            if memory_bytes is not None:
                if os.path.exists(f"{folder}/memory.max"):  # noqa: PTH110
                    write(f"{folder}/memory.max", str(memory_bytes))
                    _write_if_there(f"{folder}/memory.swap.max", "0")
                elif os.path.exists(f"{folder}/memory.limit_in_bytes"):  # noqa: PTH110
                    write(f"{folder}/memory.limit_in_bytes", str(memory_bytes))
                    # Memory and swap together: it needs no less than the first, and is there where swap is counted.
                    _write_if_there(f"{folder}/memory.memsw.limit_in_bytes", str(memory_bytes))
            if processes is not None:
                _write_if_there(f"{folder}/pids.max", str(processes))

    def cpu_s(self) -> float | None:
        """Processor time of all that ever ran in it; None where it is not counted."""
        for line in read(f"{self.tree}/cpu.stat").splitlines():
            if line.startswith(b"usage_usec "):
                return int(line.split()[1]) / 1e6
        return None

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of it for want of memory. Version 2 then kills all of it by itself."""
        tallies = (f"{self.tree}/memory.events", *(f"{folder}/memory.oom_control" for folder in self.others))
        return any(
            line.startswith(b"oom_kill ") and line != b"oom_kill 0"
            for tally in tallies
            for line in read(tally).splitlines()
        )

    def remove(self) -> bool:
        """False when something in it lives yet. Idempotent."""
        gone = [remove_folder(folder) for folder in self.folders]
        return all(gone)


class Homes:
    """Makes this program's groups, and takes them away."""

    def __init__(self, places: Places) -> None:
        self.places: Final = places
        self._weight = None if places.cpu is None else Weight(places.cpu)
        self._cap: float | None = None
        self._undone: list[Group] = []
        """Guests have ended, but the kernel still held something of theirs."""

    def make(self, brand: str, *, nice: bool, limited: bool) -> Group | None:
        """A group for one guest; None where there are none, or now it cannot be made. ``limited``: it will have limits."""
        places = self.places
        if places.tree is None:
            return None
        homes = [places.memory, places.pids] if limited else []
        others = [f"{home}/{brand}" for home in dict.fromkeys(homes) if home is not None]
        tree = f"{places.tree}/{brand}"
        weight = (Weight(tree) if "cpu" in places.controllers else self._weight) if nice else None
        group = Group(tree, version=places.version, kills=places.kills, others=others, weight=weight)
        try:
            for folder in group.folders:
                _make(folder)
            if self._cap is not None:
                self.cap(self._cap)  # its home may be new
            if nice and "cpu" in places.controllers:
                be_idle(group.tree)
            if limited and "memory" in places.controllers:
                write(f"{group.tree}/memory.oom.group", "1")
        except OSError:
            self.discard(group)
            return None
        return group

    def for_low_priority(self) -> str | None:
        """Version 1's common group for guests of the lowest priority; None where there is none."""
        if self.places.cpu is None:
            return None
        try:
            make_home(self.places.cpu)
            be_idle(self.places.cpu)
        except OSError:
            return None
        if self._cap is not None:
            self.cap(self._cap)
        return self.places.cpu

    def cap(self, cores: float | None) -> bool:
        """All guests together get so many processors at most, from now on and after a home was made anew; None: no limit. False when
        the kernel does not take it."""
        self._cap = cores
        home = self.places.tree if "cpu" in self.places.controllers else self.places.cpu
        if home is None:
            return False
        try:
            give_quota(home, cores)
        except OSError:
            return not os.path.isdir(home)  # noqa: PTH112  # before the first guest: it is told when it is made
        return True

    def shown(self) -> GroupHome | None:
        """For who freezes guests from another process."""
        if self.places.tree is None:
            return None
        return GroupHome(
            folder=self.places.tree, version=1 if self.places.version == 1 else NEW, weights=self.places.cpu
        )

    def discard(self, group: Group) -> None:
        """Its guest has ended."""
        self._undone = [one for one in (*self._undone, group) if not one.remove()]

    def close(self) -> None:
        """Remove what is empty. What is needed again is made again."""
        self._undone = [one for one in self._undone if not one.remove()]
        for home in self.places.all():
            remove_folder(home)


def home_name() -> str:
    """That of the folders in which this program's groups stand: for no other program, of any time, the same."""
    return f"{HOME_PREFIX}{_namespace()}-{os.getpid()}-{_started_of(os.getpid())}"


def remove_abandoned(parents: Iterable[str], *, within_s: float) -> None:
    """Remove homes of programs that have ended, as they get empty. Nothing is killed: a guest that still lives keeps its group.

    ``within_s`` is how long it may be waited for what dies at this moment.
    """
    deadline = time.monotonic() + within_s
    left = [home for parent in parents for home in _abandoned(parent)]
    while (left := [home for home in left if not remove_folder(home)]) and time.monotonic() < deadline:
        time.sleep(_EMPTY_POLL_S)


def _abandoned(parent: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [
            entry.path
            for entry in list(os.scandir(parent))
            if entry.name.startswith(HOME_PREFIX) and _is_abandoned(entry.name)
        ]
    return []


def _is_abandoned(name: str) -> bool:
    """Only what a program that would be seen here has left."""
    namespace, _, rest = name.removeprefix(HOME_PREFIX).partition("-")
    pid, _, started = rest.partition("-")
    return namespace == _namespace() and pid.isdecimal() and _started_of(int(pid)) != started


def is_of_guest(folder: str, brand: str) -> bool:
    """Whether a folder's name is that of the group of the guest with this brand."""
    home, name = os.path.split(folder)
    return bool(brand) and name == brand and os.path.basename(home).startswith(HOME_PREFIX)  # noqa: PTH119


def be_idle(folder: str) -> str:
    """The least weight that a group can have for processors; returns the file that gives it. Raises OSError."""
    for name, value in (("cpu.idle", "1"), ("cpu.weight", "1")):
        with contextlib.suppress(FileNotFoundError):
            write(f"{folder}/{name}", value)
            return name
    write(f"{folder}/cpu.shares", _LOWEST_SHARES)
    return "cpu.shares"


def give_quota(folder: str, cores: float | None) -> str:
    """What is in the group and below may use so many processors at most; returns the file that says so. Raises OSError."""
    if os.path.exists(f"{folder}/cpu.max"):  # noqa: PTH110
        quota = "max" if cores is None else str(_quota_us(cores))
        write(f"{folder}/cpu.max", f"{quota} {_PERIOD_US if cores is not None else 100_000}")
        return "cpu.max"
    write(f"{folder}/cpu.cfs_quota_us", "-1")
    if cores is not None:
        write(f"{folder}/cpu.cfs_period_us", str(_PERIOD_US))
        write(f"{folder}/cpu.cfs_quota_us", str(_quota_us(cores)))
    return "cpu.cfs_quota_us"


def _quota_us(cores: float) -> int:
    """The kernel gives out no less than a millisecond."""
    return max(1000, round(cores * _PERIOD_US))


def write(path: str, value: str) -> None:
    """Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def remove_folder(folder: str) -> bool:
    """With what is below it, as far as that is empty. False when something in it lives."""
    gone = True
    for each in reversed(list(_below(folder))):
        try:
            Path(each).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            gone = False
    return gone


def _make(folder: str) -> None:
    """One guest's folder. Raises OSError."""
    try:
        Path(folder).mkdir(0o755)
    except FileNotFoundError:
        make_home(os.path.dirname(folder))  # noqa: PTH120
        Path(folder).mkdir(0o755)


def make_home(home: str) -> None:
    """With all that its groups can have. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        Path(home).mkdir(0o755)
    if os.path.exists(f"{home}/cgroup.controllers"):  # noqa: PTH110
        for controller in listed(f"{home}/cgroup.controllers") & {"cpu", "memory", "pids"}:
            with contextlib.suppress(OSError):  # it is found out what came of it
                write(f"{home}/cgroup.subtree_control", f"+{controller}")


def _below(folder: str) -> Iterator[str]:
    """The folder and all below it, parents first."""
    yield folder
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)


def _write_if_there(path: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        write(path, value)


def pids_in(folder: str) -> set[int]:
    """Of one group without those below it."""
    try:
        with open(f"{folder}/{MEMBERS}", "rb", buffering=0) as file:  # noqa: PTH123  # 2× as quick
            return set(map(int, file.readall().split())) - {0}  # 0: of another pid namespace
    except OSError:
        return set()


def listed(path: str) -> set[str]:
    """The words in a file; none when it is not there."""
    return set(read(path).decode().split())


def read(path: str) -> bytes:
    """Empty when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


@cache
def _namespace() -> str:
    """In which the pids in names are meant: another container's are others."""
    return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")


def _started_of(pid: int) -> str:
    """The boot and the tick in which a process began, in short; empty when there is none."""
    process = procfs.read(pid)
    if process is None or process.ended:
        return ""
    boot, _, tick = process.started.rpartition(":")
    return f"{boot[:8]}-{tick}"
