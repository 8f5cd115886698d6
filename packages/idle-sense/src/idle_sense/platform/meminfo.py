"""Memory of a Linux machine: what is available, and how long programs wait for it.

proc_meminfo(5); pressure stall information (kernel documentation ``accounting/psi``); proc_vmstat(5) where the kernel has
none of it.
"""

import time
from collections import deque
from collections.abc import Callable

from idle_sense.facts import MemoryUse
from idle_sense.platform.container import Container

QUICK_S = 4.0
"""``avg10`` needs 3 s of nothing but waiting to show it; the mean over this time shows 1 s of it."""
PAGE_WAIT_S = 1e-4
"""What a program waits for one page to come back from swap on a quick disk, at least."""


class Memory:
    def __init__(
        self,
        *,
        proc: str = "/proc",
        container: Container | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._container = container or Container()
        self._now = now
        self._waited: deque[tuple[float, float]] = deque()
        """When, and for how many seconds programs had waited until then."""

    def read(self) -> MemoryUse | None:
        """None: this kernel does not tell (MemAvailable came with 3.14). Raises OSError without /proc."""
        kilobytes: dict[bytes, int] = {}
        for line in self._text("meminfo").split(b"\n", 4)[:4]:
            name, _, rest = line.partition(b":")
            if name in (b"MemTotal", b"MemAvailable"):
                kilobytes[name] = int(rest.split()[0])
        if len(kilobytes) < 2:
            return None
        total, available = (kilobytes[name] * 1024 for name in (b"MemTotal", b"MemAvailable"))
        room = self._container.memory()
        if room is not None and room.limit_bytes < total:
            total, available = room.limit_bytes, min(available, room.left_bytes)
        return MemoryUse(total_bytes=total, available_bytes=available, stalled_ratio=self._stalled_ratio())

    def _stalled_ratio(self) -> float | None:
        """The share of the last 10 s, or of the last 4 s if that is more: a storm of swapping is seen within a second or two,
        and held on to for as long as the longer mean shows it."""
        try:
            some = self._text("pressure/memory").split(b"\n", 1)[0]
        except OSError:
            # Built without it, or switched off (psi=0).
            return self._swapping_ratio()
        fields = dict(field.split(b"=", 1) for field in some.split()[1:])
        quick = self._share_of_late(int(fields[b"total"]) / 1e6)
        return max(float(fields[b"avg10"]) / 100.0, quick)

    def _swapping_ratio(self) -> float | None:
        """From the pages that came back from swap: the least that programs have waited for them. None: not told either."""
        try:
            text = self._text("vmstat")
        except OSError:
            return None
        at = text.find(b"\npswpin ")
        if at < 0:
            return None
        return self._share_of_late(int(text[at + 8 : text.index(b"\n", at + 8)]) * PAGE_WAIT_S)

    def _share_of_late(self, waited_s: float) -> float:
        now_s = self._now()
        looks = self._waited
        if looks and (waited_s < looks[-1][1] or now_s < looks[-1][0]):
            looks.clear()
        looks.append((now_s, waited_s))
        while len(looks) > 2 and now_s - looks[1][0] >= QUICK_S:
            looks.popleft()
        passed_s = max(QUICK_S, now_s - looks[0][0])
        return min(1.0, (waited_s - looks[0][1]) / passed_s)

    def _text(self, name: str) -> bytes:
        with open(f"{self._proc}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
            return file.read()
