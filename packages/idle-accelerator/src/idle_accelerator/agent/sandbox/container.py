"""Tier ``container``: guests in containers that podman makes, where the owner has it; for an image of the owner's choice.

Without an image guests see what they see in tier ``bubblewrap``: in an empty image, which is made on this machine out of nothing, the system's
programs and the agent's Python are shown read-only. With one (``--container-image``) they see its programs instead of the
system's. Nothing is ever fetched: the image is there, or the agent says by which command to get it.

podman is told to make no control groups (which takes crun as its runtime), so that the whole container stays in the guest's own, and
what it starts in the background is found by the agent as any orphan of a guest is: so a container is frozen, weighed, limited and
killed as every guest. ``starter`` is the first process inside: podman's own filter of system calls stands before ours.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox import guest_user, landlock, limits, seccomp, starter, view, ways
from idle_accelerator.agent.sandbox.around import Around, as_told, without
from idle_accelerator.agent.sandbox.types import (
    Guest,
    GuestExit,
    GuestSpec,
    GuestUsage,
    NoSandbox,
    SpawnFailed,
    Verified,
)
from idle_accelerator.wire.units import format_size

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

PROGRAM: Final = "podman"
RUNTIME: Final = "crun"
LABEL: Final = "idle-accelerator"
MEMORY_FILES_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""As in tier ``bubblewrap``."""
_MEMORY_FILES_SHARE: Final = 16
_ASK_S: Final = 60.0
_BLOCK_BYTES: Final = 512
_PROCESSES: Final = 32_768
_PLAN: Final = "/run/idle-plan"
_OWN_FOLDERS: Final = ("tmp", "dev", "proc", "sys", "etc", "run", "var", "var/tmp")
_WRAPPERS: Final = 3
"""The client, its monitor and the first process inside."""


