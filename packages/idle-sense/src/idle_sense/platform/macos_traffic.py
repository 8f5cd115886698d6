"""What moves between a Mac and its disks and networks, less what our guests move.

IOBlockStorageDriver's ``Statistics`` (IOBlockStorageDriver.h), sysctl NET_RT_IFLIST2 (route(4)), proc_pid_rusage(libproc.h).
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from idle_sense.facts import Reading, Traffic
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_processes import MacProcesses
from idle_sense.platform.macos_registry import Entry, Registry
from idle_sense.platform.macos_structures import (
    CTL_NET,
    IFT_CELLULAR,
    IFT_ETHER,
    NET_RT_IFLIST2,
    PF_ROUTE,
    RTM_IFINFO2,
    IfMsghdr2,
)
from idle_sense.platform.macos_values import mapping, whole
from idle_sense.probes.asked import Asked
from idle_sense.probes.guests import GuestLedger

if TYPE_CHECKING:
    from idle_sense.probes.groups import Group

LOOK_AROUND_S = 30.0
"""How often disks are looked for anew."""
READ, WRITTEN = "Bytes (Read)", "Bytes (Write)"
"""kIOBlockStorageDriverStatisticsBytesReadKey and …WrittenKey."""
WRAP = 1 << 32
"""Counts of interfaces may begin again here, although they have room for more."""


class Interface(NamedTuple):
    number: int
    kind: int
    received_bytes: int
    sent_bytes: int


def interfaces(raw: bytes) -> Iterator[Interface]:
    """The interfaces in an answer to NET_RT_IFLIST2, in which every message begins with its length."""
    header = ctypes.sizeof(IfMsghdr2)
    at = 0
    while at + 4 <= len(raw):
        length = int.from_bytes(raw[at : at + 2], "little")
        if length < 4 or at + length > len(raw):
            return
        if raw[at + 3] == RTM_IFINFO2 and length >= header:
            message = IfMsghdr2.from_buffer_copy(raw, at)
            data = message.ifm_data
            yield Interface(message.ifm_index, data.ifi_type, data.ifi_ibytes, data.ifi_obytes)
        at += length


def passed(before: int, after: int) -> int:
    """Between two counts of one interface. One that began at 0 again after 4 GiB goes on from there, else it is a new one."""
    if after >= before:
        return after - before
    return after + WRAP - before if before < WRAP and before - after > WRAP // 2 else after


class NetworkCount:
    """All that went through network cards since the first call, in bytes. Tunnels and bridges are left out: what goes through
    them goes through a card as well."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._before: dict[int, Interface] = {}
        self._total_bytes = 0

    def bytes(self) -> int:
        """Raises OSError."""
        now = {one.number: one for one in interfaces(self._read()) if one.kind in (IFT_ETHER, IFT_CELLULAR)}
        for index, one in now.items():
            before = self._before.get(index)
            if before is not None:
                self._total_bytes += passed(before.received_bytes, one.received_bytes)
                self._total_bytes += passed(before.sent_bytes, one.sent_bytes)
        self._before = now
        return self._total_bytes


class DiskCount:
    """All that was read from and written to disks since the first call, in bytes. What is written into a disk image counts
    twice: for the image, and for the disk below it."""

    def __init__(self, registry: Registry, now: Callable[[], float]) -> None:
        self._registry = registry
        self._now = now
        self._entries: dict[int, Entry] = {}
        self._before: dict[int, int] = {}
        self._looked_at_s: float | None = None
        self._total_bytes = 0

    def bytes(self) -> int:
        """Raises OSError."""
        now_s = self._now()
        if self._looked_at_s is None or now_s - self._looked_at_s >= LOOK_AROUND_S:
            self._look_around()
            self._looked_at_s = now_s
        for identity, entry in self._entries.items():
            statistics = mapping(entry.read("Statistics"))
            count = (whole(statistics.get(READ)) or 0) + (whole(statistics.get(WRITTEN)) or 0)
            before = self._before.get(identity)
            if before is not None:
                self._total_bytes += max(0, count - before)
            self._before[identity] = count
        return self._total_bytes

    def close(self) -> None:
        for entry in self._entries.values():
            entry.close()
        self._entries = {}
        self._looked_at_s = None

    def _look_around(self) -> None:
        self.close()
        for entry in self._registry.services("IOBlockStorageDriver"):
            identity = entry.identity()
            if identity is None or identity in self._entries:
                entry.close()
            else:
                self._entries[identity] = entry
        self._before = {one: count for one, count in self._before.items() if one in self._entries}


