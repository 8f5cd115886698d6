"""The watch: a small process at normal priority that freezes every guest at the first input, whatever the agent is busy with.

It listens to keyboards, mice and terminals by idle-sense, and knows one folder: that in which the control groups of all guests stand.
When it is armed and somebody uses the machine, it freezes each group there but the spared ones, waits until the kernel says that
they stand still, and tells the agent, which then decides and keeps the books. So it is right also for a guest that began in
that moment: it stands in the folder before its first instruction. It ends with its standard input, that is, with the agent.

``python -I watch.py HOME VERSION [WEIGHTS]``. One JSON object a line, in and out. It imports nothing of the agent.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Collection
from typing import Any, Final

from idle_sense import platform
from idle_sense.doorbell import doorbell
from idle_sense.probes.guests import GuestLedger
from idle_sense.probes.input import InputProbe
from idle_sense.probes.session import TerminalProbe

if sys.platform == "win32":
    raise ImportError("This program is for systems with control groups.")

LOOK_S: Final = 0.1
"""Between looks for what no event tells, while it is armed."""
REST_S: Final = 1.0
FREEZE_LIMIT_S: Final = 0.5
FOLLOW_S: Final = 1.0
"""So long after the first input what begins is frozen too, unless the agent says otherwise before."""
_FOLLOW_EVERY_S: Final = 0.005
_POLL_S: Final = 0.000_2
_POLL_MAX_S: Final = 0.002
_PIECE_BYTES: Final = 65536
_USUAL: Final = (("cpu.idle", b"0", b"1"), ("cpu.weight", b"100", b"1"), ("cpu.shares", b"1024", b"2"))
"""File, its value in a new group, and that of the least weight."""


class Ear:
    """When somebody last used the machine."""

    def __init__(self) -> None:
        guests = GuestLedger()
        guests.add(os.getppid())  # a terminal of the agent's or a guest's is nobody's keyboard
        system = platform.current()
        self._probes = (InputProbe(system, guests), TerminalProbe(system, guests))
        self._bell = doorbell()
        for probe in self._probes:
            probe.listen(self._bell.ring)

    def wait(self, others: Collection[int], timeout_s: float) -> frozenset[int]:
        """Until something may have happened; those of ``others`` that are readable."""
        mine = {fileno for probe in self._probes for fileno in probe.filenos()}
        ready = self._bell.wait({*mine, *others}, timeout_s)
        self._bell.take()
        return ready & frozenset(others)

    def latest_s(self) -> float:
        """Monotonic; what cannot be read tells nothing here: the agent itself takes it for use."""
        now_s = time.monotonic()
        seats = self._probes[0].read(now_s)
        latest_s = float("-inf")
        for seat in seats.value or ():
            if seat.idle_s.value is not None:
                latest_s = max(latest_s, now_s - seats.age_s - seat.idle_s.age_s - seat.idle_s.value)
        terminals = self._probes[1].read(now_s)
        for terminal in terminals.value or ():
            latest_s = max(latest_s, now_s - terminals.age_s - terminal.idle_s)
        return latest_s


class Hands:
    """Freezes the groups in one folder."""

    def __init__(self, home: str, version: int, weights: str | None) -> None:
        self._home = home
        self._file, self._value = ("freezer.state", b"FROZEN") if version == 1 else ("cgroup.freeze", b"1")
        self._asked, self._mark = (
            ("freezer.state", b"FROZEN\n") if version == 1 else ("cgroup.events", b"frozen 1")
        )
        self._weights = weights

    def freeze(
        self, spared: Collection[str], known: Collection[str] = ()
    ) -> tuple[dict[str, float], list[str]]:
        """Every group but those; when each of them stood still, monotonic, by folder; and those that did not in time.

        To be trapped, each process must be given a processor once: so their weight is lifted meanwhile.
        """
        folders = [
            f"{self._home}/{name}"
            for name in self._names()
            if name not in spared and f"{self._home}/{name}" not in known
        ]
        if not folders:
            return {}, []
        weighed = [self._weights] if self._weights is not None else folders
        for folder in weighed:
            self._weigh(folder, lifted=True)
        try:
            for folder in folders:
                _write(f"{folder}/{self._file}", self._value)
            return self._wait(folders)
        finally:
            for folder in weighed:
                self._weigh(folder, lifted=False)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._home) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def _wait(self, folders: list[str]) -> tuple[dict[str, float], list[str]]:
        frozen: dict[str, float] = {}
        deadline_s = time.monotonic() + FREEZE_LIMIT_S
        pause_s = _POLL_S
        left = folders
        while True:
            still_left: list[str] = []
            for folder in left:
                said = _read(f"{folder}/{self._asked}")
                if said is None:
                    continue  # its guest has ended
                if self._mark in said:
                    frozen[folder] = time.monotonic()
                else:
                    still_left.append(folder)
            left = still_left
            if not left or time.monotonic() > deadline_s:
                return frozen, left
            time.sleep(pause_s)
            pause_s = min(_POLL_MAX_S, pause_s * 2)

    def _weigh(self, folder: str, *, lifted: bool) -> None:
        for name, usual, least in _USUAL:
            if _write(f"{folder}/{name}", usual if lifted else least):
                return


def _write(path: str, value: bytes) -> bool:
    """False when it is not there, or does not take it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, value)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)


class Watch:
    """The process's whole life."""

    def __init__(self, ear: Ear, hands: Hands, commands: int, reports: int) -> None:
        self._ear = ear
        self._hands = hands
        self._commands = commands
        self._reports = reports
        self._heard = b""
        self._armed = False
        self._since_s = 0.0
        self._spared: frozenset[str] = frozenset()
        self._follows_until_s = 0.0
        self._known: set[str] = set()

    def run(self) -> None:
        self._tell({"ready": True})
        while True:
            now_s = time.monotonic()
            follows = now_s < self._follows_until_s
            pause_s = _FOLLOW_EVERY_S if follows else LOOK_S if self._armed else REST_S
            if self._ear.wait((self._commands,), pause_s) and not self._take_commands():
                return
            latest_s = self._ear.latest_s()
            if self._armed and latest_s > self._since_s:
                self._armed = False
                self._known = set()
                self._follows_until_s = time.monotonic() + FOLLOW_S
                self._freeze(input_at_s=latest_s)
            elif time.monotonic() < self._follows_until_s:
                self._freeze(input_at_s=None)

    def _freeze(self, *, input_at_s: float | None) -> None:
        frozen, missed = self._hands.freeze(self._spared, self._known)
        self._known |= set(frozen)
        if frozen or missed or input_at_s is not None:
            self._tell({"input_at_s": input_at_s, "frozen": frozen, "missed": missed})

    def _take_commands(self) -> bool:
        """False when the agent is gone."""
        piece = os.read(self._commands, _PIECE_BYTES)
        if not piece:
            return False
        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            command: dict[str, Any] = json.loads(line)
            self._armed = bool(command["armed"])
            self._since_s = float(command["since_s"])
            self._spared = frozenset(command["spared"])
            self._follows_until_s = 0.0
        return True

    def _tell(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, and the next command says so
            os.write(self._reports, json.dumps(report).encode() + b"\n")


def main(arguments: list[str]) -> None:
    """Ctrl-C and a service manager's stop are meant for the agent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    home, version, *weights = arguments
    hands = Hands(home, int(version), weights[0] if weights else None)
    Watch(Ear(), hands, commands=0, reports=1).run()


if __name__ == "__main__":
    main(sys.argv[1:])
