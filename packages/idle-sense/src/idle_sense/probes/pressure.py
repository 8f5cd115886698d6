"""Fact: how much memory is left, and, on Linux, how long programs wait for it."""

from idle_sense.platform.facade import System
from idle_sense.types import Capability, MemoryUse, Reading


class PressureProbe:
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
        more = " and pressure stall information" if self._stalls_told else ""
        return Capability(
            probe="memory",
            back_end=f"available memory{more}",
            verified=self._system.verified,
            serves=True,
            advice=""
            if self._stalls_told or self._system.name != "linux"
            else "boot with psi=1 for stall times",
        )

    def describe(self) -> tuple[str, ...]:
        return ("Whether memory is short.",)

    def close(self) -> None:
        """Holds nothing."""
