"""What probes that ask the system by calls have in common: a call that fails is a missing reading with its words."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from idle_sense.facts import Reading
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability, Verified

T = TypeVar("T")

ADVICE = "see idle-sense doctor, and report what it prints"


class Asked(Polled, ABC, Generic[T]):
    """One fact, asked aside: such calls end in other processes and in drivers, which may hang."""

    fact: ClassVar[str] = ""
    back_end: ClassVar[str] = ""
    better: ClassVar[str] = ""
    """What to do for a better answer."""
    verified: ClassVar[Verified] = "signature-only"
    slow: bool = True

    def __init__(self) -> None:
        self._last: Reading[T] | None = None

    @abstractmethod
    def look(self, now_s: float) -> Reading[T]:
        """The fact now. May raise OSError."""

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