class MacDiskUse:
    """Who moved how much: a ``guests.DiskUse``. A process does not inherit what its children moved: what one moves after the
    last look at it counts as the owner's."""

    def __init__(self, processes: MacProcesses) -> None:
        self._processes = processes

    def of_process(self, pid: int) -> tuple[float, float] | None:
        usage = self._processes.usage(pid)
        if usage is None:
            return None
        return float(usage.ri_diskio_bytesread), float(usage.ri_diskio_byteswritten)

    def of_group(self, group: "Group") -> tuple[float, float] | None:
        """There are none."""
        del group
        return None


class TrafficCalls:
    def __init__(self, frameworks: Frameworks) -> None:
        self._system = frameworks.system

    def interfaces(self) -> bytes:
        """Raises OSError."""
        name = (ctypes.c_int * 6)(CTL_NET, PF_ROUTE, 0, 0, NET_RT_IFLIST2, 0)
        for _ in range(4):
            size = ctypes.c_size_t()
            if self._system.sysctl(name, 6, None, ctypes.byref(size), None, 0) != 0:
                break
            # Interfaces may come in between; an answer that does not fit is refused.
            size = ctypes.c_size_t(size.value + 4096)
            buffer = ctypes.create_string_buffer(size.value)
            if self._system.sysctl(name, 6, buffer, ctypes.byref(size), None, 0) == 0:
                return buffer.raw[: size.value]
        raise OSError("macOS does not list its network interfaces")


class _Look(NamedTuple):
    """Sums of bytes."""

    at_s: float
    disk: float
    ours: float
    network: float
    guests: bool


class MacTrafficProbe(Asked[Traffic]):
    fact = "traffic"
    back_end = "IOBlockStorageDriver and network interfaces"
    better = "macOS does not tell what one program sends: the network is not looked at while guests run"
    every_s: float = 2.0

    def __init__(
        self,
        *,
        disk_bytes: Callable[[], int],
        network_bytes: Callable[[], int],
        guests_disk_bytes: Callable[[], float],
        guests: GuestLedger,
        close: Callable[[], None],
    ) -> None:
        super().__init__()
        self._disk_bytes = disk_bytes
        self._network_bytes = network_bytes
        self._guests_disk_bytes = guests_disk_bytes
        self._guests = guests
        self._close = close
        self._before: _Look | None = None
        self._left = 0.0

    def look(self, now_s: float) -> Reading[Traffic]:
        # Guests first: what they do between the two looks would else count as the owner's.
        ours = self._guests_disk_bytes()
        disk = self._disk_bytes()
        network = self._network_bytes() - self._guests.sent_bytes
        guests = len(self._guests) > 0
        before, self._before = self._before, _Look(now_s, disk, ours, network, guests)
        if before is None or now_s <= before.at_s:
            return Reading(
                value=Traffic(disk_bytes_per_s=None, network_bytes_per_s=None), source=self.back_end
            )
        passed_s = now_s - before.at_s
        moved = disk - before.disk
        # What a guest asked for may reach the disk after this look: what is left of it counts at the next one.
        credit = self._left + ours - before.ours
        drawn = min(credit, moved)
        self._left = min(credit - drawn, ours - before.ours)
        # A guest that came or went in between sent something as well.
        mixed = guests or before.guests
        return Reading(
            value=Traffic(
                disk_bytes_per_s=max(0.0, (moved - drawn) / passed_s),
                network_bytes_per_s=None if mixed else max(0.0, (network - before.network) / passed_s),
            ),
            source=self.back_end,
        )

    def describe(self) -> tuple[str, ...]:
        return ("What other programs read from and write to disks, and send and receive.",)

    def close(self) -> None:
        self._close()
