"""What Linux's disks have moved, each byte once, and which of it processes and control groups moved.

/proc/diskstats (kernel documentation ``admin-guide/iostats``; sectors are 512 bytes whatever the disk's own are),
/proc/PID/io (proc_pid_io(5)), io.stat of control groups.
"""

import os
import re
import time
from collections.abc import Collection
from typing import NamedTuple

from idle_sense.probes.groups import Group

SECTOR_BYTES = 512
LAYOUT_HOLDS_S = 60.0
"""How long it is believed that no device was built upon another, while none came or went."""

_NOT_DISKS = re.compile(r"(?:loop|ram|zram|fd)\d+|nvme\d+c\d+n\d+")
"""In memory, in files of other disks, diskettes; and paths to a disk that is there under a name of its own."""
_PARTITIONS = re.compile(r"(?:(?:[shv]|xv)d[a-z]+\d+|(?:nvme\d+n|mmcblk|nbd|md)\d+p\d+)")
_STACKED = re.compile(r"(?:dm-|md|bcache|drbd)\d+.*")


class Moved(NamedTuple):
    read_bytes: int
    written_bytes: int


class Disks:
    """Counters of block devices, and the choice of those that count.

    A device counts unless another one is built on it (encryption, volumes, RAID: ``holders`` in sysfs), which then counts for
    it; a disk of which only some partitions are built upon counts by its other partitions. So each byte that a file
    system moves counts once, as it does for the process that moves it.
    """

    def __init__(self, *, proc: str = "/proc", sys: str = "/sys") -> None:
        self._path = f"{proc}/diskstats"
        self._blocks = f"{sys}/class/block"
        self._names: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()
        self._devices: dict[str, str] = {}
        self._chosen_at_s = 0.0

    def read(self) -> dict[str, Moved]:
        """Of every block device, by name. Raises OSError where the system does not tell, ValueError for what makes no sense."""
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
            table, self._devices = parsed(file.read())
        names = frozenset(table)
        now_s = time.monotonic()
        if names != self._names or now_s - self._chosen_at_s >= LAYOUT_HOLDS_S:
            self._names, self._chosen_at_s = names, now_s
            self._counted = frozenset(self._choose(names))
        return table

    @property
    def counted(self) -> frozenset[str]:
        """Names of the devices that count, as of the last ``read``."""
        return self._counted

    def of_group(self, group: Group) -> tuple[float, float] | None:
        by_device = group.disk_bytes()
        if by_device is None:
            return None
        moved = [
            by_device.get(self._devices[name], (0, 0)) for name in self._counted if name in self._devices
        ]
        return float(sum(one[0] for one in moved)), float(sum(one[1] for one in moved))

    def _choose(self, names: Collection[str]) -> set[str]:
        partitions: dict[str, list[str]] = {}
        whole: list[str] = []
        if not os.path.isdir(self._blocks):  # noqa: PTH112 - plain strings
            return {
                name for name in names if not _PARTITIONS.fullmatch(name) and not _STACKED.fullmatch(name)
            }
        for name in names:
            if os.path.exists(f"{self._blocks}/{name}/partition"):  # noqa: PTH110
                # A partition's folder is below its disk's.
                disk = os.path.basename(os.path.dirname(os.path.realpath(f"{self._blocks}/{name}")))  # noqa: PTH119, PTH120
                partitions.setdefault(disk, []).append(name)
            else:
                whole.append(name)
        counted: set[str] = set()
        for disk in whole:
            if self._is_held(disk):
                continue
            parts = partitions.get(disk, [])
            free = [part for part in parts if not self._is_held(part)]
            counted.update([disk] if len(free) == len(parts) else free)
        return counted

    def _is_held(self, name: str) -> bool:
        try:
            return bool(os.listdir(f"{self._blocks}/{name}/holders"))  # noqa: PTH208
        except OSError:
            return False


class DiskUseOfGuests:
    """The ledger's questions about disks, answered."""

    def __init__(self, disks: Disks, *, proc: str = "/proc") -> None:
        self._disks = disks
        self._proc = proc
        self.refused = False
        """At least one process would not tell."""

    def of_process(self, pid: int) -> tuple[float, float] | None:
        try:
            with open(f"{self._proc}/{pid}/io", "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
                return parsed_io(file.read())
        except (FileNotFoundError, ProcessLookupError):
            return None
        except PermissionError:
            self.refused = True
            return None
        except (OSError, ValueError):
            return None

    def of_group(self, group: Group) -> tuple[float, float] | None:
        return self._disks.of_group(group)


def parsed(text: bytes) -> tuple[dict[str, Moved], dict[str, str]]:
    """/proc/diskstats: ``major minor name reads merged SECTORS ms writes merged SECTORS …``; and ``major:minor`` by name."""
    table: dict[str, Moved] = {}
    devices: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(None, 10)
        if len(fields) < 10:
            continue
        name = fields[2].decode("utf-8", "replace")
        if _NOT_DISKS.fullmatch(name):
            continue
        table[name] = Moved(int(fields[5]) * SECTOR_BYTES, int(fields[9]) * SECTOR_BYTES)
        devices[name] = f"{int(fields[0])}:{int(fields[1])}"
    return table, devices


def parsed_io(text: bytes) -> tuple[float, float]:
    """/proc/PID/io: what it caused to be fetched from disks, and to be written, less what was thrown away before it was."""
    values = {name: int(value) for name, _, value in (line.partition(b":") for line in text.splitlines())}
    written = values[b"write_bytes"] - values.get(b"cancelled_write_bytes", 0)
    return float(values[b"read_bytes"]), float(max(0, written))


def grown(now: dict[str, Moved], before: dict[str, Moved], counted: Collection[str]) -> tuple[int, int]:
    """(read, written) between two looks. A device that came in between, or counts from 0 again, moved all that it shows."""
    read = written = 0
    for name in counted:
        after = now.get(name, Moved(0, 0))
        known = before.get(name, Moved(0, 0))
        read += rise(after.read_bytes, known.read_bytes)
        written += rise(after.written_bytes, known.written_bytes)
    return read, written


def rise(now: int, before: int) -> int:
    """By how much a counter rose that may have been set back to 0 meanwhile; never negative."""
    return now - before if now >= before else now
