"""Gamepads, as files that speak like input devices: this tests what is made of events, not the kernel's part."""

import os
import select
import struct
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are the devices of a Linux machine", allow_module_level=True)

from fake_bus import until

from idle_sense.platform import gamepads
from idle_sense.platform.displays import Displays, Places
from idle_sense.platform.gamepads import Gamepads, counts, is_gamepad

XBOX = "7cdb000000000000 0 0 0 0"
KEYBOARD = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe"
MOUSE = "ff0000 0 0 0 0"
BUTTON, STICK, HAT, SYNC = (1, 0x130, 1), (3, 0x00, 12345), (3, 0x10, -1), (0, 0, 0)


class Machine:
    """/dev/input and /sys/class/input of its own."""

    def __init__(self, folder: Path) -> None:
        self.devices, self.classes = folder / "input", folder / "classes"
        self.devices.mkdir()
        self.classes.mkdir()
        self.now_s = 1000.0
        self._ends: dict[str, int] = {}

    def plug(self, device: str, name: str = "Pad", keys: str = XBOX) -> None:
        facts = self.classes / device / "device"
        (facts / "capabilities").mkdir(parents=True)
        (facts / "capabilities" / "key").write_text(keys + "\n")
        (facts / "name").write_text(name + "\n")
        os.mkfifo(self.devices / device)
        self._ends[device] = os.open(self.devices / device, os.O_RDWR)

    def unplug(self, device: str) -> None:
        import shutil

        shutil.rmtree(self.classes / device)
        (self.devices / device).unlink()
        os.close(self._ends.pop(device))

    def tell(self, device: str, *events: tuple[int, int, int], cut: int | None = None) -> None:
        data = b"".join(struct.pack("@llHHi", 1, 2, *event) for event in events)
        os.write(self._ends[device], data[:cut])

    def close(self) -> None:
        for end in self._ends.values():
            os.close(end)


@pytest.fixture
def machine(tmp_path: Path):
    made = Machine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pads(machine: Machine):
    made = Gamepads(devices=str(machine.devices), classes=str(machine.classes))
    yield made
    made.close()


def test_buttons_and_the_cross_count_and_trembling_sticks_do_not(machine: Machine, pads: Gamepads) -> None:
    machine.plug("event3", "Xbox Wireless Controller")
    (seat,) = pads.read(1000.0)
    assert (seat.name, seat.idle_s.source) == ("gamepad Xbox Wireless Controller", "gamepads")
    machine.tell("event3", STICK, SYNC, STICK, SYNC)
    assert pads.read(1300.0)[0].idle_s.value == 300.0
    for event in (BUTTON, (1, 0x130, 0), HAT):
        machine.tell("event3", STICK, event, SYNC)
        assert pads.read(1400.0)[0].idle_s.value == 0.0
        assert pads.read(1500.0)[0].idle_s.value == 100.0


def test_what_was_before_it_was_watched_is_not_claimed(machine: Machine, pads: Gamepads) -> None:
    machine.plug("event3")
    assert pads.read(5000.0)[0].idle_s.value == 0.0
    assert pads.read(5060.0)[0].idle_s.value == 60.0


