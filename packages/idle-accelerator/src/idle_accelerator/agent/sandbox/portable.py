"""What a tier holds on systems that are not Linux: ``hostile_portable`` is run in it, on the machine itself, at the agent's start."""

import asyncio
import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from idle_accelerator.agent.sandbox import ways
from idle_accelerator.agent.sandbox.attempts import Seen
from idle_accelerator.agent.sandbox.types import (
    TRUST,
    FreezeFailed,
    GuestSpec,
    NoSandbox,
    Sandbox,
    SpawnFailed,
)
from idle_accelerator.wire.nodes import Isolation

LIMIT_S: Final = 120.0
"""For all of it."""
PROGRAM: Final = Path(__file__).with_name("hostile_portable.py")
_HOME_ENTRIES: Final = 20
_LINE_LIMIT: Final = 200
_STILL_S: Final = 0.2
_STILL_CPU_S: Final = 0.05
_BUSY: Final = "print('up', flush=True)\nwhile True: pass"
_VICTIM: Final = "import sys; sys.stdin.read()"
Line = Literal["fs", "net", "pidns"]
LINES: Final[Mapping[str, Line]] = {
    "read_home": "fs",
    "read_agent_data": "fs",
    "write_agent_data": "fs",
    "write_home": "fs",
    "write_temporary": "fs",
    "loopback": "net",
    "listen": "net",
    "metadata": "net",
    "internet": "net",
    "unix_socket": "net",
    "read_environments": "pidns",
    "send_signal": "pidns",
}
"""What each hostile attempt is about."""
MUST_WORK: Final = ("own_files", "own_processes", "own_libraries")
"""A sandbox in which a task can do nothing is of no use."""


async def unchanged() -> Isolation | None:
    """None: the system does not change while it runs."""
    return None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A sandbox, what it was found to hold, and sentences for the owner."""

    sandbox: Sandbox
    isolation: Isolation
    sentences: tuple[str, ...]
    recheck: Callable[[], Awaitable[Isolation | None]] = unchanged
    """See ``tiers.Found``: the system does not change while it runs."""


@dataclass(frozen=True, kw_only=True)
class Bait:
    """What the hostile program goes for, and what it is told."""

    plan: str
    """JSON."""
    victim: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def bait(folder: Path, shown: tuple[Path, ...] = ()) -> Generator[Bait]:
    """Lay it. ``folder`` is the agent's; ``shown`` is what of the home directory a guest may see."""
    marker = secrets.token_hex(16)
    secret = folder / f"secret-{marker[:8]}"
    with contextlib.ExitStack() as laid:
        laid.callback(secret.unlink, missing_ok=True)
        secret.write_text(marker, encoding="ascii")
        listener = laid.enter_context(socket.create_server(("127.0.0.1", 0)))
        place = ""
        family = getattr(socket, "AF_UNIX", None)
        if family is not None:
            short = laid.enter_context(
                tempfile.TemporaryDirectory(prefix="idle-")
            )  # paths of sockets are short
            place = f"{short}/socket"
            waiting = laid.enter_context(socket.socket(family))
            waiting.bind(place)
            waiting.listen()
        victim = laid.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-c", _VICTIM],
                stdin=subprocess.PIPE,
                env={**_least_environment(), "SECRET": marker},
            )
        )
        laid.callback(victim.kill)
        plan = {
            "marker": marker,
            "home": _home_entries((*shown, folder)),
            "home_folder": str(Path.home()),
            "temporary_folder": tempfile.gettempdir(),
            "secret_file": str(secret),
            "port": listener.getsockname()[1],
            "socket": place,
            "pid": victim.pid,
        }
        yield Bait(plan=json.dumps(plan), victim=victim)


def _least_environment() -> dict[str, str]:
    import os  # noqa: PLC0415  # for this alone

    return {name: os.environ[name] for name in ("SYSTEMROOT", "WINDIR") if name in os.environ}


def _home_entries(passed_over: tuple[Path, ...]) -> list[str]:
    try:
        entries = sorted(Path.home().iterdir())
    except OSError:
        return []
    return [
        str(entry)
        for entry in entries
        if not any(path.is_relative_to(entry) or entry.is_relative_to(path) for path in passed_over)
    ][:_HOME_ENTRIES]


