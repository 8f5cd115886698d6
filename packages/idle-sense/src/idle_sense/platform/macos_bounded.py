"""A question to the system that is asked in a thread of its own, and waited for only so long.

Unlike ``probes.aside.Aside``, which hands out what the look before found, this waits a moment for the present answer: what
is asked takes microseconds, unless the other side hangs.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

FIRST_BUDGET_S = 0.05
BUDGET_S = 0.02


class Answer(NamedTuple, Generic[T]):
    value: T
    age_s: float


class Bounded(Generic[T]):
    """``read`` costs 20 ms at most (50 ms at first), and once only: a question that hangs is not waited for again."""

    def __init__(self, ask: Callable[[], T], *, now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now = now
        self._changed = threading.Condition()
        self._asking = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._at_s: float | None = None
        self._asked_at_s = 0.0

    def read(self) -> Answer[T] | None:
        """The last answer and its age; None: there was none yet. Raises what the question raised last."""
        with self._changed:
            if not self._asking and not self._closed:
                first = self._thread is None
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._answer, name="idle-sense-bounded", daemon=True
                    )
                    self._thread.start()
                self._asking = True
                self._asked_at_s = self._now()
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._asking, FIRST_BUDGET_S if first else BUDGET_S)
            if self._error is not None:
                raise self._error
            if self._at_s is None or self._value is None:
                return None
            return Answer(self._value, max(0.0, self._now() - self._at_s))

    def close(self) -> None:
        """Ends the thread; one whose question hangs ends with the answer, or with the program."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _answer(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asking or self._closed)
                if self._closed:
                    return
            value: T | None = None
            error: Exception | None = None
            try:
                value = self._ask()
            except Exception as raised:  # noqa: BLE001 - handed to whoever reads
                error = raised
            with self._changed:
                self._value, self._error = (self._value, error) if error else (value, None)
                if error is None:
                    self._at_s = self._asked_at_s
                self._asking = False
                self._changed.notify_all()
