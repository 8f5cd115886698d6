"""How guests are stopped, killed, weighed and limited on this Linux machine: found by trying, once for a program.

A child that only waits is put into groups and frozen and killed there. What did not happen is not used, and the reason is kept.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from idle_accelerator.agent.host import cgroups, procfs
from idle_accelerator.agent.host.types import Mechanism, Purpose
from idle_sense.platform.cgroups import Mount, membership_of, mounts_in

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

LEAF: Final = "idle-agent"
"""Where this program moves to inside a subtree that was delegated to it: a group with limits below must be empty itself."""
WANTED: Final = ("cpu", "memory", "pids")
_MOUNTS: Final = "/proc/self/mountinfo"
_AUTOGROUPS: Final = "/proc/sys/kernel/sched_autogroup_enabled"
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
"""Extended attributes by which systemd marks what it has delegated."""
_TRIAL_S: Final = 2.0
_TRIAL: Final = "trial"
_PLENTY: Final = 1 << 22
"""As a limit, of processes: the most that pids.max takes. For bytes of memory it is not little to one that waits either."""
_HEEDS_CLASSES: Final = ("bfq", "mq-deadline")
_PURPOSES: Final[Mapping[str, Purpose]] = {"cpu": "cpu", "memory": "memory", "pids": "processes"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What serves, and how that is said."""

    places: cgroups.Places
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One of the kernel's hierarchies of groups."""

    version: int
    controllers: frozenset[str]
    parent: str
    """The folder of the group that this program was started in."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Of one trial."""

    home: str | None = None
    """Where guests' groups may stand; None: it does not serve."""
    how: str = ""
    why: str = ""
    """Why it does not serve."""
    quota: str = ""
    """Of processors: the file by which a group gets no more than so many; empty where there is none."""


@cache
def found() -> Found:
    """The same for all of a program. The first call takes some tens of milliseconds."""
    try:
        every = hierarchies(mounts_in(Path(_MOUNTS).read_bytes()), membership_of(os.getpid()))
        return try_out(every)
    except OSError as error:
        # Nothing could be tried: no /proc, or no further process.
        return Found(places=cgroups.Places(), mechanisms=tuple(_of_none(_refused(error))))


@cache
def homes() -> cgroups.Homes:
    """Those of this program."""
    return cgroups.Homes(found().places)


def parents() -> tuple[str, ...]:
    """The folders in which programs that were started where this one was make their homes."""
    try:
        mountinfo = Path(_MOUNTS).read_bytes()
    except OSError:
        return ()
    return tuple(each.parent for each in hierarchies(mounts_in(mountinfo), membership_of(os.getpid())))


def hierarchies(mounts: Sequence[Mount], membership: bytes) -> tuple[Hierarchy, ...]:
    """Those in which this program's own group can be seen."""
    every: list[Hierarchy] = []
    for mount in mounts:
        path = _path_in(membership, mount)
        if path is None:
            continue
        folder = f"{mount.place.rstrip('/')}{path}".rstrip("/")
        if os.path.basename(folder) == LEAF:  # noqa: PTH119
            folder = os.path.dirname(folder)  # noqa: PTH120
        every.append(Hierarchy(version=mount.version, controllers=mount.controllers, parent=folder))
    return tuple(every)


def _path_in(membership: bytes, mount: Mount) -> str | None:
    """This program's group, from the folder of the mount on; empty for the topmost."""
    for line in membership.splitlines():
        number, listed, name = line.split(b":", 2)
        controllers = set(listed.decode("ascii", "replace").split(","))
        if (
            (number == b"0" and not listed)
            if mount.version == cgroups.NEW
            else bool(mount.controllers & controllers)
        ):
            path, root = os.fsdecode(name), mount.root.rstrip("/")
            if ".." in path.split("/") or not f"{path}/".startswith(f"{root}/"):
                return None
            return path[len(root) :].rstrip("/")
    return None


def try_out(every: Sequence[Hierarchy]) -> Found:
    """Use each hierarchy once, with a child that only waits."""
    made: list[str] = []
    first = _Outcome()
    try:
        with _waiting_child() as child:
            old = {name: _try_old(_of_version_1(every, name), name, child.pid, made) for name in WANTED}
            tree = second = _try_tree(_of_version_2(every), child.pid, made)
            if second.home is None:
                tree = first = _try_tree(_of_version_1(every, "freezer"), child.pid, made)
            new, why_not = _try_new(second.home)
            kills = tree.home is not None and os.path.exists(f"{tree.home}/{_TRIAL}/cgroup.kill")  # noqa: PTH110
            if tree.home is not None and not _dies(child, cgroups.Group.found(f"{tree.home}/{_TRIAL}")):
                tree = _Outcome(why=f"What is in a group below {tree.home} does not die.")
    finally:
        for home in made:
            cgroups.remove_folder(home)
    places = cgroups.Places(
        tree=tree.home,
        version=1 if first.home is not None else cgroups.NEW,
        kills=kills and tree.home is not None,
        controllers=frozenset(new) if tree.home is not None else frozenset(),
        cpu=None if "cpu" in new else old["cpu"].home,
        memory=None if "memory" in new or tree.home is None else old["memory"].home,
        pids=None if "pids" in new or tree.home is None else old["pids"].home,
    )
    why_tree = _sentences(second.why, first.why, tree.why)
    return Found(
        places=places,
        mechanisms=(
            *_of_trees(places, why_tree),
            *(
                _of_controller(places, name, new, old[name], _sentences(second.why, why_not))
                for name in WANTED
            ),
            _of_quota(
                new.get("quota", "") if "cpu" in places.controllers else old["cpu"].quota,
                _sentences(why_not, old["cpu"].why),
            ),
            of_disks(),
        ),
    )


