"""Sessions as systemd-logind (or elogind) writes them down, in the files that sd-login(3) reads.

A file cannot hang, where a call over D-Bus could. ``IdleHint`` is not used: desktops leave it wrong. Whether a session's screen
is locked (``LockedHint``) is in none of these files, neither systemd's (up to 257) nor elogind's: only D-Bus tells it.
"""

import os
from dataclasses import dataclass

SESSIONS = "/run/systemd/sessions"


@dataclass(frozen=True, kw_only=True)
class Session:
    id: str
    user: str
    kind: str
    """``x11``, ``wayland``, ``mir``, ``tty``, ``unspecified``."""
    role: str
    """``user``, or ``greeter``: the login screen, where nobody is logged in; ``manager``, ``background``: services."""
    display: str
    """``:0`` for X11, where logind knows it."""
    active: bool
    """In the foreground of its seat. Nobody types into one that is not, unless it is remote."""
    remote: bool
    uid: int = -1
    """-1: not told."""
    seat: str = ""
    terminal: str = ""
    """``tty2``, ``pts/3``; empty: none, or not told."""
    host: str = ""
    """Where a remote one came from."""

    @property
    def graphical(self) -> bool:
        return self.kind in ("x11", "wayland", "mir")

    @property
    def of_a_person(self) -> bool:
        """Somebody is logged in: no login screen, no service (``user``, ``user-early``, ``user-light``, ``user-incomplete``)."""
        return self.role.startswith("user")


def sessions(folder: str = SESSIONS) -> tuple[Session, ...]:
    """All sessions that are not about to end. Empty where there is no logind."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - in the loop
    except OSError:
        return ()
    found: list[Session] = []
    for name in names:
        if name.endswith(".ref") or name.startswith("."):
            # A pipe whose other end the session holds; a file that is still being written.
            continue
        try:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - in the loop
                lines = file.read(65536).splitlines()
        except OSError:
            # It ended between the listing and the look.
            continue
        values = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
        if values.get("STATE") == "closing":
            continue
        uid = values.get("UID", "")
        found.append(
            Session(
                id=name,
                user=values.get("USER") or values.get("UID", "?"),
                kind=values.get("TYPE", "unspecified"),
                role=values.get("CLASS", "user"),
                display=values.get("DISPLAY", ""),
                active=values.get("ACTIVE", "1") == "1",
                remote=values.get("REMOTE") == "1",
                uid=int(uid) if uid.isdigit() else -1,
                seat=values.get("SEAT", ""),
                terminal=values.get("TTY", "").removeprefix("/dev/"),
                host=values.get("REMOTE_HOST", ""),
            )
        )
    return tuple(found)


def object_path(session_id: str) -> str:
    """The D-Bus object of a session: sd_bus_path_encode(3) writes what is no letter, and a digit at the start, as ``_XX``."""
    label = "".join(
        character
        if character.isascii() and character.isalnum() and not (position == 0 and character.isdigit())
        else "".join(f"_{byte:02x}" for byte in character.encode())
        for position, character in enumerate(session_id)
    )
    return f"/org/freedesktop/login1/session/{label or '_'}"
