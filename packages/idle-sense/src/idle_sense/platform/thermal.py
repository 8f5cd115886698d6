"""Temperature sensors of Linux: /sys/class/hwmon (kernel documentation ``hwmon/sysfs-interface``) and /sys/class/thermal
(``driver-api/thermal/sysfs-api``), both in thousandths of a degree Celsius.

Sensors lie: some always say 0, -128 or 255, some limits are 0 or 65261. What cannot be a temperature of a machine that runs
is not believed. A device that sleeps to save power is not woken to be asked.
"""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

COLDEST_C, HOTTEST_C = 1.0, 150.0
"""Temperatures outside are no temperatures."""
LOWEST_LIMIT_C = 50.0
"""A limit below is a mistake of the firmware: machines would reach it in a warm room."""
LOOK_AROUND_EVERY = 30
"""Looks between two searches for sensors."""


class Sensor(NamedTuple):
    name: str
    """``coretemp Package id 0``, ``acpitz``."""
    path: str
    limit_c: float | None
    """Where it gets critical, else where it gets too hot; None: not told."""
    runtime: str
    """The device's own power state; empty: it has none."""


class Heat(NamedTuple):
    name: str
    now_c: float
    limit_c: float | None


class Sensors:
    """Reads all that can be read; each read may take as long as the firmware likes."""

    def __init__(self, *, sys: str = "/sys") -> None:
        self._hwmon = f"{sys}/class/hwmon"
        self._zones = f"{sys}/class/thermal"
        self._sensors: tuple[Sensor, ...] = ()
        self._looks = 0
        self.unread: dict[str, str] = {}
        """Sensors that would not answer at the last look, and why."""

    @property
    def found(self) -> int:
        return len(self._sensors)

    def read(self) -> list[Heat]:
        if self._looks % LOOK_AROUND_EVERY == 0 or self.unread:
            self._sensors = (*self._hwmon_sensors(), *self._zone_sensors())
        self._looks += 1
        self.unread = {}
        found: list[Heat] = []
        for sensor in self._sensors:
            if sensor.runtime and _text(sensor.runtime) in ("suspended", "suspending"):
                continue
            try:
                now_c = degrees(_strict_text(sensor.path))
            except OSError as error:
                self.unread[sensor.name] = error.strerror or str(error)
                continue
            if now_c is not None:
                found.append(Heat(sensor.name, now_c, sensor.limit_c))
        return found

    def _hwmon_sensors(self) -> Iterable[Sensor]:
        for chip in _listed(self._hwmon):
            folder = f"{self._hwmon}/{chip}"
            name = _text(f"{folder}/name") or chip
            runtime = f"{folder}/device/power/runtime_status"
            for part in _listed(folder):
                number = re.fullmatch(r"temp(\d+)_input", part)
                if number is None:
                    continue
                stem = f"{folder}/temp{number[1]}"
                label = _text(f"{stem}_label") or f"temp{number[1]}"
                limits = (limit(_text(f"{stem}_{kind}")) for kind in ("crit", "emergency", "max"))
                yield Sensor(
                    name=f"{name} {label}",
                    path=f"{stem}_input",
                    limit_c=next((one for one in limits if one is not None), None),
                    runtime=runtime if _text(runtime) else "",
                )

    def _zone_sensors(self) -> Iterable[Sensor]:
        for zone in _listed(self._zones):
            if not re.fullmatch(r"thermal_zone\d+", zone):
                continue
            folder = f"{self._zones}/{zone}"
            trips = {
                _text(f"{folder}/{part}"): limit(_text(f"{folder}/{part.removesuffix('type')}temp"))
                for part in _listed(folder)
                if re.fullmatch(r"trip_point_\d+_type", part)
            }
            yield Sensor(
                name=_text(f"{folder}/type") or zone,
                path=f"{folder}/temp",
                limit_c=trips.get("critical") or trips.get("hot"),
                runtime="",
            )


def hottest(heats: Iterable[Heat]) -> Heat | None:
    """The one that is nearest to its limit; where none has a limit, the one with the highest temperature."""
    best: Heat | None = None
    for heat in heats:
        if best is None or _nearness(heat) > _nearness(best):
            best = heat
    return best


def _nearness(heat: Heat) -> tuple[bool, float]:
    if heat.limit_c is None:
        return False, heat.now_c
    return True, heat.now_c - heat.limit_c


def degrees(text: str) -> float | None:
    """None for what is no number, or no temperature."""
    try:
        value_c = int(text) / 1000.0
    except ValueError:
        return None
    return value_c if COLDEST_C <= value_c <= HOTTEST_C else None


def limit(text: str) -> float | None:
    value_c = degrees(text)
    return None if value_c is None or value_c < LOWEST_LIMIT_C else value_c


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - plain strings
    except OSError:
        return []


def _text(path: str) -> str:
    """Empty where there is no such file, or it cannot be read."""
    try:
        return _strict_text(path)
    except OSError:
        return ""


def _strict_text(path: str) -> str:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - small files of the kernel
        return file.read(256).decode("utf-8", "replace").strip()