class ContainerSandbox:
    """See ``types.Sandbox``. That it works here is not known before ``probe`` has tried it."""

    tier: str = "container"
    verified: Verified = "native"

    def __init__(
        self, program: Path, image: str | None, *, data_dir: Path, user: guest_user.GuestUser | None = None
    ) -> None:
        """``image`` is one of the owner's; None for the empty one. ``data_dir`` is the agent's: it tells its containers by it, and no
        guest sees it. Raises NoSandbox when the image is not there."""
        self.program: Final = program
        self.user: Final = user
        self.memory_files_bytes: Final = min(
            MEMORY_FILES_LIMIT_BYTES, psutil.virtual_memory().total // _MEMORY_FILES_SHARE
        )
        self._data_dir = data_dir
        self._view = view.of_this_machine(data_dir)
        self._own = image is None
        self.image: Final = _empty_image(program, self._view) if image is None else _present(program, image)
        self._mark = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
        architecture = seccomp.machine()
        self._landlock = landlock.version()
        self._filter = b"" if architecture is None else seccomp.assemble(architecture)

    @property
    def shown(self) -> tuple[Path, ...]:
        """What of the machine's files guests may read."""
        return self._view.shown

    @property
    def conceded(self) -> frozenset[str]:
        """See ``probe.Tried``."""
        return frozenset() if self._landlock >= landlock.LEAST_VERSION else frozenset({"raise_group"})

    def claims(self) -> Mapping[str, str]:
        """See ``probe.Tried``."""
        size = format_size(self.memory_files_bytes)
        return {
            "fs": "container of podman's: of the owner's files none, all but the workspace read-only",
            "net": "network namespace without a way out",
            "pidns": "pid namespace",
            "calls": "seccomp filters, podman's and ours; no capabilities",
            "disk": f"/tmp and /dev/shm of {size} each; no limit on the workspace, nor on the number of files",  # noqa: S108  # names them
            "freeze": ways.of("freeze"),
            "prio": f"{ways.NONE}: {ways.of('cpu')}, which guests may raise: this kernel has no Landlock"
            if self.conceded
            else f"{ways.of('cpu')}; guests cannot raise it",
            "kill": f"pid namespace, and {ways.of('kill')}",
            "gpu": "no devices",
        }

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; podman runs on return. Raises SpawnFailed, and then nothing of it runs."""
        limits.check_environment(spec)
        if self._own:
            view.check_program(spec, self._view)
        elif not spec.argv or not spec.workspace.is_dir():
            raise SpawnFailed("There is no command, or no working directory.", hint="Give both.")
        name = f"idle-{self._mark}-{secrets.token_hex(6)}"
        plan = Path(tempfile.mkdtemp(prefix="plan-", dir=self._data_dir)) / "plan"
        try:
            try:
                self._write_plan(plan, spec)
                arguments = [*self._arguments(spec, name, plan)]
            except OSError as error:
                raise SpawnFailed(
                    f"It cannot be prepared: {error.strerror}.",
                    hint="See the agent's data directory.",
                    field=None,
                ) from error
            launch = host.Launch(
                argv=(str(self.program), *arguments),
                cwd=spec.workspace,
                env={name: os.environ[name] for name in _OWN_VARIABLES if name in os.environ},
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                nice=spec.nice,
                first_input=spec.first_input,
                memory_bytes=spec.memory_bytes,
                processes=None if spec.processes is None else spec.processes + _CLIENTS_THREADS,
            )
            return _Contained(await host.spawn(launch), self.program, name, plan)
        except BaseException:
            _discard(plan)
            raise

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: a template's fork would be in no container."""
        return await self.start(spec)

    async def close(self) -> None:
        """See ``Sandbox.close``."""

    def image_id(self) -> str:
        """Raises NoSandbox."""
        return _ask(self.program, "image", "inspect", "--format", "{{.Id}}", self.image)

    def remove_leftovers(self) -> None:
        """Containers of an agent that crashed. Blocks for a moment where there are any. Raises NoSandbox when podman does not answer."""
        found = _ask(self.program, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={self._mark}")
        if found.split():
            _ask(self.program, "rm", "--force", "--time", "0", *found.split())

    def _write_plan(self, plan: Path, spec: GuestSpec) -> None:
        values = {
            "argv": spec.argv,
            "env": dict(spec.env),
            **self._file_rules(spec.workspace),
            "limits": list(limits.of_each().items()),
            "user": None,
            "filter": base64.b64encode(self._filter).decode(),
        }
        plan.write_text(json.dumps(values), encoding="utf-8")
        plan.chmod(0o400)
        if self.user is not None:
            os.chown(plan, self.user.uid, self.user.gid)
            guest_user.hand_over(spec.workspace, self.user)

    def _file_rules(self, workspace: Path) -> dict[str, object]:
        """Landlock inside, where there is it: /proc cannot be made read-only by podman, and a session's weight stands in it."""
        if self._landlock < landlock.LEAST_VERSION:
            return {"rules": ()}
        written = [str(workspace), "/tmp", "/dev"]  # noqa: S108  # the guest's own
        rules = ((landlock.READING, ["/"]), (landlock.EVERYTHING, written))
        return {"rules": rules, "files": landlock.EVERYTHING, "ports": 0, "scopes": 0, "ruleset_bytes": 8}

    def _arguments(self, spec: GuestSpec, name: str, plan: Path) -> Iterator[str]:
        size, workspace = str(self.memory_files_bytes), str(spec.workspace)
        yield from ("--runtime", RUNTIME, "run", "--rm", "--pull", "never", "--name", name)
        yield from ("--label", f"{LABEL}={self._mark}", "--log-driver", "none", "--cgroups", "disabled")
        yield from (
            "--network",
            "none",
            "--no-hosts",
            "--ipc",
            "private",
            "--hostname",
            "guest",
            "--interactive",
        )
        yield from (
            "--cap-drop",
            "all",
            "--security-opt",
            "no-new-privileges",
            "--security-opt",
            "label=disable",
        )
        yield from ("--read-only", "--read-only-tmpfs=false", "--shm-size", size)
        yield from ("--tmpfs", f"/tmp:rw,size={size},mode=1777,nosuid,nodev")  # noqa: S108  # the guest's own
        for limit, (soft, hard) in _named_limits():
            yield from ("--ulimit", f"{limit}={soft}:{hard}")
        if self.user is not None:
            yield from ("--user", f"{self.user.uid}:{self.user.gid}")
        elif os.getuid() != 0:
            yield from ("--userns", "keep-id", "--user", f"{os.getuid()}:{os.getgid()}")
        for path in self._shown_here():
            yield from ("--volume", f"{_plain(path)}:{path}:ro")
        if self._view.shows(self._data_dir.resolve()):
            yield from ("--tmpfs", f"{self._data_dir.resolve()}:ro,size=4k")
        for path in spec.read_only:
            yield from ("--volume", f"{_plain(path)}:{path}:ro")
        yield from (
            "--volume",
            f"{_plain(plan)}:{_PLAN}:ro",
            "--volume",
            f"{_plain(spec.workspace)}:{workspace}:rw",
        )
        yield from ("--workdir", workspace, "--entrypoint", "", "--unsetenv-all", self.image)
        yield from (sys.executable, "-I", "-S", starter.__file__, _PLAN, "-")

    def _shown_here(self) -> Iterator[Path]:
        """An image of the owner's brings a system of its own."""
        for path in (*self._view.shown, *self._view.settings):
            if self._own or not any(path.is_relative_to(root) for root in _SYSTEM):
                yield path


_SYSTEM: Final = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc")))
_OWN_VARIABLES: Final = (
    "PATH",
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
)
"""What podman itself needs to find its images."""
_CLIENTS_THREADS: Final = 64
"""podman and its monitor are of the guest's tree while it runs."""


class _Contained(Around):
    """A guest whose main process, as ``host`` sees it, is podman's client."""

    def __init__(self, outer: Guest, program: Path, name: str, plan: Path) -> None:
        super().__init__(outer)
        self._program = program
        self._name = name
        self._end = asyncio.create_task(self._until_end(plan), name=f"container {name}")

    def notify_vacate(self) -> None:
        """podman hands SIGTERM to the first process inside, which hands it to the program's group."""
        self._outer.notify_vacate()

    async def kill(self) -> None:
        await self._outer.kill()
        await self.wait()

    async def wait(self) -> GuestExit:
        return await asyncio.shield(self._end)

    def usage(self) -> GuestUsage:
        return without(self._outer.usage(), _WRAPPERS)

    async def _until_end(self, plan: Path) -> GuestExit:
        try:
            ended = await self._outer.wait()
            if ended.exit_code is None:
                # podman itself was killed, with all that it had started; what it remembers is to go too.
                with contextlib.suppress(NoSandbox):
                    await asyncio.to_thread(
                        _ask, self._program, "rm", "--force", "--time", "0", "--ignore", self._name
                    )
        finally:
            _discard(plan)
        return as_told(ended)


def _discard(plan: Path) -> None:
    plan.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        plan.parent.rmdir()


def _named_limits() -> Iterator[tuple[str, tuple[int, int]]]:
    """podman would raise them above what this user may."""
    import resource  # noqa: PLC0415  # beside its only use

    yield "core", (0, 0)
    yield "nofile", limits.of_each()[resource.RLIMIT_NOFILE]
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    count = _PROCESSES if hard == resource.RLIM_INFINITY else min(hard, _PROCESSES)
    yield "nproc", (count, count)


def _plain(path: Path) -> Path:
    """Raises SpawnFailed for a path that podman would read as two."""
    if ":" in str(path):
        raise SpawnFailed(
            f"podman cannot show {path}: there is a ':' in its name.", hint="Put it elsewhere.", field=None
        )
    return path


def _present(program: Path, image: str) -> str:
    """Raises NoSandbox when it is not there."""
    try:
        _ask(program, "image", "exists", image)
    except NoSandbox as error:
        raise NoSandbox(
            f"The image {image!r} is not on this machine, and an agent fetches none.",
            failing="tier",
            hint=f"Fetch it as the agent's user: {program.name} pull {image}",
        ) from error
    return image


def _empty_image(program: Path, shown: view.View) -> str:
    """Makes it where it is not there yet: folders to show things in, and links. Raises NoSandbox."""
    parts = [_entry(name, folder=True) for name in _OWN_FOLDERS]
    parts += [_entry(place.lstrip("/"), target=target) for target, place in sorted(shown.links)]
    content = b"".join(parts) + bytes(2 * _BLOCK_BYTES)
    image = f"localhost/{LABEL}-empty:{hashlib.sha256(content).hexdigest()[:16]}"
    try:
        _ask(program, "image", "exists", image)
    except NoSandbox:
        _ask(program, "import", "-", image, given=content)
    return image


def _entry(name: str, *, folder: bool = False, target: str = "") -> bytes:
    """A folder or a symbolic link in an archive of tar's (POSIX.1-1988, ustar): its header is all of it."""
    kind = b"5" if folder else b"2"
    fields = [
        *(os.fsencode(name).ljust(100, b"\0"), b"0000755\0", b"0000000\0", b"0000000\0", b"00000000000\0"),
        *(b"00000000000\0", b" " * 8, kind, os.fsencode(target).ljust(100, b"\0"), b"ustar\x0000"),
    ]
    header = b"".join(fields).ljust(_BLOCK_BYTES, b"\0")
    return header[:148] + f"{sum(header):06o}\0 ".encode() + header[156:]


def _ask(program: Path, *arguments: str, given: bytes = b"") -> str:
    """What podman says. Raises NoSandbox."""
    try:
        done = subprocess.run(
            [program, *arguments], input=given, capture_output=True, timeout=_ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        raise NoSandbox(
            f"podman does not do it ({' '.join(arguments[:2])}): {said.decode(errors='replace').strip()[-300:]}",
            failing="tier",
            hint="Try it by hand: podman info",
        ) from error
    return done.stdout.decode(errors="replace").strip()
