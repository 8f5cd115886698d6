"""A wait for the agent that no signal can slip past."""

import os
import signal
import sys

from idle_accelerator.agent.workloads.inside.descriptors import away

if sys.platform != "win32":
    import select


class Bell:
    """A signal that comes just before a blocking read does not interrupt it, and its handler would wait for the agent's next
    word. So signals also write into a pipe, and the wait is for both."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is what to wait for."""
        self._descriptor = descriptor
        if sys.platform != "win32":
            rings, rung = os.pipe()
            self._rings, self._rung = away(rings), away(rung)
            for end in (self._rings, self._rung):
                os.set_blocking(end, False)
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            self._poll.register(self._rings, select.POLLIN)

    def close(self) -> None:
        if sys.platform != "win32":
            os.close(self._rings)
            os.close(self._rung)

    def hang(self) -> None:
        """From now on signals ring. The user's code may have taken it down: asyncio has a bell of its own."""
        if sys.platform != "win32":
            signal.set_wakeup_fd(self._rung, warn_on_full_buffer=False)

    def wait(self) -> None:
        """Until the descriptor can be read, or is at its end. Handlers of signals run meanwhile."""
        if sys.platform != "win32":
            while True:
                ready = [descriptor for descriptor, _ in self._poll.poll()]
                if self._rings in ready:
                    os.read(self._rings, 4096)
                if self._descriptor in ready:
                    return
