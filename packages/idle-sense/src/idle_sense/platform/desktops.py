"""What desktops' session buses tell of somebody who watches: players, and programs that keep the screen on.

A session bus lets its own user in, and root that acts as that user. Where none can be reached the fact rests on sound and on
logind's inhibitors, which are every user's.
"""

import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from idle_sense.platform.acting import may_act_as
from idle_sense.platform.dbus_address import session_address, unix_path
from idle_sense.platform.keepers import KEEPERS, Inhibited
from idle_sense.platform.mpris import Players
from idle_sense.platform.programs import own_uid

LOOK_AROUND_S = 5.0
FIRST_BUDGET_S = 0.05


class Desktop:
    """One session bus."""

    def __init__(self, address: str, uid: int, now: Callable[[], float]) -> None:
        from idle_sense.platform.dbus import Bus  # noqa: PLC0415 - and jeepney with it, where there is a bus

        self.uid = uid
        self._now = now
        self._bus = Bus(address, as_user=None if uid == own_uid() else uid, now=now)
        self._players = Players(self._bus, now)
        self._keepers = tuple(Inhibited(self._bus, keeper, now) for keeper in KEEPERS)
        self._looked = False
        self._answered = False

    def poll(self) -> None:
        """Takes what came, asks what is due; the very first time it waits for the answers, 50 ms at most."""
        deadline_s = self._now() + FIRST_BUDGET_S
        while True:
            self._bus.poll(0.0 if self._looked else max(0.0, min(0.02, deadline_s - self._now())))
            self._players.ask()
            for keeper in self._keepers:
                keeper.ask()
            if (
                self._looked
                or self._is_complete()
                or self._now() >= deadline_s
                or self._bus.absent
                or self._bus.refused
            ):
                break
        self._looked = True
        # What was just asked goes out with this, and not a sample later.
        self._bus.poll()
        self._answered = self._answered or self._is_complete()

    @property
    def absent(self) -> bool:
        """Nobody listens there, or it lets this user not in: as if it were not there, unless it has answered before."""
        return (self._bus.absent or self._bus.refused) and not self._answered

    @property
    def problem(self) -> str:
        return (
            self._bus.problem
            or self._players.problem
            or next((one.problem for one in self._keepers if one.problem), "")
        )

    @property
    def told_at_s(self) -> float | None:
        """When all of this was true, by its oldest part; None: not everybody has answered yet."""
        parts = [self._players.told_at_s, *(one.told_at_s for one in self._keepers if one.here)]
        known = [part for part in parts if part is not None]
        return min(known) if len(known) == len(parts) else None

    def playing(self) -> tuple[str, ...]:
        return self._players.playing()

    def inhibitors(self) -> tuple[str, ...]:
        return tuple(name for keeper in self._keepers for name in keeper.who())

    def filenos(self) -> Collection[int]:
        return self._bus.filenos()

    def close(self) -> None:
        self._bus.close()

    def _is_complete(self) -> bool:
        return self._bus.ready and self.told_at_s is not None


class Desktops:
    """All session buses that can be reached."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        runtimes: str = "/run/user",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._runtimes = runtimes
        self._now = now
        self._desktops: dict[str, Desktop] = {}
        self._looked_at_s: float | None = None
        self.hidden: tuple[int, ...] = ()
        """Users with a session bus that does not let this program in."""

    def poll(self, now_s: float) -> Collection[Desktop]:
        """Those that are there; each has been polled."""
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S:
            self._looked_at_s = now_s
            self._look_around()
        for desktop in self._desktops.values():
            desktop.poll()
        return [desktop for desktop in self._desktops.values() if not desktop.absent]

    def filenos(self) -> Collection[int]:
        return [number for desktop in self._desktops.values() for number in desktop.filenos()]

    def close(self) -> None:
        for desktop in self._desktops.values():
            desktop.close()
        self._desktops.clear()
        self._looked_at_s = None

    def _look_around(self) -> None:
        wanted = dict(self._addresses())
        for address in self._desktops.keys() - wanted.keys():
            self._desktops.pop(address).close()
        for address in sorted(wanted.keys() - self._desktops.keys()):
            self._desktops[address] = Desktop(address, wanted[address], self._now)

    def _addresses(self) -> Iterator[tuple[str, int]]:
        own = own_uid()
        own_address = session_address(self._environ, own)
        own_path = unix_path(own_address)
        if own_path is not None and (own_path.startswith("\0") or os.path.exists(own_path)):  # noqa: PTH110
            yield own_address, own
        try:
            users = os.listdir(self._runtimes)  # noqa: PTH208 - plain strings
        except OSError:
            users = []
        hidden: list[int] = []
        for user in users:
            path = f"{self._runtimes}/{user}/bus"
            if not re.fullmatch(r"\d+", user) or int(user) == own or path == own_path:
                continue
            if not may_act_as(int(user)):
                hidden.append(int(user))
            elif os.path.exists(path):  # noqa: PTH110
                yield f"unix:path={path}", int(user)
        self.hidden = tuple(sorted(hidden))
