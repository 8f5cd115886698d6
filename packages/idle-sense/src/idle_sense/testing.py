"""Scripted probes and clock: test what you build on idle-sense without a keyboard, a desktop or waiting.

>>> from idle_sense import Monitor, Policy, State
>>> from idle_sense.testing import ScriptedClock, ScriptedProbes
>>> clock, probes = ScriptedClock(), ScriptedProbes()
>>> monitor = Monitor(Policy.desktop(), clock=clock, probes=probes.probes)
>>> probes.input_idle_s = 4.0
>>> monitor.check().state is State.BUSY
True
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from idle_sense.probes.bundle import Probes
from idle_sense.types import Capability, Load, MemoryUse, Power, Reading, Seat, Terminal

T = TypeVar("T")


class ScriptedClock:
    """Time moves when told to. A monitor's thread that waits on it goes on with the next ``advance``."""

    def __init__(self, *, monotonic_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s
        self._suspended_s = 0.0
        self._moved = threading.Condition()

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def suspended_s(self) -> float:
        return self._suspended_s

    def wait(self, wake: threading.Event, timeout_s: float) -> None:
        """Until ``wake`` is set, or time was moved that far. A real wait, in steps of 10 ms at most."""
        until_s = self._monotonic_s + timeout_s
        with self._moved:
            while not wake.is_set() and self._monotonic_s < until_s:
                self._moved.wait(0.01)

    def advance(self, seconds: float) -> None:
        with self._moved:
            self._monotonic_s += seconds
            self._wall_s += seconds
            self._moved.notify_all()

    def sleep_machine(self, seconds: float) -> None:
        """The machine is suspended: the wall clock goes on, monotonic time stands, as on Linux."""
        self._wall_s += seconds
        self._suspended_s += seconds

    def set_wall(self, by_s: float) -> None:
        """Somebody sets the time of day."""
        self._wall_s += by_s


class ScriptedProbe(Generic[T]):
    """Answers what ``answer`` returns, and raises what it raises."""

    every_s = 0.0

    def __init__(self, name: str, answer: Callable[[], Reading[T]]) -> None:
        self._name = name
        self._answer = answer
        self.closed = False

    def read(self, now_s: float) -> Reading[T]:
        del now_s
        return self._answer()

    def capability(self) -> Capability:
        return Capability(probe=self._name, back_end="scripted", verified="emulated", serves=True)

    def describe(self) -> tuple[str, ...]:
        return (f"Scripted {self._name}.",)

    def close(self) -> None:
        self.closed = True


class ScriptedProbes:
    """A machine made of attributes: set them, and the next sample sees them. It starts idle for a day.

    ``failing`` names facts that cannot be read (``input``, ``terminals``, ``load``, ``memory``, ``power``), ``ages_s`` gives
    readings an age, ``raising`` makes a probe raise.
    """

    def __init__(self) -> None:
        self.input_idle_s: float | None = 86400.0
        """Of the one seat ``:0``; None: a machine without a display."""
        self.terminals: dict[str, float] = {}
        """Idle times by name."""
        self.others_ratio: float | None = 0.0
        self.memory = MemoryUse(total_bytes=16 << 30, available_bytes=12 << 30, stalled_ratio=0.0)
        self.power = Power(battery=False, on_mains=None)
        self.failing: set[str] = set()
        self.raising: dict[str, Exception] = {}
        self.ages_s: dict[str, float] = {}
        self.probes = Probes(
            seats=ScriptedProbe("input", lambda: self._reading("input", self._seats())),
            terminals=ScriptedProbe("terminals", lambda: self._reading("terminals", self._terminals())),
            load=ScriptedProbe("load", lambda: self._reading("load", Load(others_ratio=self.others_ratio))),
            memory=ScriptedProbe("memory", lambda: self._reading("memory", self.memory)),
            power=ScriptedProbe("power", lambda: self._reading("power", self.power)),
        )

    def pass_time(self, clock: ScriptedClock, seconds: float) -> None:
        """Time passes and nobody touches anything: idle times grow with it."""
        clock.advance(seconds)
        if self.input_idle_s is not None:
            self.input_idle_s += seconds
        self.terminals = {name: idle_s + seconds for name, idle_s in self.terminals.items()}

    def _seats(self) -> tuple[Seat, ...]:
        if self.input_idle_s is None:
            return ()
        return (Seat(name=":0", idle_s=Reading(value=self.input_idle_s, source="scripted")),)

    def _terminals(self) -> tuple[Terminal, ...]:
        return tuple(Terminal(name=name, idle_s=idle_s) for name, idle_s in self.terminals.items())

    def _reading(self, name: str, value: T) -> Reading[T]:
        if name in self.raising:
            raise self.raising[name]
        if name in self.failing:
            return Reading[T].missing("scripted", "it is scripted to fail", "script it to serve")
        return Reading(value=value, source="scripted", age_s=self.ages_s.get(name, 0.0))
