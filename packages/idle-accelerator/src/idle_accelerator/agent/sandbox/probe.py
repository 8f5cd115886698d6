"""What a tier holds on this machine: the hostile program is run in it, and guests are frozen and told to leave.

Nothing is claimed that was not tried: each line of the vector names the mechanism, or says what got through. Bait is laid for the
hostile program: a file beside the agent's token, a port and an abstract socket on which the agent listens, and a
process with a secret in its environment.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from idle_accelerator.agent.sandbox import ways
from idle_accelerator.agent.sandbox.attempts import Seen, breaches
from idle_accelerator.agent.sandbox.types import FreezeFailed, GuestSpec, Sandbox
from idle_accelerator.wire.nodes import Isolation

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

LIMIT_S: Final = 120.0
"""For all of it. It takes half a second where the machine has time; where its owner keeps all cores busy, guests wait, these too."""
PROGRAM: Final = Path(__file__).with_name("hostile.py")
_OUTLIVE_S: Final = 60
_HOME_ENTRIES: Final = 20
_STILL_S: Final = 0.1
_STILL_CPU_S: Final = 0.02
"""What stopping itself may cost."""
_NOTICED: Final = 85
_TELL_TALE: Final = f"trap 'exit {_NOTICED}' TERM; echo up; while :; do :; done"
"""Busy, until it is told to leave."""
_DETAIL_LIMIT: Final = 180
_LINE_LIMIT: Final = 200


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_REMOVE: Final = 0
_PAGE_BYTES: Final = 4096


class Tried(Sandbox, Protocol):
    """A sandbox that makes claims which can be tried."""

    @property
    def memory_files_bytes(self) -> int:
        """What guests may have of /tmp and /dev/shm, each."""
        ...

    @property
    def shown(self) -> tuple[Path, ...]:
        """What of the machine's files guests may read."""
        ...

    @property
    def conceded(self) -> frozenset[str]:
        """Attempts that it does not claim to refuse here, though the table says that the tier does."""
        ...

    def claims(self) -> Mapping[str, str]:
        """What it does for each line but ``mem``, to be published only where it was tried."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bait:
    """What the hostile program goes for, and what it is told."""

    plan: str
    """JSON."""
    victim: "subprocess.Popen[bytes]"
    lock: Path

    def left_behind(self) -> bool:
        """Whether the daemon lives: it holds a lock on a file of its workspace."""
        try:
            with self.lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


@contextlib.contextmanager
def bait(
    folder: Path, workspace: Path, *, memory_files_bytes: int, passed_over: tuple[Path, ...] = ()
) -> Generator[Bait]:
    """Lay it. ``folder`` is the agent's; ``passed_over`` is what of the home directory a guest may see."""
    marker = secrets.token_hex(16)
    secret = folder / f"secret-{marker[:8]}"
    secret.write_text(marker, encoding="ascii")
    lock = workspace / "lock"
    with contextlib.ExitStack() as laid:
        laid.callback(secret.unlink, missing_ok=True)
        listener = laid.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = laid.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{marker}")
        abstract.listen()
        datagrams = laid.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"\0{marker}-datagrams")
        segment = _segment()
        laid.callback(_LIBC.shmctl, segment, _REMOVE, None)
        script = 'read line; exit "$line"'
        victim = laid.enter_context(
            subprocess.Popen(
                ["/bin/sh", "-c", script, "bait", marker], env={"SECRET": marker}, stdin=subprocess.PIPE
            )
        )
        laid.callback(victim.kill)
        plan = {
            "marker": marker,
            "home": _home_entries(passed_over),
            "secret_file": str(secret),
            "secret_mode": secret.stat().st_mode & 0o777,
            "segment": segment,
            "port": listener.getsockname()[1],
            "pid": victim.pid,
            "memory_files_bytes": memory_files_bytes,
            "lock": str(lock),
            "outlive_s": _OUTLIVE_S,
        }
        yield Bait(plan=json.dumps(plan), victim=victim, lock=lock)


def _segment() -> int:
    """Memory of System V's that its user alone may use; -1 where the kernel has none."""
    return int(_LIBC.shmget(0, _PAGE_BYTES, 0o600))


def _home_entries(passed_over: tuple[Path, ...]) -> list[str]:
    home = Path.home()
    try:
        entries = sorted(home.iterdir())
    except OSError:
        return []
    return [
        str(entry)
        for entry in entries
        if os.access(entry, os.R_OK)
        and not any(path.is_relative_to(entry) or entry.is_relative_to(path) for path in passed_over)
    ][:_HOME_ENTRIES]


