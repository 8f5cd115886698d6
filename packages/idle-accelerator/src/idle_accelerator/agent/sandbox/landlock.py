"""Tier ``landlock``: guests that share the owner's machine, and to whom the kernel refuses the owner's things; for people whom the
owner trusts by name.

It needs no namespaces, so it works where bubblewrap does not: under Ubuntu's AppArmor, in most containers. What stands
around a guest is Landlock (landlock(7): files, TCP ports, abstract sockets, signals) and a filter of system calls that
closes what Landlock leaves open: it lets UDP and Unix sockets through, changes of a file's mode, owner and times, System V's
shared memory, and other processes' limits and priorities. What stays open stands in ``claims``, and in what is tried.
"""

import asyncio
import base64
import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox import guest_user, limits, seccomp, starter, view, ways
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, NoSandbox, SpawnFailed, Verified

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

LEAST_VERSION: Final = 3
"""Before it (Linux 6.2) any file of the owner's that may be read can be emptied."""
SIGNALS_SINCE: Final = 6
"""Before it (Linux 6.12) signals reach the owner's processes, where guests are the owner's user."""
_PORTS_SINCE: Final = 4
_DEVICES_SINCE: Final = 5
_EXECUTE: Final = 1 << 0
_WRITE: Final = 1 << 1
_READ: Final = 1 << 2
_LIST: Final = 1 << 3
READING: Final = _READ | _LIST | _EXECUTE
EVERYTHING: Final = (1 << 15) - 1
"""All rights to files that version 3 knows."""
_DEVICE_REQUESTS: Final = 1 << 15
_SPECIAL_FILES: Final = 1 << 6 | 1 << 9 | 1 << 11
"""Making devices of characters and blocks, and sockets."""
_BOTH_PORTS: Final = 3
_BOTH_SCOPES: Final = 3
_ACCOUNTS: Final = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf")
_MACHINE: Final = tuple(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "meminfo", "stat", "version", "loadavg", "uptime", "filesystems"),
        *("sys/vm/overcommit_memory", "sys/kernel/osrelease", "sys/kernel/pid_max", "self"),
    )
)
"""Of the machine what programs ask for, and of its processes a guest's first one."""
_DEVICES: Final = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
_BEGIN_LIMIT_S: Final = 60.0
"""The starter is a guest already, at the lowest priority: where the owner keeps all cores busy it takes as long as that takes."""
_LOOK_EVERY_S: Final = 0.001
_SAID_BYTES: Final = 4096


def version() -> int:
    """Of Landlock in this kernel; 0 where there is none, or a container forbids it."""
    found = ctypes.CDLL(None).syscall(starter.CREATE_RULESET, None, 0, 1)
    return max(0, int(found))


