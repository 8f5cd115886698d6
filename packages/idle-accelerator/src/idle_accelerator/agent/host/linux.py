"""Linux: finding every process of a guest, and what else the kernel offers without privilege.

How a tree is found. The agent is a *child subreaper* (prctl(2)): a process whose parent died becomes the
agent's child, not that of init. So all of a guest's processes are at all times descendants of its main process or
of such orphans. Which guest an orphan belongs to is told by its *brand*: a random soft limit RLIMIT_RTTIME, which has no effect on programs
without real-time priority, is inherited over fork, exec, setsid and a wiped environment, and can be read by the
agent (prlimit(2)). A guest that changes this limit on purpose and orphans itself escapes until the agent's tiers
with real isolation contain it; one that hands its work to a service of the machine (cron, systemd-run, docker) does too.

Where the machine allows, each guest has a control group (``cgroups``), which is frozen and killed by one write. A walk over the tree follows
all the same: root's guests can leave their group.
"""

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

from idle_accelerator.agent.host import cgroups, posix, priority, probing, procfs
from idle_accelerator.agent.host.types import Guest, GuestRecord, GuestUsage, Launch, Mechanism, Verified

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

VERIFIED: Final[Verified] = "native"
_LOG: Final = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER: Final = 36
_BRAND_LIMIT_US: Final = 1 << 62
_UPKEEP_EVERY_S: Final = 1.0
_UPKEEP_BUSY_S: Final = 0.02
_MANY_ORPHANS: Final = 20
_AUTOGROUP_RETRY_S: Final = 0.12
_GATHERINGS: Final = 20
_ABANDONED_S: Final = 0.5


async def spawn(launch: Launch) -> Guest:
    """Start a program as a guest; it runs on return, in a group of its own. Raises SpawnFailed.

    What it did before it was moved there, and what that left, is in the group too on return. ``forker`` starts programs in their groups.
    """
    system = System(make_group(nice=launch.nice, limited=is_limited(launch)))
    system.limit(launch)
    try:
        guest = await posix.spawn(launch, system)
    except BaseException:
        system.abandon()
        raise
    try:
        await system.gather()
    except BaseException:
        await asyncio.shield(guest.kill())
        raise
    return guest


def found_mechanisms() -> tuple[Mechanism, ...]:
    """See ``host.mechanisms``."""
    return probing.found().mechanisms


def is_limited(launch: Launch) -> bool:
    return launch.memory_bytes is not None or launch.processes is not None


def make_group(*, nice: bool, limited: bool) -> cgroups.Group | None:
    """One for a guest to be, named after its brand; None where there are none. ``limited``: it will have limits."""
    return probing.homes().make(new_brand(), nice=nice, limited=limited)


def _limit(group: cgroups.Group, launch: Launch) -> None:
    try:
        group.limit(memory_bytes=launch.memory_bytes, processes=launch.processes)
    except OSError as error:
        _LOG.warning("a guest has no limits: %s: %s", group.tree, error.strerror)


def kill_leftovers(records: Iterable[GuestRecord]) -> int:
    """Kill what still runs of the recorded guests of an agent that has ended; returns how many processes
    that were. Raises KillFailed when some do not die within 10 s."""
    known = [record for record in records if record.started.startswith(procfs.boot_id())]
    mains = {(record.pid, record.started) for record in known}
    brands = {record.brand for record in known if record.brand}
    groups = [
        cgroups.Group.found(record.group)
        for record in known
        if cgroups.is_of_guest(record.group, record.brand)
    ]
    try:
        return posix.kill_leftovers(lambda: _leftovers(mains, brands, groups)) if known else 0
    finally:
        for group in groups:
            group.remove()
        homes = {os.path.dirname(os.path.dirname(group.tree)) for group in groups}  # noqa: PTH120
        cgroups.remove_abandoned({*probing.parents(), *homes}, within_s=_ABANDONED_S if groups else 0)


