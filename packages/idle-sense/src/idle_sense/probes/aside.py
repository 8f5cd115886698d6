"""A probe whose system call may be slow, asked in a thread of its own, so that the monitor never waits for it."""

import select
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Generic, TypeVar

from idle_sense.facts import Reading
from idle_sense.probes.bundle import Polled, Probe
from idle_sense.types import Capability

T = TypeVar("T")

FIRST_WAIT_S = 0.05


class Aside(Polled, Generic[T]):
    """Hands out the inner probe's last reading with its age, and starts a new look when that is due, when one of its file
    descriptors has become readable, or when it has called ``wake``.

    A look that hangs keeps its thread, and no second one is started: the reading grows old, which the policy notices.
    A look that finds another value wakes the monitor.
    """

    def __init__(self, probe: Probe[T], *, every_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._look_every_s = every_s
        self._now = now
        self._lock = threading.Lock()
        self._reading: Reading[T] | None = None
        self._read_at_s = 0.0
        self._begun_at_s: float | None = None
        self._done = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._stirred = False
        self._closed = False

    def read(self, now_s: float) -> Reading[T]:
        """Within 50 ms at the first call, at once later."""
        del now_s  # the age of a reading is this probe's own affair
        first = self._begun_at_s is None
        with self._lock:
            due = first or (self._done.is_set() and (self._is_old() or self._stirred or self._is_readable()))
            if due and not self._closed:
                self._begun_at_s = self._now()
                self._stirred = False
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

    def filenos(self) -> Collection[int]:
        """The inner probe's, but for the time of a look, which takes what has arrived in a thread of its own."""
        return self._probe.filenos() if self._done.is_set() else ()

    def listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._probe.listen(self._stir)

    def close(self) -> None:
        """A look that is under way ends by itself, or with the program; it closes the inner probe then."""
        with self._lock:
            self._closed = True
            under_way = self._begun_at_s is not None and not self._done.is_set()
        if not under_way:
            self._probe.close()

    def _stir(self) -> None:
        """The inner probe has heard of a change: the monitor is woken, and its next question starts a look."""
        self._stirred = True
        if self._wake is not None:
            self._wake()

    def _is_old(self) -> bool:
        return self._now() - self._read_at_s >= self._look_every_s

    def _is_readable(self) -> bool:
        filenos = self._probe.filenos()
        if not filenos:
            return False
        try:
            return bool(select.select(list(filenos), [], [], 0.0)[0])
        except (OSError, ValueError):
            # It was closed meanwhile, or is too large a number for select(2): a look finds out.
            return True

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
            before = self._reading
            self._reading = reading
            self._read_at_s = at_s
            self._done.set()
            closed = self._closed
        if closed:
            self._probe.close()
        elif self._wake is not None and (before is None or before.value != reading.value):
            self._wake()
