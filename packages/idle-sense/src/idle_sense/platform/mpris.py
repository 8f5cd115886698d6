"""Players that say that they play, on one session bus (MPRIS D-Bus Interface Specification 2.2, ``PlaybackStatus``)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from idle_sense.platform.dbus_answers import LOST, SILENCE, Call

if TYPE_CHECKING:
    from idle_sense.platform.dbus import Bus

PREFIX = "org.mpris.MediaPlayer2"
REFRESH_S = 9.0
"""How often players are asked when they tell of no change: to know that they still answer."""
CALM_S = 0.2
"""... and at most: some tell of each second that they have played."""
MOST_PLAYERS = 50
_PATH = "/org/mpris/MediaPlayer2"
_PLAYER = "org.mpris.MediaPlayer2.Player"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"


@dataclass(kw_only=True)
class _Player:
    playing: bool = False
    told_at_s: float
    """When the question was sent whose answer this is; for one that never answered: when it was first seen."""
    call: Call | None = None


class Players:
    """Asked over a ``Bus`` that somebody else polls."""

    def __init__(self, bus: "Bus", now: Callable[[], float]) -> None:
        self._bus = bus
        self._now = now
        self._players: dict[str, _Player] = {}
        self._names: Call | None = None
        self._listed_at_s: float | None = None
        self._list_due = True
        self._generation = 0
        self._came = bus.subscribe(
            sender=_BUS, interface=_BUS, member="NameOwnerChanged", arg0namespace=PREFIX
        )
        self._changed = bus.subscribe(
            path=_PATH, interface=_PROPERTIES, member="PropertiesChanged", arg0=_PLAYER
        )
        self._asked_at_s = 0.0
        self._due = True

    def ask(self) -> None:
        """After each poll of the bus: takes what was answered, asks what is due."""
        if self._bus.generation != self._generation:
            self._generation = self._bus.generation
            self._names, self._list_due, self._due = None, True, True
        self._settle()
        if self._came.taken():
            self._list_due = True
        if self._changed.taken():
            self._due = True
        now_s = self._now()
        old = self._listed_at_s is None or now_s - self._listed_at_s >= REFRESH_S
        if self._names is None and (self._list_due or old):
            self._list_due = False
            self._names = self._bus.call(_BUS, "/org/freedesktop/DBus", _BUS, "ListNames")
        passed_s = now_s - self._asked_at_s
        if self._players and passed_s >= (CALM_S if self._due else REFRESH_S):
            self._due = False
            self._asked_at_s = now_s
            for name, player in self._players.items():
                if player.call is None:
                    player.call = self._question(name)

    @property
    def told_at_s(self) -> float | None:
        """When all of this was true, by its oldest part; None: it is not known yet who plays."""
        if self._listed_at_s is None:
            return None
        return min((self._listed_at_s, *(player.told_at_s for player in self._players.values())))

    @property
    def problem(self) -> str:
        """A player that does not answer; empty: all do."""
        for name, player in self._players.items():
            if player.call is not None and self._now() - player.call.sent_at_s > 1.0:
                return f"{_short(name)} does not answer"
        return ""

    def playing(self) -> tuple[str, ...]:
        return tuple(sorted({_short(name) for name, player in self._players.items() if player.playing}))

    def _question(self, name: str) -> Call:
        return self._bus.call(name, _PATH, _PROPERTIES, "Get", "ss", (_PLAYER, "PlaybackStatus"))

    def _settle(self) -> None:
        names = self._names
        if names is not None and names.done:
            self._names = None
            if not names.failed and names.body and isinstance(names.body[0], list):
                self._listed_at_s = names.sent_at_s
                everybody = cast("list[Any]", names.body[0])
                found = [str(name) for name in everybody if str(name).startswith(f"{PREFIX}.")]
                del found[MOST_PLAYERS:]
                new = [name for name in found if name not in self._players]
                self._players = {
                    name: self._players.get(name) or _Player(told_at_s=names.sent_at_s) for name in found
                }
                for name in new:
                    self._players[name].call = self._question(name)
        for player in self._players.values():
            call = player.call
            if call is None or not call.done:
                continue
            player.call = None
            if call.error in (LOST, SILENCE):
                continue
            # A player that has just ended, or says nothing of itself, plays nothing.
            player.told_at_s = call.sent_at_s
            player.playing = not call.error and bool(call.body) and call.body[0] == ("s", "Playing")


def _short(name: str) -> str:
    """``org.mpris.MediaPlayer2.vlc.instance7389`` is ``vlc``."""
    return name.removeprefix(f"{PREFIX}.").split(".")[0]
