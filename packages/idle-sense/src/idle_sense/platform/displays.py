"""Every place on a Linux machine where somebody can sit: X displays by their sockets, Wayland desktops by their sessions,
gamepads by their devices.

No seat at all is a finding (a machine without desktop), a seat that cannot be read is none: it counts as busy.
The login screen is no seat: nobody is logged in, and whoever logs in there begins a session, which is noticed.
"""

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from idle_sense.facts import Reading, Screen, Seat
from idle_sense.platform.gamepads import SOURCE as GAMEPADS
from idle_sense.platform.gamepads import Gamepads
from idle_sense.platform.logind import Session, sessions
from idle_sense.platform.wayland_place import Place
from idle_sense.probes.bundle import Polled
from idle_sense.types import Verified

if TYPE_CHECKING:
    from idle_sense.platform import x11
    from idle_sense.platform.wayland_desktop import WaylandDesktop

LOOK_AROUND_S = 1.0
"""How often displays and sessions are looked for anew, where a folder says that something has changed ..."""
LOOK_ANYWAY_S = 10.0
"""... and whatever the folders say."""
COARSE_NS = 50_000_000
"""Times of change are as coarse as the kernel's tick: of a folder that changed more recently, the next change may not show."""
FIRST_BUDGET_S = 0.05
BUDGET_S = 0.02
"""How long a sample waits for a display's answer; what comes later is taken by the next."""
SAMPLE_S = 0.05
"""How long one sample waits for all of them."""

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

XWAYLAND_ADVICE = "start this program in the desktop's own session, where it finds the Wayland socket"


class Places(NamedTuple):
    """Where to look; tests look elsewhere."""

    sockets: str = "/tmp/.X11-unix"  # noqa: S108 - where X servers put them
    sessions: str = "/run/systemd/sessions"
    runtimes: str = "/run/user"
    proc: str = "/proc"
    devices: str = "/dev/input"
    classes: str = "/sys/class/input"
    container_marks: tuple[str, ...] = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