def _of_none(why: str) -> Iterator[Mechanism]:
    yield from _of_trees(cgroups.Places(), why)
    for name in WANTED:
        yield _of_controller(cgroups.Places(), name, {}, _Outcome(), why)
    yield _of_quota("", why)
    yield of_disks()


def _of_trees(places: cgroups.Places, why: str) -> Iterator[Mechanism]:
    if places.tree is None:
        yield Mechanism(purpose="freeze", how="SIGSTOP to each process", lacking=why)
        yield Mechanism(purpose="kill", how="SIGKILL to each process", lacking=why)
        return
    second = places.version == cgroups.NEW
    yield Mechanism(purpose="freeze", how="cgroup.freeze" if second else "freezer.state", lacking=why)
    if places.kills:
        yield Mechanism(purpose="kill", how="cgroup.kill")
    else:
        why = why or "Kernels before 5.14 have no cgroup.kill."
        yield Mechanism(purpose="kill", how="SIGKILL to all of a frozen group", lacking=why)


def _of_controller(
    places: cgroups.Places, name: str, new: Mapping[str, str], old: _Outcome, why_not: str
) -> Mechanism:
    purpose = _PURPOSES[name]
    if name in places.controllers:
        return Mechanism(purpose=purpose, how=new[name])
    if {"cpu": places.cpu, "memory": places.memory, "pids": places.pids}[name] is not None:
        return Mechanism(purpose=purpose, how=f"{old.how} of version 1", lacking=why_not)
    return Mechanism(
        purpose=purpose, how=_by_priority() if name == "cpu" else "", lacking=_sentences(why_not, old.why)
    )


def _of_quota(file: str, why_not: str) -> Mechanism:
    return Mechanism(
        purpose="share",
        how=file,
        lacking=""
        if file
        else why_not or "This kernel gives groups no quota of processors (CONFIG_CFS_BANDWIDTH).",
    )


def of_disks(blocks: Path = Path("/sys/block")) -> Mechanism:
    """Guests ask disks as the idle class (ioprio_set(2)), which only some schedulers of the kernel honour."""
    deaf: list[str] = []
    for queue in sorted(blocks.glob("*/queue/scheduler")):
        with contextlib.suppress(OSError):
            chosen = re.search(r"\[(\S+)\]", queue.read_text(encoding="ascii"))
            name = queue.parent.parent.name
            if not name.startswith(("loop", "ram", "zram", "dm-", "md")) and (
                chosen is None or chosen[1] not in _HEEDS_CLASSES
            ):
                deaf.append(name)
    lacking = (
        f"The disk scheduler of {', '.join(deaf)} does not heed it; bfq and mq-deadline do." if deaf else ""
    )
    return Mechanism(purpose="disk", how="ionice idle", lacking=lacking)


def _by_priority() -> str:
    with contextlib.suppress(OSError):
        if Path(_AUTOGROUPS).read_text(encoding="ascii").strip() == "1":
            return "nice 19 and autogroup 19"
    return "nice 19"


def _try_tree(hierarchy: Hierarchy | None, child: int, made: list[str]) -> _Outcome:
    """Freeze and thaw. Whether it kills is tried when nothing else is left to do to the child."""
    if hierarchy is None:
        return _Outcome(why="No hierarchy for it is mounted and shows this program's own group.")
    home = f"{hierarchy.parent}/{cgroups.home_name()}"
    made.append(home)
    try:
        cgroups.make_home(home)
        trial = f"{home}/{_TRIAL}"
        Path(trial).mkdir(0o755)
        group = cgroups.Group.found(trial)
        group.add(child)
        frozen = group.freeze(_TRIAL_S)
        group.thaw()
    except OSError as error:
        return _Outcome(why=_refused(error))
    if not frozen:
        return _Outcome(why=f"What is in a group below {home} does not stand still in {_TRIAL_S:.0f} s.")
    return _Outcome(home=home)


