"""Linux: which programs work on cards of AMD and Intel, from /proc/PID/fdinfo (Documentation/gpu/drm-usage-stats).

A look into every file descriptor of every program is dear (tens of milliseconds), so it is made seldom. In between only the
programs that were seen to hold a card, and new ones, are looked into. Programs of other users, and those that protect themselves
(prctl(2), PR_SET_DUMPABLE), can be looked into only with CAP_SYS_PTRACE: while one cannot, what is seen is not all.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from idle_sense.platform.gpus import EngineTime, ProgramUse

EVERYTHING_EVERY_S = 10.0
"""Between two looks into all programs."""
CLOSED_EVERY_S = 60.0
"""Before it is tried again whether all programs may be looked into."""
FIRST_PROCESS = 1
CARDS = "/dev/dri/"
MEMORY_UNITS = {"": 1, "KiB": 1024, "MiB": 1024 * 1024}
DEVICE_MEMORY = ("vram", "local", "stolen")
"""Beginnings of the names of memory on the card itself; the rest is the machine's."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """One open handle of a card, as its fdinfo tells."""

    driver: str
    identity: str
    """No other handle of this card has it; a handle that was handed on or inherited has the same in both programs."""
    busy: dict[str, float] = field(default_factory=dict[str, float])
    """By engine: seconds, or cycles."""
    cycles: dict[str, float] = field(default_factory=dict[str, float])
    """By engine: all cycles so far, where ``busy`` is in cycles."""
    capacity: dict[str, int] = field(default_factory=dict[str, int])
    used_bytes: int | None = None

    def times(self, at_s: float) -> dict[str, EngineTime]:
        found: dict[str, EngineTime] = {}
        for engine, busy in self.busy.items():
            whole = self.cycles.get(engine, at_s) * max(1, self.capacity.get(engine, 1))
            found[f"{engine} {self.identity}"] = EngineTime(busy=busy, whole=whole)
        return found


def parse(fdinfo: str) -> Client | None:
    """None: no handle of a card, or one without a name of its own, whose work could be counted twice."""
    driver = identity = ""
    busy: dict[str, float] = {}
    cycles: dict[str, float] = {}
    total: dict[str, float] = {}
    capacity: dict[str, int] = {}
    memory: dict[str, dict[str, int]] = {"resident": {}, "memory": {}, "total": {}}
    for line in fdinfo.splitlines():
        key, _, value = line.partition(":")
        if not key.startswith("drm-"):
            continue
        kind, _, name = key.removeprefix("drm-").partition("-")
        words = value.split()
        if key == "drm-driver":
            driver = value.strip()
        elif key == "drm-client-id":
            identity = value.strip()
        elif not words or not words[0].isdigit():
            continue
        elif key.startswith("drm-engine-capacity-"):
            capacity[key.removeprefix("drm-engine-capacity-")] = int(words[0])
        elif key.startswith("drm-total-cycles-"):
            total[key.removeprefix("drm-total-cycles-")] = float(words[0])
        elif kind == "engine":
            busy[name] = int(words[0]) / 1e9
        elif kind == "cycles":
            cycles[name] = float(words[0])
        elif kind in memory and name.startswith(DEVICE_MEMORY):
            unit = words[1] if len(words) > 1 else ""
            memory[kind][name] = int(words[0]) * MEMORY_UNITS.get(unit, 1)
    if not driver or not identity:
        return None
    # Cycles of which the whole is not told serve only beside a time, which says the same (msm, panfrost).
    busy |= {engine: count for engine, count in cycles.items() if engine in total}
    used = next((sum(sizes.values()) for sizes in memory.values() if sizes), None)
    return Client(
        driver=driver,
        identity=identity,
        busy=busy,
        cycles={engine: whole for engine, whole in total.items() if engine in cycles},
        capacity=capacity,
        used_bytes=used,
    )


class DrmClients:
    """The programs on all cards. Remembers between looks which programs hold one."""

    def __init__(self, *, proc: Path = Path("/proc"), now_s: Callable[[], float] = time.monotonic) -> None:
        self._proc = str(proc)
        self._now_s = now_s
        self._handles: dict[int, tuple[tuple[str, str], ...]] = {}
        """By process: (number of the file descriptor, name under /dev/dri)."""
        self._everything_at_s: float | None = None
        self._closed_at_s: float | None = None

    def look(self) -> dict[str, list[ProgramUse]] | None:
        """By name under /dev/dri (``renderD128``): who works there. One program may be there under both names of a card.

        None: a program may not be looked into, so that what is seen would not be all.
        """
        at_s = self._now_s()
        if self._closed_at_s is not None and at_s - self._closed_at_s < CLOSED_EVERY_S:
            return None
        self._closed_at_s = None
        if self._everything_at_s is None or at_s - self._everything_at_s >= EVERYTHING_EVERY_S:
            self._everything_at_s = at_s
            self._handles.clear()
        try:
            return self._look()
        except PermissionError:
            self._closed_at_s = at_s
            self._everything_at_s = None
            return None

    def _look(self) -> dict[str, list[ProgramUse]]:
        alive = {int(name) for name in os.listdir(self._proc) if name.isdigit()}  # noqa: PTH208 - names alone are wanted
        if FIRST_PROCESS not in alive:
            # proc(5), hidepid: others' processes are not even listed.
            raise PermissionError(f"{self._proc} does not list all processes")
        for pid in self._handles.keys() - alive:
            del self._handles[pid]
        # In this order, because the first process is the first that refuses.
        for pid in sorted(alive):
            if self._handles.get(pid, True):
                self._handles[pid] = self._open_cards(pid)
        found: dict[str, list[ProgramUse]] = {}
        for pid, handles in self._handles.items():
            for number, card in handles:
                use = self._use(pid, number)
                if use is not None:
                    found.setdefault(card, []).append(use)
        return found

    def _open_cards(self, pid: int) -> tuple[tuple[str, str], ...]:
        """Raises PermissionError."""
        folder = f"{self._proc}/{pid}/fd"
        handles: list[tuple[str, str]] = []
        try:
            for number in os.listdir(folder):  # noqa: PTH208 - as above
                try:
                    target = os.readlink(f"{folder}/{number}")  # noqa: PTH115 - thousands of them
                except FileNotFoundError:
                    continue
                if target.startswith(CARDS):
                    handles.append((number, target.removeprefix(CARDS).partition(" ")[0]))
        except (FileNotFoundError, ProcessLookupError):
            return ()
        return tuple(handles)

    def _use(self, pid: int, number: str) -> ProgramUse | None:
        """Raises PermissionError. None: it was closed meanwhile."""
        try:
            with open(f"{self._proc}/{pid}/fdinfo/{number}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
                client = parse(file.read())
        except (FileNotFoundError, ProcessLookupError):
            return None
        if client is None:
            return ProgramUse(pid=pid, timed=False)
        return ProgramUse(
            pid=pid,
            times=client.times(self._now_s()),
            timed=bool(client.busy),
            used_bytes=client.used_bytes,
        )
