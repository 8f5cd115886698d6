"""The records that probes, policy and monitor hand to one another. All frozen; names carry units."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

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
from idle_sense.sentences import render

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
    """The owner does not want it now: battery, heat, quiet hours, a network that costs money."""
    INFO = "info"
    """Explains; keeps nothing busy."""


_UNTOLD: Reading[Any] = Reading[Any].untold("nobody", "nobody looked")


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
    sessions: Reading[tuple[Session, ...]] = _UNTOLD
    """Empty: nobody is logged in, or there is nothing that keeps sessions."""
    traffic: Reading[Traffic] = _UNTOLD
    gpus: Reading[tuple[GpuUse, ...]] = _UNTOLD
    """Empty: the machine has none."""
    calls: Reading[Calls] = _UNTOLD
    media: Reading[Media] = _UNTOLD
    screen: Reading[Screen] = _UNTOLD
    thermal: Reading[Thermal] = _UNTOLD
    network: Reading[Network] = _UNTOLD
    local: datetime | None = None
    """The time of day where the machine stands, for quiet hours; None: nobody asked."""
    paused_for_s: float | None = None
    """The owner's word: not lent for so long yet; ``inf``: until they say otherwise; None: not paused."""
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
    """Names carry units: age_s, limit_s, used_ratio, free_bytes. The value comes first."""
    source: str = ""

    @property
    def sentence(self) -> str:
        """In English. For other languages: ``idle_sense.sentences.render``."""
        return render(self.code, self.params)

    @property
    def value(self) -> str | float | None:
        """What was found: the first parameter, in the unit that its name carries; None where there is none."""
        return next(
            (value for name, value in self.params.items() if not name.startswith("limit_")),
            None,
        )

    @property
    def limit(self) -> str | float | None:
        """What it was held against, in the same unit; None where there is none."""
        return next((value for name, value in self.params.items() if name.startswith("limit_")), None)


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
    event: bool = False
    """Changes are heard of at once; else they are found at the next look."""
    cost_us: float | None = None
    """Mean cost of a look in the monitor's thread; None: not measured."""
    tells: bool = True
    """False: this machine has no way to tell it, or nothing to tell of; it decides nothing."""

    def completed(self, *, event: bool, cost_us: float | None, tells: bool) -> "Capability":
        """With what only the monitor knows."""
        return dataclasses.replace(self, event=event, cost_us=cost_us, tells=tells and self.tells)
