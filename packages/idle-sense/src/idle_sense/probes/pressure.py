"""Fact: how much memory is left, and, on Linux, how long programs wait for it."""

import os

from idle_sense.facts import MemoryUse, Reading
from idle_sense.platform.facade import System
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability

STALLS = "/proc/pressure/memory"


class PressureProbe(Polled):
    every_s = 1.0

    def __init__(self, system: System) -> None:
        self._system = system
        self._stalls_told = False

    def read(self, now_s: float) -> Reading[MemoryUse]:
        del now_s
        use = self._system.memory()
        self._stalls_told = use.stalled_ratio is not None
        return Reading(value=use, source=self._system.name)

    def capability(self) -> Capability:
        guessed = self._system.name == "linux" and not os.path.exists(STALLS)  # noqa: PTH110 - a plain string
        more = "waits guessed from swapping" if guessed else "pressure stall information"
        return Capability(
            probe="memory",
            back_end=f"available memory{f', {more}' if self._stalls_told else ''}",
            verified=self._system.verified,
            serves=True,
            advice="boot with psi=1 for stall times" if guessed else "",
        )

    def describe(self) -> tuple[str, ...]:
        return ("Whether memory is short.",)
