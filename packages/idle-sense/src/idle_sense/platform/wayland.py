"""How long one Wayland desktop has had no input, as its compositor tells over its socket.

ext_idle_notifier_v1 (wayland-protocols, staging): a notification object says ``idled`` after a time without input and
``resumed`` at the next input, each once: both are events, and somebody who types on causes none. What is known is a lower
bound: idle since ``idled``, and for the time that was asked for before it. What was before the connection nobody tells.

Version 2 has notifications of input alone. In version 1, and in its forerunner org_kde_kwin_idle, nothing is told while a
program keeps the screen on: then "not idle" means that somebody is there, or that it cannot be known, and both count as
input just now. ``idled`` is true in every version: an inhibitor that comes later ends it with ``resumed``.

The compositor may stop without a word, so a question that it must answer (wl_display.sync) goes with every look; events come
in order, so its answer makes all older ones known, and the state true as of the question.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from idle_sense.platform.display_client import QUIET_S, RETRY_S, Answer, DisplayClient
from idle_sense.platform.local_socket import ServerProblem
from idle_sense.platform.wayland_wire import DISPLAY, arguments, event, length_of, request

_SYNC, _GET_REGISTRY, _BIND = 0, 1, 0
_ERROR, _DELETE_ID = 0, 1
_GLOBAL, _GLOBAL_REMOVE = 0, 1
_IDLED, _RESUMED = 0, 1
_DESTROY = 0
_GET_NOTIFICATION, _GET_INPUT_NOTIFICATION, _GET_KWIN_TIMEOUT = 1, 2, 0
LACKING_RETRY_S = 30.0
"""A compositor does not learn a protocol while it runs, but another may take its place."""
NOTIFIER = "ext_idle_notifier_v1"
KWIN_IDLE = "org_kde_kwin_idle"


@dataclass(kw_only=True)
class _Notification:
    """Of one seat."""

    seat: int
    """The seat's name in the registry."""
    object: int
    idled_at_s: float | None = None
    """None: not idle, as far as it is told."""


class IdleClient(DisplayClient):
    def __init__(self, address: str, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(address, now=now)
        self.protocol = ""
        """``ext_idle_notifier_v1 2`` and the like; empty: not known yet, or ``lacking``."""
        self.lacking = False
        """The compositor has no protocol that tells idleness."""
        self._next_id = DISPLAY + 1
        self._free_ids: list[int] = []
        self._registry = 0
        self._notifier = 0
        self._input_alone = False
        self._sync = 0
        self._globals: dict[int, tuple[str, int]] = {}
        self._notifications: dict[int, _Notification] = {}
        self._bound: dict[int, int] = {}

    @property
    def input_alone(self) -> bool:
        """False: programs that keep the screen on look like input."""
        return self._input_alone

    def _greet(self) -> None:
        self._registry = self._new_id()
        self._send(request(DISPLAY, _GET_REGISTRY, self._registry))
        self._ask()

    def _ask(self) -> None:
        self._sync = self._new_id()
        self._send(request(DISPLAY, _SYNC, self._sync))

    def _outstanding(self) -> bool:
        return self._sync != 0

    def _length(self) -> int | None:
        return length_of(self._received)

    def _forget(self) -> None:
        self._next_id = DISPLAY + 1
        self._registry = self._notifier = self._sync = 0
        self._free_ids.clear()
        self._globals.clear()
        self._notifications.clear()
        self._bound.clear()
        # What was known ends with the connection: a new one starts without any past, and its first answers would seem to
        # say that somebody came just now.
        self.answer = None
        self.protocol = ""

    def _take(self, message: bytes) -> None:
        target, opcode, body = event(message)
        if target == DISPLAY and opcode == _ERROR:
            _, _, text = arguments(body, "uus")
            raise ServerProblem(f"it ended the connection: {text}")
        if target == DISPLAY and opcode == _DELETE_ID:
            self._free_ids.append(int(arguments(body, "u")[0]))
        elif target == self._registry and opcode == _GLOBAL:
            name, interface, version = arguments(body, "usu")
            self._globals[int(name)] = (str(interface), int(version))
            if self._notifier and interface == "wl_seat":
                self._watch_seat(int(name))
        elif target == self._registry and opcode == _GLOBAL_REMOVE:
            self._lose(int(arguments(body, "u")[0]))
        elif target == self._sync and self._sync:
            self._take_sync()
        elif (notification := self._notifications.get(target)) is not None:
            notification.idled_at_s = self._now() if opcode == _IDLED else None

    def _take_sync(self) -> None:
        self._sync = 0
        if not self._notifier:
            # The first answer: all that the compositor offers has been told.
            self._watch()
            return
        self.problem = ""
        self.refused = False
        self.answer = Answer(idle_s=self._idle_s(), at_s=self._sent_at_s)

    def _idle_s(self) -> float:
        """Of the seat that was used last; what is not idle counts as used just now."""
        idled_at_s = [one.idled_at_s for one in self._notifications.values()]
        known = [at_s for at_s in idled_at_s if at_s is not None]
        if not known or len(known) < len(idled_at_s):
            return 0.0
        return max(0.0, self._sent_at_s - max(known) + QUIET_S)

    def _watch(self) -> None:
        offered = {interface: (name, version) for name, (interface, version) in self._globals.items()}
        for interface in (NOTIFIER, KWIN_IDLE):
            if interface not in offered:
                continue
            name, offered_version = offered[interface]
            version = min(offered_version, 2 if interface == NOTIFIER else 1)
            self._notifier = self._bind(name, interface, version)
            self._input_alone = version >= 2
            self.protocol = f"{interface} {version}"
            self.lacking, self.retry_s = False, RETRY_S
            break
        else:
            self.lacking, self.retry_s = True, LACKING_RETRY_S
            raise ServerProblem("its compositor has no protocol that tells idleness")
        for name, (interface, _) in self._globals.items():
            if interface == "wl_seat":
                self._watch_seat(name)
        if not self._notifications:
            raise ServerProblem("it has no seat with a keyboard or a mouse")
        self._begin()
        self._ask()

    def _watch_seat(self, name: int) -> None:
        seat = self._bind(name, "wl_seat", 1)
        self._bound[name] = seat
        made, quiet_ms = self._new_id(), round(QUIET_S * 1000)
        if self.protocol.startswith(KWIN_IDLE):
            self._send(request(self._notifier, _GET_KWIN_TIMEOUT, made, seat, quiet_ms))
        else:
            opcode = _GET_INPUT_NOTIFICATION if self._input_alone else _GET_NOTIFICATION
            self._send(request(self._notifier, opcode, made, quiet_ms, seat))
        self._notifications[made] = _Notification(seat=name, object=made)

    def _lose(self, name: int) -> None:
        interface, _ = self._globals.pop(name, ("", 0))
        if interface == "wl_seat":
            for made, notification in list(self._notifications.items()):
                if notification.seat == name:
                    # Its last word may still be under way, so the id is forgotten only when the compositor frees it.
                    del self._notifications[made]
                    self._send(request(made, _DESTROY))
            if not self._notifications:
                raise ServerProblem("it has no seat with a keyboard or a mouse")
        elif interface and self.protocol.startswith(interface):
            raise ServerProblem("its compositor tells idleness no more")

    def _bind(self, name: int, interface: str, version: int) -> int:
        made = self._new_id()
        self._send(request(self._registry, _BIND, name, interface, version, made))
        return made

    def _new_id(self) -> int:
        """The compositor wants no gaps: one that it has freed, else the next."""
        if self._free_ids:
            return self._free_ids.pop()
        self._next_id += 1
        return self._next_id - 1