async def attempt_all(sandbox: Sandbox, folder: Path, shown: tuple[Path, ...] = ()) -> dict[str, Seen]:
    """Run the hostile program in the sandbox. Raises SpawnFailed, and ValueError when it did not report."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        workspace = Path(name)
        with bait(folder, shown) as laid:
            guest = await sandbox.start(_spec(workspace, sys.executable, "-I", str(PROGRAM), laid.plan))
            try:
                out = b"" if guest.stdout is None else await guest.stdout.read()
                err = b"" if guest.stderr is None else await guest.stderr.read()
                await guest.wait()
            finally:
                await asyncio.shield(guest.kill())
            try:
                raw = json.loads(out)
            except ValueError as error:
                said = err.decode(errors="replace").strip()
                raise ValueError(f"the hostile program did not report: {said[-_LINE_LIMIT:]}") from error
            seen = {item: Seen(outcome=outcome, detail=detail) for item, (outcome, detail) in raw.items()}
            if laid.victim.poll() is not None:
                seen["send_signal"] = Seen(outcome="works", detail="it died")
            return seen


def _spec(workspace: Path, *argv: str) -> GuestSpec:
    temporary = workspace / "tmp"
    temporary.mkdir(exist_ok=True)
    names = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    path = "/usr/bin:/bin" if sys.platform != "win32" else str(Path(sys.executable).parent)
    env = {"PATH": path, "HOME": str(workspace), "USERPROFILE": str(workspace), **names}
    return GuestSpec(argv=argv, workspace=workspace, env={**_least_environment(), **env})


def breaches(seen: Mapping[str, Seen]) -> dict[str, str]:
    """What should have been refused and was not, by line; under ``calls``, what should have worked and did not."""
    found: dict[str, list[str]] = {}
    for name, line in LINES.items():
        outcome = seen.get(name)
        if outcome is None:
            found.setdefault(line, []).append(f"{name} was not tried")
        elif outcome.outcome == "works":
            found.setdefault(line, []).append(f"{name} works ({outcome.detail})")
    for name in MUST_WORK:
        outcome = seen.get(name)
        if outcome is None or outcome.outcome != "works":
            why = "it was not tried" if outcome is None else outcome.detail
            found.setdefault("calls", []).append(f"{name} does not work ({why})")
    return {line: "; ".join(texts) for line, texts in found.items()}


async def _stands_still(sandbox: Sandbox, folder: Path) -> str:
    """Freeze and thaw, on a busy guest; returns what does not work, or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        guest = await sandbox.start(_spec(Path(name), sys.executable, "-I", "-c", _BUSY))
        try:
            if guest.stdout is not None:
                await guest.stdout.readline()
            try:
                guest.freeze()
            except FreezeFailed as error:
                return error.message
            before = guest.usage().cpu_s
            await asyncio.sleep(_STILL_S)
            went_on = guest.usage().cpu_s - before > _STILL_CPU_S
            guest.thaw()
        finally:
            await asyncio.shield(guest.kill())
    return "a frozen guest goes on" if went_on else ""


async def probe(
    sandbox: Sandbox, folder: Path, held: Mapping[str, str], shown: tuple[Path, ...] = ()
) -> Isolation:
    """Try everything, within LIMIT_S. ``held`` is what the tier claims, by line. Raises SpawnFailed when no guest starts.

    ``folder`` is the agent's own, and has to be there; nothing stays in it.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            troubles = breaches(await attempt_all(sandbox, folder, shown))
            trouble = await _stands_still(sandbox, folder)
            if trouble:
                troubles["freeze"] = trouble
    except TimeoutError:
        troubles = dict.fromkeys(held, f"it was not tried within {LIMIT_S:.0f} s")
    except ValueError as error:
        troubles = dict.fromkeys(held, str(error))
    finally:
        await sandbox.close()  # its helpers belong to this event loop, and the agent runs in another
    lines = {
        line: f"{ways.FAILS}: {troubles[line]}"[:_LINE_LIMIT] if line in troubles else text
        for line, text in held.items()
    }
    probed_at = datetime.now(UTC).replace(microsecond=0)
    return Isolation.model_validate({"tier": sandbox.tier, "probed_at": probed_at, **lines})


def not_here(tier: str, why: str) -> NoSandbox:
    """What a tier says whose means are not there."""
    return NoSandbox(
        f"The tier {tier} cannot be had on this machine: {why}",
        failing="tier",
        hint=f"Take WebAssembly alone (--sandbox wasm), {TRUST}",
    )


def find(sandbox: Sandbox, data_dir: Path, held: Mapping[str, str], shown: tuple[Path, ...] = ()) -> Found:
    """Blocks for some seconds; must not be called in a running event loop. Raises NoSandbox when it does not hold."""
    tier = sandbox.tier
    try:
        isolation = asyncio.run(probe(sandbox, data_dir, held, shown))
    except SpawnFailed as error:
        raise NoSandbox(
            f"The tier {tier} starts nothing on this machine. {error.message}",
            failing="tier",
            hint=f"{error.hint or 'Try another tier'} {TRUST}",
        ) from error
    failing = ways.failing(isolation)
    if failing:
        listed = "; ".join(f"{line}: {text}" for line, text in failing.items())
        raise NoSandbox(
            f"The tier {tier} was tried on this machine, and does not hold: {listed}.",
            failing=next(iter(failing)),
            hint=f"Take WebAssembly alone (--sandbox wasm), {TRUST}",
        )
    sentence = (
        f"tier {tier}: what can be tried on this machine was tried, and holds. Nobody has seen this tier on such a system before"
        f" its release ({sandbox.verified}): see docs/reference/sandbox.md."
    )
    return Found(sandbox=sandbox, isolation=isolation, sentences=(sentence,))
