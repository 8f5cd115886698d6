"""What feeds the machine, from trees of files as laptops, desktops and their mice have them."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from idle_sense import Power
from idle_sense.platform.batteries import Plug, Supply, concerns_power, power_of, supplies
from idle_sense.probes.power import LinuxPowerProbe

AC_ON = {"AC/type": "Mains", "AC/online": "1"}
AC_OFF = {"AC/type": "Mains", "AC/online": "0"}
MOUSE = {
    "hidpp_battery_0/type": "Battery",
    "hidpp_battery_0/scope": "Device",
    "hidpp_battery_0/status": "Discharging",
}
USB_C = {"ucsi-source-psy-USBC000:001/type": "USB", "ucsi-source-psy-USBC000:001/online": "1",
         "ucsi-source-psy-USBC000:002/type": "USB", "ucsi-source-psy-USBC000:002/online": "0"}  # fmt: skip


def battery(number: int, status: str, **more: str) -> dict[str, str]:
    name = f"BAT{number}"
    files = {"type": "Battery", "present": "1", "status": status, **more}
    return {f"{name}/{file}": text for file, text in files.items()}


def write(folder: Path, *trees: dict[str, str]) -> str:
    for tree in trees:
        for name, text in tree.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{text}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("trees", "power"),
    [
        ([], Power(battery=False, on_mains=None)),
        ([AC_ON], Power(battery=False, on_mains=None)),
        ([MOUSE], Power(battery=False, on_mains=None)),
        ([AC_ON, battery(0, "Charging")], Power(battery=True, on_mains=True)),
        ([AC_OFF, battery(0, "Discharging")], Power(battery=True, on_mains=False)),
        ([AC_OFF, battery(0, "Discharging"), MOUSE], Power(battery=True, on_mains=False)),
        # Held at 80 % by its own settings, or a charger too weak for the moment: mains all the same.
        ([AC_ON, battery(0, "Not charging")], Power(battery=True, on_mains=True)),
        ([AC_ON, battery(0, "Discharging")], Power(battery=True, on_mains=True)),
        # Charged by USB-C while the barrel plug is empty.
        ([AC_OFF, USB_C, battery(0, "Charging")], Power(battery=True, on_mains=True)),
        # Two batteries of which one rests.
        ([AC_OFF, battery(0, "Unknown"), battery(1, "Discharging")], Power(battery=True, on_mains=False)),
        # No word of the plug: the batteries' own words.
        ([battery(0, "Discharging")], Power(battery=True, on_mains=False)),
        ([battery(0, "Full")], Power(battery=True, on_mains=True)),
        ([battery(0, "Unknown")], Power(battery=True, on_mains=None)),
        ([battery(0, "Not charging"), battery(1, "Discharging")], Power(battery=True, on_mains=False)),
        # Taken out.
        ([AC_ON, battery(0, "Unknown", present="0")], Power(battery=False, on_mains=None)),
        # A desktop with a UPS that the kernel knows.
        ([{"ups0/type": "UPS", "ups0/status": "Discharging"}], Power(battery=True, on_mains=False)),
        ([{"ups0/type": "UPS", "ups0/status": "Full"}], Power(battery=True, on_mains=True)),
        # Files that make no sense.
        ([{"AC/type": "Mains", "AC/online": "?"}, battery(0, "Unknown")], Power(battery=True, on_mains=None)),
        ([{"x/uevent": ""}, {"y/type": ""}], Power(battery=False, on_mains=None)),
    ],
)  # fmt: skip
def test_what_feeds_a_machine(tmp_path: Path, trees: list[dict[str, str]], power: Power) -> None:
    assert power_of(supplies(write(tmp_path, *trees))) == power


def test_firmware_that_does_not_answer_leaves_it_unknown(tmp_path: Path) -> None:
    folder = write(tmp_path, {"AC/type": "Mains"}, {"BAT0/type": "Battery", "BAT0/present": "1"})
    assert power_of(supplies(folder)) == Power(battery=True, on_mains=None)


def test_a_supply_of_a_new_kind_that_is_online_feeds_the_machine() -> None:
    found = [
        Supply("wls", "Wireless", online=True, status=""),
        Supply("b", "Battery", online=None, status="Charging"),
    ]
    assert power_of(found).on_mains is True


def test_a_system_without_such_a_class_has_no_battery(tmp_path: Path) -> None:
    assert supplies(str(tmp_path / "none")) == []


def test_only_words_of_supplies_concern_power() -> None:
    head = b"change@/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0\0ACTION=change\0"
    assert concerns_power(head + b"SUBSYSTEM=power_supply\0POWER_SUPPLY_STATUS=Discharging\0SEQNUM=4711\0")
    assert not concerns_power(b"add@/devices/virtual/block/loop3\0ACTION=add\0SUBSYSTEM=block\0SEQNUM=1\0")
    assert not concerns_power(b"")
    assert not concerns_power(b"x\0NAME=SUBSYSTEM=power_supply\0")


def test_the_kernels_own_words_are_heard_and_drained() -> None:
    plug = Plug()
    if not plug.hears:
        pytest.skip("this system lets nobody listen to the kernel's events")
    assert plug.drain() in (True, False)
    assert not plug.drain()
    plug.close()
    plug.close()
    assert plug.fileno() is None
    assert not plug.drain()


class Mouthpiece:
    """Stands in for the kernel: what is said here is heard by the probe."""

    def __init__(self, plug: Plug) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        plug.close()
        plug._socket = theirs
        self.ours = ours

    def say(self, subsystem: str) -> None:
        self.ours.send(f"change@/devices/x\0ACTION=change\0SUBSYSTEM={subsystem}\0".encode())


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_plug_that_is_pulled_is_known_as_soon_as_the_kernel_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path, AC_ON, battery(0, "Full"))
    probe = LinuxPowerProbe(folder=folder)
    inner = probe._aside._probe
    mouthpiece = Mouthpiece(inner._plug)  # type: ignore[attr-defined]
    woken = threading.Event()
    probe.listen(woken.set)
    eventually(lambda: probe.read(time.monotonic()).value == Power(battery=True, on_mains=True))
    write(tmp_path, AC_OFF, battery(0, "Discharging"))
    woken.clear()
    mouthpiece.say("block")
    for _ in range(20):
        assert probe.read(time.monotonic()).value == Power(battery=True, on_mains=True), (
            "no word of power: nobody looks"
        )
        time.sleep(0.005)
    mouthpiece.say("power_supply")
    eventually(lambda: probe.read(time.monotonic()).value == Power(battery=True, on_mains=False))
    eventually(woken.is_set)
    probe.close()
    mouthpiece.ours.close()


def test_events_that_were_lost_in_a_flood_are_a_reason_to_look() -> None:
    class Flooded:
        def recv(self, _size: int) -> bytes:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    plug = Plug()
    plug.close()
    plug._socket = Flooded()  # type: ignore[assignment]
    assert plug.drain()
