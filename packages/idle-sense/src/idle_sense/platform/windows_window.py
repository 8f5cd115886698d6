"""Windows: the hidden window of ``windows_events``, and its message loop."""

import contextlib
import ctypes
import sys
import time
import winreg
from collections.abc import Iterable, Iterator
from ctypes import byref, c_uint32, c_void_p, sizeof
from typing import Final, Self

from idle_sense.platform import windows_gamepads as gamepads
from idle_sense.platform import windows_libraries as libraries
from idle_sense.platform.windows_events import DESK, PADS, Ears, Events, Topic
from idle_sense.platform.windows_numbers import (
    GIDC_REMOVAL,
    HID_USAGE_GENERIC_KEYBOARD,
    HID_USAGE_GENERIC_MOUSE,
    HID_USAGE_PAGE_GENERIC,
    MWMO_INPUTAVAILABLE,
    NOTIFY_FOR_ALL_SESSIONS,
    PM_REMOVE,
    QS_ALLINPUT,
    REG_NOTIFY_CHANGE_LAST_SET,
    REG_NOTIFY_CHANGE_NAME,
    RID_HEADER,
    RID_INPUT,
    RIDEV_DEVNOTIFY,
    RIDEV_INPUTSINK,
    RIDEV_REMOVE,
    RIM_TYPEHID,
    RIM_TYPEKEYBOARD,
    RIM_TYPEMOUSE,
    WM_INPUT,
    WM_INPUT_DEVICE_CHANGE,
    WM_POWERBROADCAST,
    WM_WTSSESSION_CHANGE,
)
from idle_sense.platform.windows_structures import MSG, RAWINPUTDEVICE, RAWINPUTHEADER, WNDCLASSEXW

_PAD_FLAGS: Final = RIDEV_INPUTSINK | RIDEV_DEVNOTIFY
"""Of game controllers it is told as well when they come and go."""

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

_FAILED: Final = 0xFFFFFFFF
_INFINITE: Final = 0xFFFFFFFF
_KINDS_OF_TYPE: Final = {
    RIM_TYPEMOUSE: (HID_USAGE_GENERIC_MOUSE,),
    RIM_TYPEKEYBOARD: (HID_USAGE_GENERIC_KEYBOARD,),
    RIM_TYPEHID: PADS,
}

WatchedKey = tuple[int, str]
"""A root (winreg.HKEY_…) and a path; the key and all below it."""


def events(keys: Iterable[WatchedKey]) -> Events:
    """Events of this process's session. Raises OSError."""
    stop = libraries.checked(libraries.kernel32().CreateEventW(None, False, False, None))
    watched = tuple(keys)

    def run(told: Events) -> None:
        with _Window(told, stop, watched) as window:
            window.loop()

    def wake() -> None:
        libraries.kernel32().SetEvent(stop)

    return Events(run, wake)


