"""What tier ``wasm`` holds on this machine: hostile modules are run in it, and a busy one is frozen and interrupted."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from idle_accelerator.agent.sandbox import wasm_hostile, ways
from idle_accelerator.agent.sandbox.types import TRUST, FreezeFailed, Guest, NoSandbox, Sandbox, SpawnFailed
from idle_accelerator.agent.sandbox.wasm import WasmSandbox, version
from idle_accelerator.agent.sandbox.wasm_hostile import ATTEMPTS, LINK, PAGE_BYTES, SECRET
from idle_accelerator.agent.workloads import wasm
from idle_accelerator.wire.jobs import Requirements, Wasm
from idle_accelerator.wire.nodes import Isolation
from idle_accelerator.wire.units import format_size

LIMIT_S: Final = 120.0
"""For all of it. It takes about a second where the machine has time."""
AS_ROOT: Final = (
    "The agent runs as root, and so does the process around a module: better run it as a user of its own."
)
_MEMORY_BYTES: Final = 64 * 1024 * 1024
_MODULE: Final = "hostile.wasm"
_INTERRUPTED: Final = wasm.TRAP_STATUS + 10
_STILL_S: Final = 0.1
_STILL_CPU_S: Final = 0.02
_BUSY_S: Final = 0.3
_LINE_LIMIT: Final = 200
_COMPILE_S: Final = 20.0
_COMPILER: Final = "import sys, wasmtime; sys.stdout.buffer.write(wasmtime.wat2wasm(sys.stdin.read()))"
"""In a process of its own: the agent itself never loads wasmtime."""


@dataclass(frozen=True, kw_only=True)
class WasmSeen:
    """What the hostile module got done."""

    numbers: Mapping[str, int]
    """See ``wasm_hostile``."""
    secret_in_environment: bool
    escaped: tuple[str, ...]
    """Names that stand beside the workspace and were not there."""


async def unchanged() -> Isolation | None:
    """None: another wasmtime comes with another start of the agent only."""
    return None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The sandbox, what it was found to hold, and sentences for the owner."""

    sandbox: WasmSandbox
    isolation: Isolation
    sentences: tuple[str, ...]
    recheck: Callable[[], Awaitable[Isolation | None]] = unchanged
    """See ``tiers.Found``: another wasmtime comes with another installation of the agent's Python."""


def find(data_dir: Path) -> Found:
    """Blocks for about a second; must not be called in a running event loop. Raises NoSandbox."""
    name = version()
    if not name:
        raise NoSandbox(
            "There is no wasmtime in the agent's Python, which would run WebAssembly apart from you.",
            failing="tier",
            hint=f"Install it: pip install 'idle-accelerator[wasm]', {TRUST}",
        )
    sandbox = WasmSandbox()
    try:
        isolation = asyncio.run(probe(sandbox, data_dir))
    except (SpawnFailed, OSError) as error:
        raise NoSandbox(
            f"{name} is there, but runs nothing on this machine: {error}",
            failing="tier",
            hint=f"Install it anew: pip install --force-reinstall wasmtime, {TRUST}",
        ) from error
    failing = ways.failing(isolation)
    if failing:
        listed = "; ".join(f"{line}: {text}" for line, text in failing.items())
        raise NoSandbox(
            f"{name} was tried on this machine, and does not hold: {listed}.",
            failing=next(iter(failing)),
            hint=f"Take a newer wasmtime, {TRUST}",
        )
    sentence = f"tier wasm ({name}): tried on this machine, it holds. It takes WebAssembly alone, and refuses all else."
    sentences = (sentence,)
    if sys.platform != "win32" and os.geteuid() == 0:
        sentences = (sentence, AS_ROOT)
    return Found(sandbox=sandbox, isolation=isolation, sentences=sentences)


async def probe(sandbox: Sandbox, folder: Path) -> Isolation:
    """Try everything, within LIMIT_S. Raises SpawnFailed and OSError when no module can be run at all.

    ``folder`` is the agent's own, and has to be there; nothing stays in it.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            troubles: dict[str, str] = breaches(await attempt_all(sandbox, folder))
            trouble = await _stands_still_and_is_interrupted(sandbox, folder)
            if trouble:
                troubles["freeze"] = trouble
    except TimeoutError:
        troubles = dict.fromkeys(_CLAIMS, f"it was not tried within {LIMIT_S:.0f} s")
    except ValueError as error:
        troubles = dict.fromkeys(_CLAIMS, str(error))
    finally:
        await sandbox.close()  # its helpers belong to this event loop, and the agent runs in another
    return _vector(troubles)


async def attempt_all(sandbox: Sandbox, folder: Path) -> WasmSeen:
    """Run the hostile module in the sandbox. Raises SpawnFailed, OSError, and ValueError when it did not report."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        top = Path(name)
        marker = secrets.token_hex(16)
        secret = top / SECRET
        secret.write_text(marker, encoding="ascii")
        workspace = top / "workspace"
        workspace.mkdir()
        with contextlib.suppress(OSError, NotImplementedError):  # Windows lets not everybody make links
            (workspace / LINK).symlink_to(f"../{SECRET}")
        module = await compiled(wasm_hostile.hostile(secret.as_posix()))
        guest = await start(sandbox, workspace, module, secret=marker)
        try:
            out = b"" if guest.stdout is None else await guest.stdout.read()
            err = b"" if guest.stderr is None else await guest.stderr.read()
            ended = await guest.wait()
        finally:
            await asyncio.shield(guest.kill())
        if ended.exit_code != 0:
            said = err.decode(errors="replace").strip()
            raise ValueError(f"the hostile module did not report: {said[-_LINE_LIMIT:]}")
        return read_report(out, marker, _beside(top))


