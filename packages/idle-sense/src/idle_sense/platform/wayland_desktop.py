"""One Wayland desktop as a seat: asked over its compositor's sockets, or, where it is GNOME's, over the session's bus."""

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping

from idle_sense.facts import Reading, Seat
from idle_sense.platform import wayland
from idle_sense.platform.acting import may_act_as
from idle_sense.platform.dbus import Bus
from idle_sense.platform.mutter import MutterIdle
from idle_sense.platform.wayland_place import Place

LOOK_AROUND_S = 1.0
INHIBITOR_PROBLEM = "a program that keeps the screen on looks like input here"
INHIBITOR_ADVICE = (
    "a newer compositor tells input alone (ext-idle-notify version 2: sway 1.11, labwc 0.9, a recent KDE Plasma 6); "
    "until then, a film or a tab that plays keeps this machine busy"
)
LACKING_ADVICE = (
    "use a compositor with ext-idle-notify (KDE Plasma 5.27, sway 1.8, Hyprland, niri, COSMIC and later) or GNOME, or log in to "
    "an X11 session, or use the server policy if nobody sits at this machine"
)


class WaylandDesktop:
    """Not for several threads at once."""

    def __init__(
        self,
        place: Place,
        *,
        is_guest: Callable[[int], bool],
        environ: Mapping[str, str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self._is_guest = is_guest
        self._environ = environ
        self._now = now
        self._clients: dict[str, wayland.IdleClient] = {}
        self._mutter: MutterIdle | None = None
        self._closed = False
        """This user may not look into the folder."""
        self._looked_at_s: float | None = None

    def read(self, now_s: float, budget_s: float) -> Seat | None:
        """The seat; None: nobody is served here but by guests, or nobody any more."""
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S - 0.05:
            self._look_around()
            self._looked_at_s = now_s
        deadline_s = self._now() + budget_s
        for client in self._clients.values():
            client.poll(max(0.0, deadline_s - self._now()))
        clients = [
            client
            for client in self._clients.values()
            if not client.absent and not (client.peer_pid is not None and self._is_guest(client.peer_pid))
        ]
        guests = [client for client in self._clients.values() if not client.absent and client not in clients]
        if self.place.socket and not clients:
            return None
        lacking = [client for client in clients if client.lacking]
        if lacking or (not clients and not guests):
            # Sockets that tell nothing may be GNOME's, which tells it elsewhere.
            reading = self._ask_mutter(max(0.0, deadline_s - self._now()))
            if reading is not None:
                return self._seat([reading, *self._readings(clients)])
        if not clients:
            return None if guests else self._seat([self._unseen()])
        return self._seat([*self._readings(clients), *(self._lacking() for _ in lacking)])

    def filenos(self) -> Collection[int]:
        found = [descriptor for client in self._clients.values() for descriptor in client.filenos()]
        return found if self._mutter is None else [*found, *self._mutter.filenos()]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._mutter is not None:
            self._mutter.close()
            self._mutter = None
        self._looked_at_s = None

    def _look_around(self) -> None:
        paths = {self.place.socket} if self.place.socket else self._sockets()
        for path in self._clients.keys() - paths:
            self._clients.pop(path).close()
        for path in paths - self._clients.keys():
            self._clients[path] = wayland.IdleClient(path, now=self._now)

    def _sockets(self) -> set[str]:
        folder = self.place.folder
        self._closed = False
        try:
            names = os.listdir(folder)  # noqa: PTH208 - in the loop
        except PermissionError:
            self._closed = True
            names = []
        except OSError:
            names = []
        found = {f"{folder}/{name}" for name in names if re.fullmatch(r"wayland-\d+", name)}
        own = self._environ.get("WAYLAND_DISPLAY", "")
        if own and self._environ.get("XDG_RUNTIME_DIR", "") == folder:
            found.add(os.path.join(folder, own))  # noqa: PTH118 - as libwayland joins them: an absolute name stands alone
        return found

    def _readings(self, clients: Collection[wayland.IdleClient]) -> list[Reading[float]]:
        return [self._reading(client) for client in clients if not client.lacking]

    def _reading(self, client: wayland.IdleClient) -> Reading[float]:
        source = f"wayland {os.path.basename(client.address)} {client.protocol}".rstrip()  # noqa: PTH119
        if client.refused:
            advice = f"start this program as the desktop's own user ({self.place.user}), or as root"
            return Reading[float].missing(source, client.problem, advice)
        if client.answer is None:
            problem = client.problem or "its first answer has not come yet"
            return Reading[float].missing(source, problem, "restart the compositor, or end what blocks it")
        problem, advice = client.problem, ""
        if problem:
            advice = "restart the compositor, or end what blocks it"
        elif not client.input_alone:
            problem, advice = INHIBITOR_PROBLEM, INHIBITOR_ADVICE
        age_s = client.age_s(client.answer)
        return Reading(value=client.answer.idle_s, source=source, age_s=age_s, problem=problem, advice=advice)

    def _seat(self, readings: list[Reading[float]]) -> Seat:
        """Somebody at any of them is there; what cannot be read, or is older, decides."""
        unread = [reading for reading in readings if reading.value is None]
        if unread:
            return Seat(name=self.place.name, idle_s=unread[0])
        oldest_s = max(reading.age_s for reading in readings)
        latest = min(readings, key=lambda reading: (reading.value or 0.0) + reading.age_s)
        stale = oldest_s > latest.age_s + LOOK_AROUND_S
        chosen = max(readings, key=lambda reading: reading.age_s) if stale else latest
        return Seat(name=self.place.name, idle_s=chosen)

    def _ask_mutter(self, budget_s: float) -> Reading[float] | None:
        """None: there is no Mutter."""
        if self._mutter is None:
            self._mutter = self._dial_mutter()
        mutter = self._mutter
        mutter.poll(budget_s)
        if mutter.absent:
            return None
        if mutter.refused:
            advice = f"start this program as the desktop's own user ({self.place.user}), or as root"
            return Reading[float].missing("mutter", f"the session's bus: {mutter.problem}", advice)
        advice = "restart the desktop's shell, or end what blocks it"
        if mutter.answer is None:
            return Reading[float].missing(
                "mutter", mutter.problem or "its first answer has not come yet", advice
            )
        return Reading(
            value=mutter.answer.idle_s,
            source="mutter",
            age_s=mutter.age_s(mutter.answer),
            problem=mutter.problem,
            advice=advice if mutter.problem else "",
        )

    def _dial_mutter(self) -> MutterIdle:
        folder, own = self.place.folder, self._environ.get("XDG_RUNTIME_DIR", "")
        address = self._environ.get("DBUS_SESSION_BUS_ADDRESS", "") if folder == own else ""
        return MutterIdle(
            Bus(address or f"unix:path={folder}/bus", as_user=owner_to_act_as(folder), now=self._now),
            now=self._now,
        )

    def _unseen(self) -> Reading[float]:
        if self._closed:
            advice = f"start this program as the desktop's own user ({self.place.user}), or as root"
            return Reading[float].missing("wayland", "its sockets belong to another user", advice)
        advice = "start this program in the desktop's own session, and not in a sandbox"
        return Reading[float].missing("wayland", "its socket cannot be seen from here", advice)

    def _lacking(self) -> Reading[float]:
        return Reading[float].missing(
            "wayland", "its compositor has no protocol that tells idleness", LACKING_ADVICE
        )


def owner_to_act_as(folder: str) -> int | None:
    """The user whose folder it is, where root has to be that user to be let in; None: no need, or no way."""
    assert sys.platform != "win32"  # noqa: S101 - tells type checkers what there is
    try:
        uid = os.stat(folder).st_uid  # noqa: PTH116 - a plain string
    except OSError:
        return None
    return uid if uid != os.geteuid() and may_act_as(uid) else None
