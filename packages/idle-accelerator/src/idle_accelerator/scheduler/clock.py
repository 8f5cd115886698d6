"""The scheduler's time: starts from the wall clock, then only follows the monotonic one.

A wall clock that jumps, in either direction, neither ends leases nor keeps dead ones alive.
"""

import time


class SteadyClock:
    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch, never going backwards while the process lives."""
        return time.monotonic() + self._offset_s
