"""Tier ``bubblewrap``: guests in namespaces of their own, made by bwrap(1), for work of people whom the owner does not know.

What a guest sees: the system's programs and libraries, the Python that the agent runs on, and its workspace at the workspace's own
path; nothing else of the machine. It has no network, sees no process but its own, has no capabilities and cannot get any,
and writes nowhere but in its workspace and in two small file systems in memory, /tmp and /dev/shm.

bwrap makes three processes: a monitor outside, which is the guest that ``host`` supervises; the init of the new pid namespace;
and the program. The init is killed with the monitor, the monitor with the agent, and with the init dies all that is in
the namespace: nothing outlives it. What is claimed for all this, and how it is tried, stands in ``probe``.
"""

import asyncio
import contextlib
import itertools
import json
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil

from idle_accelerator.agent import host
from idle_accelerator.agent.host import procfs
from idle_accelerator.agent.sandbox import guest_user, limits, seccomp, view, ways
from idle_accelerator.agent.sandbox.types import (
    Guest,
    GuestExit,
    GuestNetwork,
    GuestRecord,
    GuestSpec,
    GuestUsage,
    SpawnFailed,
    Verified,
)
from idle_accelerator.wire.units import format_size

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

PROGRAM: Final = "bwrap"
MEMORY_FILES_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""Size of /tmp, and of /dev/shm: at most so much, and at most this part of the machine's memory:"""
_MEMORY_FILES_SHARE: Final = 16
_PROCESSES: Final = 4096
_COUNTS_PER_NAMESPACE: Final = (5, 14)
"""Since this kernel RLIMIT_NPROC counts the processes of a user namespace; before, those of the owner too."""
_HOST_NAME: Final = "guest"
_THERE: Final = {Path("/"), Path("/tmp"), Path("/dev")}  # noqa: S108  # the guest's own
SETPRIV: Final = "/usr/bin/setpriv"
_ARGUMENTS: Final = "--args"
_LOOK_EVERY_S: Final = 0.001
_BEGIN_LIMIT_S: Final = 10.0
_NOTICE_RETRY_S: Final = 0.005
_SIGNALLED: Final = range(129, 193)
"""Exit codes by which bwrap, as shells do, tells of a program that a signal ended."""
_WRAPPERS: Final = 2
_REPORT_BYTES: Final = 4096


