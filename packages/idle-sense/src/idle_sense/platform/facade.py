"""What each operating system's file offers; the rest of the library knows no system by name."""

from collections.abc import Callable, Collection
from typing import Protocol

from idle_sense.facts import (
    Calls,
    GpuUse,
    Media,
    MemoryUse,
    Network,
    Power,
    Reading,
    Screen,
    Seat,
    Session,
    Terminal,
    Thermal,
    Traffic,
)
from idle_sense.probes.bundle import Probe
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Verified


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

    @property
    def advice(self) -> str:
        """What would make it see more than it does; empty: nothing."""
        ...

    @property
    def event(self) -> bool:
        """Whether input is heard of at once without ``filenos``, once somebody listens."""
        ...

    def filenos(self) -> Collection[int]:
        """As of a probe: file descriptors that get readable when somebody used a keyboard or a mouse."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """As of a probe: ``wake`` is called, from any thread, when somebody did."""
        ...

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

    def confined_cpu_times_s(self) -> tuple[float, float] | None:
        """The same of the part of the machine that a container gives its programs; None: this program is not confined."""
        ...

    def memory(self) -> MemoryUse: ...

    def seats(self, guests: GuestLedger) -> SeatReader: ...

    def terminals(self) -> TerminalReader | None:
        """None: this system has none that people type into."""
        ...

    # One method for each further fact. None: this system has no way to tell it.

    def sessions(self, guests: GuestLedger) -> Probe[tuple[Session, ...]] | None: ...

    def traffic(self, guests: GuestLedger) -> Probe[Traffic] | None: ...

    def gpus(self, guests: GuestLedger) -> Probe[tuple[GpuUse, ...]] | None: ...

    def calls(self, guests: GuestLedger) -> Probe[Calls] | None: ...

    def media(self, guests: GuestLedger) -> Probe[Media] | None: ...

    def screen(self, guests: GuestLedger) -> Probe[Screen] | None: ...

    def power(self) -> Probe[Power] | None:
        """None: psutil tells it."""
        ...

    def thermal(self) -> Probe[Thermal] | None: ...

    def network(self) -> Probe[Network] | None: ...
