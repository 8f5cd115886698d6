"""Whose work is not the owner's: this program itself, the processes it was told of with their trees, and groups.

How much they spent is added up in ``accounts``, what ``groups`` are is there; this is the register, and who belongs to it.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from idle_sense.probes.accounts import Account, Amount, Look, Share
from idle_sense.probes.groups import Group, Meters, inside, topmost

LONGEST_LINE = 64
"""Of ancestors that are followed."""
MOST_STRANGERS = 256
"""Processes that are remembered to be nobody's kin."""
NO_ROOT = -1
"""In a group that was added, without being in a tree that was."""


class ProcessInfo(NamedTuple):
    pid: int
    parent: int
    session: int
    """Process id of its session's leader; 0 where the system has none."""
    terminal: int
    """Device number of its controlling terminal; 0: none."""
    started: float
    """With the pid it names the process for good; only equality means something."""
    threads: int
    cpu_s: float
    """Its own processor time, and that of the descendants that were waited for."""
    inherited_s: float | None = None
    """The part that descendants left; None: the system does not tell the two apart."""


class Processes(Protocol):
    """What the ledger asks the operating system."""

    def process(self, pid: int) -> ProcessInfo | None:
        """None: there is no such process."""
        ...

    def children(self, process: ProcessInfo) -> Iterable[int]: ...


class DiskUse(Protocol):
    """Who moved how much from and to disks; (read, written) in bytes."""

    def of_process(self, pid: int) -> tuple[float, float] | None:
        """With what it inherited from children that it waited for. None: it may not be asked, or is gone."""
        ...

    def of_group(self, group: Group) -> tuple[float, float] | None:
        """None: nobody counts."""
        ...


class _Member(NamedTuple):
    info: ProcessInfo
    root: int
    metered: bool


