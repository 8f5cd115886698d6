"""Whose a Linux terminal is, and from where they came: by its file's owner, by logind's sessions, by utmp."""

from typing import NamedTuple

from idle_sense.platform import logind, utmp
from idle_sense.platform.programs import PROC, Accounts


class Owner(NamedTuple):
    user: str = ""
    host: str = ""
    """Of a login over the network."""


class Owners:
    def __init__(
        self,
        *,
        sessions: str = logind.SESSIONS,
        utmp_path: str = utmp.UTMP,
        proc: str = PROC,
        accounts: Accounts | None = None,
    ) -> None:
        self._sessions = sessions
        self._utmp = utmp_path
        self._proc = proc
        self._accounts = accounts or Accounts()

    def of(self, line: str, uid: int) -> Owner:
        """``line``: ``pts/3``. A terminal window inside ``tmux`` or ``screen`` has an owner and no host: nobody tells who
        is attached to it."""
        user = self._accounts.name(uid)
        for session in logind.sessions(self._sessions):
            if session.terminal == line and session.remote:
                return Owner(session.user, session.host)
        for login in utmp.logins(self._utmp, self._proc):
            if login.line == line and login.remote:
                return Owner(login.user, login.host)
        return Owner(user)