def test_keyboards_and_mice_are_never_opened(
    machine: Machine, pads: Gamepads, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plug("event0", "AT Keyboard", KEYBOARD)
    machine.plug("event1", "Mouse", MOUSE)
    machine.plug("event2", "Pad")
    opened: list[str] = []
    real = os.open

    def watched(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(gamepads.os, "open", watched)
    assert [seat.name for seat in pads.read(0.0)] == ["gamepad Pad"]
    assert opened == [f"{machine.devices}/event2"]


def test_gamepads_come_and_go(machine: Machine, pads: Gamepads) -> None:
    assert pads.read(0.0) == ()
    machine.plug("event3", "One")
    machine.plug("event4", "Two")
    assert pads.read(1.0) == (), "devices are looked for every few seconds"
    assert len(pads.read(4.0)) == 2
    machine.unplug("event3")
    assert [seat.name for seat in pads.read(5.0)] == ["gamepad Two"]
    machine.plug("event3", "Three")
    assert {seat.name for seat in pads.read(8.0)} == {"gamepad Two", "gamepad Three"}


def test_events_that_arrive_in_pieces_are_put_together(machine: Machine, pads: Gamepads) -> None:
    machine.plug("event3")
    pads.read(0.0)
    machine.tell("event3", BUTTON, cut=10)
    assert pads.read(1.0)[0].idle_s.value == 1.0
    os.write(machine._ends["event3"], struct.pack("@llHHi", 1, 2, *BUTTON)[10:])
    assert pads.read(2.0)[0].idle_s.value == 0.0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_one_that_may_not_be_read_is_said_and_keeps_nothing_busy(
    machine: Machine, pads: Gamepads, tmp_path: Path
) -> None:
    machine.plug("event3", "Locked Pad")
    (machine.devices / "event3").chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    places = Places(
        "/nonexistent",
        "/nonexistent",
        "/nonexistent",
        devices=str(machine.devices),
        classes=str(machine.classes),
    )
    displays = Displays(environ={"USER": "ada"}, places=places)
    os.seteuid(65534)
    try:
        assert displays.read(0.0).value == ()
    finally:
        os.seteuid(0)
    assert "Locked Pad" in displays.advice
    assert "add ada to the group input" in displays.advice
    assert [seat.name for seat in displays.read(4.0).value or ()] == ["gamepad Locked Pad"]
    assert displays.advice == ""
    assert displays.verified == "emulated"
    displays.close()


def test_the_first_button_after_quiet_wakes_and_playing_on_does_not(
    machine: Machine, pads: Gamepads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cannot be told to keep sticks to itself, as a device can; here it is said to have been."""
    monkeypatch.setattr(gamepads, "_mask", lambda _descriptor: True)
    machine.plug("event3")
    pads.read(0.0)
    assert pads.filenos() == ()
    pads.read(2.0)
    (descriptor,) = pads.filenos()
    assert not select.select([descriptor], [], [], 0)[0]
    machine.tell("event3", BUTTON, SYNC)
    assert select.select([descriptor], [], [], 30)[0]
    pads.read(2.1)
    assert pads.filenos() == ()


def test_a_device_that_cannot_keep_its_sticks_to_itself_wakes_nobody(
    machine: Machine, pads: Gamepads
) -> None:
    machine.plug("event3")
    pads.read(0.0)
    pads.read(10.0)
    assert pads.filenos() == ()


def test_no_devices_at_all_are_no_seats(tmp_path: Path) -> None:
    pads = Gamepads(devices=str(tmp_path / "none"), classes=str(tmp_path / "none"))
    assert pads.read(0.0) == ()
    assert pads.closed_to_us == ()
    pads.close()
    pads.close()


def test_a_flood_of_events_is_taken_in_bounded_pieces(machine: Machine, pads: Gamepads) -> None:
    machine.plug("event3")
    pads.read(0.0)
    for _ in range(20):
        machine.tell("event3", *([STICK] * 60))
    machine.tell("event3", BUTTON)
    until(lambda: pads.read(50.0)[0].idle_s.value == 0.0)


@pytest.mark.parametrize(
    ("capabilities", "is_one"),
    [
        (XBOX, True),
        ("ffff00000000 0 0 0 0", True),  # a joystick: BTN_TRIGGER and its fellows
        (KEYBOARD, False),
        (MOUSE, False),
        ("e520 10000 0 0 0 0", False),  # a touchpad: BTN_TOOL_FINGER, BTN_TOUCH, BTN_LEFT
        ("", False),
        ("no number", False),
    ],
)
def test_what_a_gamepad_is_stands_in_its_capabilities(capabilities: str, is_one: bool) -> None:
    assert is_gamepad(capabilities) == is_one


def test_every_event_is_told_by_its_kind() -> None:
    assert counts(1, 0x130)
    assert counts(3, 0x11)
    for kind, code in ((3, 0), (3, 5), (4, 4), (0, 0), (2, 8)):
        assert not counts(kind, code)


def test_the_mask_is_the_kernels_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """input.h: struct input_mask is type, size and address; the kinds first, then the codes of axes."""
    import ctypes
    import fcntl

    told: list[tuple[int, int, bytes]] = []

    def ioctl(_descriptor: int, number: int, data: bytes) -> None:
        kind, size, address = struct.unpack("@IIQ", data)
        told.append((number, kind, ctypes.string_at(address, size)))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert gamepads._mask(0)
    assert told == [
        (0x40104593, 0, bytes([0b1011, 0, 0, 0])),
        (0x40104593, 3, bytes([0, 0, 0xFF, 0, 0, 0, 0, 0])),
    ]
