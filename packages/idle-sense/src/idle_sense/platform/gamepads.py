"""Buttons of gamepads, which displays do not count as input: a game reads them from /dev/input itself.

What is a gamepad is read from /sys (capabilities of input devices, input-event-codes.h), so no keyboard is ever opened, and
one that this user may not read is known of. Buttons and the cross count; sticks and triggers do not, for they tremble
without a hand (Linux input documentation: evdev, EVIOCSMASK).
"""

import contextlib
import os
import re
import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass

from idle_sense.facts import Reading, Seat
from idle_sense.platform.display_client import QUIET_S

LOOK_AROUND_S = 3.0
"""How often devices are looked for anew."""
SOURCE = "gamepads"
_EVENT = struct.Struct("@llHHi")
"""input.h, struct input_event: two longs of time, type, code, value."""
_EV_SYN, _EV_KEY, _EV_ABS = 0, 1, 3
_HATS = range(0x10, 0x18)
_PAD_BUTTONS = (*range(0x120, 0x140), *range(0x220, 0x224))
"""BTN_JOYSTICK to BTN_THUMBR, and the cross that is made of buttons."""
_SET_MASK = 0x40104593
"""EVIOCSMASK: _IOW('E', 0x93, struct input_mask)."""
_MOST_BYTES = 64 * _EVENT.size * 16


@dataclass(kw_only=True)
class _Gamepad:
    name: str
    descriptor: int
    masked: bool
    """The kernel tells of nothing but what counts, so that its file may wake somebody."""
    used_at_s: float
    """When a button was last seen to move; at first: since when it is watched, for what was before is not known."""
    rest: bytes = b""


class Gamepads:
    """All of this machine. Not for several threads at once."""

    def __init__(self, *, devices: str = "/dev/input", classes: str = "/sys/class/input") -> None:
        self.closed_to_us: tuple[str, ...] = ()
        """Names of gamepads that this user may not read."""
        self._devices = devices
        self._classes = classes
        self._open: dict[str, _Gamepad] = {}
        self._looked_at_s: float | None = None
        self._waking: tuple[int, ...] = ()

    def read(self, now_s: float) -> tuple[Seat, ...]:
        """A seat for each gamepad that can be read. Nothing waits."""
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S - 0.05:
            self._look_around(now_s)
            self._looked_at_s = now_s
        for device, pad in list(self._open.items()):
            if not self._take(pad, now_s):
                os.close(pad.descriptor)
                del self._open[device]
        self._waking = tuple(
            pad.descriptor for pad in self._open.values() if pad.masked and now_s - pad.used_at_s >= QUIET_S
        )
        return tuple(
            Seat(
                name=f"gamepad {pad.name}",
                idle_s=Reading(value=max(0.0, now_s - pad.used_at_s), source=SOURCE),
            )
            for pad in self._open.values()
        )

    def filenos(self) -> Collection[int]:
        """Readable at the first button after some quiet."""
        return self._waking

    def close(self) -> None:
        for pad in self._open.values():
            os.close(pad.descriptor)
        self._open.clear()
        self._waking = ()
        self._looked_at_s = None

    def _look_around(self, now_s: float) -> None:
        try:
            names = os.listdir(self._classes)  # noqa: PTH208 - in the loop
        except OSError:
            names = []
        closed: list[str] = []
        for device in names:
            if device in self._open or re.fullmatch(r"event\d+", device) is None:
                continue
            folder = f"{self._classes}/{device}/device"
            if not is_gamepad(_text(f"{folder}/capabilities/key")):
                continue
            name = _text(f"{folder}/name") or device
            try:
                descriptor = os.open(f"{self._devices}/{device}", os.O_RDONLY | _NONBLOCK | _CLOEXEC)
            except PermissionError:
                closed.append(name)
            except OSError:
                # Unplugged since the listing, or not shown here (a container without /dev/input).
                continue
            else:
                self._open[device] = _Gamepad(
                    name=name, descriptor=descriptor, masked=_mask(descriptor), used_at_s=now_s
                )
        self.closed_to_us = tuple(closed)

    def _take(self, pad: _Gamepad, now_s: float) -> bool:
        """Takes what has come; False: the gamepad is gone."""
        try:
            data = pad.rest + os.read(pad.descriptor, _MOST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        whole = len(data) - len(data) % _EVENT.size
        pad.rest = data[whole:]
        if any(counts(kind, code) for _, _, kind, code, _ in _EVENT.iter_unpack(data[:whole])):
            pad.used_at_s = now_s
        return True


def counts(kind: int, code: int) -> bool:
    """Whether an input event shows a hand: a button, or the cross, which many gamepads tell as an axis of three places."""
    return kind == _EV_KEY or (kind == _EV_ABS and code in _HATS)


def is_gamepad(capabilities: str) -> bool:
    """From what /sys tells of a device's keys: hexadecimal words of the kernel's long, the highest first."""
    bits = 0
    try:
        for word in capabilities.split():
            bits = bits << 8 * struct.calcsize("@l") | int(word, 16)
    except ValueError:
        return False
    return any(bits >> button & 1 for button in _PAD_BUTTONS)


_NONBLOCK = os.O_NONBLOCK if sys.platform != "win32" else 0
_CLOEXEC = os.O_CLOEXEC if sys.platform != "win32" else 0


def _mask(descriptor: int) -> bool:
    """Keeps sticks and sensors from waking anybody; False: the kernel (before 4.4) or the file does not know how."""
    if sys.platform == "win32":
        return False
    import ctypes  # noqa: PLC0415 - most machines have no gamepad
    import fcntl  # noqa: PLC0415 - not on Windows

    kinds = _bits((_EV_SYN, _EV_KEY, _EV_ABS), 32)
    hats = _bits(_HATS, 64)
    with contextlib.suppress(OSError):
        for kind, wanted in ((_EV_SYN, kinds), (_EV_ABS, hats)):
            codes = ctypes.create_string_buffer(wanted, len(wanted))
            fcntl.ioctl(
                descriptor, _SET_MASK, struct.pack("@IIQ", kind, len(wanted), ctypes.addressof(codes))
            )
        return True
    return False


def _bits(numbers: Collection[int], size: int) -> bytes:
    return sum(1 << number for number in numbers).to_bytes(size // 8, sys.byteorder)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a plain string
            return file.read(4096).strip()
    except OSError:
        return ""
