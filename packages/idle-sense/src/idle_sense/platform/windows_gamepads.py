"""Game controllers on Windows: which were touched, and when. GetLastInputInfo does not count them.

Only buttons and the hat count: sticks and triggers tremble by themselves, and many controllers report their noise without end.
"""

import ctypes
import sys
import threading
from typing import NamedTuple

from idle_sense.platform.windows_numbers import (
    HID_USAGE_GENERIC_HATSWITCH,
    HID_USAGE_PAGE_BUTTON,
    HID_USAGE_PAGE_GENERIC,
    HIDP_STATUS_SUCCESS,
    RIDI_DEVICEINFO,
    RIDI_PREPARSEDDATA,
    HidP_Input,
)
from idle_sense.platform.windows_structures import RAWHID, RAWINPUTHEADER, RID_DEVICE_INFO

REPORTS_AT = ctypes.sizeof(RAWINPUTHEADER) + RAWHID.bRawData.offset


class Held(NamedTuple):
    """What is pressed on a controller."""

    buttons: frozenset[int]
    hat: int | None
    """Its direction; None: it has none."""


class _Pad(NamedTuple):
    name: str
    held: Held
    used_at_s: float | None


class Gamepads:
    """When each controller was touched last. May be told and asked from different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pads: dict[int, _Pad] = {}
        self._gone: dict[str, float] = {}

    def report(self, device: int, name: str, held: Held, now_s: float) -> bool:
        """A controller says what is pressed; whether somebody touched it. Its first word counts only if a button is down."""
        with self._lock:
            before = self._pads.get(device) or _Pad(name, Held(frozenset(), held.hat), None)
            used = held != before.held
            self._pads[device] = _Pad(name, held, now_s if used else before.used_at_s)
            return used

    def remove(self, device: int) -> None:
        """It was unplugged; when it was touched remains known."""
        with self._lock:
            pad = self._pads.pop(device, None)
            if pad is not None and pad.used_at_s is not None:
                self._gone[pad.name] = max(pad.used_at_s, self._gone.get(pad.name, pad.used_at_s))

    def idle_s(self, now_s: float) -> dict[str, float]:
        """By name, of those that were touched since listening began."""
        with self._lock:
            used_at_s = dict(self._gone)
            for pad in self._pads.values():
                if pad.used_at_s is not None:
                    used_at_s[pad.name] = max(pad.used_at_s, used_at_s.get(pad.name, pad.used_at_s))
        return {name: max(0.0, now_s - at_s) for name, at_s in used_at_s.items()}


def reports(raw: bytes) -> list[bytes]:
    """The reports in a RAWINPUT of RIM_TYPEHID; none where it is cut short."""
    if len(raw) < REPORTS_AT:
        return []
    head = RAWHID.from_buffer_copy(
        raw[REPORTS_AT - RAWHID.bRawData.offset :].ljust(ctypes.sizeof(RAWHID), b"\0")
    )
    size, count = head.dwSizeHid, head.dwCount
    if size == 0 or REPORTS_AT + size * count > len(raw):
        return []
    return [raw[REPORTS_AT + size * index : REPORTS_AT + size * (index + 1)] for index in range(count)]


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    class _Known(NamedTuple):
        name: str
        preparsed: "ctypes.Array[ctypes.c_char]"
        most_buttons: int

    class PadReader:
        """Takes reports apart, as each device's own description says (hidpi.h)."""

        def __init__(self) -> None:
            self._known: dict[int, _Known | None] = {}

        def forget(self, device: int) -> None:
            self._known.pop(device, None)

        def held(self, device: int, report: bytes) -> tuple[str, Held] | None:
            """(name, what is pressed); None: the device cannot be understood."""
            if device not in self._known:
                self._known[device] = self._describe(device)
            known = self._known[device]
            if known is None:
                return None
            usages = (ctypes.c_uint16 * max(1, known.most_buttons))()
            length = ctypes.c_uint32(known.most_buttons)
            status = libraries.hid().HidP_GetUsages(
                HidP_Input,
                HID_USAGE_PAGE_BUTTON,
                0,
                usages,
                ctypes.byref(length),
                known.preparsed,
                report,
                len(report),
            )
            if status & 0xFFFFFFFF != HIDP_STATUS_SUCCESS:
                # A report of another kind: battery, motion.
                return None
            hat = ctypes.c_uint32()
            status = libraries.hid().HidP_GetUsageValue(
                HidP_Input,
                HID_USAGE_PAGE_GENERIC,
                0,
                HID_USAGE_GENERIC_HATSWITCH,
                ctypes.byref(hat),
                known.preparsed,
                report,
                len(report),
            )
            has_hat = status & 0xFFFFFFFF == HIDP_STATUS_SUCCESS
            return known.name, Held(frozenset(usages[: length.value]), hat.value if has_hat else None)

        def _describe(self, device: int) -> _Known | None:
            info = RID_DEVICE_INFO(cbSize=ctypes.sizeof(RID_DEVICE_INFO))
            if _ask(device, RIDI_DEVICEINFO, ctypes.byref(info), ctypes.sizeof(info)) is None:
                return None
            size = _ask(device, RIDI_PREPARSEDDATA, None, 0)
            if not size:
                return None
            preparsed = ctypes.create_string_buffer(size)
            if _ask(device, RIDI_PREPARSEDDATA, preparsed, size) is None:
                return None
            most = libraries.hid().HidP_MaxUsageListLength(HidP_Input, HID_USAGE_PAGE_BUTTON, preparsed)
            name = f"gamepad {info.hid.dwVendorId:04x}:{info.hid.dwProductId:04x}"
            return _Known(name, preparsed, int(most))

    def _ask(device: int, what: int, into: object, room: int) -> int | None:
        """GetRawInputDeviceInfoW: how many bytes it gave, or would give; None: it refuses."""
        size = ctypes.c_uint32(room)
        got = libraries.user32().GetRawInputDeviceInfoW(device, what, into, ctypes.byref(size))
        if got == 0xFFFFFFFF:
            return None
        return int(size.value)