def _try_new(home: str | None) -> tuple[dict[str, str], str]:
    """Which controllers groups of version 2 have, with the file by which each is used; and why not the others."""
    if home is None:
        return {}, ""
    parent = os.path.dirname(home)  # noqa: PTH120
    there = cgroups.listed(f"{parent}/cgroup.controllers") & set(WANTED)
    why = ""
    if there - cgroups.listed(f"{parent}/cgroup.subtree_control"):
        why = _enable(parent, there)
    cgroups.make_home(home)
    trial = f"{home}/{_TRIAL}-of-limits"
    used: dict[str, str] = {}
    try:
        Path(trial).mkdir(0o755)
        for name in cgroups.listed(f"{home}/cgroup.subtree_control") & set(WANTED):
            used[name] = _use(trial, name)
            if name == "cpu":
                used["quota"] = _quota(trial)
    except OSError as error:
        why = _refused(error)
    missing = set(WANTED) - set(used)
    if not missing:
        return used, ""
    if not there:
        why = f"Version 2 has none of these controllers in {parent}."
    return used, why or f"Version 2 does not hand on {', '.join(sorted(missing))} from {parent}."


def _enable(parent: str, controllers: set[str]) -> str:
    """Hand controllers on to groups below. Only in a group that was delegated to this program, which leaves it for one below, as
    a group with controllers for others may hold no process. Returns why that was not done."""
    if not _is_delegated(parent):
        return f"{parent} was not delegated to this program (Delegate=yes in its unit does that)."
    try:
        leaf = f"{parent}/{LEAF}"
        with contextlib.suppress(FileExistsError):
            Path(leaf).mkdir(0o755)
        for pid in cgroups.pids_in(parent) & _own_tree():
            cgroups.write(f"{leaf}/{cgroups.MEMBERS}", str(pid))
        for name in controllers:
            cgroups.write(f"{parent}/cgroup.subtree_control", f"+{name}")
    except OSError as error:
        return _refused(error)
    return ""


def _is_delegated(folder: str) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    # Older systemd marks it for root alone. Where nobody else is in it, nobody else is concerned.
    others = cgroups.pids_in(folder) - _own_tree()
    return Path(folder).stat().st_uid == os.geteuid() != 0 and not others


def _own_tree() -> set[int]:
    """This program and all below it."""
    children = procfs.scan()
    roots = [each for each in children.get(os.getppid(), ()) if each.pid == os.getpid()]
    return {each.pid for each in procfs.descend(children, roots)}


def _try_old(hierarchy: Hierarchy | None, name: str, child: int, made: list[str]) -> _Outcome:
    """A group of version 1 that weighs or limits."""
    if hierarchy is None:
        return _Outcome(why=f"No hierarchy of version 1 has {name}.")
    home = f"{hierarchy.parent}/{cgroups.home_name()}"
    made.append(home)
    trial = f"{home}/{_TRIAL}"
    try:
        with contextlib.suppress(FileExistsError):
            Path(home).mkdir(0o755)
        with contextlib.suppress(FileExistsError):
            Path(trial).mkdir(0o755)
        cgroups.write(f"{trial}/{cgroups.MEMBERS}", str(child))
        how = _use(trial, name)
        quota = _quota(trial) if name == "cpu" else ""
    except OSError as error:
        return _Outcome(why=_refused(error))
    return _Outcome(home=home, how=how, quota=quota)


def _quota(folder: str) -> str:
    """The file by which a group is given so many processors and no more; empty where there is none."""
    try:
        file = cgroups.give_quota(folder, 1.0)
        cgroups.give_quota(folder, None)
    except OSError:
        return ""
    return file


def _use(folder: str, controller: str) -> str:
    """Returns the file by which it is used. Raises OSError."""
    if controller == "cpu":
        return cgroups.be_idle(folder)
    if controller == "memory":
        file = "memory.max" if os.path.exists(f"{folder}/memory.max") else "memory.limit_in_bytes"  # noqa: PTH110
    else:
        file = "pids.max"
    cgroups.write(f"{folder}/{file}", str(_PLENTY))
    return file


def _dies(child: "subprocess.Popen[bytes]", group: cgroups.Group) -> bool:
    group.freeze(_TRIAL_S)
    group.kill()
    try:
        child.wait(_TRIAL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _of_version_2(every: Iterable[Hierarchy]) -> Hierarchy | None:
    return next((each for each in every if each.version == cgroups.NEW), None)


def _of_version_1(every: Iterable[Hierarchy], controller: str) -> Hierarchy | None:
    return next((each for each in every if each.version == 1 and controller in each.controllers), None)


def _refused(error: OSError) -> str:
    return f"{error.filename or 'A control group'}: {error.strerror}."


def _sentences(*every: str) -> str:
    return " ".join(dict.fromkeys(text for text in every if text))


@contextlib.contextmanager
def _waiting_child() -> Generator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-ISc", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
