"""Whether tier ``bubblewrap`` can be used here: the program is looked for, tried by ``probe``, and what held is remembered."""

import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from idle_accelerator import __version__
from idle_accelerator.agent.sandbox import bubblewrap, probe, ways
from idle_accelerator.agent.sandbox.types import TRUST, NoSandbox, SpawnFailed
from idle_accelerator.wire.nodes import Isolation

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

CACHE_FILE: Final = "sandbox.json"
AS_ROOT: Final = (
    "The agent runs as root: its guests have no capabilities, but the kernel's checks of files take them for root."
    " Better run it as a user of its own."
)
_ASK_S: Final = 5.0
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


def find(data_dir: Path) -> tuple[bubblewrap.BubblewrapSandbox, Isolation, tuple[str, ...]]:
    """The sandbox, what it was found to hold, and sentences for the owner.

    Blocks for about a second where it has to be tried; must not be called in a running event loop. Raises NoSandbox.
    """
    program = shutil.which(bubblewrap.PROGRAM)
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
    sandbox = bubblewrap.BubblewrapSandbox(Path(program), options, hidden=data_dir)
    key = _key(program, version)
    isolation = _remembered(data_dir, key)
    if isolation is None:
        isolation = _tried(sandbox, data_dir, version)
        text = json.dumps({"key": key, "isolation": isolation.model_dump(mode="json")}, indent=1)
        (data_dir / CACHE_FILE).write_text(text, encoding="utf-8")
    sentences = (f"tier bubblewrap ({version}): tried on this machine, it holds.",)
    return sandbox, isolation, (*sentences, AS_ROOT) if os.geteuid() == 0 else sentences


def _tried(sandbox: bubblewrap.BubblewrapSandbox, data_dir: Path, version: str) -> Isolation:
    """Raises NoSandbox when it does not hold."""
    try:
        isolation = asyncio.run(probe.probe(sandbox, data_dir))
    except SpawnFailed as error:
        # ``bwrap --version`` says nothing of this: it succeeds where namespaces are forbidden.
        raise NoSandbox(
            f"{version} is there, but makes no sandbox on this machine. {error.message}",
            failing="tier",
            hint=f"{_mend(error.message)}, {TRUST}",
        ) from error
    failing = ways.failing(isolation)
    if failing:
        listed = "; ".join(f"{line}: {text}" for line, text in failing.items())
        raise NoSandbox(
            f"{version} was tried on this machine, and does not hold: {listed}.",
            failing=next(iter(failing)),
            hint=f"Take a newer kernel and bubblewrap, {TRUST}",
        )
    return isolation


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


def _key(program: str, version: str) -> dict[str, str]:
    """What a finding depends on."""
    return {
        "kernel": platform.release(),
        "bubblewrap": version,
        "digest": hashlib.sha256(Path(program).read_bytes()).hexdigest(),
        "agent": __version__,
        "python": sys.executable,
        "user": str(os.geteuid()),
    }


def _remembered(data_dir: Path, key: dict[str, str]) -> Isolation | None:
    """What held when it was last tried; None where anything that it depends on has changed."""
    try:
        values = json.loads((data_dir / CACHE_FILE).read_text(encoding="utf-8"))
        if values["key"] == key:
            return Isolation.model_validate_json(json.dumps(values["isolation"]))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return None


def _said(program: str, question: str) -> str:
    try:
        done = subprocess.run([program, question], capture_output=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()
