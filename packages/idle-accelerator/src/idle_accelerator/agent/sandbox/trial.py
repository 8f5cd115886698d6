"""Whether a tier of Linux can be used here: what it takes is looked for, it is tried by ``probe``, and what held is remembered."""

import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from idle_accelerator import __version__
from idle_accelerator.agent.sandbox import bubblewrap, container, guest_user, inside, landlock, probe, ways
from idle_accelerator.agent.sandbox.types import TRUST, NoSandbox, SpawnFailed
from idle_accelerator.wire.nodes import Isolation

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

CACHE_FILE: Final = "sandbox.json"
_ASK_S: Final = 5.0
_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_NEWER: Final = {
    "bubblewrap": "Take a newer kernel and bubblewrap",
    "landlock": "Take a newer kernel",
    "container": "Take newer ones; crun also asks that control groups are of one version, as systemd mounts them today",
}
_FORBIDDING: Final = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        (
            "AppArmor forbids user namespaces to programs without a profile, as Ubuntu does since 24.04: allow them to"
            " /usr/bin/bwrap by a profile with 'userns,', as in /etc/apparmor.d/bwrap-userns-restrict of apparmor's package,"
            " and reload it with: sudo systemctl reload apparmor"
        ),
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "The kernel's settings forbid user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "The kernel's settings forbid user namespaces: sudo sysctl user.max_user_namespaces=10000",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A tier whose program or system call is there. Whether it holds is not known yet."""

    sandbox: probe.Tried
    what: str
    """Its program or system call with the version, for people."""
    depends_on: Mapping[str, str]
    """What a finding depends on, beside kernel, agent, Python, user and drivers."""
    tidy: Callable[[], None] | None = None
    """Removes what an agent that crashed has left of it; to be called when no guest runs. Raises NoSandbox."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A sandbox and what it was found to hold."""

    sandbox: probe.Tried
    isolation: Isolation
    sentences: tuple[str, ...]
    recheck: Callable[[], Awaitable[Isolation | None]]
    """See ``tiers.Found``."""


def bubblewrap_here(data_dir: Path) -> Candidate:
    """Raises NoSandbox."""
    program = shutil.which(inside.PROGRAM)
    if program is None:
        raise NoSandbox(
            "There is no bubblewrap on this machine, which keeps guests apart from you.",
            failing="tier",
            hint=f"Install it (Debian and Ubuntu: sudo apt install bubblewrap), {TRUST}",
        )
    options, version = _said(program, "--help"), _said(program, "--version") or program
    if "--size" not in options:
        raise NoSandbox(
            f"{version} is too old: it cannot limit what is written to memory.",
            failing="disk",
            hint=f"Install bubblewrap 0.8 or later, {TRUST}",
        )
    user = guest_user.find()
    if user is not None and not Path(bubblewrap.SETPRIV).exists():
        raise NoSandbox(
            f"The agent runs as root, and there is no {bubblewrap.SETPRIV}, by which its guests become user {user.name}.",
            failing="fs",
            hint="Install util-linux, or run the agent as a user of its own",
        )
    return Candidate(
        sandbox=bubblewrap.BubblewrapSandbox(Path(program), options, hidden=data_dir, user=user),
        what=version,
        depends_on={
            "bubblewrap": version,
            "digest": hashlib.sha256(Path(program).read_bytes()).hexdigest(),
            "guests": "" if user is None else f"{user.uid}:{user.gid}",
        },
    )


def landlock_here(data_dir: Path) -> Candidate:
    """Raises NoSandbox."""
    user = guest_user.find()
    sandbox = landlock.LandlockSandbox(hidden=data_dir, user=user)
    if user is not None and (closed := guest_user.closed_to(data_dir.parent, user)) is not None:
        raise NoSandbox(
            f"Guests are user {user.name}, and may not pass through {closed} to their workspaces.",
            failing="fs",
            hint="Put the agent's data where they may: --data-dir /var/lib/idle-accelerator",
        )
    return Candidate(
        sandbox=sandbox,
        what=f"Landlock {sandbox.version}",
        depends_on={
            "landlock": str(sandbox.version),
            "guests": "" if user is None else f"{user.uid}:{user.gid}",
        },
    )


def container_here(data_dir: Path, image: str | None = None) -> Candidate:
    """Raises NoSandbox."""
    program = shutil.which(container.PROGRAM)
    if program is None or shutil.which(container.RUNTIME) is None:
        raise NoSandbox(
            "There is no podman with crun on this machine.",
            failing="tier",
            hint="Install both (Debian and Ubuntu: sudo apt install podman crun)",
        )
    user = guest_user.find()
    sandbox = container.ContainerSandbox(Path(program), image, data_dir=data_dir, user=user)
    version = _said(program, "--version") or program
    return Candidate(
        sandbox=sandbox,
        tidy=sandbox.remove_leftovers,
        what=f"{version} with {_said(container.RUNTIME, '--version').partition(chr(10))[0]}",
        depends_on={
            "podman": version,
            "runtime": _said(container.RUNTIME, "--version"),
            "image": sandbox.image_id(),
            "guests": "" if user is None else f"{user.uid}:{user.gid}",
        },
    )


