"""Which programs hold a camera (``/dev/video*``).

Three things tell, each cheap by itself: inotify says when a camera is opened or closed, where this user may read it; the use
count of its driver says whether anybody has it open at all, to everybody; and only when one of these has changed are the open
files of all processes looked through, for who it is. That look takes milliseconds: read through ``Aside``.

What a sound and video server holds without streaming does not count: PipeWire's session manager keeps cameras open to know
what they can do. A program that streams has the camera's buffers mapped, or holds them as DMA buffers.
"""

import os
import re
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from idle_sense.facts import Reading
from idle_sense.platform.inotify import IN_CLOSE, IN_OPEN, Inotify
from idle_sense.platform.programs import PROC, own_uid, program
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability

EVERY_S = 5.0
"""How often it is worth a look when nothing is told."""
SETTLE_S = 0.05
"""After a change: a program that only asks what a camera can do has closed it again by then."""
BLIND_EVERY_S = 30.0
"""How often open files are looked through where neither inotify nor a use count tells of changes."""
KEEPERS = frozenset({"wireplumber", "pipewire", "pipewire-media-"})
"""Programs that keep cameras open without using them, by /proc/PID/comm."""
_NO_CAMERA = re.compile(r"codec|decoder|encoder|vpu|isp-stat|m2m", re.IGNORECASE)
"""Names of video devices that convert and do not look (bcm2835-codec-decode, hantro-vpu-dec)."""


class Places(NamedTuple):
    """Where to look; tests look elsewhere."""

    devices: str = "/dev"
    classes: str = "/sys/class/video4linux"
    modules: str = "/sys/module"
    proc: str = PROC


class _Holder(NamedTuple):
    pid: int
    name: str
    handles: int
    uses: bool
    """It streams, or is a program that opens cameras only to use them."""