def read_report(text: bytes) -> dict[str, Seen]:
    """What the hostile program printed. Raises ValueError for anything else."""
    raw = json.loads(text)
    return {name: Seen(outcome=outcome, detail=detail) for name, (outcome, detail) in raw.items()}


async def attempt_all(
    sandbox: Sandbox, folder: Path, *, memory_files_bytes: int, passed_over: tuple[Path, ...] = ()
) -> dict[str, Seen]:
    """Run the hostile program in the sandbox. Raises SpawnFailed, and ValueError when it did not report.

    ``memory_files_bytes`` is what it is to be given of /tmp and /dev/shm, ``passed_over`` what it may see of the home directory.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        workspace = Path(name)
        with bait(
            folder, workspace, memory_files_bytes=memory_files_bytes, passed_over=(*passed_over, folder)
        ) as laid:
            guest = await sandbox.start(_spec(workspace, sys.executable, "-I", str(PROGRAM), laid.plan))
            try:
                out, err = await asyncio.gather(_all_of(guest.stdout), _all_of(guest.stderr))
                await guest.wait()
            finally:
                await asyncio.shield(guest.kill())
            try:
                seen = read_report(out)
            except ValueError as error:
                said = err.decode(errors="replace").strip()
                raise ValueError(f"the hostile program did not report: {said[-_DETAIL_LIMIT:]}") from error
            if "outlive" in seen:
                lives = laid.left_behind()
                seen["outlive"] = Seen(
                    outcome="works" if lives else "refused", detail="looked for afterwards"
                )
            if laid.victim.poll() is not None:
                seen["send_signal"] = Seen(outcome="works", detail="it died")
            return seen


async def _stands_still_and_leaves(sandbox: Tried, folder: Path) -> str:
    """Freeze, thaw and the notice to leave, on a busy guest; returns what does not work, or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        guest = await sandbox.start(_spec(Path(name), "/bin/sh", "-c", _TELL_TALE))
        try:
            if guest.stdout is not None:
                await guest.stdout.readline()
            try:
                guest.freeze()
            except FreezeFailed as error:
                return error.message
            before = guest.usage().cpu_s
            await asyncio.sleep(_STILL_S)
            if guest.usage().cpu_s - before > _STILL_CPU_S:
                return "a frozen guest goes on"
            guest.thaw()
            guest.notify_vacate()
            ended = await guest.wait()
        finally:
            await asyncio.shield(guest.kill())
    return "" if ended.exit_code == _NOTICED else "a guest does not hear the notice to leave"


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


def _spec(workspace: Path, *argv: str) -> GuestSpec:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(workspace), "LANG": "C.UTF-8"}
    return GuestSpec(argv=argv, workspace=workspace, env=env)


async def probe(sandbox: Tried, folder: Path) -> Isolation:
    """Try everything, within LIMIT_S. Raises SpawnFailed when no guest can be started at all.

    ``folder`` is the agent's own, and has to be there; nothing stays in it.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            seen = await attempt_all(
                sandbox, folder, memory_files_bytes=sandbox.memory_files_bytes, passed_over=sandbox.shown
            )
            troubles: dict[str, str] = {**breaches(seen, sandbox.tier, conceded=sandbox.conceded)}
            trouble = await _stands_still_and_leaves(sandbox, folder)
            if trouble:
                troubles["freeze"] = trouble
    except TimeoutError:
        troubles = dict.fromkeys(_CLAIMS, f"it was not tried within {LIMIT_S:.0f} s")
    except ValueError as error:
        troubles = dict.fromkeys(_CLAIMS, str(error))
    finally:
        await sandbox.close()  # its helpers belong to this event loop, and the agent runs in another
    return _vector(sandbox, troubles)


_CLAIMS: Final = ("fs", "net", "pidns", "calls", "disk", "freeze", "prio", "kill", "gpu")


def _vector(sandbox: Tried, troubles: Mapping[str, str]) -> Isolation:
    lines = {
        field: f"{ways.FAILS}: {troubles[field]}"[:_LINE_LIMIT] if field in troubles else text[:_LINE_LIMIT]
        for field, text in sandbox.claims().items()
    }
    return Isolation(
        tier=sandbox.tier,
        mem=ways.memory(),
        probed_at=datetime.now(UTC).replace(microsecond=0),
        most_memory_bytes=ways.most_memory_bytes(),
        **lines,
    )
