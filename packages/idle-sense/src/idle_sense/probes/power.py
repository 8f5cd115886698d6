"""Fact: whether the machine runs on its battery."""

import sys
from collections.abc import Callable

from idle_sense.facts import Power, Reading
from idle_sense.probes.aside import Aside
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability, Verified


class PowerProbe(Polled):
    """By psutil. Some firmware takes long to answer: use it through ``Aside``."""

    every_s = 30.0
    slow = True

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


class LinuxPowerProbe(Polled):
    """What sysfs says, asked in a thread of its own every 30 s, and as soon as the kernel tells of a change.

    The kernel also tells of what has nothing to do with power, in bursts: that wakes nobody, a sample that is taken
    anyway looks whether something came. So a plug that is pulled is known after the next sample.
    """

    every_s = 0.5

    def __init__(self, *, folder: str = "/sys/class/power_supply") -> None:
        self._aside = Aside(_Supplies(folder), every_s=_Supplies.every_s)

    def read(self, now_s: float) -> Reading[Power]:
        return self._aside.read(now_s)

    def capability(self) -> Capability:
        return self._aside.capability()

    def describe(self) -> tuple[str, ...]:
        return self._aside.describe()

    def listen(self, wake: Callable[[], None]) -> None:
        self._aside.listen(wake)

    def close(self) -> None:
        self._aside.close()


class _Supplies(Polled):
    """May take as long as the firmware likes."""

    every_s = 30.0
    slow = True

    def __init__(self, folder: str) -> None:
        from idle_sense.platform.batteries import Plug  # noqa: PLC0415 - Linux only

        self._folder = folder
        self._plug = Plug()
        self._last: Reading[Power] | None = None
        self._looked_at_s = 0.0

    def read(self, now_s: float) -> Reading[Power]:
        from idle_sense.platform.batteries import power_of, supplies  # noqa: PLC0415

        concerned = self._plug.drain()
        age_s = now_s - self._looked_at_s
        if self._last is not None and not concerned and 0 <= age_s < self.every_s:
            return self._last.aged(age_s)
        self._looked_at_s = now_s
        try:
            value = power_of(supplies(self._folder))
        except OSError as error:
            # Not kept: the next look asks again.
            self._last = None
            return Reading[Power].missing("sysfs", str(error), f"let this user read {self._folder}")
        self._last = Reading(value=value, source="sysfs")
        return self._last

    def filenos(self) -> tuple[int, ...]:
        fileno = self._plug.fileno()
        return () if fileno is None else (fileno,)

    def capability(self) -> Capability:
        return Capability(
            probe="power",
            back_end=f"power supplies in sysfs{', changes told by the kernel' if self._plug.hears else ''}",
            verified="emulated",
            serves=True,
        )

    def describe(self) -> tuple[str, ...]:
        return ("Whether it runs on battery.",)

    def close(self) -> None:
        self._plug.close()
