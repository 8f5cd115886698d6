"""What a probe is, and the set of them that a monitor reads."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from idle_sense.facts import (
    Calls,
    GpuUse,
    Load,
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
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Probe(Protocol[T_co]):
    """One fact. ``read`` and ``capability`` are called from one thread at a time."""

    @property
    def every_s(self) -> float:
        """How often a look is worth its cost; 0: at every sample."""
        ...

    @property
    def slow(self) -> bool:
        """True: ``read`` may take longer than 50 ms, or for ever (drivers, firmware, registries). ``native_probes`` then puts
        it into an ``Aside``, so that ``read`` runs in a thread of its own every ``every_s``, and nobody waits for it."""
        ...

    def read(self, now_s: float) -> Reading[T_co]:
        """The fact now, within 50 ms. What cannot be read is a reading without a value; the monitor turns whatever
        this raises into one."""
        ...

    def capability(self) -> Capability: ...

    def describe(self) -> tuple[str, ...]:
        """In sentences, what this fact is on this machine."""
        ...

    def filenos(self) -> Collection[int]:
        """File descriptors (not on Windows) that get readable when the fact may have changed: the monitor waits for them
        and looks at once. ``read`` takes all that has arrived. They may be others after each ``read``."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """Before the first wait: for probes that hear of changes in a thread of their own, which calls ``wake``."""
        ...

    def close(self) -> None: ...


class Polled:
    """What a probe without events, words and belongings answers; for probes to inherit."""

    every_s: float = 0.0
    slow: bool = False

    @property
    def advice(self) -> str:
        """As of a platform's reader."""
        return ""

    @property
    def event(self) -> bool:
        """As of a platform's reader."""
        return False

    def describe(self) -> tuple[str, ...]:
        return ()

    def filenos(self) -> Collection[int]:
        return ()

    def listen(self, wake: Callable[[], None]) -> None:
        del wake

    def close(self) -> None:
        """Holds nothing."""


class Untold(Polled, Generic[T_co]):
    """A fact that this system has no way to tell."""

    def __init__(self, fact: str, why: str = "no back end on this system") -> None:
        self._fact = fact
        self._why = why

    def read(self, now_s: float) -> Reading[T_co]:
        del now_s
        return Reading[T_co].untold(self._fact, self._why)

    def capability(self) -> Capability:
        return Capability(
            probe=self._fact, back_end="none", verified="native", serves=False, advice=self._why
        )


@dataclass(frozen=True, kw_only=True)
class Probes:
    """All facts that the policy looks at. Those with a default decide nothing where no back end reads them."""

    seats: Probe[tuple[Seat, ...]]
    terminals: Probe[tuple[Terminal, ...]]
    load: Probe[Load]
    memory: Probe[MemoryUse]
    power: Probe[Power]
    sessions: Probe[tuple[Session, ...]] = field(
        default_factory=lambda: Untold[tuple[Session, ...]]("sessions")
    )
    traffic: Probe[Traffic] = field(default_factory=lambda: Untold[Traffic]("traffic"))
    gpus: Probe[tuple[GpuUse, ...]] = field(default_factory=lambda: Untold[tuple[GpuUse, ...]]("gpus"))
    calls: Probe[Calls] = field(default_factory=lambda: Untold[Calls]("calls"))
    media: Probe[Media] = field(default_factory=lambda: Untold[Media]("media"))
    screen: Probe[Screen] = field(default_factory=lambda: Untold[Screen]("screen"))
    thermal: Probe[Thermal] = field(default_factory=lambda: Untold[Thermal]("thermal"))
    network: Probe[Network] = field(default_factory=lambda: Untold[Network]("network"))
    guests: GuestLedger = field(default_factory=GuestLedger)
    """Whose processor time the load probe does not count as the owner's."""

    def __iter__(self) -> Iterator[Probe[object]]:
        """Each fact's, in the order of ``FACTS``."""
        return iter([getattr(self, fact) for fact in FACTS])

    def close(self) -> None:
        for probe in self:
            probe.close()


FACTS = (
    "seats",
    "terminals",
    "sessions",
    "calls",
    "load",
    "gpus",
    "traffic",
    "memory",
    "screen",
    "media",
    "power",
    "thermal",
    "network",
)
"""Fields of ``Probes`` and of ``Snapshot``."""


def native_probes(guests: GuestLedger | None = None) -> Probes:
    """The probes of this operating system. A probe that calls itself ``slow`` is asked aside; a fact for which the system's
    file returns None is untold."""
    # Here and not at the top: the system's own file is imported only where it is used.
    from idle_sense import platform  # noqa: PLC0415
    from idle_sense.probes.aside import Aside  # noqa: PLC0415
    from idle_sense.probes.input import InputProbe  # noqa: PLC0415
    from idle_sense.probes.load import LoadProbe  # noqa: PLC0415
    from idle_sense.probes.power import PowerProbe  # noqa: PLC0415
    from idle_sense.probes.pressure import PressureProbe  # noqa: PLC0415
    from idle_sense.probes.session import TerminalProbe  # noqa: PLC0415

    def placed(fact: str, probe: Probe[T] | None) -> Probe[T]:
        if probe is None:
            return Untold[T](fact)
        return Aside(probe, every_s=probe.every_s) if probe.slow else probe

    system = platform.current()
    guests = guests or GuestLedger()
    return Probes(
        seats=InputProbe(system, guests),
        terminals=TerminalProbe(system, guests),
        load=placed("load", LoadProbe(system, guests)),
        memory=placed("memory", PressureProbe(system)),
        power=placed("power", system.power() or PowerProbe()),
        sessions=placed("sessions", system.sessions(guests)),
        traffic=placed("traffic", system.traffic(guests)),
        gpus=placed("gpus", system.gpus(guests)),
        calls=placed("calls", system.calls(guests)),
        media=placed("media", system.media(guests)),
        screen=placed("screen", system.screen(guests)),
        thermal=placed("thermal", system.thermal()),
        network=placed("network", system.network()),
        guests=guests,
    )
