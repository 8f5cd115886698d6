"""Who asked the desktop to keep the screen on, by the service of each desktop that knows, on one session bus.

GNOME, Cinnamon, MATE: ``org.gnome.SessionManager`` (gnome-session's interface description: flag 8 is idleness).
KDE: ``org.kde.Solid.PowerManagement.PolicyAgent`` (PowerDevil; policy 4 is the screen's). Xfce and others:
``org.freedesktop.PowerManagement.Inhibit``. ``org.freedesktop.ScreenSaver`` has no list. Desktops of wlroots keep inhibitors
within Wayland, where no other program sees them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from idle_sense.platform.dbus_answers import LOST, SILENCE, Call, Name, Subscription

if TYPE_CHECKING:
    from idle_sense.platform.dbus import Bus

REFRESH_S = 9.0
CALM_S = 0.2
_NOBODY = (".NameHasNoOwner", ".ServiceUnknown", ".NoReply")
"""The service has ended: whether it comes back, its name tells."""


class Keeper(NamedTuple):
    """How to ask one service."""

    service: str
    path: str
    interface: str
    question: str
    """A method that answers whether there is any."""
    signature: str
    arguments: tuple[Any, ...]
    listing: str
    """A method that answers with whom; asked when there is any."""
    gives_way_to: str = ""
    """A service that knows better, where it is there."""


KEEPERS = (
    Keeper(
        service="org.gnome.SessionManager",
        path="/org/gnome/SessionManager",
        interface="org.gnome.SessionManager",
        question="IsInhibited",
        signature="u",
        arguments=(8,),
        listing="GetInhibitors",
    ),
    Keeper(
        service="org.kde.Solid.PowerManagement.PolicyAgent",
        path="/org/kde/Solid/PowerManagement/PolicyAgent",
        interface="org.kde.Solid.PowerManagement.PolicyAgent",
        question="HasInhibition",
        signature="u",
        arguments=(4,),
        listing="ListInhibitions",
    ),
    Keeper(
        service="org.freedesktop.PowerManagement",
        path="/org/freedesktop/PowerManagement/Inhibit",
        interface="org.freedesktop.PowerManagement.Inhibit",
        question="HasInhibit",
        signature="",
        arguments=(),
        listing="GetInhibitors",
        gives_way_to="org.kde.Solid.PowerManagement.PolicyAgent",
    ),
)


class Inhibited:
    """One keeper, asked over a ``Bus`` that somebody else polls."""

    def __init__(self, bus: "Bus", keeper: Keeper, now: Callable[[], float]) -> None:
        self._bus = bus
        self._keeper = keeper
        self._now = now
        self._name: Name = bus.name(keeper.service)
        self._better: Name | None = bus.name(keeper.gives_way_to) if keeper.gives_way_to else None
        self._signals: Subscription = bus.subscribe(sender=keeper.service, interface=keeper.interface)
        self._owner = ""
        self._call: Call | None = None
        self._list: Call | None = None
        self._asked: dict[str, Call] = {}
        self._told_at_s: float | None = None
        self._asked_at_s = 0.0
        self._due = True
        self._is_inhibited = False
        self._who: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether the service is there, and is the one to ask; also while its bus is lost."""
        return bool(self._owner)

    @property
    def told_at_s(self) -> float | None:
        """When its latest answer was asked for; None: never answered."""
        return self._told_at_s

    @property
    def problem(self) -> str:
        if self._call is not None and self._now() - self._call.sent_at_s > 1.0:
            return f"{self._keeper.service} does not answer"
        return ""

    def who(self) -> tuple[str, ...]:
        """Programs; the service's name where it does not name them."""
        if not self._is_inhibited:
            return ()
        return self._who or (self._keeper.service,)

    def ask(self) -> None:
        """After each poll of the bus: takes what was answered, asks what is due."""
        if self._name.known and (self._better is None or self._better.known):
            owner = "" if self._better is not None and self._better.owner else self._name.owner
            if owner != self._owner:
                self._owner = owner
                self._call = self._list = self._told_at_s = None
                self._asked.clear()
                self._is_inhibited, self._who, self._due = False, (), True
        self._settle()
        if self._signals.taken():
            self._due = True
        passed_s = self._now() - self._asked_at_s
        if self._owner and self._call is None and passed_s >= (CALM_S if self._due else REFRESH_S):
            self._due = False
            self._asked_at_s = self._now()
            keeper = self._keeper
            self._call = self._bus.call(
                keeper.service,
                keeper.path,
                keeper.interface,
                keeper.question,
                keeper.signature,
                keeper.arguments,
            )

    def _settle(self) -> None:
        call = self._call
        if call is not None and call.done:
            self._call = None
            if call.error not in (LOST, SILENCE) and not call.error.endswith(_NOBODY):
                # Another error: a service of that name which does not keep inhibitors.
                self._told_at_s = call.sent_at_s
                self._is_inhibited = not call.error and bool(call.body) and call.body[0] is True
                if self._is_inhibited and self._list is None:
                    keeper = self._keeper
                    self._list = self._bus.call(keeper.service, keeper.path, keeper.interface, keeper.listing)
        if self._list is not None and self._list.done:
            items: list[Any] = list(self._list.body[0]) if self._list.body and not self._list.failed else []
            self._list = None
            self._take_list(items[:20])
        for path in [path for path, asked in self._asked.items() if asked.done]:
            asked = self._asked.pop(path)
            if not asked.failed and asked.body:
                self._who = tuple(sorted({*self._who, str(asked.body[0])}))

    def _take_list(self, items: list[Any]) -> None:
        """Names; (name, why) pairs; or objects that are asked for the program's name each."""
        names: set[str] = set()
        for item in items:
            if isinstance(item, tuple):
                names.update(str(part) for part in cast("tuple[Any, ...]", item)[:1])
            elif not _is_path(item):
                names.add(str(item))
        self._who = tuple(sorted(names))
        for path in filter(_is_path, items):
            if path not in self._asked:
                self._asked[path] = self._bus.call(
                    self._keeper.service, path, "org.gnome.SessionManager.Inhibitor", "GetAppId"
                )


def _is_path(item: Any) -> bool:
    return isinstance(item, str) and item.startswith("/")
