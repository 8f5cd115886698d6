"""Every place on a Linux machine where somebody can sit: X displays by their sockets, Wayland desktops by their sessions.

No seat at all is a finding (a machine without desktop), a seat that cannot be read is none: it counts as busy.
The login screen is no seat: nobody is logged in, and whoever logs in there begins a session, which is noticed.
"""

import itertools
import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from idle_sense.platform import x11
from idle_sense.platform.logind import Session, sessions
from idle_sense.types import Reading, Seat, Verified

LOOK_AROUND_S = 1.0
"""How often displays and sessions are looked for anew."""
FIRST_BUDGET_S = 0.05
BUDGET_S = 0.02
"""How long a sample waits for a display's answer; what comes later is taken by the next."""

COMPOSITORS = frozenset(
    {
        "Xwayland",
        "gnome-shell",
        "mutter",
        "kwin_wayland",
        "kwin_wayland_wr",
        "sway",
        "weston",
        "labwc",
        "Hyprland",
        "cosmic-comp",
        "niri",
        "river",
        "wayfire",
    }
)
"""Programs that open an X socket inside a Wayland desktop, by /proc/PID/comm (15 letters)."""

WAYLAND_ADVICE = (
    "log in to an X11 session, or tell this machine by hand when it is free, "
    "or use the server policy if nobody sits at it"
)


class Places(NamedTuple):
    """Where to look; tests look elsewhere."""

    sockets: str = "/tmp/.X11-unix"  # noqa: S108 - where X servers put them
    sessions: str = "/run/systemd/sessions"
    runtimes: str = "/run/user"
    proc: str = "/proc"
    container_marks: tuple[str, ...] = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


