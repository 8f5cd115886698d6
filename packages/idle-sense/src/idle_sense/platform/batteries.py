"""What feeds a Linux machine: /sys/class/power_supply (kernel documentation ``ABI/testing/sysfs-class-power``), and word of
changes from the kernel.

Supplies with scope ``Device`` feed a mouse, a headset or a pen, not the machine.
"""

import contextlib
import os
import socket
import sys
from typing import NamedTuple

from idle_sense.facts import Power

KERNEL_GROUP = 1
"""Multicast group of NETLINK_KOBJECT_UEVENT in which the kernel itself speaks (lib/kobject_uevent.c)."""
NETLINK_KOBJECT_UEVENT = 15
"""linux/netlink.h"""
LONGEST_EVENT = 8192


class Supply(NamedTuple):
    name: str
    kind: str
    """``Mains``, ``USB``, ``Wireless``, ``Battery``, ``UPS``."""
    online: bool | None
    """None: not told."""
    status: str
    """``Charging``, ``Discharging``, ``Not charging``, ``Full``, ``Unknown``; empty: not told."""


def power_of(supplies: list[Supply]) -> Power:
    """Any supply from outside that is online feeds the machine. Where none tells, the batteries' own words decide."""
    batteries = [supply for supply in supplies if supply.kind in ("Battery", "UPS")]
    outside = [supply for supply in supplies if supply.kind not in ("Battery", "UPS")]
    if not batteries:
        return Power(battery=False, on_mains=None)
    statuses = {supply.status for supply in batteries}
    on_mains: bool | None = None
    if any(supply.online for supply in outside):
        on_mains = True
    elif (outside and all(supply.online is False for supply in outside)) or "Discharging" in statuses:
        on_mains = False
    elif statuses & {"Charging", "Full", "Not charging"}:
        on_mains = True
    return Power(battery=True, on_mains=on_mains)


def supplies(folder: str = "/sys/class/power_supply") -> list[Supply]:
    """All that feed the machine; empty where there are none. Raises OSError where it is not to be seen."""
    found: list[Supply] = []
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - plain strings
    except FileNotFoundError:
        return found
    for name in names:
        kind = _text(f"{folder}/{name}/type")
        if not kind or _text(f"{folder}/{name}/scope") == "Device":
            continue
        if kind in ("Battery", "UPS"):
            if _text(f"{folder}/{name}/present") == "0":
                continue
            found.append(Supply(name, kind, None, _text(f"{folder}/{name}/status")))
            continue
        online = _text(f"{folder}/{name}/online")
        # 0: not; 1: fixed; 2: programmable.
        found.append(Supply(name, kind, online != "0" if online.isdigit() else None, ""))
    return found


class Plug:
    """Hears from the kernel when a supply changes, without asking it again and again."""

    def __init__(self) -> None:
        assert sys.platform == "linux"  # noqa: S101 - tells type checkers that there is netlink
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            listener = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                NETLINK_KOBJECT_UEVENT,
            )
            try:
                listener.bind((0, KERNEL_GROUP))
            except OSError:
                listener.close()
                raise
            self._socket = listener

    @property
    def hears(self) -> bool:
        return self._socket is not None

    def fileno(self) -> int | None:
        return None if self._socket is None else self._socket.fileno()

    def drain(self) -> bool:
        """Takes all that has arrived; whether any of it may concern a supply."""
        concerned = False
        while self._socket is not None:
            try:
                message = self._socket.recv(LONGEST_EVENT)
            except BlockingIOError:
                break
            except OSError:
                # More came than fits (ENOBUFS): something was missed.
                return True
            concerned = concerned or concerns_power(message)
        return concerned

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def concerns_power(message: bytes) -> bool:
    """``ACTION@DEVPATH``, then ``KEY=VALUE`` strings, each ended by a zero byte."""
    return b"SUBSYSTEM=power_supply" in message.split(b"\0")


def _text(path: str) -> str:
    """Empty where there is no such file, or the firmware does not answer."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - small files of the kernel
            return file.read(256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
