"""Who is logged in on a Linux machine, and whose screen is locked: logind's files, its D-Bus object for locks, else utmp.

Files tell of sessions even when the bus hangs; the kernel says when they change. The bus is asked only where there is a
desktop that could be locked.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from idle_sense.facts import Reading, Session
from idle_sense.platform import logind, utmp
from idle_sense.platform.dbus_address import system_address
from idle_sense.platform.dbus_answers import LOST, SILENCE, Call
from idle_sense.platform.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MOVED_TO, Inotify
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability

if TYPE_CHECKING:
    from idle_sense.platform.dbus import Bus

REREAD_S = 10.0
"""How often files are read that nothing was told about, where the kernel tells."""
LOCKS_EVERY_S = 9.0
"""How often logind is asked for locks when it tells of no change: to know that it still answers."""
FIRST_BUDGET_S = 0.05
_LOGIN = "org.freedesktop.login1"
_SESSION = "org.freedesktop.login1.Session"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_NOBODY = (".NameHasNoOwner", ".ServiceUnknown", ".NoReply")
"""Errors of the bus where the service has ended: what it said grows old."""


class _Lock:
    """One session's, as logind answers."""

    def __init__(self) -> None:
        self.locked: bool | None = None
        self.told_at_s: float | None = None
        """When the question was sent whose answer this is; None: never answered."""
        self.call: Call | None = None
        self.due = True


