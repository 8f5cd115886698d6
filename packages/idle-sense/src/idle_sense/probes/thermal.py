"""Fact: how hot the machine is, measured by the sensor that is nearest to its own limit (Linux)."""

from idle_sense.facts import Reading, Thermal
from idle_sense.platform.thermal import Sensors, hottest
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability, Verified


class ThermalProbe(Polled):
    every_s = 10.0
    slow = True
    """Sensors behind firmware or a bus may take long."""
    verified: Verified = "emulated"

    def __init__(self, *, sys: str = "/sys") -> None:
        self._sensors = Sensors(sys=sys)
        self._told = False

    def read(self, now_s: float) -> Reading[Thermal]:
        del now_s
        heat = hottest(self._sensors.read())
        if heat is not None:
            self._told = True
            value = Thermal(hottest_c=heat.now_c, limit_c=heat.limit_c, sensor=heat.name)
            return Reading(value=value, source="linux sensors")
        if self._told:
            problem = "no temperature sensor answers any more"
            return Reading[Thermal].missing(
                "linux sensors", problem, "wake the machine's devices, or see dmesg"
            )
        return Reading[Thermal].untold("linux sensors", "this machine has no temperature sensor that answers")

    def capability(self) -> Capability:
        unread = "; ".join(f"{name}: {why}" for name, why in sorted(self._sensors.unread.items()))
        advice = f"these sensors do not answer: {unread}" if unread else ""
        if not self._sensors.found:
            advice = "load the driver of the machine's sensors (sensors-detect finds it)"
        return Capability(
            probe="thermal",
            back_end=f"{self._sensors.found} sensors in hwmon and thermal zones",
            verified=self.verified,
            serves=self._told,
            advice=advice,
        )

    def describe(self) -> tuple[str, ...]:
        return ("How hot it is, by the sensor that is nearest to its own limit.",) if self._told else ()