def _beside(top: Path) -> tuple[str, ...]:
    """What stands in the folder above the workspace and did not."""
    names = {entry.name for entry in top.iterdir()}
    gone = (f"{SECRET}, which is gone",) if SECRET not in names else ()
    return (*sorted(names - {SECRET, "workspace"}), *gone)


def read_report(out: bytes, marker: str, escaped: tuple[str, ...] = ()) -> WasmSeen:
    """Out of what the hostile module printed."""
    pairs = [line.partition(b"=") for line in out.splitlines()]
    names = {attempt.name for attempt in ATTEMPTS}
    numbers = {
        name.decode(): int(number)
        for name, _, number in pairs
        if name.decode(errors="replace") in names and number.isdigit()
    }
    return WasmSeen(numbers=numbers, secret_in_environment=marker.encode() in out, escaped=escaped)


def worked(seen: WasmSeen, name: str, *, memory_bytes: int = _MEMORY_BYTES) -> bool:
    """Whether that attempt of the hostile module got through. One that was not made counts as such."""
    if name == "environment":
        return seen.secret_in_environment
    number = seen.numbers.get(name)
    if number is None:
        return True
    if name == "memory":
        return number * PAGE_BYTES > memory_bytes
    return number != 0 if name == "other_descriptors" else number == 0


def breaches(seen: WasmSeen) -> dict[str, str]:
    """What should have been refused and was not, by line of the vector."""
    found: dict[str, list[str]] = {}
    for attempt in ATTEMPTS:
        if worked(seen, attempt.name):
            found.setdefault(attempt.line, []).append(f"{attempt.name} works")
    if seen.escaped:
        found.setdefault("fs", []).append(f"it left {', '.join(seen.escaped)} beside the workspace")
    return {line: "; ".join(texts) for line, texts in found.items()}


async def _stands_still_and_is_interrupted(sandbox: Sandbox, folder: Path) -> str:
    """Freeze, thaw and the second line of the timeout, on a busy module; returns what does not work, or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        guest = await start(
            sandbox, Path(name), await compiled(wasm_hostile.ENDLESS), timeout_s=1.0 - wasm.SLACK_S
        )
        try:
            await asyncio.sleep(_BUSY_S)
            try:
                guest.freeze()
            except FreezeFailed as error:
                return error.message
            before = guest.usage().cpu_s
            await asyncio.sleep(_STILL_S)
            if guest.usage().cpu_s - before > _STILL_CPU_S:
                return "a frozen module goes on"
            guest.thaw()
            ended = await guest.wait()
        finally:
            await asyncio.shield(guest.kill())
    return "" if ended.exit_code == _INTERRUPTED else "an endless module is not interrupted"


async def compiled(text: str) -> bytes:
    """A module from its text. Raises ValueError with what wasmtime said, OSError."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-c", _COMPILER],
        input=text.encode(),
        capture_output=True,
        timeout=_COMPILE_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"wasmtime does not compile the hostile module: {said[-_LINE_LIMIT:]}")
    return done.stdout


async def start(
    sandbox: Sandbox, workspace: Path, module: bytes, *, secret: str = "", timeout_s: float | None = None
) -> Guest:
    """A guest that runs the module, as the agent starts it; with a secret in the environment of the process around it."""
    (workspace / _MODULE).write_bytes(module)
    launch = wasm.launch(
        Wasm(module=_MODULE),
        Requirements(memory_bytes=_MEMORY_BYTES),
        workspace=workspace,
        env={"IDLE_THREADS": "1"},
        asked_env={},
        timeout_s=timeout_s,
        around={"IDLE_PROBE": secret} if secret else {},
    )
    guest = await sandbox.start(launch.spec)
    launch.tell(guest)
    return guest


_CLAIMS: Final = ("fs", "net", "pidns", "mem", "freeze")


def _vector(troubles: Mapping[str, str]) -> Isolation:
    size = format_size(wasm.DEFAULT_MEMORY_BYTES)
    held = {
        "fs": "WASI: the workspace alone, no way above it",
        "net": "WASI: no sockets",
        "pidns": "WASI: no processes, no signals, an environment of its own",
        "calls": "WebAssembly: none but WASI's",
        "mem": f"wasmtime, at what a task asks for, or {size}",
        "disk": f"{ways.NONE}: a guest may write until the disk is full",
        "freeze": ways.of("freeze"),
        "prio": f"{ways.of('cpu')}; guests have no way to raise it",
        "kill": ways.of("kill"),
        "gpu": "no devices",
    }
    lines = {
        line: f"{ways.FAILS}: {troubles[line]}"[:_LINE_LIMIT] if line in troubles else text
        for line, text in held.items()
    }
    probed_at = datetime.now(UTC).replace(microsecond=0)
    return Isolation.model_validate({"tier": WasmSandbox.tier, "probed_at": probed_at, **lines})