class LandlockSandbox:
    """See ``types.Sandbox``."""

    tier: str = "landlock"
    verified: Verified = "native"
    memory_files_bytes: int = 0
    """There is nothing of /tmp and /dev/shm to be had."""

    def __init__(
        self,
        *,
        hidden: Path | None = None,
        known: int | None = None,
        user: guest_user.GuestUser | None = None,
    ) -> None:
        """``known`` is the version of Landlock, if another than the kernel's is to be made do with; ``user`` is whom guests
        are where root runs the agent.

        Raises NoSandbox where the kernel has no Landlock, or too little of it, or there is no filter for this machine.
        """
        self.version: Final = version() if known is None else known
        architecture = seccomp.machine()
        if self.version < LEAST_VERSION:
            old = (
                f"Landlock {self.version} of this kernel is too old"
                if self.version
                else "There is no Landlock"
            )
            raise NoSandbox(
                f"{old}: guests could change the owner's files.",
                failing="tier",
                hint="It takes Linux 6.2 or later with 'landlock' in /sys/kernel/security/lsm"
                " (set by lsm= when the kernel boots), and a container that lets its calls through",
            )
        if architecture is None:
            raise NoSandbox(
                "There is no filter of system calls for this processor, without which sockets stay open.",
                failing="net",
                hint="Filters are there for x86_64 and aarch64",
            )
        self.user: Final = user
        self._filter = seccomp.assemble(architecture, shares="machine" if user is not None else "user")
        self._view = view.of_this_machine(hidden)
        self._forker = host.open_forker()

    @property
    def shown(self) -> tuple[Path, ...]:
        """What of the machine's files guests may read."""
        return self._view.shown

    @property
    def conceded(self) -> frozenset[str]:
        """Attempts that succeed here and are not claimed to fail: ``claims`` says so."""
        open_to_signals = self.version < SIGNALS_SINCE and self.user is None
        return frozenset({"send_signal"}) if open_to_signals else frozenset()

    def claims(self) -> Mapping[str, str]:
        """What it does for each line, to be published only when it was tried."""
        whom = "" if self.user is None else f", guests are user {self.user.name}"
        return {
            "fs": f"Landlock {self.version}{whom}: writes in the workspace alone, reads programs; size and times of files it may ask for",
            "net": "filter of system calls: no sockets at all",
            "pidns": (
                f"{ways.NONE}: signals reach the owner's processes (Landlock {self.version} of 6)"
                if self.conceded
                else f"Landlock {self.version}{whom}: owner's processes cannot be read, signalled, traced; that they are there shows"
            ),
            "calls": "seccomp filter, no new privileges",
            "disk": "nothing in /tmp and /dev/shm; no limit on the workspace",
            "freeze": ways.of("freeze"),
            "prio": f"{ways.of('cpu')}; guests cannot raise it",
            "kill": f"{ways.of('kill')}; its mark cannot be taken off",
            "gpu": "no devices",
        }

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        limits.check_environment(spec)
        view.check_program(spec, self._view)
        said, saying = os.pipe()
        with contextlib.ExitStack() as given:
            given.callback(os.close, said)
            try:
                guest = await self._spawn(spec, saying)
            finally:
                os.close(saying)
            try:
                await _begin(said)
            except BaseException:
                await asyncio.shield(_undo(guest))
                raise
        return guest

    async def _spawn(self, spec: GuestSpec, saying: int) -> Guest:
        try:
            if self.user is not None:
                guest_user.hand_over(spec.workspace, self.user)
                if self._view.hidden is not None:
                    for folder in (spec.workspace, *spec.read_only):
                        guest_user.let_pass(folder.resolve(), self._view.hidden, self.user)
            plan = os.memfd_create("guest", os.MFD_CLOEXEC)
        except OSError as error:
            raise SpawnFailed(
                f"It cannot be prepared: {error.strerror}.",
                hint="See that this user may have more open files (ulimit -n).",
                field=None,
            ) from error
        try:
            os.write(plan, json.dumps(self._plan(spec)).encode())
            os.lseek(plan, 0, os.SEEK_SET)
            launch = host.Launch(
                argv=(sys.executable, "-I", "-S", starter.__file__, str(plan), str(saying)),
                cwd=spec.workspace,
                env={},
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                nice=spec.nice,
                first_input=spec.first_input,
                memory_bytes=spec.memory_bytes,
                processes=spec.processes,
                descriptors=(plan, saying),
            )
            guest = await (host.spawn(launch) if self._forker is None else self._forker.start(launch))
        finally:
            os.close(plan)
        if self.user is not None:
            guest_user.hand_over_streams(guest.pid, self.user)
        return guest

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: a template's fork would have loaded what guests may not change."""
        return await self.start(spec)

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        if self._forker is not None:
            await self._forker.close()

    def _in_place(self) -> Iterator[Path]:
        """Folders of packages that are installed in place: Python finds none in a folder whose names it cannot list."""
        for path in self._view.shown:
            folder = path.parent
            if (path / "__init__.py").exists() and not Path.home().is_relative_to(folder):
                yield folder

    def _plan(self, spec: GuestSpec) -> dict[str, object]:
        """What ``starter`` reads."""
        files = EVERYTHING | (_DEVICE_REQUESTS if self.version >= _DEVICES_SINCE else 0)
        rules = (
            (READING, [str(path) for path in (*self._view.shown, *spec.read_only)]),
            (_READ | _LIST, [*(str(path) for path in self._view.settings), *_ACCOUNTS, *_MACHINE]),
            (_LIST, [str(path) for path in self._in_place()]),
            (_READ | _WRITE, _DEVICES),
            (files & ~_SPECIAL_FILES & ~_DEVICE_REQUESTS, [str(spec.workspace)]),
        )
        return {
            "argv": spec.argv,
            "env": dict(spec.env),
            "rules": rules,
            "files": files,
            "ports": _BOTH_PORTS if self.version >= _PORTS_SINCE else 0,
            "scopes": _BOTH_SCOPES if self.version >= SIGNALS_SINCE else 0,
            "ruleset_bytes": 24
            if self.version >= SIGNALS_SINCE
            else 16
            if self.version >= _PORTS_SINCE
            else 8,
            "limits": list(limits.of_each().items()),
            "user": None if self.user is None else [self.user.uid, self.user.gid],
            "filter": base64.b64encode(self._filter).decode(),
        }


async def _undo(guest: Guest) -> None:
    await guest.kill()
    for stream in (guest.stdout, guest.stderr):
        if stream is not None:
            await stream.read()  # to its end, which closes it
    if guest.stdin is not None:
        guest.stdin.close()


async def _begin(said: int) -> None:
    """Return when the program has taken the starter's place, or it has ended. Raises SpawnFailed when it could not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _BEGIN_LIMIT_S
    os.set_blocking(said, False)
    text = b""
    while loop.time() < deadline:
        try:
            piece = os.read(said, _SAID_BYTES)
        except BlockingIOError:
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        if piece:
            text += piece
        elif text:
            raise SpawnFailed(
                f"The sandbox could not be made: {text.decode(errors='replace')}.",
                hint="Ask the machine itself what it allows: idlectl doctor",
                field=None,
            )
        else:
            return
    raise SpawnFailed(
        f"The sandbox was not made within {_BEGIN_LIMIT_S:.0f} s.",
        hint="See whether the machine is overloaded.",
        field=None,
    )
