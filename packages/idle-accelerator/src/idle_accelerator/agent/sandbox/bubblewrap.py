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
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox import guest_user, inside, limits, seccomp, view, ways
from idle_accelerator.agent.sandbox.types import (
    Guest,
    GuestSpec,
    SpawnFailed,
    Verified,
)
from idle_accelerator.wire.units import format_size

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

MEMORY_FILES_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""Size of /tmp, and of /dev/shm: at most so much, and at most this part of the machine's memory:"""
_MEMORY_FILES_SHARE: Final = 16
_PROCESSES: Final = 4096
_COUNTS_PER_NAMESPACE: Final = (5, 14)
"""Since this kernel RLIMIT_NPROC counts the processes of a user namespace; before, those of the owner too."""
_HOST_NAME: Final = "guest"
_THERE: Final = {Path("/"), Path("/tmp"), Path("/dev")}  # noqa: S108  # the guest's own
SETPRIV: Final = "/usr/bin/setpriv"


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
            guest = inside.Inside(outer, reports, spec.network)
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

    def _launch(
        self, spec: GuestSpec, given: contextlib.ExitStack
    ) -> tuple[host.Launch, inside.Reports, int]:
        """What to start, bwrap's reports, and the gate: bwrap starts the program when a byte is
        written there. All open files but that of the reports are closed with ``given``."""
        waits, gate = os.pipe()
        given.callback(os.close, waits)
        given.callback(os.close, gate)
        reading, reporting = os.pipe()
        given.callback(os.close, reporting)
        reports = inside.Reports(reading)
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
            argv=(str(self.program), inside.ARGUMENTS, listed, "--", *self._becoming(), *spec.argv),
            cwd=spec.workspace,
            env={},
            stdin=spec.stdin,
            stdout=spec.stdout,
            stderr=spec.stderr,
            nice=spec.nice,
            first_input=spec.first_input,
            memory_bytes=spec.memory_bytes,
            processes=None if spec.processes is None else spec.processes + inside.WRAPPERS,
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