class Displays:
    name = "displays"
    verified: Verified = "native"

    def __init__(
        self,
        *,
        is_guest: Callable[[int], bool] = lambda _pid: False,
        environ: Mapping[str, str] | None = None,
        places: Places | None = None,
    ) -> None:
        """``is_guest``: whether a process is one of ours; a display that a guest opened is no seat."""
        self._is_guest = is_guest
        self._environ = os.environ if environ is None else environ
        self._places = places or Places()
        self._clients: dict[int, x11.IdleClient] = {}
        self._sessions: tuple[Session, ...] = ()
        self._wayland: tuple[str, ...] = ()
        self._looked_at_s: float | None = None
        self._seats: tuple[Seat, ...] | None = None

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S - 0.05:
            self._look_around()
            self._looked_at_s = now_s
        seats = [self._wayland_seat(name) for name in self._wayland]
        for number, client in self._clients.items():
            seat = self._x_seat(number, client)
            if seat is not None:
                seats.append(seat)
        seats += self._unseen({seat.name for seat in seats})
        self._seats = tuple(seats)
        return Reading(value=self._seats, source=self.name)

    def describe(self) -> tuple[str, ...]:
        if any(os.path.exists(mark) for mark in self._places.container_marks):  # noqa: PTH110 - plain strings
            return ("This is a container: a keyboard of the machine around it cannot be seen from here.",)
        return ()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _look_around(self) -> None:
        self._sessions = sessions(self._places.sessions)
        self._wayland = self._wayland_desktops()
        numbers = self._numbers()
        for number in self._clients.keys() - numbers:
            self._clients.pop(number).close()
        for number in sorted(numbers - self._clients.keys()):
            self._clients[number] = x11.IdleClient(
                self._address(number),
                cookies=lambda pid, number=number: self._cookies(number, pid),
            )

    def _numbers(self) -> set[int]:
        """X displays to ask. Those beside a Wayland desktop are its own, and asking would start its X server."""
        known = {session.display for session in self._sessions if session.kind == "x11"}
        try:
            names = os.listdir(self._places.sockets)  # noqa: PTH208 - in the loop
        except OSError:
            names = []
        found = {int(name[1:]) for name in names if re.fullmatch(r"X\d{1,5}", name)}
        named = re.fullmatch(r"(?:unix)?:(\d{1,5})(?:\.\d+)?", self._environ.get("DISPLAY", ""))
        if named is not None:
            found.add(int(named[1]))
        if self._wayland:
            found = {number for number in found if f":{number}" in known}
        return found

    def _wayland_desktops(self) -> tuple[str, ...]:
        """Names of Wayland desktops that somebody may sit at."""
        found = {
            f"Wayland session {session.id} of {session.user}"
            for session in self._sessions
            if session.kind in ("wayland", "mir")
            and session.role == "user"
            and (session.active or session.remote)
        }
        if any(session.kind in ("wayland", "mir") for session in self._sessions):
            return tuple(sorted(found))
        # Without logind: a compositor leaves its socket in its user's folder.
        folders = [self._environ.get("XDG_RUNTIME_DIR", "")]
        try:
            folders += [f"{self._places.runtimes}/{name}" for name in os.listdir(self._places.runtimes)]  # noqa: PTH208
        except OSError:
            folders += []
        for folder in filter(None, folders):
            try:
                names = os.listdir(folder)  # noqa: PTH208 - in the loop
            except OSError:
                continue
            found |= {
                f"Wayland desktop {folder}/{name}" for name in names if re.fullmatch(r"wayland-\d+", name)
            }
        return tuple(sorted(found))

    def _wayland_seat(self, name: str) -> Seat:
        problem = "no back end for Wayland yet"
        return Seat(name=name, idle_s=Reading[float].missing("wayland", problem, WAYLAND_ADVICE))

    def _x_seat(self, number: int, client: x11.IdleClient) -> Seat | None:
        """The display as a seat; None where it is none."""
        client.poll(FIRST_BUDGET_S if client.answer is None and not client.problem else BUDGET_S)
        name = f":{number}"
        source = f"x11 {name}"
        own = self._environ.get("DISPLAY", "").partition(".")[0] in (name, f"unix{name}")
        if client.absent and not own:
            return None
        if client.peer_pid is not None and self._is_guest(client.peer_pid):
            return None
        if client.is_xwayland or self._program(client.peer_pid) in COMPOSITORS:
            problem = "an X server inside a Wayland desktop, which sees only part of the input"
            return Seat(name=name, idle_s=Reading[float].missing(source, problem, WAYLAND_ADVICE))
        if client.answer is not None and not client.refused:
            age_s = client.age_s(client.answer)
            advice = "restart the display server, or end what blocks it"
            reading = Reading(
                value=client.answer.idle_s, source=source, age_s=age_s, problem=client.problem, advice=advice
            )
            return Seat(name=name, idle_s=reading)
        if self._nobody_types(name):
            return None
        problem = client.problem or "its first answer has not come yet"
        return Seat(name=name, idle_s=Reading[float].missing(source, problem, self._advice(name, client)))

    def _unseen(self, seen: set[str]) -> list[Seat]:
        """X11 sessions that logind knows of, and whose display shows no socket here, as in a service with a /tmp of its own."""
        advice = "start this program in the desktop's own session, or without PrivateTmp"
        return [
            Seat(
                name=session.display or f"X11 session {session.id} of {session.user}",
                idle_s=Reading[float].missing("logind", "its display cannot be seen from here", advice),
            )
            for session in self._sessions
            if session.kind == "x11"
            and session.role == "user"
            and (session.active or session.remote)
            and session.display not in seen
        ]

    def _nobody_types(self, display: str) -> bool:
        """The login screen, or a session in the background of its seat."""
        here = [session for session in self._sessions if session.display == display]
        return bool(here) and not any(
            session.role == "user" and (session.active or session.remote) for session in here
        )

    def _advice(self, name: str, client: x11.IdleClient) -> str:
        if client.absent:
            return f"unset DISPLAY (it names {name}), or start the display server"
        if client.refused:
            user = self._environ.get("USER") or self._environ.get("LOGNAME") or "this user"
            return f"start this program as the desktop's own user, or let it in: xhost +si:localuser:{user} on {name}"
        return "restart the display server, or end what blocks it"

    def _address(self, number: int) -> str:
        return f"{self._places.sockets}/X{number}"

    def _program(self, pid: int | None) -> str:
        if pid is None:
            return ""
        try:
            with open(f"{self._places.proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return file.read().strip()
        except OSError:
            return ""

    def _cookies(self, number: int, pid: int | None) -> list[bytes]:
        """From this user's own file, then from the one that the server was started with, where this user may read it."""
        paths = [self._environ.get("XAUTHORITY") or os.path.expanduser("~/.Xauthority")]  # noqa: PTH111
        if pid is not None:
            try:
                with open(f"{self._places.proc}/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                    words = file.read(65536).split(b"\0")
            except OSError:
                words = []
            paths += [os.fsdecode(after) for word, after in itertools.pairwise(words) if word == b"-auth"]
        found: list[bytes] = []
        for path in paths:
            found += [cookie for cookie in x11.cookies_in(path, number) if cookie not in found]
        return found
