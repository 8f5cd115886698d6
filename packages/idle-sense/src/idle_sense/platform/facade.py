"""What each operating system's file offers; the rest of the library knows no system by name."""

from typing import Protocol

from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import MemoryUse, Reading, Seat, Terminal, Verified


class SeatReader(Protocol):
    """Reads the idle time of every place where somebody can sit."""

    @property
    def name(self) -> str: ...

    @property
    def verified(self) -> Verified: ...

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        """Bounded: a display server that never answers costs 50 ms at most, and yields a reading that grows old."""
        ...

    def describe(self) -> tuple[str, ...]: ...

    def close(self) -> None: ...


class TerminalReader(Protocol):
    """Reads the idle time of every terminal."""

    @property
    def name(self) -> str: ...

    @property
    def verified(self) -> Verified: ...

    def read(self, now_s: float, guests: GuestLedger) -> Reading[tuple[Terminal, ...]]: ...


class System(Processes, Protocol):
    """One operating system."""

    @property
    def name(self) -> str: ...

    @property
    def verified(self) -> Verified: ...

    def suspended_s(self) -> float:
        """How long the machine has slept since it started; 0.0 where the system does not tell."""
        ...

    def cpu_times_s(self) -> tuple[float, float]:
        """(busy, all) processor time since the start, over all processors. Waiting for a disk, and what other virtual
        machines take, is not busy."""
        ...

    def memory(self) -> MemoryUse: ...

    def seats(self, guests: GuestLedger) -> SeatReader: ...

    def terminals(self) -> TerminalReader | None:
        """None: this system has none that people type into."""
        ...
