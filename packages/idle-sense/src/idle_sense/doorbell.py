"""What a waiting thread is woken by: somebody who rings, or a file descriptor that gets readable."""

import os
import select
import sys
import threading
from collections.abc import Collection
from typing import Protocol


class Doorbell(Protocol):
    def ring(self) -> None:
        """From any thread. Once rung, it rings until ``take``."""
        ...

    @property
    def rung(self) -> bool: ...

    def take(self) -> bool:
        """Whether it was rung; it is silent then."""
        ...

    def wait(self, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
        """Until it rings, one of ``filenos`` is readable or broken, or the time is over: those that are."""
        ...

    def close(self) -> None:
        """Rings no more."""
        ...


def doorbell() -> Doorbell:
    """The one of this system."""
    if sys.platform == "win32":
        return EventDoorbell()
    return PipeDoorbell()


class EventDoorbell:
    """Where there is nothing that waits for pipes and sockets alike: file descriptors are not waited for."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    @property
    def rung(self) -> bool:
        return self._event.is_set()

    def take(self) -> bool:
        rung = self._event.is_set()
        self._event.clear()
        return rung

    def wait(self, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
        del filenos
        self._event.wait(max(0.0, timeout_s))
        return frozenset()

    def close(self) -> None:
        """Holds nothing."""


if sys.platform != "win32":

    class PipeDoorbell:
        """poll(2) on a pipe to oneself, beside all that is to be waited for."""

        def __init__(self) -> None:
            self._reads, self._writes = os.pipe()
            os.set_blocking(self._reads, False)
            os.set_blocking(self._writes, False)
            self._lock = threading.Lock()
            self._rung = False
            self._closed = False

        def ring(self) -> None:
            with self._lock:
                if not self._rung and not self._closed:
                    self._rung = True
                    os.write(self._writes, b"!")

        @property
        def rung(self) -> bool:
            return self._rung

        def take(self) -> bool:
            with self._lock:
                rung, self._rung = self._rung, False
                if rung and not self._closed:
                    os.read(self._reads, 16)
                return rung

        def wait(self, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
            poll = select.poll()
            poll.register(self._reads, select.POLLIN)
            for fileno in filenos:
                poll.register(fileno, select.POLLIN)
            # What hung up, failed or is no descriptor any more counts as readable: its probe finds out.
            ready = poll.poll(max(0.0, timeout_s) * 1000.0)
            return frozenset(fileno for fileno, _ in ready if fileno != self._reads)

        def close(self) -> None:
            with self._lock:
                if not self._closed:
                    self._closed = True
                    os.close(self._reads)
                    os.close(self._writes)