class Logins(Polled):
    every_s = 5.0
    """Changes are told by inotify and by the bus; this is to know that both still are there, and for utmp."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        folder: str = logind.SESSIONS,
        utmp_path: str = utmp.UTMP,
        proc: str = "/proc",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._folder = folder
        self._utmp = utmp_path
        self._proc = proc
        self._now = now
        self._inotify: Inotify | None = None
        self._sessions: tuple[logind.Session, ...] = ()
        self._read_at_s: float | None = None
        self._bus: Bus | None = None
        self._changes: Any = None
        self._locks: dict[str, _Lock] = {}
        self._generation = 0
        self._source = ""

    def read(self, now_s: float) -> Reading[tuple[Session, ...]]:
        if not os.path.isdir(self._folder):  # noqa: PTH112 - in the loop
            self._let_go()
            self._source = "utmp" if os.path.exists(self._utmp) else "no logind, no utmp"  # noqa: PTH110
            return Reading(value=self._by_utmp(), source=self._source)
        self._reread_if_due(now_s)
        self._source = "logind"
        desktops = [one for one in self._sessions if one.graphical and one.of_a_person]
        problem = self._ask_locks(desktops) if desktops else self._let_go_of_bus()
        told = [self._locks[one.id] for one in desktops if one.id in self._locks]
        if problem and any(lock.told_at_s is None for lock in told):
            advice = "restart the system bus or systemd-logind, or log in anew"
            return Reading[tuple[Session, ...]].missing("logind", problem, advice)
        ages_s = [self._now() - lock.told_at_s for lock in told if lock.told_at_s is not None]
        age_s = max(0.0, *ages_s) if ages_s else 0.0
        value = tuple(self._as_fact(one) for one in self._sessions if one.of_a_person)
        return Reading(value=value, source=self._source, age_s=age_s, problem=problem)

    def filenos(self) -> Collection[int]:
        files = () if self._inotify is None else self._inotify.filenos()
        return (*files, *(() if self._bus is None else self._bus.filenos()))

    def capability(self) -> Capability:
        told = {"logind": "files of logind", "utmp": "utmp"}.get(
            self._source, self._source or "logind or utmp"
        )
        advice = ""
        if self._bus is not None:
            told += ", locks by D-Bus" if self._bus.ready else f" (locks cannot be seen: {self._bus.problem})"
            advice = "" if self._bus.ready else "let this program reach the system bus"
        return Capability(probe="sessions", back_end=told, verified="native", serves=True, advice=advice)

    def describe(self) -> tuple[str, ...]:
        return ("Who is logged in, here or over the network, and whether their screens are locked.",)

    def close(self) -> None:
        self._let_go()

    def _by_utmp(self) -> tuple[Session, ...]:
        return tuple(
            Session(
                name=f"{one.line} of {one.user}" + (f" from {one.host}" if one.remote else ""),
                user=one.user,
                remote=one.remote,
                active=True,
                locked=None,
            )
            for one in utmp.logins(self._utmp, self._proc)
        )

    def _as_fact(self, one: logind.Session) -> Session:
        where = one.seat or (f"from {one.host}" if one.remote and one.host else one.terminal)
        lock = self._locks.get(one.id)
        return Session(
            name=f"{one.id} of {one.user}"
            + (f" {where}" if where.startswith("from ") else f" on {where}" if where else ""),
            user=one.user,
            remote=one.remote,
            active=one.active or one.remote,
            locked=None if lock is None else lock.locked,
        )

    def _reread_if_due(self, now_s: float) -> None:
        if self._inotify is None:
            self._inotify = Inotify()
            self._read_at_s = None
        if self._folder not in self._inotify.watched:
            # logind was started later, or its folder was made anew.
            self._inotify.watch(self._folder, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_CLOSE_WRITE)
            self._read_at_s = None
        changed = bool(self._inotify.taken())
        interval_s = REREAD_S if self._folder in self._inotify.watched else 0.0
        if changed or self._read_at_s is None or not 0 <= now_s - self._read_at_s < interval_s:
            self._sessions = logind.sessions(self._folder)
            self._read_at_s = now_s

    def _ask_locks(self, desktops: list[logind.Session]) -> str:
        """Keeps the locks of these sessions up to date; why it cannot, empty while all is well or nothing is to be expected."""
        first = self._bus is None
        if self._bus is None:
            from idle_sense.platform.dbus import Bus  # noqa: PLC0415 - and jeepney with it, where there is a desktop

            self._bus = Bus(system_address(self._environ), now=self._now)
            self._changes = self._bus.subscribe(
                sender=_LOGIN,
                interface=_PROPERTIES,
                member="PropertiesChanged",
                path_namespace="/org/freedesktop/login1/session",
            )
        bus = self._bus
        self._locks = {one.id: self._locks.get(one.id) or _Lock() for one in desktops}
        bus.poll()
        changed = {signal.path for signal in self._changes.taken()}
        if bus.generation != self._generation:
            self._generation = bus.generation
            changed = {logind.object_path(one.id) for one in desktops}
        for name, lock in self._locks.items():
            self._settle(lock)
            path = logind.object_path(name)
            lock.due = lock.due or path in changed
            old = lock.told_at_s is None or self._now() - lock.told_at_s >= LOCKS_EVERY_S
            if lock.call is None and (lock.due or old):
                lock.due = False
                lock.call = bus.call(_LOGIN, path, _PROPERTIES, "Get", "ss", (_SESSION, "LockedHint"))
        bus.poll(FIRST_BUDGET_S if first else 0.0)
        for lock in self._locks.values():
            self._settle(lock)
        never = all(lock.told_at_s is None for lock in self._locks.values())
        if never and (bus.absent or bus.refused):
            # No bus at all here: nothing to be expected, and a screen's lock is not known.
            return ""
        return bus.problem or self._silence()

    def _settle(self, lock: _Lock) -> None:
        call = lock.call
        if call is None or not call.done:
            return
        lock.call = None
        gone = call.error in (LOST, SILENCE) or (lock.told_at_s is not None and call.error.endswith(_NOBODY))
        if gone:
            return
        # Another error: a logind without this property, or a session that has just ended.
        lock.told_at_s = call.sent_at_s
        lock.locked = None
        variant: object = call.body[0] if call.body and not call.error else None
        if variant in (("b", True), ("b", False)):
            lock.locked = variant == ("b", True)

    def _silence(self) -> str:
        """logind itself owes an answer, on a bus that works."""
        calls = [lock.call for lock in self._locks.values() if lock.call is not None]
        if any(self._now() - call.sent_at_s > FIRST_BUDGET_S for call in calls):
            return "logind does not answer"
        return ""

    def _let_go_of_bus(self) -> str:
        if self._bus is not None:
            self._bus.close()
        self._bus = self._changes = None
        self._locks.clear()
        self._generation = 0
        return ""

    def _let_go(self) -> None:
        self._let_go_of_bus()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._sessions = ()
