"""Fact: how much programs other than ours and our guests read and write on disks, and move over the network (Linux)."""

from collections import deque
from typing import NamedTuple

from idle_sense.facts import Reading, Traffic
from idle_sense.platform.connections import WITH_HEADERS, OwnConnections
from idle_sense.platform.disks import Disks, DiskUseOfGuests, Moved
from idle_sense.platform.disks import grown as disks_grown
from idle_sense.platform.nics import NetworkOfGuests, Nics
from idle_sense.platform.nics import grown as nics_grown
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Capability, Verified

SHORTEST_S = 0.5
"""Over less than this a rate would be noise."""
AT_ONCE_S = 5.0
"""What is read or sent reaches the device within this time."""
WRITTEN_BACK_S = 40.0
"""What is written waits in memory for 30 s, then for the next of the kernel's rounds, each 5 s (``vm.dirty_expire_centisecs``
and ``dirty_writeback_centisecs`` as they are set everywhere)."""


class _Table(NamedTuple):
    at_s: float
    disks: dict[str, Moved] | None
    nics: dict[str, int] | None


class Credit:
    """What guests are known to have moved, and their device has not shown yet."""

    def __init__(self, holds_s: float) -> None:
        self._holds_s = holds_s
        self._entries: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, amount: float) -> None:
        if amount > 0:
            self._entries.append((now_s, amount))

    def draw(self, now_s: float, most: float) -> float:
        """How much of what a device has shown was theirs; the oldest first, none that has waited for too long."""
        drawn = 0.0
        while self._entries and drawn < most:
            at_s, amount = self._entries.popleft()
            if not 0 <= now_s - at_s <= self._holds_s:
                continue
            part = min(amount, most - drawn)
            drawn += part
            if amount > part:
                self._entries.appendleft((at_s, amount - part))
        return drawn


class TrafficProbe(Polled):
    """Devices' counters, less what guests moved.

    The kernel counts disk use by process, or exactly by control group; network use by neither. So guests that use the
    machine's own network make the network's part untold while they run; those in a network namespace of their own are
    taken off. This program's own transfers are taken off: what its TCP connections show at each look, or what it tells
    the ledger (``GuestLedger.sent``), whichever is more.
    """

    every_s = 2.0
    verified: Verified = "native"

    def __init__(
        self, processes: Processes, guests: GuestLedger, *, proc: str = "/proc", sys: str = "/sys"
    ) -> None:
        self._processes = processes
        self._guests = guests
        self._disks = Disks(proc=proc, sys=sys)
        self._nics = Nics(proc=proc, sys=sys)
        self._use = DiskUseOfGuests(self._disks, proc=proc)
        self._network = NetworkOfGuests(proc=proc)
        self._own = OwnConnections(proc=proc)
        self._before: _Table | None = None
        self._told = (False, False)
        """Whether disks, and the network, have ever been told."""
        self._shared = False
        self._reading_credit = Credit(AT_ONCE_S)
        self._writing_credit = Credit(WRITTEN_BACK_S)
        self._network_credit = Credit(AT_ONCE_S)
        self._guests_moved = (0.0, 0.0, 0.0)
        self._last = Traffic(disk_bytes_per_s=None, network_bytes_per_s=None)

    def read(self, now_s: float) -> Reading[Traffic]:
        before = self._before
        if before is not None and 0 <= now_s - before.at_s < SHORTEST_S:
            return Reading(value=self._last, source="linux", age_s=now_s - before.at_s)
        problems: list[str] = []
        disks, nics = self._disk_table(problems), self._nic_table(problems)
        for told, table in zip(self._told, (disks, nics), strict=True):
            if told and table is None:
                return Reading[Traffic].missing("linux", "; ".join(problems), "see idle-sense doctor")
        self._told = (disks is not None, nics is not None)
        if disks is None and nics is None:
            return Reading[Traffic].untold("linux", "; ".join(problems))
        self._credit_guests(now_s, first=before is None)
        self._before = _Table(now_s, disks, nics)
        if before is not None and now_s > before.at_s:
            self._last = self._rates(before, self._before)
        return Reading(value=self._last, source="linux")

    def capability(self) -> Capability:
        disks, nics = self._told
        parts = [name for name, told in (("disks", disks), ("network", nics)) if told]
        advice: list[str] = []
        if self._shared:
            advice.append("guests use the machine's own network: give them a network namespace of their own")
        if self._use.refused:
            advice.append("some guests' disk use may not be read: put them into a control group with io.stat")
        return Capability(
            probe="traffic",
            back_end=f"{' and '.join(parts) or 'no'} counters of linux, less our guests'",
            verified=self.verified,
            serves=bool(parts),
            advice="; ".join(advice),
        )

    def describe(self) -> tuple[str, ...]:
        return (
            "How much other programs read, write and send; what guests do is taken off, as far as it is known.",
        )

    def _disk_table(self, problems: list[str]) -> dict[str, Moved] | None:
        try:
            return self._disks.read()
        except (OSError, ValueError) as error:
            problems.append(f"disks: {error}")
            return None

    def _nic_table(self, problems: list[str]) -> dict[str, int] | None:
        try:
            return self._nics.read()
        except (OSError, ValueError) as error:
            problems.append(f"network: {error}")
            return None

    def _credit_guests(self, now_s: float, *, first: bool) -> None:
        reading, writing = self._guests.disk_bytes(self._processes, self._use)
        sent, seen = self._guests.sent_bytes, self._own.moved_bytes()
        known = self._guests_moved
        self._guests_moved = (reading, writing, sent)
        network = self._network.look(self._guests.pids() if len(self._guests) else ())
        self._shared = network.shared
        if not first:
            self._reading_credit.add(now_s, reading - known[0])
            self._writing_credit.add(now_s, writing - known[1])
            own = max((sent - known[2]) * WITH_HEADERS, seen)
            self._network_credit.add(now_s, own + network.apart_bytes)

    def _rates(self, before: _Table, now: _Table) -> Traffic:
        passed_s = now.at_s - before.at_s
        disk = network = None
        if now.disks is not None and before.disks is not None:
            read, written = disks_grown(now.disks, before.disks, self._disks.counted)
            read -= self._reading_credit.draw(now.at_s, read)
            written -= self._writing_credit.draw(now.at_s, written)
            disk = (read + written) / passed_s
        if now.nics is not None and before.nics is not None and not self._shared and self._nics.counted:
            moved = nics_grown(now.nics, before.nics, self._nics.counted)
            network = (moved - self._network_credit.draw(now.at_s, moved)) / passed_s
        return Traffic(disk_bytes_per_s=disk, network_bytes_per_s=network)
