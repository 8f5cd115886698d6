"""How hot Windows' thermal zones are: the performance counter ``Thermal Zone Information``, in kelvin.

These are the firmware's zones (ACPI), of which many desktops have none, or one that always tells the same. The sensors of processors
and boards are told to drivers alone, so what this counter does not tell is not known without one.
"""

from collections.abc import Callable

from idle_sense.facts import Reading, Thermal
from idle_sense.platform.windows_probe import WindowsProbe

ZONES = r"\Thermal Zone Information(*)\Temperature"
ZERO_C_K = 273.15
PLAUSIBLE_C = (1.0, 124.0)
"""Zones without a sensor tell 0 °C, 0 K, or a limit."""


def hottest(zones: list[tuple[str, float]]) -> Thermal | None:
    """Of those that tell something plausible."""
    found = [(kelvin - ZERO_C_K, name) for name, kelvin in zones]
    plausible = [(celsius, name) for celsius, name in found if PLAUSIBLE_C[0] <= celsius <= PLAUSIBLE_C[1]]
    if not plausible:
        return None
    celsius, name = max(plausible)
    return Thermal(hottest_c=round(celsius, 1), sensor=name)


class WindowsThermal(WindowsProbe[Thermal]):
    fact = "thermal"
    back_end = "Thermal Zone Information"
    every_s = 10.0

    def __init__(
        self, zones: Callable[[], list[tuple[str, float]] | None], close: Callable[[], None]
    ) -> None:
        """``zones``: kelvin by zone; None: not told. May raise OSError."""
        super().__init__()
        self._zones = zones
        self._close = close
        self._told = False

    def look(self, now_s: float) -> Reading[Thermal]:
        del now_s
        heat = hottest(self._zones() or [])
        if heat is not None:
            self._told = True
            return Reading(value=heat, source=self.back_end)
        if self._told:
            return Reading[Thermal].missing(
                self.back_end, "no thermal zone answers any more", "restart the machine"
            )
        return Reading[Thermal].untold(self.back_end, "this machine's firmware tells no temperature")

    def describe(self) -> tuple[str, ...]:
        return ("How hot it is, by the firmware's thermal zones.",) if self._told else ()

    def close(self) -> None:
        self._close()
