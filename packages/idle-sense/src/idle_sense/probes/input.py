"""Fact: how long ago somebody used a keyboard or a mouse, on every seat of this machine."""

from collections.abc import Callable, Collection

from idle_sense.facts import Reading, Seat
from idle_sense.platform.facade import System
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability


class InputProbe(Polled):
    every_s = 0.0

    def __init__(self, system: System, guests: GuestLedger) -> None:
        self._reader = system.seats(guests)
        self._last: Reading[tuple[Seat, ...]] | None = None

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        self._last = self._reader.read(now_s)
        return self._last

    def capability(self) -> Capability:
        if self._last is None or self._last.value is None:
            problem = "it was not read yet" if self._last is None else self._last.problem
            advice = "" if self._last is None else self._last.advice
            return Capability(
                probe="input",
                back_end=f"{self._reader.name}: {problem}",
                verified=self._reader.verified,
                serves=False,
                advice=advice,
            )
        seats = self._last.value
        unread = [seat for seat in seats if seat.idle_s.value is None]
        return Capability(
            probe="input",
            back_end=", ".join(sorted({seat.idle_s.source for seat in seats})) or "no display",
            verified=self._reader.verified,
            serves=not unread,
            event=self._reader.event,
            advice="; ".join(
                [
                    f"{seat.name}: {seat.idle_s.problem}: {seat.idle_s.advice}"
                    for seat in seats
                    if seat.idle_s.advice or seat in unread
                ]
                + [self._reader.advice] * bool(self._reader.advice)
            ),
        )

    def describe(self) -> tuple[str, ...]:
        if self._last is None or self._last.value is None:
            return ("It is not known yet whether this machine has a keyboard to watch.",)
        if not self._last.value:
            return (
                "This machine has no display, so there is no keyboard or mouse that could be watched.",
                *self._reader.describe(),
            )
        told = [
            f"Keyboard and mouse on {seat.name} ({seat.idle_s.source})."
            if seat.idle_s.value is not None
            else f"Input on {seat.name} cannot be read ({seat.idle_s.problem}), so this machine counts as in use; {seat.idle_s.advice}."
            for seat in self._last.value
        ]
        return (*told, *self._reader.describe())

    def filenos(self) -> Collection[int]:
        return self._reader.filenos()

    def listen(self, wake: Callable[[], None]) -> None:
        self._reader.listen(wake)

    def close(self) -> None:
        self._reader.close()
