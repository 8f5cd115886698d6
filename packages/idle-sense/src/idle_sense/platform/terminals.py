"""Terminals of Linux and macOS: virtual consoles, terminal windows, ssh sessions.

A terminal's access time moves when a program reads what was typed, its modification time when a program prints
(Linux ``tty_update_time``, as shown by ``w(1)``). Linux keeps steps of 8 s, so that nobody can time key strokes.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from idle_sense.facts import Reading, Terminal
from idle_sense.platform.owners import Owner, Owners
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Verified

SETTLED_S = 1.0
"""A guest opens a terminal before it makes it its own: with guests about, a new terminal counts from this age on."""
NAMED_S = 3.0
"""A login notes whose a terminal is after it was opened: asked once at once, and once more at this age."""
FIXED_EVERY_S = 60.0
"""How often it is asked which terminals are always there."""
VIRTUAL_CONSOLES = tuple(f"/dev/tty{number}" for number in range(1, 13))


class _Seen(NamedTuple):
    access_s: float
    at_s: float
    """Monotonic: when this access time was first seen."""
    idle_s: float
    """... and how old it was then."""
    first_s: float
    """Monotonic: when the terminal itself was first seen."""
    made_s: float
    """Wall clock: its inode's change time. Another one means another terminal of the same name: numbers are used again."""
    owner: Owner
    named: bool
    """Its owner was asked for the second time."""


class Terminals:
    """Remembers access times, and judges changes by the monotonic clock: setting the wall clock hides no key stroke."""

    def __init__(
        self,
        processes: Processes,
        *,
        name: str,
        verified: Verified,
        folder: str,
        pattern: str,
        fixed: Callable[[], tuple[str, ...]] = tuple,
        owner: Callable[[str, int], Owner] = lambda _line, _uid: Owner(),
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """``folder``: where terminals come and go, those whose names match ``pattern``; ``fixed``: those always there.
        ``owner``: whose a terminal is, by its name and its file's user."""
        self.name = name
        self.verified: Verified = verified
        self._processes = processes
        self._folder = folder
        self._pattern = re.compile(pattern)
        self._ask_fixed = fixed
        self._fixed: tuple[str, ...] = ()
        self._fixed_at_s: float | None = None
        self._owner = owner
        self._wall_s = wall_s
        self._seen: dict[str, _Seen] = {}
        self._known: frozenset[str] = frozenset()
        self._looked_at_s: float | None = None

    @classmethod
    def linux(cls, processes: Processes) -> "Terminals":
        return cls(
            processes,
            name="terminals",
            verified="native",
            folder="/dev/pts",
            pattern=r"\d+",
            fixed=lambda: (*VIRTUAL_CONSOLES, *serial_consoles()),
            owner=Owners().of,
        )

    @classmethod
    def macos(cls, processes: Processes) -> "Terminals":
        return cls(
            processes, name="terminals", verified="signature-only", folder="/dev", pattern=r"ttys\d{3}"
        )

    def read(self, now_s: float, guests: GuestLedger) -> Reading[tuple[Terminal, ...]]:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers that files have device numbers
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - in the loop
        except FileNotFoundError:
            names = []
        except OSError as error:
            advice = f"let this user list {self._folder}"
            return Reading[tuple[Terminal, ...]].missing(self.name, str(error), advice)
        paths = [f"{self._folder}/{name}" for name in names if self._pattern.fullmatch(name)]
        if self._fixed_at_s is None or not 0 <= now_s - self._fixed_at_s < FIXED_EVERY_S:
            self._fixed, self._fixed_at_s = self._ask_fixed(), now_s
        wall_s = self._wall_s()
        seen: dict[str, _Seen] = {}
        devices: dict[str, int] = {}
        for path in (*paths, *self._fixed):
            try:
                facts = os.stat(path)  # noqa: PTH116 - in the loop
            except OSError:
                # It was closed between the listing and the look, or this machine has no such console.
                continue
            devices[path] = facts.st_rdev
            seen[path] = self._look(path, facts, now_s, wall_s)
        first_look = self._looked_at_s is None
        self._seen = seen
        self._looked_at_s = now_s
        if len(guests):
            known = frozenset(
                path for path, one in seen.items() if now_s - one.first_s >= SETTLED_S or first_look
            )
            foreign = guests.terminals(self._processes, afresh=not known <= self._known)
            self._known = known
            seen = {path: one for path, one in seen.items() if path in known and devices[path] not in foreign}
        terminals = tuple(
            Terminal(
                name=path.removeprefix("/dev/"),
                idle_s=now_s - one.at_s + one.idle_s,
                user=one.owner.user,
                host=one.owner.host,
            )
            for path, one in seen.items()
        )
        return Reading(value=terminals, source=self.name)

    def _look(self, path: str, facts: os.stat_result, now_s: float, wall_s: float) -> _Seen:
        access_s, made_s = facts.st_atime, facts.st_ctime
        before = self._seen.get(path)
        same = before is not None and before.made_s == made_s
        if before is not None and same and before.access_s == access_s:
            if before.named or now_s - before.first_s < NAMED_S:
                return before
            return before._replace(owner=self._owner(path.removeprefix("/dev/"), facts.st_uid), named=True)
        idle_s = max(0.0, wall_s - access_s)
        if before is not None and self._looked_at_s is not None:
            # It moved, or was opened anew, since the last look, whatever the wall clock says.
            idle_s = min(idle_s, now_s - self._looked_at_s)
        if before is not None and same:
            return before._replace(access_s=access_s, at_s=now_s, idle_s=idle_s)
        owner = self._owner(path.removeprefix("/dev/"), facts.st_uid)
        return _Seen(access_s, now_s, idle_s, now_s, made_s, owner, named=False)


def serial_consoles(active: str = "/sys/class/tty/console/active") -> tuple[str, ...]:
    """Serial lines that the kernel uses as a console. Other serial lines belong to devices, not to people."""
    try:
        with open(active, encoding="ascii") as file:  # noqa: PTH123 - in the loop
            names = file.read().split()
    except OSError:
        return ()
    return tuple(f"/dev/{name}" for name in names if not re.fullmatch(r"tty\d+", name))