class BubblewrapSandbox:
    """See ``types.Sandbox``. That it works here is not known before ``probe`` has tried it."""

    tier: str = "bubblewrap"
    verified: Verified = "native"

    def __init__(
        self,
        program: Path,
        options: str,
        *,
        hidden: Path | None = None,
        user: guest_user.GuestUser | None = None,
    ) -> None:
        """``options`` is what ``bwrap --help`` says; ``hidden`` is shown to no guest, wherever it lies; ``user`` is whom guests
        are where root runs the agent."""
        self.user: Final = user
        self.program: Final = program
        self.memory_files_bytes: Final = min(
            MEMORY_FILES_LIMIT_BYTES, psutil.virtual_memory().total // _MEMORY_FILES_SHARE
        )
        machine = seccomp.machine()
        self._filter = None if machine is None else seccomp.assemble(machine)
        self._view = view.of_this_machine(hidden)
        self._fixed = tuple(self._fixed_arguments(options))
        self._limits = _limits()
        self._forker = host.open_forker()

    @property
    def shown(self) -> tuple[Path, ...]:
        """What of the machine's files guests may read."""
        return self._view.shown

    @property
    def conceded(self) -> frozenset[str]:
        """See ``probe.Tried``."""
        return frozenset()

    def claims(self) -> Mapping[str, str]:
        """See ``probe.Tried``."""
        size = format_size(self.memory_files_bytes)
        whom = "" if self.user is None else f", guests are user {self.user.name}"
        return {
            "fs": f"mount namespace{whom}: of the owner's files none, all but the workspace read-only",
            "net": "network namespace without a way out",
            "pidns": "pid namespace",
            "calls": "seccomp filter, no capabilities, no user namespaces",
            "disk": f"/tmp and /dev/shm of {size} each; no limit on the workspace, nor on the number of files",  # noqa: S108  # names them
            "freeze": ways.of("freeze"),
            "prio": f"{ways.of('cpu')}; guests cannot raise it",
            "kill": f"pid namespace, and {ways.of('kill')}",
            "gpu": "no devices",
        }

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of bwrap that are the same for every guest."""
        return self._fixed

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        limits.check_environment(spec)
        view.check_program(spec, self._view)
        with contextlib.ExitStack() as given:
            try:
                if self.user is not None:
                    guest_user.hand_over(spec.workspace, self.user)
                launch, reports, gate = self._launch(spec, given)
            except OSError as error:
                raise SpawnFailed(
                    f"It cannot be prepared: {error.strerror}.",
                    hint="See that this user may have more open files (ulimit -n).",
                    field=None,
                ) from error
            try:
                outer = await (host.spawn(launch) if self._forker is None else self._forker.start(launch))
            except BaseException:
                reports.close()
                raise
            guest = _Inside(outer, reports, spec.network)
            if self.user is not None:
                guest_user.hand_over_streams(outer.pid, self.user)
            try:
                await guest.begin(gate, self._limits)
            except BaseException:
                await asyncio.shield(guest.kill())
                raise
        return guest

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: in this tier a new interpreter starts in each sandbox, since a template's fork would have no
        namespaces of its own."""
        return await self.start(spec)

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        if self._forker is not None:
            await self._forker.close()

    def _launch(self, spec: GuestSpec, given: contextlib.ExitStack) -> tuple[host.Launch, "_Reports", int]:
        """What to start, bwrap's reports, and the gate: bwrap starts the program when a byte is
        written there. All open files but that of the reports are closed with ``given``."""
        waits, gate = os.pipe()
        given.callback(os.close, waits)
        given.callback(os.close, gate)
        reading, reporting = os.pipe()
        given.callback(os.close, reporting)
        reports = _Reports(reading)
        try:
            descriptors = [reporting, waits]

            def file(content: bytes) -> str:
                number = os.memfd_create("guest", os.MFD_CLOEXEC)
                given.callback(os.close, number)
                os.write(number, content)
                os.lseek(number, 0, os.SEEK_SET)
                descriptors.append(number)
                return str(number)

            arguments = [
                *self._fixed_for(spec.devices),
                "--json-status-fd",
                str(reporting),
                "--block-fd",
                str(waits),
            ]
            if self._filter is not None:
                arguments += ["--seccomp", file(self._filter)]
            made = dict(_own_settings(spec.workspace, self.user))
            if spec.network is not None:
                made |= spec.network.settings
            for place, text in made.items():
                arguments += ["--perms", "0444", "--file", file(text.encode()), place]
            for name, value in spec.env.items():
                arguments += ["--setenv", name, value]
            if self.user is not None:
                arguments += self._folders_above((spec.workspace, *spec.read_only))
            for folder in spec.read_only:
                arguments += ["--ro-bind", str(folder), str(folder)]
            workspace = str(spec.workspace)
            arguments += ["--bind", workspace, workspace, *self._view.sealing(), "--chdir", workspace]
            # By a file, so that nothing of it shows in /proc/1/cmdline; and bwrap's own environment is empty.
            listed = file(b"".join(os.fsencode(part) + b"\0" for part in arguments))
        except BaseException:
            reports.close()
            raise
        launch = host.Launch(
            argv=(str(self.program), _ARGUMENTS, listed, "--", *self._becoming(), *spec.argv),
            cwd=spec.workspace,
            env={},
            stdin=spec.stdin,
            stdout=spec.stdout,
            stderr=spec.stderr,
            nice=spec.nice,
            first_input=spec.first_input,
            memory_bytes=spec.memory_bytes,
            processes=None if spec.processes is None else spec.processes + _WRAPPERS,
            descriptors=tuple(descriptors),
            contained=True,  # it sees no file system of control groups, and cannot mount one
            heir=reports.init,
        )
        return launch, reports, gate

    def _becoming(self) -> tuple[str, ...]:
        """What runs before the program inside: where root runs the agent, the change to the guests' user. In a user namespace
        root would stay root to the owner's files, so there is none then."""
        if self.user is None:
            return ()
        uid, gid = f"--reuid={self.user.uid}", f"--regid={self.user.gid}"
        return (SETPRIV, uid, gid, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--")

    def _fixed_for(self, devices: tuple[Path, ...]) -> tuple[str, ...]:
        """With these devices, which have to be in /dev before it becomes read-only."""
        if not devices:
            return self._fixed
        sealing = next(
            place
            for place, pair in enumerate(itertools.pairwise(self._fixed))
            if pair == ("--remount-ro", "/dev")
        )
        shown = [] if self.user is None else [*self._folders_above(devices)]
        shown += [part for path in devices for part in ("--dev-bind", str(path), str(path))]
        return (*self._fixed[:sealing], *shown, *self._fixed[sealing:])

    def _fixed_arguments(self, options: str) -> Iterator[str]:
        yield from (
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-net",
            "--unshare-cgroup-try",
        )
        if self.user is None:
            yield "--unshare-user"
            if "--disable-userns" in options:  # bubblewrap 0.8; without it the filter alone stands in the way
                yield "--disable-userns"
        yield from (
            "--hostname",
            _HOST_NAME,
            "--cap-drop",
            "ALL",
            "--new-session",
            "--die-with-parent",
            "--clearenv",
        )
        if self.user is not None:
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_READ_SEARCH"):
                yield from ("--cap-add", capability)
        # Read-only, since the files of /proc/sys ask for root's user id alone, not for a capability: a guest of an agent
        # that runs as root could write to them. It also keeps a guest from raising its own /proc/self/autogroup.
        yield from ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev")
        size = str(self.memory_files_bytes)
        yield from ("--size", size, "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108
        yield from ("--size", size, "--perms", "1777", "--tmpfs", "/tmp")  # noqa: S108  # the guest's own
        if self.user is not None:
            places = (
                *self._view.shown,
                *self._view.settings,
                *(Path(place) for _, place in self._view.links),
            )
            yield from self._folders_above(places)
        yield from self._view.mounts()

    def _folders_above(self, places: Iterable[Path]) -> Iterator[str]:
        """Those on the way to what is shown, which bwrap would close to all but root, who made them."""
        above = {parent for place in places for parent in place.parents} - _THERE
        for folder in sorted(above):
            if not self._view.shows(folder):
                yield from ("--perms", "0755", "--dir", str(folder))


class _Reports:
    """What bwrap tells of a sandbox, one JSON object in a line; they come in pieces."""

    def __init__(self, descriptor: int) -> None:
        """Closes it at the end."""
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._said = b""
        self._init: int | None = None

    def init(self) -> int | None:
        """The pid of the first process of the new pid namespace, which is reported as soon as it is made."""
        if self._init is None:
            self._init = next((told["child-pid"] for told in self._hear() if "child-pid" in told), None)
        return self._init

    def program_ended(self) -> bool:
        """An exit code is told only of a program that was started."""
        return any("exit-code" in told for told in self._hear())

    def call_when_more(self, callback: Callable[[], None]) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, callback)

    def call_no_more(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def close(self) -> None:
        self._hear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _hear(self) -> list[dict[str, int]]:
        with contextlib.suppress(BlockingIOError):
            while self._descriptor is not None and (piece := os.read(self._descriptor, _REPORT_BYTES)):
                self._said += piece
        return [json.loads(line) for line in self._said.split(b"\n")[:-1]]


class _Inside:
    """A guest whose main process, as ``host`` sees it, is bwrap's monitor."""

    def __init__(self, outer: Guest, reports: _Reports, network: GuestNetwork | None) -> None:
        self._outer = outer
        self._network = network
        self._reports = reports
        self._init: procfs.Process | None = None
        self._woken = asyncio.Event()
        self._ending = asyncio.ensure_future(outer.wait())
        self._ending.add_done_callback(lambda _: self._close())
        self._retry: asyncio.TimerHandle | None = None

    async def begin(self, gate: int, limits: Mapping[int, tuple[int, int]]) -> None:
        """Let the program start, and return when it has taken bwrap's place, or has ended.

        The limits are set on the namespace's init, from which the program comes: set outside, they would bind what
        makes the sandbox, and count what is the owner's. By then the guest is in its control group, too.
        Raises SpawnFailed when bwrap could not make the sandbox, and then nothing of it lives.
        """
        deadline_s = asyncio.get_running_loop().time() + _BEGIN_LIMIT_S
        self._reports.call_when_more(self._woken.set)
        try:
            await self._until(
                lambda: self._find_init() is not None, look_every_s=_BEGIN_LIMIT_S, deadline_s=deadline_s
            )
        finally:
            self._reports.call_no_more()
        if self._init is not None:
            for limit, values in limits.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(self._init.pid, limit, values)
            if self._network is not None:
                await self._network.attach(self._init.pid)
                deadline_s = asyncio.get_running_loop().time() + _BEGIN_LIMIT_S
            os.write(gate, b"\0")
            # Nobody tells of that: it is looked for.
            await self._until(self._has_begun, look_every_s=_LOOK_EVERY_S, deadline_s=deadline_s)
        if self._ending.done() and not self._reports.program_ended():
            ended = await self._ending
            said = b"" if self.stderr is None else await self.stderr.read()
            if ended.signal is not None and not said:
                return  # somebody has killed it in this moment; there is nothing wrong with the sandbox
            detail = said.decode(errors="replace").strip().removeprefix(f"{PROGRAM}: ")
            raise SpawnFailed(
                f"The sandbox could not be made: {detail or f'{PROGRAM} said nothing'}.",
                hint="Ask the machine itself what it allows: idlectl doctor",
                field=None,
            )

    async def _until(self, truth: Callable[[], bool], *, look_every_s: float, deadline_s: float) -> None:
        """Or until the end. Raises SpawnFailed when it takes too long."""
        loop = asyncio.get_running_loop()
        while not self._ending.done() and not truth():
            self._woken.clear()
            timer = loop.call_later(look_every_s, self._woken.set)
            await self._woken.wait()
            timer.cancel()
            if loop.time() > deadline_s:
                raise SpawnFailed(
                    f"{PROGRAM} did not make its sandbox within {_BEGIN_LIMIT_S:.0f} s.",
                    hint="See whether the machine is overloaded, and try it by hand: bwrap --ro-bind / / true",
                    field=None,
                )

    @property
    def pid(self) -> int:
        return self._outer.pid

    @property
    def record(self) -> GuestRecord:
        return self._outer.record

    @property
    def job(self) -> str | None:
        return self._outer.job

    @property
    def cgroup(self) -> str | None:
        return self._outer.cgroup

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        return self._outer.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        return self._outer.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        return self._outer.stderr

    def begin_freeze(self) -> None:
        self._outer.begin_freeze()

    def freeze(self) -> None:
        self._outer.freeze()
        if self._network is not None:
            self._network.hold()

    def thaw(self) -> None:
        self._outer.thaw()
        if self._network is not None:
            self._network.go()

    def notify_vacate(self) -> None:
        """SIGTERM to the program's group inside. The monitor, which would die of it, is spared; the init, which has no
        handler, does not hear it: that is how the kernel treats the first process of a pid namespace."""
        if self._ending.done():
            return
        init = self._find_init()
        if init is not None and _is_still(init) and _program_of(init.pid) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(init.pid, signal.SIGTERM)
            return
        # It is being made at this moment: the group is not there yet.
        self._retry = asyncio.get_running_loop().call_later(_NOTICE_RETRY_S, self.notify_vacate)

    async def kill(self) -> None:
        await self._outer.kill()

    async def wait(self) -> GuestExit:
        ended = await self._outer.wait()
        if ended.exit_code is not None and ended.exit_code in _SIGNALLED:
            return replace(ended, exit_code=None, signal=ended.exit_code - _SIGNALLED.start + 1)
        return ended

    def usage(self) -> GuestUsage:
        """bwrap's own two processes are no part of it, but for the memory that they take."""
        usage = self._outer.usage()
        return replace(usage, processes=max(0, usage.processes - _WRAPPERS))

    def _has_begun(self) -> bool:
        init = self._find_init()
        program = None if init is None else _program_of(init.pid)
        if program is None:
            return False
        try:
            words = _read(f"/proc/{program}/cmdline").split(b"\0")
        except OSError:  # it has ended, and so has begun
            return True
        return words[1:2] != [_ARGUMENTS.encode()]

    def _find_init(self) -> procfs.Process | None:
        if self._init is None:
            pid = self._reports.init()
            self._init = None if pid is None else procfs.read(pid)
        return self._init

    def _close(self) -> None:
        self._woken.set()
        self._reports.close()
        if self._network is not None:
            self._network.close()
        if self._retry is not None:
            self._retry.cancel()


def _is_still(process: procfs.Process) -> bool:
    now = procfs.read(process.pid)
    return now is not None and now.started == process.started


def _read(path: str) -> bytes:
    """The beginning of a file that is looked at each millisecond. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _REPORT_BYTES)
    finally:
        os.close(descriptor)


def _program_of(init: int) -> int | None:
    """The first child of the namespace's init; None before there is one."""
    try:
        pids = _read(f"/proc/{init}/task/{init}/children").split()
        return int(pids[0]) if pids else None
    except ProcessLookupError:
        return None
    except OSError:  # a kernel without that file
        return next((child.pid for child in procfs.scan().get(init, ())), None)


def _own_settings(workspace: Path, user: guest_user.GuestUser | None) -> Iterator[tuple[str, str]]:
    """Files of /etc that are made for the guest: nothing in them is the owner's."""
    uid, gid = (os.getuid(), os.getgid()) if user is None else (user.uid, user.gid)
    root = "" if uid == 0 else "root:x:0:0:root:/:/bin/false\n"
    yield "/etc/passwd", f"{root}guest:x:{uid}:{gid}:guest:{workspace}:/bin/sh\n"
    yield "/etc/group", ("" if gid == 0 else "root:x:0:\n") + f"guest:x:{gid}:\n"
    yield "/etc/hosts", f"127.0.0.1 localhost {_HOST_NAME}\n::1 localhost\n"
    yield "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"


def _limits() -> dict[int, tuple[int, int]]:
    """Limits of each process, and of all together for how many there are where that counts a guest's own alone."""
    each = limits.of_each()
    if os.getuid() != 0 and _kernel() >= _COUNTS_PER_NAMESPACE:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        count = _PROCESSES if hard == resource.RLIM_INFINITY else min(hard, _PROCESSES)
        each[resource.RLIMIT_NPROC] = (count, count)
    return each


def _kernel() -> tuple[int, ...]:
    numbers = platform.release().split("-")[0].split(".")[:2]
    return tuple(int(number) if number.isdecimal() else 0 for number in numbers)
