"""What tests of the sandbox share: a guest program that does as it is told, and a look at processes from outside."""

import asyncio
import contextlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import psutil
import pytest

from idle_accelerator.agent.sandbox import Guest, GuestSpec, NoSandbox, Sandbox, open_sandbox

PATIENCE_S = 60.0
"""How long a test waits for what must come; it comes within milliseconds unless the machine is overloaded."""

ACTOR = """
import ctypes, gc, json, locale, mmap, os, signal, subprocess, sys, threading, time
if os.name == "posix":
    import resource

SEEN = []

def tell(*values):
    print(json.dumps(values if len(values) != 1 else values[0]), flush=True)

def main():
    line = sys.stdin.buffer.readline()
    if not line:
        return 9
    exec(json.loads(line), globals())
    return 0

if __name__ == "__main__":
    sys.exit(main())
"""
"""Runs the Python text that its first line of input brings as a JSON string."""


def environment() -> dict[str, str]:
    """The least that Python programs need."""
    names = ("PATH", "SYSTEMROOT", "SystemRoot")
    return {"LANG": "C.UTF-8", **{name: os.environ[name] for name in names if name in os.environ}}


def write_actor(folder: Path) -> Path:
    path = folder / "actor.py"
    path.write_text(ACTOR, encoding="utf-8")
    return path


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stopped(pid: int) -> bool:
    """By a signal, or with its whole control group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        status = psutil.Process(pid).status()
        return status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) or in_frozen_group(pid)
    return False


def in_frozen_group(pid: int) -> bool:
    """Whether the kernel says so of a group that the process is in."""
    if sys.platform != "linux":
        return False
    from idle_sense.platform.cgroups import membership_of, mounts_in

    for mount in mounts_in(Path("/proc/self/mountinfo").read_bytes()):
        for line in membership_of(pid).splitlines():
            _, listed, path = line.decode().split(":", 2)
            if mount.version == 2 and not listed:
                told, frozen = Path(f"{mount.place}{path}/cgroup.events"), "frozen 1"
            elif "freezer" in mount.controllers & set(listed.split(",")):
                told, frozen = Path(f"{mount.place}{path}/freezer.state"), "FROZEN"
            else:
                continue
            if told.exists() and frozen in told.read_text().splitlines():
                return True
    return False


async def eventually(truth: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not truth():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.005)


async def all_end(pids: Iterable[int]) -> None:
    for pid in pids:
        await eventually(lambda pid=pid: not alive(pid), f"process {pid} ends")


def descendants() -> set[int]:
    """Live processes below this one, but for the keeper, templates and what these hold in reserve."""
    return {
        process.pid
        for process in psutil.Process().children(recursive=True)
        if not _is_helper(process) and alive(process.pid) and "keeper.py" not in _script(process)
    }


def _is_helper(process: psutil.Process) -> bool:
    """A template or something it makes that is no guest yet: it works in the root directory."""
    with contextlib.suppress(psutil.Error):
        return sys.platform == "linux" and "template.py" in _script(process) and process.cwd() == "/"
    return False


def reserves() -> list[psutil.Process]:
    """The guests to be that templates hold in reserve: they have a brand already."""
    made = {template.pid for template in templates()}
    return [child for child in psutil.Process().children() if child.pid not in made and _is_helper(child)]


def templates() -> list[psutil.Process]:
    """The templates of this process. A guest that one has forked has the same command line, but also a brand."""
    return [
        child
        for child in psutil.Process().children()
        if "template.py" in _script(child) and child.rlimit(psutil.RLIMIT_RTTIME)[0] == psutil.RLIM_INFINITY
    ]


def was_forked(pid: int) -> bool:
    """Whether a template has made this guest."""
    return "template.py" in _script(psutil.Process(pid))


def _script(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()[1:3])
    return ""


def zombies() -> set[int]:
    """Ended children of this process that nobody has collected."""
    return {child.pid for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE}


def open_descriptors() -> int:
    process = psutil.Process()
    return process.num_handles() if sys.platform == "win32" else process.num_fds()


WAYS = ("started", "forked", "bubblewrap", "landlock", "container")
"""To start a guest: in tier ``process`` plainly or forked from a template, and in the others."""


@cache
def _why_not(tier: str) -> str:
    """Empty where it holds, as tried on this machine."""
    from idle_accelerator.agent.sandbox import choice

    found: list[str] = []

    def look() -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                if tier == "landlock" and sys.platform == "linux":
                    from idle_accelerator.agent.sandbox import landlock, trial

                    # As an ordinary user, whatever this one is: whom root's guests are has tests of its own.
                    sandbox = landlock.LandlockSandbox(hidden=Path(folder))
                    candidate = trial.Candidate(sandbox=sandbox, what="Landlock", depends_on={})
                    trial.find(lambda: candidate, Path(folder))
                else:
                    choice.choose(tier, scheduler_url="https://elsewhere", data_dir=Path(folder))
            except NoSandbox as error:
                found.append(f"tier {tier} is not tried: {error.message} {error.hint}")

    looking = threading.Thread(target=look)  # it runs an event loop of its own
    looking.start()
    looking.join()
    return "".join(found)


def bubblewrap() -> Sandbox:
    """The tier; skips the test, and says why, where this machine does not allow it. Fails where it does, and the tier does not hold."""
    if why := _why_not("bubblewrap"):
        if _bwrap_works():
            pytest.fail(f"bwrap works on this machine, and the tier does not: {why}")
        pytest.skip(why)
    from idle_accelerator.agent.sandbox import guest_user
    from idle_accelerator.agent.sandbox.bubblewrap import BubblewrapSandbox
    from idle_accelerator.agent.sandbox.inside import PROGRAM

    return BubblewrapSandbox(
        Path(str(shutil.which(PROGRAM))), _said_by_bwrap("--help"), user=guest_user.find()
    )


def landlock() -> Sandbox:
    """The tier; skips the test where this kernel has none. Fails where it has, and the tier does not hold."""
    if sys.platform != "linux":
        pytest.skip("tier landlock is not tried: Landlock is for Linux")
    from idle_accelerator.agent.sandbox.landlock import LEAST_VERSION, LandlockSandbox, version

    if version() < LEAST_VERSION:
        pytest.skip(f"tier landlock is not tried: this kernel has Landlock {version()}")
    assert not _why_not("landlock")
    return LandlockSandbox()


def container(folder: Path) -> Sandbox:
    """The tier; skips the test, and says why, where podman makes no container that holds."""
    if why := _why_not("container"):
        pytest.skip(why)
    from idle_accelerator.agent.sandbox import guest_user
    from idle_accelerator.agent.sandbox.container import PROGRAM, ContainerSandbox

    return ContainerSandbox(Path(str(shutil.which(PROGRAM))), None, data_dir=folder, user=guest_user.find())


def sandbox_of(tier: str, folder: Path) -> Sandbox:
    """``folder`` is the agent's. Skips the test where this machine does not allow the tier."""
    match tier:
        case "bubblewrap":
            return bubblewrap()
        case "landlock":
            return landlock()
        case "container":
            return container(folder)
        case _:
            return open_sandbox()