def _leftovers(mains: set[tuple[int, str]], brands: set[str], groups: list[cgroups.Group]) -> posix.Leftovers:
    grouped: set[int] = set()
    for group in groups:
        inside = group.pids()
        if os.getpid() not in inside:
            grouped |= inside
            group.kill()
    children = procfs.scan()
    every = [process for siblings in children.values() for process in siblings if not process.ended]
    pids = {pid for pid, _ in mains}
    roots = [
        process
        for process in every
        if process.pid in grouped
        or (process.pid in pids and (process.pid, process.started) in mains)
        or procfs.brand_of(process.pid) in brands
    ]
    found = {process.pid for process in procfs.descend(children, roots)} - {os.getpid()}
    return posix.Leftovers(
        members=[_member(process) for process in every if process.pid in found],
        shared={process.group for process in every if process.pid not in found},
        killed=frozenset(grouped),
    )


def _member(process: procfs.Process, *, still: bool = False) -> posix.Member:
    return posix.Member(pid=process.pid, group=process.group, halted=still or process.halted)


class System:
    """What ``posix.spawn`` asks of Linux."""

    def __init__(self, group: cgroups.Group | None = None) -> None:
        """``group`` is that of the guest which is started with this, named after its brand."""
        _become_subreaper()
        self._group = group
        self._tree: _Tree | None = None

    def environment(self, launch: Launch) -> tuple[dict[str, str], str]:
        return dict(launch.env), new_brand() if self._group is None else self._group.name

    @contextlib.contextmanager
    def branding(self, brand: str) -> Generator[None]:
        """What this process starts meanwhile carries the brand from its first instruction.

        Should another thread start a helper program in that millisecond, it carries the brand too; it is
        told from the guest by its session (``_Tree._select``).
        """
        before = resource.getrlimit(resource.RLIMIT_RTTIME)
        resource.setrlimit(resource.RLIMIT_RTTIME, (int(brand), before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_RTTIME, before)

    def adopt(self, pid: int, launch: Launch, brand: str) -> posix.Tree:
        process = procfs.read(pid)
        if process is None:
            raise ProcessLookupError(pid)
        record = GuestRecord(
            pid=pid,
            started=process.started,
            brand=brand,
            group="" if self._group is None else self._group.tree,
        )
        tree = self._tree = _Tree(record, self._group, launch)
        tree.settle()
        return tree

    def abandon(self) -> None:
        """No guest came of it."""
        if self._group is not None and self._tree is None:
            self._group.kill()
            probing.homes().discard(self._group)

    def leave(self) -> None:
        """The guest could not enter its group."""
        self.abandon()
        self._group = None

    def limit(self, launch: Launch) -> None:
        """Bind a guest to be. As far as this machine can: what it cannot stands in ``found_mechanisms``."""
        if self._group is not None:
            _limit(self._group, launch)

    async def gather(self) -> None:
        """Move the guest that was started into its group, with what it has forked meanwhile."""
        if self._tree is not None and self._group is not None:
            await self._tree.gather(self._group)

    def watch_exit(self, pid: int, callback: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # a kernel before 5.3, a filter of system calls, too many open files
            return _watch_exit_in_thread(pid, callback)
        watching = True

        def cancel() -> None:
            nonlocal watching
            if watching:
                watching = False
                loop.remove_reader(descriptor)
                os.close(descriptor)

        def ended() -> None:
            cancel()
            callback()

        loop.add_reader(descriptor, ended)
        return cancel


class _Tree:
    """The processes of one guest."""

    def __init__(self, record: GuestRecord, group: cgroups.Group | None, launch: Launch) -> None:
        self.record: Final = record
        self.group: Final = group
        self._nice = launch.nice
        self._within = group if launch.contained else None
        """Where all of it is to be found."""
        self._ask_heir = launch.heir
        self._heirs: dict[int, str] = {}
        """Children of its main process and of this program, with when they began."""
        self._orphans_cpu_s = 0.0
        self._orphans_max_rss = 0
        self._lowered_sessions: set[int] = set()
        self._ended: set[int] = set()
        """Zombies that the last walk has seen."""
        self._unbranded: set[int] = set()
        """Seen in its group: so they are its own, whatever brand they carry."""
        self._retry: asyncio.TimerHandle | None = None

    @property
    def orphans_cpu_s(self) -> float:
        return self._orphans_cpu_s

    @property
    def orphans_max_rss(self) -> int:
        return self._orphans_max_rss

    def walk(self, still: Collection[int] = ()) -> posix.Walk:
        return self._search(still) if self._within is None else self._look_into(self._within, still)

    def _look_into(self, group: cgroups.Group, still: Collection[int]) -> posix.Walk:
        """The kernel lists what is forked behind what forked it, so what ends meanwhile hides nothing. What is just ending has left the
        group already; of that, children of this program are looked for here."""
        self._learn_heir()
        members: list[posix.Member] = []
        for pid in cgroups.pids_in(group.tree) | self._heirs.keys():  # it cannot make groups below
            process = procfs.read(pid)
            if process is None or self._heirs.get(pid, process.started) != process.started:
                self._heirs.pop(pid, None)
            elif not process.ended:
                members.append(_member(process, still=pid in still))
                if process.parent == self.record.pid:
                    self._heirs[pid] = process.started
            elif self._collect(process):
                self._heirs.pop(pid, None)
        return posix.Walk(members=members, complete=True)

    def _learn_heir(self) -> None:
        pid = None if self._ask_heir is None else self._ask_heir()
        if pid is not None:
            self._ask_heir = None
            process = procfs.read(pid)
            if process is not None:
                self._heirs[pid] = process.started

    def _search(self, still: Collection[int]) -> posix.Walk:
        # A process that lives when the scan begins has ancestors up to a child of this program (or is one). That child is
        # seen alive, or as a zombie, for nobody else can collect it; so what may be missed is betrayed by a new zombie.
        known = self._ended
        if _has_ended(self.record.pid):
            known = known | {self.record.pid}
        processes = self._select(procfs.scan())
        self._ended = {process.pid for process in processes if process.ended}
        self._reap(processes)
        return posix.Walk(
            members=[
                _member(process, still=process.pid in still) for process in processes if not process.ended
            ],
            complete=self._ended <= known,
        )

    @property
    def metered(self) -> str | None:
        return None if self.group is None else probing.found().places.metered

    async def gather(self, group: cgroups.Group) -> None:
        """What is in the group forks within it; so one that is found outside was forked by one that was outside itself."""
        for _ in range(_GATHERINGS):
            inside = group.pids()
            outside = [member.pid for member in self._search(()).members if member.pid not in inside]
            if not outside:
                return
            try:
                await asyncio.to_thread(priority.move_all, group, outside, nice=self._nice)
            except OSError as error:
                # It is found by its tree and brand alone.
                _LOG.warning("a guest is outside of its group: %s", error)
                return

    def usage(self) -> GuestUsage:
        processes = self._select(procfs.scan())
        live = [process for process in processes if not process.ended]
        cpu_s = None if self.group is None else self.group.cpu_s()
        if cpu_s is None:
            cpu_s = sum(process.cpu_s for process in processes) + self._orphans_cpu_s
        return GuestUsage(
            cpu_s=cpu_s,
            rss_bytes=sum(process.rss_bytes for process in live),
            processes=len(live),
        )

    def settle(self) -> None:
        """After the start: the lowest priority, and the periodic look after what the guest makes."""
        if self._nice:
            priority.lower_group(self.record.pid)
            self._lower_session(self.record.pid, self.record.pid)
        _Upkeep.of_running_loop().add(self)

    def tidy(self, children: Mapping[int, list[procfs.Process]]) -> int:
        """Collect ended orphans, lower what is new; returns how many were collected."""
        processes = self._select(children)
        if self._nice:
            for process in processes:
                if process.nice < priority.LOWEST_NICE and not process.ended:
                    priority.lower_group(process.group)
                if process.session not in self._lowered_sessions and not process.ended:
                    self._lower_session(process.session, process.pid)
        if self.group is not None and self.group.ran_out_of_memory():
            self.group.kill()
        return self._reap(processes)

    def close(self) -> None:
        _Upkeep.of_running_loop().discard(self)
        if self._retry is not None:
            self._retry.cancel()
        if self.group is not None:
            probing.homes().discard(self.group)

    def _select(self, children: Mapping[int, list[procfs.Process]]) -> list[procfs.Process]:
        """The guest's own among all processes, ended ones included."""
        own, session = os.getpid(), os.getsid(0)
        self._unbranded |= set() if self.group is None else self.group.pids()
        roots = [
            process
            for process in children.get(own, ())
            if process.pid == self.record.pid
            or process.pid in self._unbranded
            or (process.session != session and procfs.brand_of(process.pid) == self.record.brand)
        ]
        found = procfs.descend(children, roots)
        self._unbranded &= {process.pid for process in found}
        return found

    def _reap(self, processes: list[procfs.Process]) -> int:
        return sum(self._collect(process) for process in processes if process.ended)

    def _collect(self, process: procfs.Process) -> bool:
        """An ended one that has been handed to this program; False where there is none to collect."""
        if process.parent == os.getpid() and process.pid != self.record.pid:
            with contextlib.suppress(ChildProcessError):
                pid, _, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    self._orphans_cpu_s += usage.ru_utime + usage.ru_stime
                    self._orphans_max_rss = max(self._orphans_max_rss, usage.ru_maxrss)
                return bool(pid)
        return False

    def _lower_session(self, session: int, member: int) -> None:
        """Each session is a group of its own to the scheduler (autogroup, sched(7)): nice alone weighs a process only
        against others of its session."""
        try:
            with open(f"/proc/{member}/autogroup", "w", encoding="ascii") as file:  # noqa: PTH123  # 3× as quick
                file.write(str(priority.LOWEST_NICE))
        except BlockingIOError:  # without privilege, one write in 0.1 s for the whole machine
            pause_s = _AUTOGROUP_RETRY_S * (1 + secrets.randbelow(1000) / 1000)
            if session == self.record.pid:  # a later one is tried again by the next ``tidy``
                self._retry = asyncio.get_running_loop().call_later(
                    pause_s, self._lower_session, session, member
                )
        except OSError:  # no autogroups in this kernel, or /proc cannot be written in this container
            self._lowered_sessions.add(session)
        else:
            self._lowered_sessions.add(session)


class _Upkeep:
    """The periodic look after what the guests of one event loop have made: one scan for all of them."""

    def __init__(self) -> None:
        self._trees: set[_Tree] = set()
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of_running_loop(cls) -> "_Upkeep":
        return _UPKEEP_BY_LOOP.setdefault(asyncio.get_running_loop(), cls())

    def add(self, tree: _Tree) -> None:
        self._trees.add(tree)
        if self._timer is None:
            self._later(_UPKEEP_EVERY_S)

    def discard(self, tree: _Tree) -> None:
        self._trees.discard(tree)
        if not self._trees and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        collected = 0
        try:
            children = procfs.scan()
            collected = sum(tree.tidy(children) for tree in self._trees)
        finally:
            # Zombies hold pids, which are the owner's too: 32,768 on some machines.
            self._later(_UPKEEP_EVERY_S if collected < _MANY_ORPHANS else _UPKEEP_BUSY_S)

    def _later(self, pause_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._run)


_UPKEEP_BY_LOOP: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Upkeep]] = WeakKeyDictionary()


def _has_ended(pid: int) -> bool:
    """Whether a child of this program has ended and waits to be collected."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def _watch_exit_in_thread(pid: int, callback: Callable[[], None]) -> Callable[[], None]:
    """``System.watch_exit`` without pidfd."""
    loop = asyncio.get_running_loop()
    cancelled = False

    def ended() -> None:
        if not cancelled:
            callback()

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(ended)

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True

    threading.Thread(target=wait, name=f"exit of guest {pid}", daemon=True).start()
    return cancel


def new_brand() -> str:
    """A value of RLIMIT_RTTIME in microseconds, so large that it would bind nobody."""
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    limit = _BRAND_LIMIT_US if hard == resource.RLIM_INFINITY else min(hard, _BRAND_LIMIT_US)
    return str(limit - secrets.randbelow(limit // 2))


@cache
def _become_subreaper() -> None:
    """Have orphans of guests handed to this process. Once for the whole program."""
    priority.libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
