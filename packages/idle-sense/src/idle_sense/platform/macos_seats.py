"""The one seat of a Mac: how long ago a key, a button or the pointer was used there.

The smaller of two: HIDIdleTime of the I/O registry (nanoseconds, IOHIDSystem), which needs no window server, and
CGEventSourceSecondsSinceLastEventType, which also sees input that reaches the window server by other ways, such as a
shared screen. The second is only asked inside a log-in session: elsewhere there is no window server to ask.
"""

import math
import time
from collections.abc import Callable

from idle_sense.facts import Reading, Seat
from idle_sense.platform.macos_bounded import Bounded
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_registry import Entry, Registry
from idle_sense.platform.macos_values import Values, number
from idle_sense.probes.bundle import Polled
from idle_sense.types import Verified

HID_SYSTEM_STATE = 1
"""CGEventTypes.h, kCGEventSourceStateHIDSystemState: what came from hardware, not what programs made up."""
ANY_INPUT = 0xFFFFFFFF
"""CGEventTypes.h, kCGAnyInputEventType."""
SESSION_EVERY_S = 30.0
"""How often a program outside a log-in session looks whether it is in one now."""


class MacSeats(Polled):
    """The system's calls are handed in, so that the rules run anywhere."""

    name = "console"
    verified: Verified = "signature-only"

    def __init__(
        self,
        *,
        registry_idle_s: Callable[[], float | None],
        event_idle_s: Callable[[], float | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``event_idle_s``: None outside a log-in session."""
        self._registry_idle_s = registry_idle_s
        self._event_idle_s = event_idle_s
        self._bounded = Bounded(self._ask, now=now)
        self._outside = False

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        del now_s
        try:
            answer = self._bounded.read()
        except OSError as error:
            answer = None
            idle = Reading[float].missing("HIDIdleTime", str(error), "see idle-sense doctor")
        else:
            idle = Reading[float].missing("HIDIdleTime", "macOS has not answered yet", "wait a moment")
        if answer is not None:
            idle = answer.value.aged(answer.age_s)
        return Reading(value=(Seat(name=self.name, idle_s=idle),), source=self.name)

    @property
    def advice(self) -> str:
        return "start this program as a launch agent of the user, not as a daemon" if self._outside else ""

    def describe(self) -> tuple[str, ...]:
        if not self._outside:
            return ()
        return (
            "This program runs outside a log-in session, as a daemon does: it sees keys and pointer by the I/O registry alone.",
            "What comes in by a shared screen it may not see: start it as a launch agent of the user to see both.",
        )

    def close(self) -> None:
        self._bounded.close()

    def _ask(self) -> Reading[float]:
        registry_s, event_s = self._registry_idle_s(), self._event_idle_s()
        self._outside = event_s is None
        return smaller(registry_s, event_s)


def smaller(registry_s: float | None, event_s: float | None) -> Reading[float]:
    """The smaller of those that make sense. Without the registry's there is none: it alone is told in every session."""
    told = {"HIDIdleTime": registry_s, "CGEventSource": event_s}
    good = {
        source: idle_s
        for source, idle_s in told.items()
        if idle_s is not None and math.isfinite(idle_s) and idle_s >= 0
    }
    if "HIDIdleTime" not in good:
        return Reading[float].missing(
            "HIDIdleTime",
            "the I/O registry does not tell when a key was pressed",
            "start this program as a launch agent of the logged-in user",
        )
    source = min(good, key=lambda name: good[name])
    return Reading(value=good[source], source=source)


class InputTimes:
    """The two questions. Both raise OSError where a framework cannot be loaded."""

    def __init__(
        self,
        frameworks: Frameworks,
        registry: Registry,
        values: Values,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graphics = frameworks.core_graphics
        self._registry = registry
        self._values = values
        self._now = now
        self._service: Entry | None = None
        self._inside = False
        self._looked_at_s: float | None = None

    def registry_idle_s(self) -> float | None:
        """None where the registry has no such entry. The service is kept: looking for it is most of the cost."""
        if self._service is None:
            self._service = self._registry.service("IOHIDSystem")
        if self._service is None:
            return None
        idle_ns = number(self._service.read("HIDIdleTime"))
        if idle_ns is None:
            # It may have been started anew.
            self._service.close()
            self._service = None
        return None if idle_ns is None else idle_ns / 1e9

    def event_idle_s(self) -> float | None:
        """None outside a log-in session."""
        if not self._in_session():
            return None
        return float(self._graphics.CGEventSourceSecondsSinceLastEventType(HID_SYSTEM_STATE, ANY_INPUT))

    def _in_session(self) -> bool:
        """CGSession.h: no dictionary for a program that is in no window server's session."""
        if self._inside:
            return True
        now_s = self._now()
        if self._looked_at_s is None or now_s - self._looked_at_s >= SESSION_EVERY_S:
            self._looked_at_s = now_s
            with self._values.owned(self._graphics.CGSessionCopyCurrentDictionary()) as session:
                self._inside = bool(session)
        return self._inside
