"""Fact: whether the foremost window fills its screen (Linux: X displays)."""

from collections.abc import Callable

from idle_sense.facts import Reading, Screen
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability


class ScreenProbe(Polled):
    """Asks nothing itself: the connections of the input probe tell it beside the idle time."""

    every_s = 1.0

    def __init__(self, read: Callable[[float], Reading[Screen]]) -> None:
        self._read = read
        self._last: Reading[Screen] | None = None
        self._told = False

    def read(self, now_s: float) -> Reading[Screen]:
        reading = self._read(now_s)
        if reading.value is not None:
            self._told = True
        elif self._told and not reading.tells:
            # The displays that told it have ended, as when their owner logs out: nothing fills a screen that is none.
            reading = Reading(value=Screen(), source=reading.source)
        self._last = reading
        return reading

    def capability(self) -> Capability:
        serves = self._last is not None and self._last.value is not None
        advice = "" if self._last is None else self._last.advice
        return Capability(
            probe="screen",
            back_end="EWMH, or the focused window's size" if serves else "none",
            verified="native",
            serves=serves,
            advice=advice,
        )
