"""Temperature sensors, from trees of files as machines have them, and as broken firmware writes them."""

from pathlib import Path

import pytest

from idle_sense.platform.thermal import Heat, Sensors, degrees, hottest, limit
from idle_sense.probes.thermal import ThermalProbe


class Sysfs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / "class" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def chip(self, number: int, name: str, **files: int | str) -> None:
        self.write({f"hwmon/hwmon{number}/name": name})
        self.write({f"hwmon/hwmon{number}/{file}": str(value) for file, value in files.items()})

    def zone(self, number: int, kind: str, temp: int, **trips: int) -> None:
        place = f"thermal/thermal_zone{number}"
        self.write({f"{place}/type": kind, f"{place}/temp": str(temp)})
        for index, (trip, value) in enumerate(trips.items()):
            self.write(
                {f"{place}/trip_point_{index}_type": trip, f"{place}/trip_point_{index}_temp": str(value)}
            )


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def thinkpad(sysfs: Sysfs) -> None:
    sysfs.chip(0, "acpitz", temp1_input=46000, temp1_crit=128000)
    sysfs.chip(1, "nvme", temp1_input=38850, temp1_crit=84850, temp1_max=81850, temp1_label="Composite",
               temp2_input=38850, temp2_max=65261850, temp2_label="Sensor 1")  # fmt: skip
    sysfs.chip(4, "thinkpad", temp1_input=46000, temp2_input=0, temp3_input=0, temp7_input=-128000)
    sysfs.chip(6, "coretemp", temp1_input=71000, temp1_crit=100000, temp1_max=100000, temp1_label="Package id 0",
               temp2_input=69000, temp2_crit=100000, temp2_max=100000, temp2_label="Core 0")  # fmt: skip
    sysfs.zone(0, "acpitz", 46000, critical=128000)
    sysfs.zone(1, "x86_pkg_temp", 71000, passive=0)
    (sysfs.folder / "class" / "thermal" / "cooling_device0").mkdir()


def read(sysfs: Sysfs) -> dict[str, Heat]:
    return {heat.name: heat for heat in Sensors(sys=str(sysfs.folder)).read()}


def test_a_laptops_sensors_are_read_with_their_limits(sysfs: Sysfs) -> None:
    thinkpad(sysfs)
    found = read(sysfs)
    assert found["coretemp Package id 0"] == ("coretemp Package id 0", 71.0, 100.0)
    assert found["nvme Composite"].limit_c == 84.85
    assert found["nvme Sensor 1"].limit_c is None, "65261 °C is no limit"
    assert set(found) == {
        "acpitz", "acpitz temp1", "nvme Composite", "nvme Sensor 1", "thinkpad temp1",
        "coretemp Package id 0", "coretemp Core 0", "x86_pkg_temp",
    }  # fmt: skip


def test_the_sensor_that_is_nearest_to_its_own_limit_speaks_for_the_machine(sysfs: Sysfs) -> None:
    thinkpad(sysfs)
    probe = ThermalProbe(sys=str(sysfs.folder))
    value = probe.read(0.0).value
    assert value is not None
    assert (value.sensor, value.hottest_c, value.limit_c) == ("coretemp Package id 0", 71.0, 100.0)
    (sysfs.folder / "class/hwmon/hwmon1/temp1_input").write_text("83850\n")
    value = probe.read(10.0).value
    assert value is not None
    assert (value.sensor, value.hottest_c, value.limit_c) == ("nvme Composite", 83.85, 84.85)


def test_a_desktop_with_k10temp_alone_has_a_temperature_and_no_limit(sysfs: Sysfs) -> None:
    sysfs.chip(0, "k10temp", temp1_input=54375, temp1_label="Tctl", temp3_input=42250, temp3_label="Tccd1")
    value = ThermalProbe(sys=str(sysfs.folder)).read(0.0).value
    assert value is not None
    assert (value.sensor, value.hottest_c, value.limit_c) == ("k10temp Tctl", 54.375, None)


@pytest.mark.parametrize("nonsense", [0, -1000, -128000, 255000, 150001, -273150])
def test_what_is_no_temperature_is_not_believed(sysfs: Sysfs, nonsense: int) -> None:
    sysfs.chip(0, "it8728", temp1_input=nonsense, temp2_input=41000)
    assert set(read(sysfs)) == {"it8728 temp2"}


@pytest.mark.parametrize("text", ["", "N/A", "47.5", "0x2f", "99999999999999999999"])
def test_what_is_no_number_is_not_believed(text: str) -> None:
    assert degrees(text) is None
    assert limit(text) is None


@pytest.mark.parametrize(
    ("text", "value"), [("20800", None), ("0", None), ("100000", 100.0), ("65261850", None)]
)
def test_a_limit_that_a_warm_room_reaches_is_none(text: str, value: float | None) -> None:
    assert limit(text) == value


def test_a_zone_without_a_critical_point_has_its_hot_one(sysfs: Sysfs) -> None:
    sysfs.zone(0, "cpu-thermal", 60000, passive=85000, hot=95000)
    sysfs.zone(1, "gpu-thermal", 60000, passive=85000, critical=105000, hot=95000)
    assert {name: heat.limit_c for name, heat in read(sysfs).items()} == {
        "cpu-thermal": 95.0,
        "gpu-thermal": 105.0,
    }


def test_a_device_that_sleeps_is_not_woken_to_be_asked(sysfs: Sysfs) -> None:
    sysfs.chip(3, "amdgpu", temp1_input=61000, temp1_crit=100000, temp1_label="edge")
    sysfs.write({"hwmon/hwmon3/device/power/runtime_status": "suspended"})
    assert read(sysfs) == {}
    sysfs.write({"hwmon/hwmon3/device/power/runtime_status": "active"})
    assert set(read(sysfs)) == {"amdgpu edge"}


def test_a_sensor_that_does_not_answer_is_named_and_the_others_speak(sysfs: Sysfs) -> None:
    sysfs.chip(0, "iwlwifi_1")
    (sysfs.folder / "class/hwmon/hwmon0/temp1_input").mkdir()
    sysfs.chip(1, "coretemp", temp1_input=50000, temp1_crit=100000)
    probe = ThermalProbe(sys=str(sysfs.folder))
    assert probe.read(0.0).value is not None
    assert "iwlwifi_1 temp1" in probe.capability().advice


def test_a_machine_without_sensors_tells_nothing_and_one_that_lost_them_is_a_failure(sysfs: Sysfs) -> None:
    probe = ThermalProbe(sys=str(sysfs.folder))
    reading = probe.read(0.0)
    assert reading.value is None
    assert not reading.tells
    assert not probe.capability().serves
    sysfs.chip(0, "coretemp", temp1_input=50000)
    probe = ThermalProbe(sys=str(sysfs.folder))
    assert probe.read(0.0).value is not None
    (sysfs.folder / "class/hwmon/hwmon0/temp1_input").unlink()
    reading = probe.read(10.0)
    assert reading.value is None
    assert reading.tells
    sysfs.chip(0, "coretemp", temp1_input=51000)
    assert probe.read(20.0).value is not None, "it is looked for again at once"


def test_nobody_is_hottest_of_none() -> None:
    assert hottest([]) is None
    assert hottest([Heat("a", 90.0, None), Heat("b", 30.0, 100.0)]) == ("b", 30.0, 100.0)