def find(make: Callable[[], Candidate], data_dir: Path) -> Found:
    """What ``make`` finds, tried. Blocks for about a second where it has to be; must not be called in a running event loop.

    Raises NoSandbox.
    """
    candidate = make()
    if candidate.tidy is not None:
        candidate.tidy()
    isolation = remembered(candidate, data_dir)
    if isolation is None:
        isolation = asyncio.run(tried(candidate, data_dir))

    async def recheck() -> Isolation | None:
        fresh = await asyncio.to_thread(make)
        return None if remembered(fresh, data_dir) is not None else await tried(fresh, data_dir)

    tier = candidate.sandbox.tier
    return Found(
        sandbox=candidate.sandbox,
        isolation=isolation,
        sentences=(f"tier {tier} ({candidate.what}): tried on this machine, it holds.",),
        recheck=recheck,
    )


async def tried(candidate: Candidate, data_dir: Path) -> Isolation:
    """Try it now, and keep the finding. Its sandbox may be used afterwards, in any event loop.

    Raises NoSandbox when it does not hold; then nothing is kept.
    """
    tier, kept = candidate.sandbox.tier, data_dir / CACHE_FILE
    try:
        isolation = await probe.probe(candidate.sandbox, data_dir)
    except SpawnFailed as error:
        # ``bwrap --version`` says nothing of this: it succeeds where namespaces are forbidden.
        _forget(kept, tier)
        raise NoSandbox(
            f"{candidate.what} is there, but makes no sandbox on this machine. {error.message}",
            failing="tier",
            hint=_hint(tier, error),
        ) from error
    failing = ways.failing(isolation)
    if failing:
        _forget(kept, tier)
        alike = len(set(failing.values())) == 1
        listed = "; ".join(
            [next(iter(failing.values()))] if alike else [f"{line}: {text}" for line, text in failing.items()]
        )
        raise NoSandbox(
            f"{candidate.what} was tried on this machine, and does not hold: {listed}.",
            failing=next(iter(failing)),
            hint=f"{_NEWER[tier]}, {TRUST}" if tier == "bubblewrap" else _NEWER[tier],
        )
    entry = {"key": _key(candidate), "isolation": isolation.model_dump(mode="json")}
    _write(kept, {**_read(kept), tier: entry})
    return isolation


def remembered(candidate: Candidate, data_dir: Path) -> Isolation | None:
    """What held when it was last tried; None where anything that it depends on has changed."""
    try:
        entry = _read(data_dir / CACHE_FILE)[candidate.sandbox.tier]
        if entry["key"] == _key(candidate):
            return Isolation.model_validate_json(json.dumps(entry["isolation"]))
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
    return None


def _key(candidate: Candidate) -> dict[str, str]:
    """What a finding depends on."""
    return {
        "kernel": f"{platform.release()} {platform.version()}",
        "agent": __version__,
        "python": sys.executable,
        "user": str(os.geteuid()),
        "drivers": _drivers(),
        **candidate.depends_on,
    }


def _drivers() -> str:
    """Of graphics cards, which are the kernel's too."""
    try:
        return _NVIDIA.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", values) if isinstance(values, dict) else {}


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _forget(path: Path, tier: str) -> None:
    values = _read(path)
    if values.pop(tier, None) is not None:
        _write(path, values)


def _hint(tier: str, error: SpawnFailed) -> str:
    if tier == "bubblewrap":
        return f"{_mend(error.message)}, {TRUST}"
    if "Permission denied" in error.message and os.geteuid() == 0:
        return "See that the guests' user may read the agent's Python: install it where everybody may, such as /opt"
    return error.hint or ""


def _mend(said: str) -> str:
    for path, value, advice in _FORBIDDING:
        try:
            if Path(path).read_text(encoding="ascii").strip() == value:
                return advice
        except OSError:
            continue
    if "pivot_root" in said:
        return "In a chroot nobody can make one: run the agent outside of it"
    if "proc" in said or "namespace" in said or "uid map" in said:
        return (
            "In a container it takes rights that this one was not given: run the agent on the machine itself"
        )
    return "Try it by hand: bwrap --unshare-all --ro-bind / / true"


def _said(program: str, question: str) -> str:
    try:
        done = subprocess.run([program, question], capture_output=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()
