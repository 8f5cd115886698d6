"""Whose processor time is not the owner's: this program itself, and the processes it was told of with their trees.

A process that ended, and was waited for, has handed its time to the one that waited: to its parent, or to this program.
So the sum over the living, with what each has inherited from the dead, loses nothing of short-lived children, which a
sum of own times would put down to the owner (0.08 s seen of 4.22 s spent).
"""

import os
import threading
from collections.abc import Iterable
from typing import NamedTuple, Protocol


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


class Processes(Protocol):
    """What the ledger asks the operating system."""

    def process(self, pid: int) -> ProcessInfo | None:
        """None: there is no such process."""
        ...

    def children(self, process: ProcessInfo) -> Iterable[int]: ...


class _Member(NamedTuple):
    info: ProcessInfo
    root: int


class GuestLedger:
    """Register of guests' processes. ``add`` and ``discard`` may be called from any thread.

    Work of other programs of the pool on this machine (another agent, a scheduler) is no owner's either: add them too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._roots: dict[int, float | None] = {}
        self._members: dict[int, _Member] = {}
        self._terminals: frozenset[int] = frozenset()
        self._sum_s: float | None = None
        self._total_s = 0.0

    def add(self, pid: int) -> None:
        """This process and all that descends from it. Children of this program are counted from their start."""
        with self._lock:
            self._roots[pid] = None

    def discard(self, pid: int) -> None:
        """No longer; for a process that has ended, or that was never added, this does no harm."""
        with self._lock:
            self._roots.pop(pid, None)

    def __len__(self) -> int:
        return len(self._roots)

    def __bool__(self) -> bool:
        """Also an empty ledger is one."""
        return True

    def spent_s(self, processes: Processes) -> float:
        """Processor time of this program and the guests so far. Never falls; only differences mean something."""
        with self._lock:
            members = self._walk(processes)
            own = os.times()
            own_s = own.user + own.system + own.children_user + own.children_system
            sum_s = own_s + sum(member.info.cpu_s for member in members.values())
            if self._sum_s is not None:
                self._total_s += max(0.0, sum_s - self._sum_s - self._leapt_s(members))
            self._sum_s = sum_s
            self._members = members
            return self._total_s

    def contains(self, pid: int, processes: Processes) -> bool:
        """Whether this program or a guest is the process or an ancestor of it."""
        with self._lock:
            for _ in range(64):
                if pid in self._roots or pid in self._members or pid == os.getpid():
                    return True
                info = processes.process(pid) if pid > 1 else None
                if info is None:
                    return False
                pid = info.parent
            return False

    def terminals(self, processes: Processes, *, afresh: bool) -> frozenset[int]:
        """Device numbers of the terminals that guests have opened for themselves, as of now or of the last look.

        Only those whose session a guest leads: a guest that was started in its owner's terminal does not make it a guest's.
        """
        with self._lock:
            if afresh:
                self._walk(processes)
            return self._terminals

    def _walk(self, processes: Processes) -> dict[int, _Member]:
        """Everything alive of the guests: from the roots down, and orphans that were seen before they lost their parent."""
        found: dict[int, _Member] = {}
        pending = [(pid, pid) for pid in self._roots]
        pending += [(pid, member.root) for pid, member in self._members.items() if member.root in self._roots]
        while pending:
            pid, root = pending.pop()
            if pid in found or pid == os.getpid():
                continue
            info = processes.process(pid)
            if info is None or not self._same(info):
                continue
            found[pid] = _Member(info, root)
            pending += [(child, root) for child in processes.children(info)]
        self._terminals = frozenset(
            member.info.terminal
            for member in found.values()
            if member.info.terminal and member.info.session == member.info.pid
        )
        return found

    def _same(self, info: ProcessInfo) -> bool:
        """Not another process that got the pid of one that ended."""
        if info.pid in self._roots:
            started = self._roots[info.pid]
            if started is None:
                self._roots[info.pid] = started = info.started
            return started == info.started
        before = self._members.get(info.pid)
        return before is None or before.info.started == info.started or before.root not in self._roots

    def _leapt_s(self, members: dict[int, _Member]) -> float:
        """By how much the sum changed for other reasons than work done: what came with a past, what left with its time."""
        leapt_s = 0.0
        for pid, member in members.items():
            before = self._members.get(pid)
            known = before is not None and before.info.started == member.info.started
            if not known and not self._counted_from_start(member, members):
                leapt_s += member.info.cpu_s
        for pid, before in self._members.items():
            member = members.get(pid)
            if member is not None and member.info.started == before.info.started:
                continue
            inherited = before.info.parent == os.getpid() or before.info.parent in self._members
            if not inherited or (before.root not in self._roots and pid != before.root):
                leapt_s -= before.info.cpu_s
        return leapt_s

    def _counted_from_start(self, member: _Member, members: dict[int, _Member]) -> bool:
        """A child of ours, or of a process that was a guest's already; else it had a life before it was added."""
        seen = 0
        while seen < 64:
            parent = member.info.parent
            if parent == os.getpid() or parent in self._members:
                return True
            if parent not in members:
                return False
            member = members[parent]
            seen += 1
        return False
