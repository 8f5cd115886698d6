"""Sessions as systemd-logind (or elogind) writes them down, in the files that sd-login(3) reads.

A file cannot hang, where a call over D-Bus could. ``IdleHint`` is not used: desktops leave it wrong.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Session:
    id: str
    user: str
    kind: str
    """``x11``, ``wayland``, ``mir``, ``tty``, ``unspecified``."""
    role: str
    """``user``, or ``greeter``: the login screen, where nobody is logged in."""
    display: str
    """``:0`` for X11, where logind knows it."""
    active: bool
    """In the foreground of its seat. Nobody types into one that is not, unless it is remote."""
    remote: bool

    @property
    def graphical(self) -> bool:
        return self.kind in ("x11", "wayland", "mir")


def sessions(folder: str = "/run/systemd/sessions") -> tuple[Session, ...]:
    """All sessions that are not about to end. Empty where there is no logind."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - in the loop
    except OSError:
        return ()
    found: list[Session] = []
    for name in names:
        if name.endswith(".ref"):
            continue
        try:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - in the loop
                lines = file.read().splitlines()
        except OSError:
            # It ended between the listing and the look.
            continue
        values = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
        if values.get("STATE") == "closing":
            continue
        found.append(
            Session(
                id=name,
                user=values.get("USER") or values.get("UID", "?"),
                kind=values.get("TYPE", "unspecified"),
                role=values.get("CLASS", "user"),
                display=values.get("DISPLAY", ""),
                active=values.get("ACTIVE", "1") == "1",
                remote=values.get("REMOTE") == "1",
            )
        )
    return tuple(found)
