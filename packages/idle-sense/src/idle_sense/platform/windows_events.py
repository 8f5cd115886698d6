"""Windows tells of input, sessions, power and changed registry keys: one thread with one hidden window hears it all.

Raw input (winuser.h) is registered as a sink for keyboards, mice and game controllers. What is typed is never asked for: that
there was something is enough; of game controllers, which buttons are down. A mouse reports a thousand times a second, which
would keep Python busy: after its first word a kind of device is not listened to for a while, and polling sees what happens
meanwhile.

A process has one window for each kind of device, whoever in it registers last. So where the program that uses this library has
registered keyboards or mice itself, these are left to it, and input is seen by polling alone.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum

from idle_sense.platform.windows_gamepads import Gamepads
from idle_sense.platform.windows_numbers import (
    HID_USAGE_GENERIC_GAMEPAD,
    HID_USAGE_GENERIC_JOYSTICK,
    HID_USAGE_GENERIC_KEYBOARD,
    HID_USAGE_GENERIC_MOUSE,
)

DESK = (HID_USAGE_GENERIC_MOUSE, HID_USAGE_GENERIC_KEYBOARD)
PADS = (HID_USAGE_GENERIC_JOYSTICK, HID_USAGE_GENERIC_GAMEPAD)
"""Usages of the page of generic desktop devices (HID usage tables)."""
DESK_REST_S = 1.0
PAD_REST_S = 0.25
"""For how long a kind is not listened to after it told something."""

_log = logging.getLogger("idle_sense")


class Topic(StrEnum):
    INPUT = "input"
    SESSIONS = "sessions"
    POWER = "power"
    REGISTRY = "registry"


class Ears:
    """Which kinds of devices to listen to. Pure: ``now_s`` is handed in."""

    def __init__(self, kinds: Iterable[int] = (*DESK, *PADS)) -> None:
        self._kinds = frozenset(kinds)
        self._open: frozenset[int] = frozenset()
        self._rests_until_s: dict[int, float] = {}

    def heard(self, kinds: Collection[int], now_s: float) -> None:
        for kind in kinds:
            self._rests_until_s[kind] = now_s + (DESK_REST_S if kind in DESK else PAD_REST_S)

    def lose(self, kind: int) -> None:
        """Another part of the program listens to it: never again."""
        self._kinds -= {kind}
        self._open -= {kind}

    def changes(self, now_s: float) -> tuple[list[int], list[int]]:
        """(to open, to close) since the last call."""
        resting = {kind for kind, until_s in self._rests_until_s.items() if until_s > now_s}
        wanted = self._kinds - resting
        opened, closed = wanted - self._open, self._open - wanted
        self._open = wanted
        return sorted(opened), sorted(closed)

    def wait_s(self, now_s: float) -> float | None:
        """Until the next kind is due; None: nothing to wait for."""
        waits_s = [until_s - now_s for until_s in self._rests_until_s.values() if until_s > now_s]
        return min(waits_s, default=None)

    @property
    def kinds(self) -> frozenset[int]:
        return self._kinds


class Events:
    """Calls those that subscribed, in a thread of its own, which runs while there is anybody to call."""

    def __init__(self, run: Callable[["Events"], None], wake: Callable[[], None]) -> None:
        """``run``: listens until ``running`` is no more; ``wake``: makes it look whether that is so."""
        self.gamepads = Gamepads()
        self.hears: frozenset[Topic] = frozenset()
        """Topics whose events come; others must be polled."""
        self.problem = ""
        """Why not all of them."""
        self._run = run
        self._wake = wake
        self._lock = threading.Lock()
        self._callbacks: dict[Topic, list[Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Asked by ``run``, in its thread."""
        return self._thread is threading.current_thread()

    def subscribe(self, topic: Topic, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.setdefault(topic, []).append(callback)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._listen, name="idle-sense-events", daemon=True)
                self._thread.start()

    def unsubscribe(self, topic: Topic, callback: Callable[[], None]) -> None:
        """For one that never subscribed this does no harm. The last to go ends the thread."""
        with self._lock:
            callbacks = self._callbacks.get(topic, [])
            if callback in callbacks:
                callbacks.remove(callback)
            thread = self._thread
            if any(self._callbacks.values()) or thread is None:
                return
            self._thread = None
        self._wake()
        if thread is not threading.current_thread():
            thread.join(timeout=2.0)

    def call(self, topic: Topic) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks.get(topic, ()))
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - whatever somebody else's code raises
                _log.exception("a listener to %s failed; listening goes on", topic)

    def _listen(self) -> None:
        try:
            self._run(self)
        except OSError as error:
            self.problem = str(error)
            _log.warning("Windows does not tell of events (%s); everything is polled", error)
        finally:
            self.hears = frozenset()
