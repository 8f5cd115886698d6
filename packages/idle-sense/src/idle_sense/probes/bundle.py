"""What a probe is, and the set of them that a monitor reads."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability, Load, MemoryUse, Power, Reading, Seat, Terminal

T_co = TypeVar("T_co", covariant=True)


class Probe(Protocol[T_co]):
    """One fact. ``read`` and ``capability`` are called from one thread at a time."""

    @property
    def every_s(self) -> float:
        """How often a look is worth its cost; 0: at every sample."""
        ...

    def read(self, now_s: float) -> Reading[T_co]:
        """The fact now, within 50 ms. What cannot be read is a reading without a value; the monitor turns whatever
        this raises into one."""
        ...

    def capability(self) -> Capability: ...

    def describe(self) -> tuple[str, ...]:
        """In sentences, what this fact is on this machine."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Probes:
    """All facts that the policy looks at."""

    seats: Probe[tuple[Seat, ...]]
    terminals: Probe[tuple[Terminal, ...]]
    load: Probe[Load]
    memory: Probe[MemoryUse]
    power: Probe[Power]
    guests: GuestLedger = field(default_factory=GuestLedger)
    """Whose processor time the load probe does not count as the owner's."""

    def close(self) -> None:
        for probe in (self.seats, self.terminals, self.load, self.memory, self.power):
            probe.close()


def native_probes() -> Probes:
    """The probes of this operating system."""
    # Here and not at the top: the system's own file is imported only where it is used.
    from idle_sense import platform  # noqa: PLC0415
    from idle_sense.probes.aside import Aside  # noqa: PLC0415
    from idle_sense.probes.input import InputProbe  # noqa: PLC0415
    from idle_sense.probes.load import LoadProbe  # noqa: PLC0415
    from idle_sense.probes.power import PowerProbe  # noqa: PLC0415
    from idle_sense.probes.pressure import PressureProbe  # noqa: PLC0415
    from idle_sense.probes.session import TerminalProbe  # noqa: PLC0415

    system = platform.current()
    guests = GuestLedger()
    return Probes(
        seats=InputProbe(system, guests),
        terminals=TerminalProbe(system, guests),
        load=LoadProbe(system, guests),
        memory=PressureProbe(system),
        power=Aside(PowerProbe(), every_s=30.0),
        guests=guests,
    )