class _Window:
    def __init__(self, told: Events, stop: int, keys: tuple[WatchedKey, ...]) -> None:
        self._told = told
        self._ears = Ears()
        self._pads = gamepads.PadReader()
        self._stop = stop
        self._keys = [key for key in (_Key.open(*where) for where in keys) if key is not None]
        self._name = f"idle-sense {id(self):x}"
        self._instance = libraries.kernel32().GetModuleHandleW(None)
        # Kept: Windows calls it for as long as the class exists.
        self._procedure = libraries.WindowProcedure(self._hear)
        self._class_name = ctypes.create_unicode_buffer(self._name)
        described = WNDCLASSEXW(
            cbSize=sizeof(WNDCLASSEXW),
            lpfnWndProc=ctypes.cast(self._procedure, c_void_p).value,
            hInstance=self._instance,
            lpszClassName=ctypes.addressof(self._class_name),
        )
        self._user = libraries.user32()
        libraries.checked(self._user.RegisterClassExW(byref(described)))
        # A window for messages alone would hear of no suspend and resume: these are broadcast to top-level windows.
        self._handle = self._user.CreateWindowExW(
            0, self._name, "idle-sense", 0, 0, 0, 0, 0, None, None, self._instance, None
        )

    def __enter__(self) -> Self:
        if not self._handle:
            error = ctypes.WinError(ctypes.get_last_error())
            self.close()
            raise error
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            self._listen_to(opened=(), closed=tuple(self._ears.kinds))
            libraries.wtsapi32().WTSUnRegisterSessionNotification(self._handle)
            self._user.DestroyWindow(self._handle)
            self._handle = None
        self._user.UnregisterClassW(self._name, self._instance)
        for key in self._keys:
            key.close()

    def loop(self) -> None:
        heard = {Topic.INPUT, Topic.POWER}
        if libraries.wtsapi32().WTSRegisterSessionNotification(self._handle, NOTIFY_FOR_ALL_SESSIONS):
            heard.add(Topic.SESSIONS)
        else:
            self._told.problem = f"sessions: {ctypes.WinError(ctypes.get_last_error())}"
        armed = [key.arm() for key in self._keys]
        if armed and all(armed):
            heard.add(Topic.REGISTRY)
        handles = [self._stop, *(key.event for key in self._keys)]
        waited_for = (c_void_p * len(handles))(*handles)
        message = MSG()
        self._tune()
        if not self._ears.kinds.intersection(DESK):
            heard.discard(Topic.INPUT)
        self._told.hears = frozenset(heard)
        while self._told.running:
            wait_s = self._ears.wait_s(time.monotonic())
            wait_ms = _INFINITE if wait_s is None else int(wait_s * 1000) + 1
            which = self._user.MsgWaitForMultipleObjectsEx(
                len(handles), waited_for, wait_ms, QS_ALLINPUT, MWMO_INPUTAVAILABLE
            )
            if which == _FAILED:
                raise ctypes.WinError(ctypes.get_last_error())
            if 1 <= which < len(handles):
                self._keys[which - 1].arm()
                self._told.call(Topic.REGISTRY)
            while self._user.PeekMessageW(byref(message), None, 0, 0, PM_REMOVE):
                self._user.DispatchMessageW(byref(message))
            self._tune()

    def _tune(self) -> None:
        opened, closed = self._ears.changes(time.monotonic())
        if opened or closed:
            self._listen_to(opened, closed)

    def _listen_to(self, opened: Iterable[int], closed: Iterable[int]) -> None:
        owners = dict(self._owners())
        wanted: list[RAWINPUTDEVICE] = []
        for kind in opened:
            if owners.get(kind, self._handle) != self._handle:
                self._ears.lose(kind)
                self._told.problem = "input: the program itself listens to raw input"
                continue
            flags = _PAD_FLAGS if kind in PADS else RIDEV_INPUTSINK
            wanted.append(RAWINPUTDEVICE(HID_USAGE_PAGE_GENERIC, kind, flags, self._handle))
        wanted += [
            RAWINPUTDEVICE(HID_USAGE_PAGE_GENERIC, kind, RIDEV_REMOVE, None)
            for kind in closed
            if owners.get(kind) == self._handle
        ]
        for device in wanted:
            if not self._user.RegisterRawInputDevices(byref(device), 1, sizeof(device)):
                self._ears.lose(device.usUsage)
                self._told.problem = f"input: {ctypes.WinError(ctypes.get_last_error())}"

    def _owners(self) -> Iterator[tuple[int, int | None]]:
        """(usage, window) of what this process listens to."""
        count = c_uint32(0)
        self._user.GetRegisteredRawInputDevices(None, byref(count), sizeof(RAWINPUTDEVICE))
        if not count.value:
            return
        devices = (RAWINPUTDEVICE * count.value)()
        got = self._user.GetRegisteredRawInputDevices(devices, byref(count), sizeof(RAWINPUTDEVICE))
        for device in devices[: 0 if got == _FAILED else got]:
            if device.usUsagePage == HID_USAGE_PAGE_GENERIC:
                yield device.usUsage, device.hwndTarget

    def _hear(self, window: int, message: int, first: int, second: int) -> int:
        """The window procedure. What it raised would be lost in C."""
        try:
            if message == WM_INPUT:
                self._hear_input(second)
            elif message == WM_INPUT_DEVICE_CHANGE and first == GIDC_REMOVAL:
                self._pads.forget(second)
                self._told.gamepads.remove(second)
            elif message == WM_WTSSESSION_CHANGE:
                self._told.call(Topic.SESSIONS)
            elif message == WM_POWERBROADCAST:
                self._told.call(Topic.POWER)
        except (OSError, ValueError) as error:
            self._told.problem = f"message {message:#x}: {error}"
        return int(self._user.DefWindowProcW(window, message, first, second))

    def _hear_input(self, handle: int) -> None:
        header = RAWINPUTHEADER()
        size = c_uint32(sizeof(header))
        got = self._user.GetRawInputData(handle, RID_HEADER, byref(header), byref(size), sizeof(header))
        if got == _FAILED:
            # Its device's registration was dropped meanwhile: it was input all the same.
            self._told.call(Topic.INPUT)
            return
        now_s = time.monotonic()
        self._ears.heard(_KINDS_OF_TYPE.get(header.dwType, ()), now_s)
        if header.dwType != RIM_TYPEHID or self._touched(handle, header, now_s):
            self._told.call(Topic.INPUT)

    def _touched(self, handle: int, header: RAWINPUTHEADER, now_s: float) -> bool:
        size = c_uint32(header.dwSize)
        raw = ctypes.create_string_buffer(size.value)
        got = self._user.GetRawInputData(handle, RID_INPUT, raw, byref(size), sizeof(header))
        device = header.hDevice
        if got == _FAILED or device is None:
            return False
        touched = False
        for report in gamepads.reports(raw.raw):
            told = self._pads.held(device, report)
            if told is not None:
                touched |= self._told.gamepads.report(device, *told, now_s)
        return touched


class _Key:
    """A registry key whose changes set an event."""

    def __init__(self, key: winreg.HKEYType, event: int) -> None:
        self._key = key
        self.event = event

    @classmethod
    def open(cls, root: int, path: str) -> "_Key | None":
        """None: there is no such key."""
        try:
            key = winreg.OpenKey(root, path, 0, winreg.KEY_NOTIFY)
        except OSError:
            return None
        return cls(key, libraries.checked(libraries.kernel32().CreateEventW(None, False, False, None)))

    def arm(self) -> bool:
        """Anew after each change. RegNotifyChangeKeyValue belongs to the thread that calls it, which is always the same."""
        what = REG_NOTIFY_CHANGE_NAME | REG_NOTIFY_CHANGE_LAST_SET
        return (
            libraries.advapi32().RegNotifyChangeKeyValue(self._key.handle, True, what, self.event, True) == 0
        )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._key.Close()
        libraries.kernel32().CloseHandle(self.event)
