"""No faster than its owner allows."""

import asyncio
import time


class Pace:
    """So many bytes a second over all that goes through here; None is no limit."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    async def take(self, byte_count: int) -> None:
        """Waits for its turn, in the order of the calls."""
        if self._bytes_per_s is None:
            return
        now_s = time.monotonic()
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + byte_count / self._bytes_per_s
        if begin_s > now_s:
            await asyncio.sleep(begin_s - now_s)
