"""Fact: whether the machine runs on its battery."""

import sys

from idle_sense.types import Capability, Power, Reading, Verified


class PowerProbe:
    """By psutil. Some firmware takes long to answer: use it through ``Aside``."""

    every_s = 30.0

    def read(self, now_s: float) -> Reading[Power]:
        del now_s
        # psutil costs 30 ms to import, and this runs in a thread of its own.
        import psutil  # noqa: PLC0415

        # psutil lacks the function on systems that never tell.
        sensors = getattr(psutil, "sensors_battery", None)
        battery = None if sensors is None else sensors()
        if battery is None:
            return Reading(value=Power(battery=False, on_mains=None), source="psutil")
        return Reading(value=Power(battery=True, on_mains=battery.power_plugged), source="psutil")

    def capability(self) -> Capability:
        verified: Verified = "emulated" if sys.platform == "linux" else "signature-only"
        return Capability(probe="power", back_end="psutil", verified=verified, serves=True)

    def describe(self) -> tuple[str, ...]:
        return ("Whether it runs on battery.",)

    def close(self) -> None:
        """Holds nothing."""