class Cameras(Polled):
    def __init__(
        self,
        *,
        is_guest: Callable[[int], bool] = lambda _pid: False,
        places: Places | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        sees_all: bool | None = None,
    ) -> None:
        """``sees_all``: whether open files of every user's processes can be read, as root's program can."""
        self._is_guest = is_guest
        self._places = places or Places()
        self._now = now
        self._sleep = sleep
        self._sees_all = own_uid() == 0 if sees_all is None else sees_all
        self._inotify: Inotify | None = None
        self._cameras: tuple[str, ...] = ()
        self._unwatched: tuple[str, ...] = ()
        self._count: int | None = None
        self._holders: tuple[_Holder, ...] = ()
        self._scanned_at_s: float | None = None

    def read(self, now_s: float) -> Reading[tuple[str, ...]]:
        """Programs that use a camera; ``another user's program`` where there is one that cannot be named."""
        del now_s
        changed = self._look_around()
        if not self._cameras:
            self._holders = ()
            return Reading(value=(), source="cameras")
        if self._inotify is not None and self._inotify.taken():
            changed = True
            self._sleep(SETTLE_S)
            self._inotify.taken()
        count = self._use_count()
        if count == 0:
            self._count, self._holders = 0, ()
            return Reading(value=(), source="cameras")
        # Keepers begin and end to use one without opening or closing it.
        looked = (self._holder(str(one.pid)) if one.name in KEEPERS else one for one in self._holders)
        self._holders = tuple(one for one in looked if one is not None)
        if changed or count != self._count or self._scan_is_due():
            self._count = count
            self._holders = self._scan()
            self._scanned_at_s = self._now()
        return self._judged(count)

    def filenos(self) -> Collection[int]:
        return () if self._inotify is None else self._inotify.filenos()

    def capability(self) -> Capability:
        advice = ""
        if self._unwatched and not self._sees_all:
            advice = (
                f"this user may not read {', '.join(self._unwatched)}: add it to the group video to hear at once when a "
                "camera is opened"
            )
        names = ", ".join(self._cameras) or "no camera"
        return Capability(
            probe="cameras",
            back_end=f"open handles of {names}",
            verified="emulated",
            serves=True,
            advice=advice,
        )

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._cameras = ()

    def _look_around(self) -> bool:
        """Finds cameras that came or went; whether any did."""
        try:
            names = os.listdir(self._places.classes)  # noqa: PTH208 - plain strings
        except OSError:
            names = []
        cameras = tuple(
            sorted(name for name in names if re.fullmatch(r"video\d+", name) and self._looks(name))
        )
        if cameras == self._cameras:
            return False
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = Inotify() if cameras else None
        self._unwatched = tuple(
            path
            for path in (f"{self._places.devices}/{name}" for name in cameras)
            if self._inotify is not None and not self._inotify.watch(path, IN_OPEN | IN_CLOSE)
        )
        self._cameras = cameras
        return True

    def _looks(self, name: str) -> bool:
        return not _NO_CAMERA.search(self._line(f"{self._places.classes}/{name}/name"))

    def _scan_is_due(self) -> bool:
        folders = (f"{self._places.proc}/{one.pid}" for one in self._holders)
        if self._scanned_at_s is None or not all(os.path.exists(folder) for folder in folders):  # noqa: PTH110
            return True
        blind = bool(self._unwatched) and self._count is None
        return blind and self._now() - self._scanned_at_s >= BLIND_EVERY_S

    def _use_count(self) -> int | None:
        """How many handles of these cameras' drivers are open: what the kernel counts for a loaded driver, less the drivers
        that build on it. None: a driver that is part of the kernel has no such count."""
        total = 0
        modules: set[str] = set()
        for name in self._cameras:
            link = f"{self._places.classes}/{name}/device/driver/module"
            module = os.path.basename(os.path.realpath(link))  # noqa: PTH119
            count = self._line(f"{self._places.modules}/{module}/refcnt")
            if not os.path.exists(link) or not count.isdigit():  # noqa: PTH110
                return None
            if module not in modules:
                modules.add(module)
                try:
                    builders = len(os.listdir(f"{self._places.modules}/{module}/holders"))  # noqa: PTH208
                except OSError:
                    builders = 0
                total += max(0, int(count) - builders)
        return total

    def _scan(self) -> tuple[_Holder, ...]:
        """All processes that have a camera open, as far as this user may see."""
        found = (self._holder(entry) for entry in os.listdir(self._places.proc) if entry.isdigit())  # noqa: PTH208
        return tuple(one for one in found if one is not None)

    def _holder(self, pid: str) -> _Holder | None:
        wanted = frozenset(f"{self._places.devices}/{name}" for name in self._cameras)
        links = self._links(pid)
        # A camera's /dev/media* belongs to its driver as well, and counts there; nobody looks through that.
        opened = sum(link in wanted for link in links)
        handles = opened + sum(link.startswith("/dev/media") for link in links)
        if not handles:
            return None
        found = program(int(pid), self._places.proc)
        name = f"process {pid}" if found is None else found.name
        uses = opened > 0 and (name not in KEEPERS or self._streams(pid, links, wanted))
        return _Holder(int(pid), name, handles, uses)

    def _links(self, pid: str) -> list[str]:
        folder = f"{self._places.proc}/{pid}/fd"
        links: list[str] = []
        try:
            numbers = os.listdir(folder)  # noqa: PTH208
        except OSError:
            return links
        for number in numbers:
            try:
                links.append(os.readlink(f"{folder}/{number}"))  # noqa: PTH115 - thousands of them
            except OSError:
                continue
        return links

    def _streams(self, pid: str, links: list[str], wanted: frozenset[str]) -> bool:
        if any(link.startswith("/dmabuf") for link in links):
            return True
        try:
            with open(f"{self._places.proc}/{pid}/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return any(line.rstrip("\n").split(" ")[-1] in wanted for line in file)
        except OSError:
            return True

    def _judged(self, count: int | None) -> Reading[tuple[str, ...]]:
        names = {one.name for one in self._holders if one.uses and not self._is_guest(one.pid)}
        seen = sum(one.handles for one in self._holders)
        if not self._sees_all and not names:
            if count is not None and count > seen and not self._asleep():
                names.add("another user's program")
            elif count is None and not self._asleep():
                problem = "other users' programs cannot be seen, and the camera's driver counts none"
                advice = "run this program as root, or unplug the camera"
                return Reading[tuple[str, ...]].missing("cameras", problem, advice)
        return Reading(value=tuple(sorted(names)), source="cameras")

    def _asleep(self) -> bool:
        """Whether all cameras are switched off to save power: nobody looks through one that is."""
        return all(
            self._line(f"{self._places.classes}/{name}/device/power/runtime_status") == "suspended"
            or self._line(f"{self._places.classes}/{name}/device/../power/runtime_status") == "suspended"
            for name in self._cameras
        )

    def _line(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return file.readline().strip()
        except OSError:
            return ""
