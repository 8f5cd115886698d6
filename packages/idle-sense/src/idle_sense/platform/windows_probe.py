"""What the probes of Windows have in common: a call that fails is a missing reading with its words."""

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from idle_sense.facts import Reading
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability, Verified

T = TypeVar("T")

ADVICE = "see idle-sense doctor, and report what it prints"


class WindowsProbe(Polled, Generic[T]):
    """One fact, asked aside: most of these calls end in a service of Windows, which may hang."""

    fact: ClassVar[str] = ""
    back_end: ClassVar[str] = ""
    better: ClassVar[str] = ""
    """What to do for a better answer."""
    verified: ClassVar[Verified] = "signature-only"
    topic: ClassVar[Topic | None] = None
    """The events that make a look worth it."""
    slow: bool = True

    def __init__(self, events: Events | None = None) -> None:
        """``events``: None where there are none."""
        self._events = events
        self._wake: Callable[[], None] | None = None
        self._last: Reading[T] | None = None

    def look(self, now_s: float) -> Reading[T]:
        """The fact now. May raise OSError."""
        raise NotImplementedError

    def read(self, now_s: float) -> Reading[T]:
        try:
            self._last = self.look(now_s)
        except OSError as error:
            self._last = Reading[T].missing(self.back_end, str(error), ADVICE)
        return self._last

    def capability(self) -> Capability:
        reading = self._last
        told = reading is None or reading.value is not None
        return Capability(
            probe=self.fact,
            back_end=self.back_end if reading is None or told else f"{self.back_end}: {reading.problem}",
            verified=self.verified,
            serves=told,
            advice=self.better if reading is None or told else reading.advice,
            event=self.event,
        )

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
