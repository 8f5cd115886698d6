"""Linux: guests have processors and disks when nobody else wants them."""

import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterable
from functools import cache
from typing import Final

from idle_accelerator.agent.host import cgroups, probing

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

LOWEST_NICE: Final = 19
_IOPRIO_WHO_PROCESS: Final = 1
_IOPRIO_WHO_PGRP: Final = 2
_IOPRIO_IDLE: Final = 3 << 13
_IOPRIO_SET: Final = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "loongarch64": 30,
    "armv7l": 314,
    "i686": 289,
}
"""Numbers of the system call ioprio_set(2), which the C library does not wrap."""


def move_all(group: cgroups.Group, pids: Iterable[int], *, nice: bool) -> None:
    """Into a guest's group, and if ``nice`` into that of the lowest priority. Blocks for some milliseconds. Raises OSError."""
    low = probing.homes().for_low_priority() if nice else None
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            group.add(pid)
            if low is not None:
                cgroups.write(f"{low}/{cgroups.MEMBERS}", str(pid))


def lower_session(leader: int) -> None:
    """The lowest priority for what leads a session of its own, and for what it will fork. Blocks for some milliseconds."""
    lower_group(leader)
    if (low := probing.homes().for_low_priority()) is not None:
        with contextlib.suppress(OSError):
            cgroups.write(f"{low}/{cgroups.MEMBERS}", str(leader))
    # OSError: see ``linux._Tree._lower_session``.
    with contextlib.suppress(OSError), open(f"/proc/{leader}/autogroup", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(LOWEST_NICE))


def lower_group(group: int) -> None:
    """Give a whole process group the lowest priority for CPU and disk."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, group, LOWEST_NICE)
    if (number := _IOPRIO_SET.get(platform.machine())) is not None:
        libc().syscall(number, _IOPRIO_WHO_PGRP, group, _IOPRIO_IDLE)


def lower_this_thread() -> None:
    """The lowest priority for CPU and disk, for the calling thread alone: Linux keeps both per thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_NICE)
    if (number := _IOPRIO_SET.get(platform.machine())) is not None:
        libc().syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


@cache
def libc() -> ctypes.CDLL:
    """The C library."""
    return ctypes.CDLL(None, use_errno=True)
