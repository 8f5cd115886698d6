"""A probe whose system call may be slow, asked in a thread of its own, so that the monitor never waits for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from idle_sense.probes.bundle import Probe
from idle_sense.types import Capability, Reading

T = TypeVar("T")

FIRST_WAIT_S = 0.05


class Aside(Generic[T]):
    """Hands out the inner probe's last reading with its age, and starts a new look when that is due.

    A look that hangs keeps its thread, and no second one is started: the reading grows old, which the policy notices.
    """

    every_s = 0.0

    def __init__(self, probe: Probe[T], *, every_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._look_every_s = every_s
        self._now = now
        self._lock = threading.Lock()
        self._reading: Reading[T] | None = None
        self._read_at_s = 0.0
        self._begun_at_s: float | None = None
        self._done = threading.Event()

    def read(self, now_s: float) -> Reading[T]:
        """Within 50 ms at the first call, at once later."""
        del now_s  # the age of a reading is this probe's own affair
        first = self._begun_at_s is None
        with self._lock:
            due = first or (self._done.is_set() and self._now() - self._read_at_s >= self._look_every_s)
            if due:
                self._begun_at_s = self._now()
                self._done.clear()
                threading.Thread(target=self._look, name="idle-sense-aside", daemon=True).start()
        if first:
            self._done.wait(FIRST_WAIT_S)
        with self._lock:
            if self._reading is None:
                return Reading[T].missing(
                    self._probe.capability().back_end, "its first answer has not come yet", "wait a moment"
                )
            return self._reading.aged(self._now() - self._read_at_s)

    def capability(self) -> Capability:
        capability = self._probe.capability()
        return capability if self._reading is not None else replace(capability, serves=False)

    def describe(self) -> tuple[str, ...]:
        return self._probe.describe()

    def close(self) -> None:
        """A look that is under way ends by itself, or with the program."""

    def _look(self) -> None:
        at_s = self._now()
        try:
            reading = self._probe.read(at_s)
        except Exception as error:  # noqa: BLE001 - as in the monitor: a probe that fails is a fact
            reading = Reading[T].missing(
                self._probe.capability().back_end,
                f"{type(error).__name__}: {error}",
                "see idle-sense doctor",
            )
        with self._lock:
            self._reading = reading
            self._read_at_s = at_s
        self._done.set()