class Displays(Polled):
    name = "displays"

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
        # What speaks with a kind of display is loaded when there is one.
        self._clients: dict[int, x11.IdleClient] = {}
        self._sessions: tuple[Session, ...] = ()
        self._desktops: dict[Place, WaylandDesktop] = {}
        self._compositors: dict[int, bool] = {}
        self._gamepads = Gamepads(devices=self._places.devices, classes=self._places.classes)
        self._looked_at_s: float | None = None
        self._looked_all_at_s = 0.0
        self._changed_ns: tuple[int, ...] = ()
        """When the folders last changed that were looked into; empty: too recently to know."""
        self._runtimes: tuple[str, ...] = ()
        """Users' folders that were looked into."""
        self._seats: tuple[Seat, ...] | None = None

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S - 0.05:
            self._look_around_if_due(now_s)
            self._looked_at_s = now_s
        began_s = time.monotonic()

        def budget_s(most_s: float) -> float:
            return min(most_s, max(0.0, began_s + SAMPLE_S - time.monotonic()))

        found = [desktop.read(now_s, budget_s(BUDGET_S)) for desktop in self._desktops.values()]
        for number, client in self._clients.items():
            first = client.answer is None and not client.problem
            client.poll(budget_s(FIRST_BUDGET_S if first else BUDGET_S))
            found.append(self._x_seat(number, client))
        seats = [seat for seat in found if seat is not None]
        seats += self._unseen({seat.name for seat in seats})
        seats += self._gamepads.read(now_s)
        self._seats = tuple(seats)
        return Reading(value=self._seats, source=self.name)

    @property
    def verified(self) -> Verified:
        """X11, Mutter, KWin and wlroots were tried as they are; gamepads only as files that speak like them."""
        gamepads = any(seat.idle_s.source == GAMEPADS for seat in self._seats or ())
        return "emulated" if gamepads else "native"

    @property
    def advice(self) -> str:
        """What would make it see more; empty: nothing."""
        closed = self._gamepads.closed_to_us
        if not closed:
            return ""
        user = self._environ.get("USER") or self._environ.get("LOGNAME") or "this user"
        return (
            f"gamepads that may not be read are not seen ({', '.join(closed)}): add {user} to the group input, or start this "
            "program in the desktop's own session"
        )

    def screen(self, now_s: float) -> Reading[Screen]:
        """Which X displays' foremost windows fill their screen, as of the last answers; asked from the first call on."""
        told: list[str] = []
        ages_s: list[float] = []
        for number, client in self._clients.items():
            foremost = client.foremost
            foremost.wanted = True
            if self._seats is None or f":{number}" not in {seat.name for seat in self._seats}:
                continue
            if foremost.fullscreen is not None:
                ages_s.append(max(0.0, time.monotonic() - foremost.told_at_s))
                if foremost.fullscreen:
                    told.append(f":{number}")
        del now_s  # the age of an answer is the connection's own affair
        if not ages_s:
            problem = "no display tells what its windows do"
            return Reading[Screen].untold(
                "x11", problem, "an X11 session tells it; Wayland has no word for it"
            )
        return Reading(value=Screen(fullscreen=tuple(told)), source="x11", age_s=max(ages_s))

    def filenos(self) -> Collection[int]:
        found = [descriptor for client in self._clients.values() for descriptor in client.filenos()]
        for desktop in self._desktops.values():
            found += desktop.filenos()
        return [*found, *self._gamepads.filenos()]

    def describe(self) -> tuple[str, ...]:
        if any(os.path.exists(mark) for mark in self._places.container_marks):  # noqa: PTH110 - plain strings
            return ("This is a container: a keyboard of the machine around it cannot be seen from here.",)
        return ()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for desktop in self._desktops.values():
            desktop.close()
        self._desktops.clear()
        self._gamepads.close()
        self._looked_at_s = None

    def _look_around_if_due(self, now_s: float) -> None:
        self._compositors.clear()
        # Read before the folders: what changes meanwhile shows at the next look.
        changed_ns = self._changes_ns()
        if (
            self._looked_at_s is not None
            and 0 <= now_s - self._looked_all_at_s < LOOK_ANYWAY_S
            and changed_ns == self._changed_ns != ()
        ):
            return
        self._changed_ns = () if max(changed_ns) > time.time_ns() - COARSE_NS else changed_ns
        self._looked_all_at_s = now_s
        self._look_around()

    def _changes_ns(self) -> tuple[int, ...]:
        """Of the folders in which displays and sessions come and go; -1: not there."""
        places = self._places
        found: list[int] = []
        for folder in (places.sockets, places.sessions, places.runtimes, *self._runtimes):
            try:
                found.append(os.stat(folder).st_mtime_ns)  # noqa: PTH116 - in the loop
            except OSError:
                found.append(-1)
        return tuple(found)

    def _look_around(self) -> None:
        self._sessions = sessions(self._places.sessions)
        places = self._wayland_places()
        for place in self._desktops.keys() - places:
            self._desktops.pop(place).close()
        for place in sorted(places - self._desktops.keys(), key=lambda place: place.name):
            self._desktops[place] = self._desktop(place)
        numbers = self._numbers()
        for number in self._clients.keys() - numbers:
            self._clients.pop(number).close()
        for number in sorted(numbers - self._clients.keys()):
            self._clients[number] = self._client(number)

    def _desktop(self, place: Place) -> "WaylandDesktop":
        from idle_sense.platform.wayland_desktop import WaylandDesktop  # noqa: PLC0415

        return WaylandDesktop(place, is_guest=self._is_guest, environ=self._environ)

    def _client(self, number: int) -> "x11.IdleClient":
        from idle_sense.platform.x11 import IdleClient  # noqa: PLC0415

        return IdleClient(
            f"{self._places.sockets}/X{number}",
            cookies=lambda pid: self._cookies(number, pid),
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
        if self._desktops:
            found = {number for number in found if f":{number}" in known}
        return found

    def _wayland_places(self) -> set[Place]:
        """Wayland desktops that somebody may sit at."""
        self._runtimes = ()
        kinds = ("wayland", "mir")
        if any(session.kind in kinds for session in self._sessions):
            return {
                Place(
                    name=f"Wayland session {session.id} of {session.user}",
                    user=session.user,
                    folder=self._runtime_folder(session),
                )
                for session in self._sessions
                if session.kind in kinds and session.role == "user" and (session.active or session.remote)
            }
        # Without logind: a compositor leaves its socket in its user's folder.
        folders = {self._environ.get("XDG_RUNTIME_DIR", "")}
        try:
            folders |= {f"{self._places.runtimes}/{name}" for name in os.listdir(self._places.runtimes)}  # noqa: PTH208
        except OSError:
            folders |= set()
        self._runtimes = tuple(sorted(filter(None, folders)))
        found: set[Place] = set()
        for folder in self._runtimes:
            try:
                names = os.listdir(folder)  # noqa: PTH208 - in the loop
            except OSError:
                continue
            found |= {
                Place(
                    name=f"Wayland desktop {folder}/{name}",
                    user=os.path.basename(folder),  # noqa: PTH119 - a plain string
                    folder=folder,
                    socket=f"{folder}/{name}",
                )
                for name in names
                if re.fullmatch(r"wayland-\d+", name)
            }
        return found

    def _runtime_folder(self, session: Session) -> str:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers what there is
        own = self._environ.get("XDG_RUNTIME_DIR", "")
        if own and session.uid in (-1, os.getuid()):
            return own
        return f"{self._places.runtimes}/{session.uid}"

    def _x_seat(self, number: int, client: "x11.IdleClient") -> Seat | None:
        """The display as a seat; None where it is none."""
        name = f":{number}"
        source = f"x11 {name}"
        own = self._environ.get("DISPLAY", "").partition(".")[0] in (name, f"unix{name}")
        if client.absent and not own:
            return None
        if client.peer_pid is not None and self._is_guest(client.peer_pid):
            return None
        if client.is_xwayland or self._is_compositor(client.peer_pid):
            problem = "an X server inside a Wayland desktop, which sees only part of the input"
            return Seat(name=name, idle_s=Reading[float].missing(source, problem, XWAYLAND_ADVICE))
        if client.answer is not None and not client.refused:
            age_s = client.age_s(client.answer)
            advice = "restart the display server, or end what blocks it" if client.problem else ""
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

    def _advice(self, name: str, client: "x11.IdleClient") -> str:
        if client.absent:
            return f"unset DISPLAY (it names {name}), or start the display server"
        if client.refused:
            user = self._environ.get("USER") or self._environ.get("LOGNAME") or "this user"
            return f"start this program as the desktop's own user, or let it in: xhost +si:localuser:{user} on {name}"
        return "restart the display server, or end what blocks it"

    def _is_compositor(self, pid: int | None) -> bool:
        """By the program's name, read once a second."""
        if pid is None:
            return False
        found = self._compositors.get(pid)
        if found is None:
            try:
                with open(f"{self._places.proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                    found = file.read().strip() in COMPOSITORS
            except OSError:
                found = False
            self._compositors[pid] = found
        return found

    def _cookies(self, number: int, pid: int | None) -> list[bytes]:
        """From this user's own file, then from the one that the server was started with, where this user may read it."""
        from idle_sense.platform.x11 import cookies_in  # noqa: PLC0415

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
            found += [cookie for cookie in cookies_in(path, number) if cookie not in found]
        return found
