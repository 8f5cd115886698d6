"""Fact: how long ago somebody typed into a terminal: a console, a terminal window, an ssh session."""

from idle_sense.facts import Reading, Terminal
from idle_sense.platform.facade import System
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability


class TerminalProbe(Polled):
    every_s = 0.0

    def __init__(self, system: System, guests: GuestLedger) -> None:
        self._system = system
        self._guests = guests
        self._reader = system.terminals()

    def read(self, now_s: float) -> Reading[tuple[Terminal, ...]]:
        if self._reader is None:
            return Reading(value=(), source=self._system.name)
        return self._reader.read(now_s, self._guests)

    def capability(self) -> Capability:
        if self._reader is None:
            return Capability(
                probe="terminals", back_end="none on this system", verified=self._system.verified, serves=True
            )
        return Capability(
            probe="terminals",
            back_end="access times of terminals",
            verified=self._reader.verified,
            serves=True,
        )

    def describe(self) -> tuple[str, ...]:
        if self._reader is None:
            return ()
        return ("Keys typed into any terminal: consoles, terminal windows, ssh sessions.",)
