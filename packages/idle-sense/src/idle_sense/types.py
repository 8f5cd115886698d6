"""The records that probes, policy and monitor hand to one another. All frozen; names carry units."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from idle_sense.errors import InvalidPolicy
from idle_sense.sentences import render

T_co = TypeVar("T_co", covariant=True)

Verified = Literal["native", "emulated", "signature-only"]
"""How far a back end was tried: on its own system, on an emulation of it, or by types and headers alone."""


class State(StrEnum):
    BUSY = "busy"
    """Something says that the machine is in use, or might be. A busy reason ends it."""
    SETTLING = "settling"
    """Nothing says so any more, but not for long enough yet. Time ends it, or a busy reason."""
    IDLE = "idle"
    """Quiet for as long as the policy asks. Any busy reason ends it at once."""


class Severity(StrEnum):
    HARD = "hard"
    """Somebody is there, or it cannot be known: busy at once."""
    SOFT = "soft"
    """A quantity is high: two thresholds and a latch, so that noise does not flap."""
    POLICY = "policy"
    """The owner does not want it now: battery."""
    INFO = "info"
    """Explains; keeps nothing busy."""


@dataclass(frozen=True, kw_only=True)
class Reading(Generic[T_co]):
    """One look of one probe. Without a value it says why, and what would mend it."""

    value: T_co | None
    source: str
    """Which back end said so, such as ``x11 :0``."""
    age_s: float = 0.0
    """How long ago the value was true."""
    problem: str = ""
    advice: str = ""

    @classmethod
    def missing(cls, source: str, problem: str, advice: str) -> "Reading[T_co]":
        return cls(value=None, source=source, problem=problem, advice=advice)

    def aged(self, by_s: float) -> "Reading[T_co]":
        """The same reading, seen ``by_s`` later."""
        return self if by_s <= 0 else dataclasses.replace(self, age_s=self.age_s + by_s)


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One place with a screen, a keyboard and a mouse: an X display, a Wayland session, a Windows session."""

    name: str
    idle_s: Reading[float]
    """Time since the last key, button or movement there, as it was ``age_s`` ago."""


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A terminal that somebody may type into: a virtual console, a terminal window, an ssh session."""

    name: str
    idle_s: float
    """Time since something typed was read from it. What programs print there does not count."""


@dataclass(frozen=True, kw_only=True)
class Load:
    others_ratio: float | None
    """Share of all processor time that programs other than ours and our guests took since the last look, 0 to 1.
    None: the first look, which has nothing to compare with."""


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    total_bytes: int
    available_bytes: int
    """What programs could get without swapping."""
    stalled_ratio: float | None = None
    """Share of the last 10 s in which some program waited for memory (Linux PSI, ``some avg10``); None: not told."""


@dataclass(frozen=True, kw_only=True)
class Power:
    battery: bool
    on_mains: bool | None
    """None: there is a battery, and the system does not tell whether it feeds the machine."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that is known at one moment."""

    now_s: float
    """Monotonic; only differences mean something."""
    seats: Reading[tuple[Seat, ...]]
    """Empty: a machine without any display, which is a case of its own and no failure."""
    terminals: Reading[tuple[Terminal, ...]]
    load: Reading[Load]
    memory: Reading[MemoryUse]
    power: Reading[Power]
    slept_s: float = 0.0
    """Suspended since the snapshot before."""
    jumped_s: float = 0.0
    """How far the wall clock was set, forwards or backwards, since the snapshot before."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why busy, or why idle."""

    code: str
    severity: Severity
    params: Mapping[str, str | float] = field(default_factory=dict[str, str | float])
    """Names carry units: age_s, limit_s, used_ratio, free_bytes."""
    source: str = ""

    @property
    def sentence(self) -> str:
        """In English. For other languages: ``idle_sense.sentences.render``."""
        return render(self.code, self.params)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    state: State
    reasons: tuple[Reason, ...]
    """Never empty; the gravest first."""
    memory_short: bool
    """The owner's programs need memory: freezing guests frees none, they should go."""
    since_s: float
    """Age of this state."""

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(sorted({reason.code for reason in self.reasons}))


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What one probe can see on this machine."""

    probe: str
    back_end: str
    verified: Verified
    serves: bool
    """False: the fact cannot be read here now, and counts as busy where the policy asks for it."""
    advice: str = ""
    """What to do for a better answer; empty where there is nothing better."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What counts as idle. Start from ``desktop()``, ``server()`` or ``lab()``; change with ``dataclasses.replace``.

    Raises InvalidPolicy, naming the field, for values that make no sense.
    """

    name: str = "desktop"
    watch_input: bool = True
    """False: nobody sits here; keyboards and terminals are not looked at."""
    input_idle_s: float = 300.0
    """Without input for this long, on every seat and terminal."""
    grace_s: float = 10.0
    """How long everything must have been quiet before the machine counts as idle."""
    grace_cap_s: float = 900.0
    """The grace doubles after each false start, up to this."""
    false_start_s: float = 60.0
    """Idle for less than this before it was busy again: a false start."""
    calm_s: float = 600.0
    """Idle, or busy, for this long at a stretch: the grace starts from ``grace_s`` again."""
    cpu_busy_ratio: float = 0.25
    """Load of others, smoothed, from which on the machine is busy (share of all processors)."""
    cpu_free_ratio: float = 0.15
    """... and below which its average over about ``cpu_calm_s`` must fall before it is not."""
    cpu_smoothing_s: float = 5.0
    """Time constant of the smoothing: short spikes of background programs pass."""
    cpu_calm_s: float = 20.0
    """Time constant of that average."""
    memory_short_ratio: float = 0.08
    """Memory is short when less than this share is available, until ``memory_free_ratio`` is."""
    memory_free_ratio: float = 0.12
    stall_busy_ratio: float = 0.2
    """... or when programs wait for memory this share of the time, until less than ``stall_free_ratio``."""
    stall_free_ratio: float = 0.05
    lend_on_battery: bool = False
    input_fresh_s: float = 3.0
    """A reading of input or terminals older than this counts as busy."""
    load_fresh_s: float = 5.0
    """The same for load and memory."""
    power_fresh_s: float = 120.0
    """The same for power, which changes seldom and can be slow to read."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value: object = getattr(self, item.name)
            if isinstance(item.default, bool | str):
                if not isinstance(value, type(item.default)):
                    kind = "text" if isinstance(item.default, str) else "true or false"
                    raise InvalidPolicy(f"{value!r} is not {kind}.", field=item.name, hint=f"Give {kind}.")
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not math.isfinite(value)
                or value < 0
            ):
                raise InvalidPolicy(
                    f"{value!r} is no amount.", field=item.name, hint="Give a number of at least 0."
                )
            if item.name.endswith("_ratio") and value > 1:
                raise InvalidPolicy(
                    f"{value:g} is more than everything.", field=item.name, hint="Give a share from 0 to 1."
                )
        for low, high in (
            ("cpu_free_ratio", "cpu_busy_ratio"),
            ("memory_short_ratio", "memory_free_ratio"),
            ("stall_free_ratio", "stall_busy_ratio"),
            ("grace_s", "grace_cap_s"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise InvalidPolicy(
                    f"{getattr(self, low):g} is above {high} ({getattr(self, high):g}).",
                    field=low,
                    hint=f"Lower {low}, or raise {high}.",
                )

    @classmethod
    def desktop(cls) -> "Policy":
        """A machine with an owner: 5 minutes without input, on mains, other programs quiet."""
        return cls()

    @classmethod
    def server(cls) -> "Policy":
        """A machine that nobody sits at: input and terminals are not looked at; load of others, memory and power count."""
        return cls(
            name="server",
            watch_input=False,
            grace_s=5.0,
            cpu_busy_ratio=0.75,
            cpu_free_ratio=0.6,
            cpu_calm_s=10.0,
        )

    @classmethod
    def lab(cls) -> "Policy":
        """A machine that many people share: as a desktop, but free 2 minutes after the last one left."""
        return cls(name="lab", input_idle_s=120.0, cpu_busy_ratio=0.4, cpu_free_ratio=0.25)
