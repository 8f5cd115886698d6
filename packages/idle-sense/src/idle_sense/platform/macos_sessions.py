"""Who is logged in on a Mac: at its screen, switched away (fast user switching), or by ssh.

The I/O registry's root keeps all sessions of the window server (xnu, IOKitKeysPrivate.h: IOConsoleUsers), for daemons as
well; utmpx(5) keeps who came in by ssh.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from idle_sense.facts import Reading, Session
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_registry import Registry
from idle_sense.platform.macos_structures import USER_PROCESS, Utmpx
from idle_sense.platform.macos_values import Plain, Values, mapping, sequence, text, truth, whole
from idle_sense.probes.asked import Asked

MOST_LOGINS = 4096


class Login(NamedTuple):
    """One line of utmpx(5) of somebody who is logged in."""

    user: str
    line: str
    """``console``, or a terminal such as ``ttys003``."""
    host: str
    """Where from; empty: from here."""
    pid: int


def console_sessions(users: Plain, current: Plain) -> tuple[Session, ...]:
    """``users``: IOConsoleUsers; ``current``: the window server's dictionary of this program's own session, if it has one.
    The login window is nobody's session. A session is locked where either says so; the key is absent while it is not."""
    own = mapping(current)
    own_id = whole(own.get("kCGSSessionIDKey"))
    sessions: list[Session] = []
    for item in sequence(users):
        facts = mapping(item)
        user = text(facts.get("kCGSSessionUserNameKey"))
        if not user or truth(facts.get("kCGSessionLoginDoneKey")) is False:
            continue
        number = whole(facts.get("kCGSSessionIDKey"))
        locked = truth(facts.get("CGSSessionScreenIsLocked")) is True
        if own_id is not None and number == own_id:
            locked = locked or truth(own.get("CGSSessionScreenIsLocked")) is True
        sessions.append(
            Session(
                name=f"{number} of {user}" if number is not None else user,
                user=user,
                remote=False,
                active=truth(facts.get("kCGSSessionOnConsoleKey")) is True,
                locked=locked,
            )
        )
    return tuple(sessions)


def remote_sessions(logins: Iterable[Login], alive: Callable[[int], bool]) -> tuple[Session, ...]:
    """Terminal windows belong to a session at the screen; a line whose process has ended was left by a crash."""
    return tuple(
        Session(
            name=f"{login.line} of {login.user} from {login.host}",
            user=login.user,
            remote=True,
            active=True,
            locked=False,
        )
        for login in logins
        if login.host and not login.host.startswith(":") and alive(login.pid)
    )


class Logins:
    """Reads utmpx. Not for several threads at once: getutxent(3) has one place for its answers."""

    def __init__(self, frameworks: Frameworks) -> None:
        self._system = frameworks.system

    def read(self) -> Sequence[Login]:
        found: list[Login] = []
        self._system.setutxent()
        try:
            for _ in range(MOST_LOGINS):
                address = self._system.getutxent()
                if not address:
                    break
                line = Utmpx.from_address(address)
                if line.ut_type == USER_PROCESS:
                    found.append(
                        Login(_text(line.ut_user), _text(line.ut_line), _text(line.ut_host), line.ut_pid)
                    )
        finally:
            self._system.endutxent()
        return found


class SessionsProbe(Asked[tuple[Session, ...]]):
    fact = "sessions"
    back_end = "IOConsoleUsers and utmpx"
    every_s: float = 1.0

    def __init__(
        self,
        *,
        users: Callable[[], Plain],
        current: Callable[[], Plain],
        logins: Callable[[], Sequence[Login]],
        alive: Callable[[int], bool],
    ) -> None:
        super().__init__()
        self._users = users
        self._current = current
        self._logins = logins
        self._alive = alive

    def look(self, now_s: float) -> Reading[tuple[Session, ...]]:
        del now_s
        users = self._users()
        logins = self._logins()
        if users is None and any(login.line == "console" for login in logins):
            return Reading[tuple[Session, ...]].missing(
                self.back_end,
                "somebody is logged in at the screen, and the I/O registry does not tell who",
                "report this, with what idle-sense doctor prints",
            )
        # Outside a log-in session there is no dictionary of our own; the registry's tells alone.
        current = self._current() if users else None
        told = (*console_sessions(users, current), *remote_sessions(logins, self._alive))
        return Reading(value=told, source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Who is logged in at the screen or by ssh, and whether the screen is locked.",)


class SessionCalls:
    """The system's answers for ``SessionsProbe``."""

    def __init__(self, frameworks: Frameworks, registry: Registry, values: Values) -> None:
        self._graphics = frameworks.core_graphics
        self._registry = registry
        self._values = values

    def users(self) -> Plain:
        with self._registry.root() as root:
            return root.read("IOConsoleUsers")

    def current(self) -> Plain:
        with self._values.owned(self._graphics.CGSessionCopyCurrentDictionary()) as session:
            return self._values.plain(session)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
