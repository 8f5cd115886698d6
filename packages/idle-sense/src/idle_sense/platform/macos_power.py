"""Battery, heat, and who asked to keep the screen on, as macOS tells them."""

import ctypes
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from idle_sense.facts import Power, Reading, Thermal
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_values import Plain, Values, mapping, sequence, text, truth, whole
from idle_sense.probes.asked import Asked

AC_POWER = "AC Power"
"""IOPSKeys.h, kIOPMACPowerKey. The others are ``Battery Power`` and ``UPS Power``."""
BATTERIES = ("InternalBattery", "UPS")
"""IOPSKeys.h, kIOPSInternalBatteryType and kIOPSUPSType."""
THERMAL_PRESSURE = b"com.apple.system.thermalpressurelevel"
"""libkern/OSThermalNotification.h, kOSThermalNotificationPressureLevelName."""
Pressure = Literal["nominal", "moderate", "heavy", "trapping", "sleeping"]
PRESSURES: tuple[Pressure, ...] = ("nominal", "moderate", "heavy", "trapping", "sleeping")
"""The same, OSThermalPressureLevel on macOS: 0 to 4."""
KEEPS_SCREEN_ON = frozenset({"PreventUserIdleDisplaySleep", "NoDisplaySleepAssertion"})
"""IOPMLib.h, kIOPMAssertPreventUserIdleDisplaySleep and its older name. Those that only keep the machine awake say nothing
about somebody who watches, and ``UserIsActive`` is input."""


def power(providing: str, sources: Iterable[Mapping[str, Plain]]) -> Power:
    """``providing``: what feeds the machine; ``sources``: descriptions of its batteries, if any. What runs on a UPS runs on
    a battery."""
    battery = any(
        text(source.get("Type")) in BATTERIES and truth(source.get("Is Present")) is not False
        for source in sources
    )
    if not battery:
        return Power(battery=False, on_mains=None)
    return Power(battery=True, on_mains=providing == AC_POWER if providing else None)


def pressure(level: int, speed_limit_percent: int | None) -> Pressure:
    """Levels that are not known are as bad as the worst. A processor that is slowed down (Intel) is under heavy pressure."""
    told = PRESSURES[level] if 0 <= level < len(PRESSURES) else PRESSURES[-1]
    slowed = speed_limit_percent is not None and speed_limit_percent < 100
    return "heavy" if slowed and told in ("nominal", "moderate") else told


def screen_keepers(
    assertions: Mapping[int, Plain], *, is_guest: Callable[[int], bool], name_of: Callable[[int], str]
) -> tuple[str, ...]:
    """Names of programs that keep the screen on. ``assertions``: lists by process. One that a daemon holds for another
    program is that program's."""
    found: set[str] = set()
    for holder, held in assertions.items():
        for item in sequence(held):
            facts = mapping(item)
            kinds = {text(facts.get("AssertType")), text(facts.get("AssertionTrueType"))}
            level = whole(facts.get("AssertLevel"))
            if level == 0 or not kinds & KEEPS_SCREEN_ON:
                continue
            asked_by = whole(facts.get("AssertionOnBehalfOfPID")) or holder
            if is_guest(holder) or is_guest(asked_by):
                continue
            own_name = "" if asked_by != holder else text(facts.get("Process Name"))
            found.add(own_name or name_of(asked_by) or f"process {asked_by}")
    return tuple(sorted(found))


class PowerCalls:
    """IOKit's questions; each talks to a daemon (powerd, notifyd)."""

    def __init__(self, frameworks: Frameworks, values: Values) -> None:
        self._io = frameworks.io_kit
        self._system = frameworks.system
        self._values = values
        self._token: int | None = None

    def power(self) -> Power:
        """Raises OSError where macOS does not tell."""
        with self._values.owned(self._io.IOPSCopyPowerSourcesInfo()) as snapshot:
            if not snapshot:
                raise OSError("macOS does not tell what feeds the machine")
            providing = text(self._values.plain(self._io.IOPSGetProvidingPowerSourceType(snapshot)))
            with self._values.owned(self._io.IOPSCopyPowerSourcesList(snapshot)) as array:
                sources = [] if not array else self._values.items(array)
                # A description is lent, and lives as long as the snapshot.
                described = [
                    mapping(self._values.plain(self._io.IOPSGetPowerSourceDescription(snapshot, source)))
                    for source in sources
                ]
        return power(providing, described)

    def thermal_level(self) -> int:
        """Raises OSError where notifyd does not tell."""
        if self._token is None:
            token = ctypes.c_int()
            status = self._system.notify_register_check(THERMAL_PRESSURE, ctypes.byref(token))
            if status != 0:
                raise OSError(f"notifyd does not tell the thermal pressure ({status})")
            self._token = token.value
        level = ctypes.c_uint64()
        status = self._system.notify_get_state(self._token, ctypes.byref(level))
        if status != 0:
            token_before, self._token = self._token, None
            self._system.notify_cancel(token_before)
            raise OSError(f"notifyd does not tell the thermal pressure ({status})")
        return level.value

    def speed_limit_percent(self) -> int | None:
        """IOPMLib.h, kIOPMCPUPowerLimitProcessorSpeedKey; None where nothing was ever limited, and on Apple's processors."""
        reference = ctypes.c_void_p()
        if self._io.IOPMCopyCPUPowerStatus(ctypes.byref(reference)) != 0:
            return None
        with self._values.owned(reference.value) as status:
            return whole(mapping(self._values.plain(status)).get("CPU_Speed_Limit"))

    def assertions(self) -> Mapping[int, Plain]:
        """Of all processes. Raises OSError where powerd does not tell."""
        reference = ctypes.c_void_p()
        status = self._io.IOPMCopyAssertionsByProcess(ctypes.byref(reference))
        with self._values.owned(reference.value) as told:
            if status != 0:
                raise OSError(f"powerd does not tell who keeps the screen on (0x{status & 0xFFFFFFFF:x})")
            plain = self._values.plain(told)
        # Null where nobody holds any.
        if not isinstance(plain, Mapping):
            return {}
        return {key: value for key, value in plain.items() if isinstance(key, int)}

    def close(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            self._system.notify_cancel(token)


class MacPowerProbe(Asked[Power]):
    fact = "power"
    back_end = "IOPowerSources"
    every_s: float = 10.0

    def __init__(self, ask: Callable[[], Power]) -> None:
        super().__init__()
        self._ask = ask

    def look(self, now_s: float) -> Reading[Power]:
        del now_s
        return Reading(value=self._ask(), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Whether it runs on battery.",)


class MacThermalProbe(Asked[Thermal]):
    fact = "thermal"
    back_end = "thermal pressure"
    better = "macOS tells no temperature to programs, but how hard it has to cool"
    every_s: float = 5.0

    def __init__(
        self,
        *,
        level: Callable[[], int],
        speed_limit_percent: Callable[[], int | None],
        close: Callable[[], None],
    ) -> None:
        super().__init__()
        self._level = level
        self._speed_limit_percent = speed_limit_percent
        self._close = close

    def look(self, now_s: float) -> Reading[Thermal]:
        del now_s
        told = pressure(self._level(), self._speed_limit_percent())
        return Reading(
            value=Thermal(hottest_c=None, sensor=self.back_end, pressure=told), source=self.back_end
        )

    def close(self) -> None:
        self._close()
