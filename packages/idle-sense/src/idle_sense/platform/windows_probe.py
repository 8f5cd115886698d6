"""What the probes of Windows have in common: the events that make a look worth it."""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from idle_sense.platform.windows_events import Events, Topic
from idle_sense.probes.asked import Asked

T = TypeVar("T")


class WindowsProbe(Asked[T]):
    topic: ClassVar[Topic | None] = None
    """The events that make a look worth it."""

    def __init__(self, events: Events | None = None) -> None:
        """``events``: None where there are none."""
        super().__init__()
        self._events = events
        self._wake: Callable[[], None] | None = None

    @property
    def event(self) -> bool:
        """Before anybody listens: whether there will be events."""
        if self._events is None or self.topic is None:
            return False
        return self._wake is None or self.topic in self._events.hears

    def listen(self, wake: Callable[[], None]) -> None:
        if self._events is not None and self.topic is not None:
            self._wake = wake
            self._events.subscribe(self.topic, wake)

    def close(self) -> None:
        if self._events is not None and self.topic is not None and self._wake is not None:
            self._events.unsubscribe(self.topic, self._wake)
            self._wake = None