def _said_by_bwrap(*arguments: str) -> str:
    """Empty where it does not do what it is asked for."""
    try:
        done = subprocess.run(["bwrap", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


@cache
def _bwrap_works() -> bool:
    """By itself, with the least that the tier takes; it is old enough to know no ``--size`` where it is too old for us."""
    user = () if os.geteuid() == 0 else ("--unshare-user",)
    spaces = (*user, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")
    places = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    said = _said_by_bwrap(*spaces, *places, "echo", "works")
    return said.strip() == "works" and "--size" in _said_by_bwrap("--help")


def open_stage(way: str, tmp_path: Path) -> "Stage":
    """Skips the test where there is no such way on this machine."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    sandbox = sandbox_of(way, tmp_path)
    return Stage(sandbox, workspace, write_actor(tmp_path), forked=way == "forked")


class Stage:
    """A sandbox, a workspace, and one of the ways to start a guest."""

    def __init__(self, sandbox: Sandbox, workspace: Path, actor: Path, *, forked: bool) -> None:
        self.sandbox = sandbox
        self.workspace = workspace
        self.forked = forked
        self._actor = actor
        self._guests: list[Guest] = []

    def needs_plain_processes(self, why: str) -> None:
        """Skips the rest of the test in tiers where that is not so."""
        if self.sandbox.tier not in ("process", "landlock"):
            pytest.skip(f"in tier {self.sandbox.tier} {why}")

    def spec(self, **changes: object) -> GuestSpec:
        actor = self._actor
        if self.sandbox.tier != "process" and self.workspace.is_dir():
            actor = write_actor(self.workspace)  # a guest sees nothing beside its workspace
        values: dict[str, object] = {
            "argv": (sys.executable, "-I", str(actor)),
            "workspace": self.workspace,
            "env": environment(),
            "stdin": "pipe",
            # On a busy machine a guest of the lowest priority takes seconds for what else takes milliseconds.
            "nice": False,
        }
        return GuestSpec(**(values | changes))  # pyright: ignore[reportArgumentType]

    async def start(self, **changes: object) -> Guest:
        """A guest that waits for ``act``."""
        start = self.sandbox.start_forked if self.forked else self.sandbox.start
        guest = await start(self.spec(**changes))
        self._guests.append(guest)
        return guest

    async def act(self, source: str, **changes: object) -> Guest:
        """A guest that runs this Python text."""
        guest = await self.start(**changes)
        tell(guest, source)
        return guest

    async def close(self) -> None:
        await asyncio.gather(*(guest.kill() for guest in self._guests))
        await self.sandbox.close()


def tell(guest: Guest, source: str) -> None:
    assert guest.stdin is not None
    guest.stdin.write(json.dumps(source).encode() + b"\n")


async def hear(guest: Guest) -> object:
    """The next value that the guest tells."""
    assert guest.stdout is not None
    line = await guest.stdout.readline()
    if not line:
        assert guest.stderr is not None
        raise AssertionError(f"the guest ended: {await guest.stderr.read()!r}")
    return json.loads(line)


FAMILY = """
# Busy processes that count in a shared file, each with a slot of 8 bytes: a main process, a child with a thread, a grandchild,
# a child in a group of its own, one in a session of its own, and two daemons (forked twice, parent gone, every file
# closed, environment wiped), one of them with a child.
raw = open('counters', 'r+b')
counters = mmap.mmap(raw.fileno(), 4096)

def count(slot):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    counters[slot * 16:slot * 16 + 8] = os.getpid().to_bytes(8, 'little')
    number = 0
    while True:
        number += 1
        counters[slot * 16 + 8:slot * 16 + 16] = number.to_bytes(8, 'little')

def fork(slot, before=lambda: None):
    if os.fork() == 0:
        before()
        count(slot)

def daemon(slot, then=lambda: None):
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir('/')
        for number in range(3):
            os.close(number)
        then()
        os.execve(sys.executable, [sys.executable, '-Ic', DAEMON, path, str(slot)], {})
    os.waitpid(middle, 0)

path = os.path.abspath('counters')
DAEMON = '''
import mmap, os, sys
counters = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
slot, number = int(sys.argv[2]), 0
counters[slot * 16:slot * 16 + 8] = os.getpid().to_bytes(8, 'little')
while True:
    number += 1
    counters[slot * 16 + 8:slot * 16 + 16] = number.to_bytes(8, 'little')
'''

if os.fork() == 0:
    fork(1)
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    count(2)
fork(3, lambda: os.setpgid(0, 0))
fork(4, os.setsid)
daemon(5)
daemon(6, lambda: fork(7, os.setsid))
"""
MEMBERS = 8


def pids_outside(guest: Guest) -> dict[int, int]:
    """The processes of a guest, by the pids that they have within."""
    if sys.platform != "linux":
        return {}
    found: dict[int, int] = {}
    roots = {guest.pid}
    if guest.record.group:  # what has left its parent, such as a container's monitor
        with contextlib.suppress(OSError):
            listed = Path(guest.record.group, "cgroup.procs").read_text(encoding="ascii")
            roots |= {int(pid) for pid in listed.split()}
    every = {psutil.Process(pid) for pid in roots if psutil.pid_exists(pid)}
    for process in every | {child for each in every for child in each.children(recursive=True)}:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
            inside = next(line for line in lines if line.startswith("NSpid:")).split()[-1]
            found[int(inside)] = process.pid
    return found


class Family:
    """A guest with seven descendants that try to be lost, and the file in which all of them count."""

    def __init__(self, workspace: Path) -> None:
        self._path = workspace / "counters"
        self._path.write_bytes(bytes(4096))
        with self._path.open("r+b") as file:
            self._counters = mmap.mmap(file.fileno(), 4096)
        self._outside: dict[int, int] = {}

    async def start(self, stage: Stage, *, main: str = "count(0)", nice: bool = False) -> Guest:
        guest = await stage.act(FAMILY + main, stdout="null", stderr="null", nice=nice)
        await eventually(lambda: all(self.numbers()[1:]), "all descendants count")
        if stage.sandbox.tier != "process":
            self._outside = pids_outside(guest)
        return guest

    def pids(self) -> list[int]:
        within = [self._value(slot * 16) for slot in range(MEMBERS)]
        return [self._outside.get(pid, pid) for pid in within]

    def numbers(self) -> list[int]:
        return [self._value(slot * 16 + 8) for slot in range(MEMBERS)]

    def _value(self, offset: int) -> int:
        return int.from_bytes(self._counters[offset : offset + 8], "little")