class GuestLedger:
    """Register of guests. All methods may be called from any thread.

    Work of other programs of the pool on this machine (another agent, a scheduler) is no owner's either: add them too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._roots: dict[int, float | None] = {}
        self._groups: dict[str, Group] = {}
        self._top: tuple[Group, ...] = ()
        self._members: dict[int, _Member] = {}
        self._strangers: set[tuple[int, float]] = set()
        self._terminals: frozenset[int] = frozenset()
        self._cpu = Account(os.getpid())
        self._cpu_meters = Meters()
        self._disk = (Account(os.getpid()), Account(os.getpid()))
        self._disk_meters = (Meters(), Meters())
        self._disk_use: DiskUse | None = None
        self._sent_bytes = 0.0

    def add(self, pid: int) -> None:
        """This process and all that descends from it. Children of this program are counted from their start."""
        with self._lock:
            self._roots[pid] = None
            self._strangers.clear()

    def discard(self, pid: int) -> None:
        """No longer; for a process that has ended, or that was never added, this does no harm."""
        with self._lock:
            self._roots.pop(pid, None)

    def add_cgroup(self, path: "str | os.PathLike[str]") -> None:
        """All processes of this control group of Linux and of those below it, counted exactly from now on, whatever becomes of
        the processes. One that is also in a tree that was added is counted once.

        ``path``: its folder, in version 2 or in version 1's cpuacct hierarchy. Raises SenseError where it is none, and on
        systems without control groups.
        """
        from idle_sense.platform.cgroups import cgroup_at  # noqa: PLC0415 - only where it is used

        group = cgroup_at(os.fspath(path))
        with self._lock:
            self._groups[group.name] = group
            self._regroup()

    def discard_cgroup(self, path: "str | os.PathLike[str]") -> None:
        """No longer. Call it before the group is removed: what was spent since the last look is lost with the group, and counts
        as the owner's. For one that was never added this does no harm."""
        with self._lock:
            self._groups.pop(os.path.realpath(os.fspath(path)), None)
            self._regroup()

    def add_job(self, name: str) -> None:
        """All processes of this job object of Windows and of those nested in it, counted exactly from now on, whatever becomes
        of the processes. One that is also in a tree that was added is counted once.

        ``name``: as CreateJobObjectW was given it, with ``Local\\`` or ``Global\\`` where it had that. The job lives on until
        ``discard_job``, also where it was to end with its last handle. Put processes in before they run: the past of one
        that comes later counts as a guest's. Do not add a job that is nested in another one that was added: Windows tells
        no such thing of them, and both would count. Raises SenseError where there is none of the name, where it may not
        be asked, and on other systems.
        """
        from idle_sense.platform import windows_jobs  # noqa: PLC0415 - only where it is used

        with self._lock:
            if name not in self._groups:
                self._groups[name] = windows_jobs.job_named(name)
                self._regroup()

    def discard_job(self, name: str) -> None:
        """No longer. What was spent until now stays counted, also when all processes have ended. For one that was never added
        this does no harm."""
        with self._lock:
            self._groups.pop(name, None)
            self._regroup()

    def sent(self, byte_count: float) -> None:
        """This program itself moved so many bytes over the network, in or out: they are not the owner's. The system does
        not count them by process, so a program that moves much had better say so."""
        with self._lock:
            self._sent_bytes += max(0.0, byte_count)

    @property
    def sent_bytes(self) -> float:
        """The sum of what ``sent`` was told."""
        return self._sent_bytes

    def __len__(self) -> int:
        """Of trees and groups that were added."""
        return len(self._roots) + len(self._groups)

    def __bool__(self) -> bool:
        """Also an empty ledger is one."""
        return True

    def spent_s(self, processes: Processes) -> float:
        """Processor time of this program and the guests so far. Never falls; only differences mean something."""
        with self._lock:
            times = os.times()
            own = Amount(times.user + times.system, times.children_user + times.children_system)
            metered_s = self._cpu_meters.total()
            members = self._walk(processes, self._top)
            shares = {pid: _share(member, _cpu_of(member.info)) for pid, member in members.items()}
            own_metered = inside(os.getpid(), self._top)
            return self._cpu.advance(Look(own, own_metered, shares, metered_s, _lives(processes)))

    def disk_bytes(self, processes: Processes, use: DiskUse) -> tuple[float, float]:
        """(read, written) by this program and the guests so far. Never falls; only differences mean something."""
        with self._lock:
            self._disk_use = use
            own = use.of_process(os.getpid()) or (0.0, 0.0)
            self._meter_disks()
            metered = [meters.total() for meters in self._disk_meters]
            counted = [group for group in self._top if group.name in self._disk_meters[0]]
            uncounted = {pid for group in self._top if group not in counted for pid in group.pids()}
            members = self._walk(processes, counted, uncounted)
            amounts = {
                pid: (0.0, 0.0) if member.metered else use.of_process(pid) or (0.0, 0.0)
                for pid, member in members.items()
            }
            own_metered = inside(os.getpid(), counted)
            reading, writing = (
                account.advance(
                    Look(
                        Amount(0.0, own[index]),
                        own_metered,
                        {pid: _share(one, Amount(0.0, amounts[pid][index])) for pid, one in members.items()},
                        metered[index],
                        _lives(processes),
                    )
                )
                for index, account in enumerate(self._disk)
            )
            return reading, writing

    def pids(self) -> set[int]:
        """Guests that lived at the last look, and all that are in the groups now."""
        with self._lock:
            return set(self._members).union(*(group.pids() for group in self._top))

    def contains(self, pid: int, processes: Processes) -> bool:
        """Whether this program or a guest is the process or an ancestor of it, or a group that was added holds it."""
        with self._lock:
            if inside(pid, self._top):
                return True
            first: tuple[int, float] | None = None
            for _ in range(LONGEST_LINE):
                if pid == os.getpid():
                    return True
                info = processes.process(pid) if pid > 1 else None
                if info is None:
                    break
                name = (pid, info.started)
                if self._is_known(info):
                    return True
                if name in self._strangers:
                    break
                first = first or name
                pid = info.parent
            if first is not None:
                # Nobody becomes kin of a guest later, unless somebody else is added.
                if len(self._strangers) >= MOST_STRANGERS:
                    self._strangers.clear()
                self._strangers.add(first)
            return False

    def _is_known(self, info: ProcessInfo) -> bool:
        """Not another process that got the pid of one that ended."""
        if info.pid in self._roots and self._roots[info.pid] in (None, info.started):
            return True
        member = self._members.get(info.pid)
        return member is not None and member.info.started == info.started

    def terminals(self, processes: Processes, *, afresh: bool) -> frozenset[int]:
        """Device numbers of the terminals that guests have opened for themselves, as of now or of the last look.

        Only those whose session a guest leads: a guest that was started in its owner's terminal does not make it a guest's.
        """
        with self._lock:
            if afresh:
                self._walk(processes, (), {pid for group in self._top for pid in group.pids()})
            return self._terminals

    def _walk(
        self, processes: Processes, groups: Sequence[Group], others: Iterable[int] = ()
    ) -> dict[int, _Member]:
        """Everything alive of the guests: from the roots down, then orphans that were seen before they lost their parent.

        What ``groups`` count for is not looked into, ``others`` are looked at beside the roots. Parents come before their
        children, as ``accounts.Look`` wants it.
        """
        found: dict[int, _Member] = {}
        # Which process, whose tree it is in, and when it started, where another one might have got its pid.
        pending: deque[tuple[int, int, float | None]] = deque(
            (pid, pid, started) for pid, started in self._roots.items()
        )
        pending.extend(
            (pid, member.root, member.info.started)
            for pid, member in self._members.items()
            if member.root in self._roots
        )
        pending.extend((pid, NO_ROOT, None) for pid in others)
        if any(group.is_inherited for group in groups):
            pending.extend((pid, NO_ROOT, None) for pid in self._own_children(processes, groups))
        while pending:
            pid, root, started = pending.popleft()
            if pid in found or pid == os.getpid():
                continue
            info = processes.process(pid)
            if info is None or (started is not None and started != info.started):
                continue
            if pid in self._roots and self._roots[pid] is None:
                self._roots[pid] = info.started
            found[pid] = member = _Member(info, root, inside(pid, groups))
            if not member.metered:
                pending.extendleft((child, root, None) for child in processes.children(info))
        self._terminals = frozenset(
            member.info.terminal
            for member in found.values()
            if member.info.terminal and member.info.session == member.info.pid
        )
        self._members = found
        return found

    def _own_children(self, processes: Processes, groups: Sequence[Group]) -> Iterator[int]:
        """Those in groups that were added: this program will inherit from them what the group has counted."""
        own = processes.process(os.getpid())
        for pid in () if own is None else processes.children(own):
            if inside(pid, groups):
                yield pid

    def _regroup(self) -> None:
        """Meters for those that are not below another one that was added, which counts for them as well."""
        top = topmost(self._groups.values())
        for old in set(self._top) - set(top):
            for meters in (self._cpu_meters, *self._disk_meters):
                meters.settle(old.name)
        for new in set(top) - set(self._top):
            self._cpu_meters.add(new.name, new.cpu_s)
        self._top = top
        self._meter_disks()

    def _meter_disks(self) -> None:
        use = self._disk_use
        if use is None:
            return
        for group in self._top:
            if group.name not in self._disk_meters[0] and use.of_group(group) is not None:
                for index, meters in enumerate(self._disk_meters):
                    meters.add(group.name, _part_of(use, group, index))


def _share(member: _Member, amount: Amount) -> Share:
    info = member.info
    return Share(info.pid, info.parent, info.started, amount, member.metered)


def _cpu_of(info: ProcessInfo) -> Amount:
    if info.inherited_s is None:
        return Amount(0.0, info.cpu_s)
    return Amount(info.cpu_s - info.inherited_s, info.inherited_s)


def _part_of(use: DiskUse, group: Group, index: int) -> Callable[[], float | None]:
    def read() -> float | None:
        amounts = use.of_group(group)
        return None if amounts is None else amounts[index]

    return read


def _lives(processes: Processes) -> Callable[[Share], bool]:
    def lives(share: Share) -> bool:
        info = processes.process(share.pid)
        return info is not None and info.started == share.started

    return lives
