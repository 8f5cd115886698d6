"""The wish to stop: Ctrl-C, SIGTERM, a closed terminal. Noted, never thrown into the middle of something."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Self, TypeVar

T = TypeVar("T")
_TICK_S = 0.05


class Stopped(Exception):
    """Somebody wants us to stop; raised only where ``StopWish.check`` stands."""


class StopWish:
    """Takes the signals that ask this process to stop, for as long as it is entered."""

    def __init__(self) -> None:
        self.times = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]  # as signal.signal gave it

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.times += 1

    @property
    def hurried(self) -> bool:
        """It was wished more than once."""
        return self.times > 1

    def check(self) -> None:
        if self.times:
            raise Stopped

    def pause(self, seconds: float, watch: Callable[[], None] = lambda: None) -> None:
        """Sleeps; raises Stopped at the wish, and whatever ``watch`` raises."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            watch()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_TICK_S, left_s))

    def run(self, work: Callable[[], T], watch: Callable[[], None]) -> T:
        """Runs ``work`` in a thread of its own, so that it can be left alone when Stopped comes or ``watch`` raises."""
        results: list[T] = []
        errors: list[BaseException] = []

        def target() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
                errors.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        while thread.is_alive():
            self.pause(_TICK_S, watch)
        if errors:
            raise errors[0]
        return results[0]
