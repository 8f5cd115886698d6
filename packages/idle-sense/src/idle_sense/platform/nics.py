"""What Linux's network interfaces have moved, each byte once, and which guests may have a part in it.

/proc/net/dev (proc_pid_net(5)) and sysfs. Interfaces of real devices count. Those built upon others (bridges, containers'
pairs, VPNs, VLANs, loopback) would show the same bytes again. Inside a container there is no real device: there its own
end of a pair counts.
"""

import os
import re
import time
from collections.abc import Collection, Iterable
from typing import NamedTuple

from idle_sense.platform.disks import rise

LAYOUT_HOLDS_S = 60.0
_VIRTUAL = re.compile(
    r"lo|(?:docker|veth|virbr|vnet|br|tun|tap|wg|ifb|dummy|bond|team|cni|flannel|cali|tailscale|zt|vmnet|sit|gre|erspan|ip6)"
    r"[-.\w]*"
)


class Nics:
    """Counters of network interfaces, and the choice of those that count."""

    def __init__(self, *, proc: str = "/proc", sys: str = "/sys") -> None:
        self._path = f"{proc}/net/dev"
        self._folder = f"{sys}/class/net"
        self._names: frozenset[str] = frozenset()
        self._chosen_at_s = 0.0
        self._counted: frozenset[str] = frozenset()

    def read(self) -> dict[str, int]:
        """Bytes in and out by name. Raises OSError where the system does not tell, ValueError for what makes no sense."""
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
            table = parsed(file.read())
        names = frozenset(table)
        now_s = time.monotonic()
        if names != self._names or now_s - self._chosen_at_s >= LAYOUT_HOLDS_S:
            self._names, self._chosen_at_s = names, now_s
            self._counted = frozenset(self._choose(names))
        return table

    @property
    def counted(self) -> frozenset[str]:
        return self._counted

    def _choose(self, names: Collection[str]) -> set[str]:
        real = {name for name in names if os.path.exists(f"{self._folder}/{name}/device")}  # noqa: PTH110
        if real:
            return real
        shown = {name for name in names if os.path.isdir(f"{self._folder}/{name}")}  # noqa: PTH112
        if shown == set(names):
            return {name for name in names if self._leads_out(name)}
        # This sysfs shows another network than /proc does.
        return {name for name in names if not _VIRTUAL.fullmatch(name)}

    def _leads_out(self, name: str) -> bool:
        """The near end of a pair whose other end is elsewhere."""
        folder = f"{self._folder}/{name}"
        try:
            parts = os.listdir(folder)  # noqa: PTH208
            with open(f"{folder}/ifindex", "rb") as index, open(f"{folder}/iflink", "rb") as link:  # noqa: PTH123
                paired = int(index.read()) != int(link.read())
        except (OSError, ValueError):
            return False
        return paired and not any(
            part.startswith("lower_") or part in ("bridge", "tun_flags", "bonding") for part in parts
        )


def parsed(text: bytes) -> dict[str, int]:
    """/proc/net/dev: two lines of headings, then ``name: BYTES packets errs drop fifo frame compressed multicast BYTES …``."""
    table: dict[str, int] = {}
    for line in text.splitlines()[2:]:
        name, colon, rest = line.rpartition(b":")
        fields = rest.split()
        if colon and len(fields) >= 9:
            table[name.strip().decode("utf-8", "replace")] = int(fields[0]) + int(fields[8])
    return table


def grown(now: dict[str, int], before: dict[str, int], counted: Collection[str]) -> int:
    """Bytes between two looks; an interface that came in between, or counts from 0 again, moved all that it shows."""
    return sum(rise(now.get(name, 0), before.get(name, 0)) for name in counted)


class GuestsNetwork(NamedTuple):
    shared: bool
    """Some guest may use this machine's own network, where nobody counts by process: what others move is not known."""
    apart_bytes: int
    """Moved since the last look by guests in networks of their own, which all of it passes on its way out."""


class NetworkOfGuests:
    """Which guests share this program's network namespace and have sockets, and what the others' namespaces moved."""

    def __init__(self, *, proc: str = "/proc") -> None:
        self._proc = proc
        self._talkers: set[tuple[int, int]] = set()
        """Process and the inode of its folder: a process that once had a network socket is believed to use it."""
        self._apart: dict[str, dict[str, int]] = {}

    def look(self, pids: Iterable[int]) -> GuestsNetwork:
        pids = tuple(pids)
        if not pids and not self._talkers:
            return GuestsNetwork(shared=False, apart_bytes=0)
        try:
            own = self._namespace("self")
        except OSError:
            # A kernel without network namespaces.
            return GuestsNetwork(shared=bool(pids), apart_bytes=0)
        talkers: set[tuple[int, int]] = set()
        spaces: dict[str, int] = {}
        shared = False
        for pid in pids:
            try:
                identity = (pid, os.stat(f"{self._proc}/{pid}").st_ino)  # noqa: PTH116 - in the loop
                space = self._namespace(pid)
                if space != own:
                    spaces.setdefault(space, pid)
                elif identity in self._talkers or self._has_network_socket(pid):
                    talkers.add(identity)
            except PermissionError:
                shared = True
            except OSError:
                # It ended meanwhile.
                continue
        # What ended since the last look had its part in what was moved since then.
        shared = shared or bool(talkers) or bool(self._talkers)
        self._talkers = talkers
        return GuestsNetwork(shared, self._moved_apart(spaces))

    def _moved_apart(self, spaces: dict[str, int]) -> int:
        moved = 0
        apart: dict[str, dict[str, int]] = {}
        for space, pid in spaces.items():
            try:
                with open(f"{self._proc}/{pid}/net/dev", "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
                    table = parsed(file.read())
            except (OSError, ValueError):
                continue
            table.pop("lo", None)
            before = self._apart.get(space)
            apart[space] = table
            # Of a network that is new to us nobody knows since when it counts.
            moved += 0 if before is None else grown(table, before, table)
        self._apart = apart
        return moved

    def _namespace(self, pid: int | str) -> str:
        return os.readlink(f"{self._proc}/{pid}/ns/net")  # noqa: PTH115 - in the loop

    def _has_network_socket(self, pid: int) -> bool:
        inodes: set[bytes] = set()
        folder = f"{self._proc}/{pid}/fd"
        for number in os.listdir(folder):  # noqa: PTH208 - in the loop
            try:
                target = os.readlink(f"{folder}/{number}")  # noqa: PTH115
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1].encode("ascii"))
        return bool(inodes) and not inodes <= self._local_sockets(pid)

    def _local_sockets(self, pid: int) -> set[bytes]:
        """Inodes of Unix sockets in the network namespace of the process: ``num refs protocol flags type state INODE path``."""
        with open(f"{self._proc}/{pid}/net/unix", "rb") as file:  # noqa: PTH123 - in the loop
            lines = file.read().splitlines()[1:]
        return {fields[6] for fields in (line.split(None, 7) for line in lines) if len(fields) >= 7}
