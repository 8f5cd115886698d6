"""Windows: whether what is sent costs money, and how much moves over network cards and disks.

INetworkCostManager (netlistmgr.h), GetIfTable2 (netioapi.h), the performance counter ``PhysicalDisk``.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from idle_sense.facts import Network, Reading, Traffic
from idle_sense.platform.windows_numbers import (
    IF_TYPE_ETHERNET_CSMACD,
    IF_TYPE_IEEE80211,
    IF_TYPE_WWANPP,
    IF_TYPE_WWANPP2,
    NLM_CONNECTION_COST_FIXED,
    NLM_CONNECTION_COST_ROAMING,
    NLM_CONNECTION_COST_VARIABLE,
    IfOperStatusUp,
)
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.platform.windows_structures import MIB_IF_ROW2

COSTS = NLM_CONNECTION_COST_FIXED | NLM_CONNECTION_COST_VARIABLE | NLM_CONNECTION_COST_ROAMING
CARDS = frozenset({IF_TYPE_ETHERNET_CSMACD, IF_TYPE_IEEE80211, IF_TYPE_WWANPP, IF_TYPE_WWANPP2})
IS_HARDWARE = 0x01
IS_FILTER = 0x02
"""Bits of InterfaceAndOperStatusFlags: HardwareInterface, FilterInterface."""
SHORTEST_S = 0.5
DISKS = r"\PhysicalDisk(_Total)\Disk Bytes/sec"


class Card(NamedTuple):
    """One network interface."""

    luid: int
    kind: int
    flags: int
    up: bool
    moved_bytes: int


def card_of(row: MIB_IF_ROW2) -> Card:
    return Card(
        row.InterfaceLuid,
        row.Type,
        row.InterfaceAndOperStatusFlags,
        row.OperStatus == IfOperStatusUp,
        row.InOctets + row.OutOctets,
    )


def moved_between(before: Iterable[Card], after: Iterable[Card]) -> int:
    """Bytes through hardware; what goes through tunnels, bridges and filters goes through a card as well."""
    known = {card.luid: card.moved_bytes for card in before}
    return sum(
        max(0, card.moved_bytes - known[card.luid])
        for card in after
        if card.luid in known
        and card.kind in CARDS
        and card.flags & IS_HARDWARE
        and not card.flags & IS_FILTER
    )


def total(values: list[tuple[str, float]] | None) -> float | None:
    """Of a counter's instances; None: not told."""
    return None if not values else sum(value for _, value in values)


class WindowsTraffic(WindowsProbe[Traffic]):
    """Windows counts neither disk nor network use by process, so while guests run neither can be told: their use would count as
    the owner's, or the owner's as theirs."""

    fact = "traffic"
    back_end = "GetIfTable2 and PhysicalDisk"
    better = "while guests run, disks and network are not told: Windows does not count them by process"
    every_s = 5.0

    def __init__(
        self,
        *,
        cards: Callable[[], list[Card]],
        disk_bytes_per_s: Callable[[], float | None],
        guests: Callable[[], int],
        sent_bytes: Callable[[], float],
        close: Callable[[], None],
    ) -> None:
        """``disk_bytes_per_s``: since its last call; None: not told, or the first. ``cards`` may raise OSError."""
        super().__init__()
        self._cards = cards
        self._disk_bytes_per_s = disk_bytes_per_s
        self._guests = guests
        self._sent_bytes = sent_bytes
        self._close = close
        self._before: tuple[float, list[Card], float] | None = None

    def look(self, now_s: float) -> Reading[Traffic]:
        alone = self._guests() == 0
        cards, disk, sent = self._cards(), self._disk_bytes_per_s(), self._sent_bytes()
        before, self._before = self._before, (now_s, cards, sent)
        network = None
        if before is not None and now_s - before[0] >= SHORTEST_S:
            moved = moved_between(before[1], cards) - (sent - before[2])
            network = max(0.0, moved) / (now_s - before[0])
        traffic = Traffic(
            disk_bytes_per_s=disk if alone else None, network_bytes_per_s=network if alone else None
        )
        return Reading(value=traffic, source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("How much moves over disks and network, while no guest runs.",)

    def close(self) -> None:
        self._close()


class WindowsNetwork(WindowsProbe[Network]):
    fact = "network"
    back_end = "INetworkCostManager"
    every_s = 30.0

    def __init__(self, cost: Callable[[], int | None]) -> None:
        """``cost``: NLM_CONNECTION_COST; None: there is no such service. May raise OSError."""
        super().__init__()
        self._cost = cost

    def look(self, now_s: float) -> Reading[Network]:
        del now_s
        cost = self._cost()
        if cost is None:
            return Reading[Network].untold(self.back_end, "Windows does not tell what the network costs")
        return Reading(value=Network(metered=bool(cost & COSTS)), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Whether the network is metered.",)


if sys.platform == "win32":
    from idle_sense.platform import windows_com as com
    from idle_sense.platform import windows_libraries as libraries

    def cost() -> int | None:
        """Of the connection to the internet. Raises OSError."""
        with com.apartment():
            try:
                manager = com.create("NetworkListManager", "INetworkCostManager")
            except com.ComError:
                return None
            with manager:
                told = ctypes.c_uint32()
                manager.call("INetworkCostManager.GetCost", ctypes.byref(told), None)
                return told.value

    def cards() -> list[Card]:
        """Raises OSError."""
        table = ctypes.c_void_p()
        status = libraries.iphlpapi().GetIfTable2(ctypes.byref(table))
        if status != 0 or table.value is None:
            raise ctypes.WinError(status)
        try:
            count = ctypes.c_uint32.from_address(table.value).value
            first = table.value + ctypes.alignment(MIB_IF_ROW2)
            return [card_of(row) for row in (MIB_IF_ROW2 * count).from_address(first)]
        finally:
            libraries.iphlpapi().FreeMibTable(table)
