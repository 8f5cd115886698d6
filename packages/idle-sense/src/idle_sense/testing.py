"""Scripted probes and clock: test what you build on idle-sense without a keyboard, a desktop or waiting.

>>> from idle_sense import Monitor, Policy, State
>>> from idle_sense.testing import ScriptedClock, ScriptedProbes
>>> clock, probes = ScriptedClock(), ScriptedProbes()
>>> monitor = Monitor(Policy.desktop(), clock=clock, probes=probes.probes)
>>> probes.input_idle_s = 4.0
>>> monitor.check().state is State.BUSY
True
"""

from collections.abc import Callable, Collection
from typing import Generic, TypeVar, cast

from idle_sense.doorbell import Doorbell
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
from idle_sense.probes.bundle import Polled, Probes
from idle_sense.types import Capability

T = TypeVar("T")


class ScriptedClock:
    """Time moves when told to. A monitor's thread that waits on it goes on with the next ``advance``."""

    def __init__(self, *, monotonic_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s
        self._suspended_s = 0.0

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def suspended_s(self) -> float:
        return self._suspended_s

    def wait(self, bell: Doorbell, filenos: Collection[int], timeout_s: float) -> frozenset[int]:
        """Until ``bell`` rings, a descriptor is readable, or time was moved that far. A real wait, in steps of 10 ms at most."""
        until_s = self._monotonic_s + timeout_s
        while self._monotonic_s < until_s:
            readable = bell.wait(filenos, 0.01)
            if readable or bell.rung:
                return readable
        return frozenset()

    def advance(self, seconds: float) -> None:
        self._monotonic_s += seconds
        self._wall_s += seconds

    def sleep_machine(self, seconds: float) -> None:
        """The machine is suspended: the wall clock goes on, monotonic time stands, as on Linux."""
        self._wall_s += seconds
        self._suspended_s += seconds

    def set_wall(self, by_s: float) -> None:
        """Somebody sets the time of day."""
        self._wall_s += by_s


class ScriptedProbe(Polled, Generic[T]):
    """Answers what ``answer`` returns, and raises what it raises. ``filenos_now`` are the descriptors that it offers to be
    waited for; ``wake`` is what the monitor gave it to call."""

    def __init__(self, name: str, answer: Callable[[], Reading[T]]) -> None:
        self._name = name
        self._answer = answer
        self.closed = False
        self.filenos_now: tuple[int, ...] = ()
        self.wake: Callable[[], None] | None = None

    def read(self, now_s: float) -> Reading[T]:
        del now_s
        return self._answer()

    def capability(self) -> Capability:
        return Capability(probe=self._name, back_end="scripted", verified="emulated", serves=True)

    def describe(self) -> tuple[str, ...]:
        return (f"Scripted {self._name}.",)

    def filenos(self) -> Collection[int]:
        return self.filenos_now

    def listen(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def close(self) -> None:
        self.closed = True


class ScriptedProbes:
    """A machine made of attributes: set them, and the next sample sees them. It starts idle for a day, with everything told and
    calm; None for a fact makes it one that this system does not tell.

    ``failing`` names facts that cannot be read (those of ``FACTS``; ``input`` for ``seats``), ``ages_s`` gives readings an age,
    ``raising`` makes a probe raise.
    """

    def __init__(self) -> None:
        self.input_idle_s: float | None = 86400.0
        """Of the one seat ``:0``; None: a machine without a display."""
        self.other_seats: dict[str, float | None] = {}
        """Idle times of further seats (gamepads, remote desktops) by name; None: one that cannot be read."""
        self.terminals: dict[str, float] = {}
        """Idle times by name."""
        self.others_ratio: float | None = 0.0
        self.memory = MemoryUse(total_bytes=16 << 30, available_bytes=12 << 30, stalled_ratio=0.0)
        self.power: Power | None = Power(battery=False, on_mains=None)
        self.sessions: tuple[Session, ...] | None = ()
        self.traffic: Traffic | None = Traffic(disk_bytes_per_s=0.0, network_bytes_per_s=0.0)
        self.gpus: tuple[GpuUse, ...] | None = ()
        self.calls: Calls | None = Calls()
        self.media: Media | None = Media()
        self.screen: Screen | None = Screen()
        self.thermal: Thermal | None = Thermal(hottest_c=45.0, limit_c=105.0, sensor="scripted sensor")
        self.network: Network | None = Network(metered=False)
        self.failing: set[str] = set()
        self.raising: dict[str, Exception] = {}
        self.ages_s: dict[str, float] = {}
        self.probes = Probes(
            seats=ScriptedProbe("input", lambda: self._reading("input", self._seats())),
            terminals=ScriptedProbe("terminals", lambda: self._reading("terminals", self._terminals())),
            load=ScriptedProbe("load", lambda: self._reading("load", Load(others_ratio=self.others_ratio))),
            memory=ScriptedProbe("memory", lambda: self._reading("memory", self.memory)),
            power=ScriptedProbe("power", lambda: self._told("power", self.power)),
            sessions=ScriptedProbe("sessions", lambda: self._told("sessions", self.sessions)),
            traffic=ScriptedProbe("traffic", lambda: self._told("traffic", self.traffic)),
            gpus=ScriptedProbe("gpus", lambda: self._told("gpus", self.gpus)),
            calls=ScriptedProbe("calls", lambda: self._told("calls", self.calls)),
            media=ScriptedProbe("media", lambda: self._told("media", self.media)),
            screen=ScriptedProbe("screen", lambda: self._told("screen", self.screen)),
            thermal=ScriptedProbe("thermal", lambda: self._told("thermal", self.thermal)),
            network=ScriptedProbe("network", lambda: self._told("network", self.network)),
        )

    def pass_time(self, clock: ScriptedClock, seconds: float) -> None:
        """Time passes and nobody touches anything: idle times grow with it."""
        clock.advance(seconds)
        if self.input_idle_s is not None:
            self.input_idle_s += seconds
        self.other_seats = {
            name: None if idle_s is None else idle_s + seconds for name, idle_s in self.other_seats.items()
        }
        self.terminals = {name: idle_s + seconds for name, idle_s in self.terminals.items()}

    def _seats(self) -> tuple[Seat, ...]:
        found = {} if self.input_idle_s is None else {":0": self.input_idle_s}
        return tuple(
            Seat(name=name, idle_s=self._reading("seat", idle_s))
            if idle_s is not None
            else Seat(
                name=name,
                idle_s=Reading[float].missing("scripted", "it is scripted to fail", "script it to serve"),
            )
            for name, idle_s in {**found, **self.other_seats}.items()
        )

    def _terminals(self) -> tuple[Terminal, ...]:
        return tuple(Terminal(name=name, idle_s=idle_s) for name, idle_s in self.terminals.items())

    def _told(self, name: str, value: T | None) -> Reading[T]:
        if value is None and name not in self.failing and name not in self.raising:
            return Reading[T].untold("scripted", "this machine is scripted not to tell it")
        return self._reading(name, cast("T", value))

    def _reading(self, name: str, value: T) -> Reading[T]:
        if name in self.raising:
            raise self.raising[name]
        if name in self.failing:
            return Reading[T].missing("scripted", "it is scripted to fail", "script it to serve")
        return Reading(value=value, source="scripted", age_s=self.ages_s.get(name, 0.0))
