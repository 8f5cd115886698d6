"""What the probes find out: one record for each fact. All frozen; names carry units."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)


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
    tells: bool = True
    """False: this system has no way to tell this fact, and never had: it decides nothing, and ``doctor`` says so.
    A fact that could be read before, or that a person's presence rests on (input, terminals), is never such a one."""

    @classmethod
    def missing(cls, source: str, problem: str, advice: str) -> "Reading[T_co]":
        """It should be readable and is not: counts as busy."""
        return cls(value=None, source=source, problem=problem, advice=advice)

    @classmethod
    def untold(cls, source: str, problem: str, advice: str = "") -> "Reading[T_co]":
        """No way to tell on this system: decides nothing."""
        return cls(value=None, source=source, problem=problem, advice=advice, tells=False)

    def aged(self, by_s: float) -> "Reading[T_co]":
        """The same reading, seen ``by_s`` later."""
        if by_s <= 0:
            return self
        # Cheaper than dataclasses.replace: every fact that was not asked anew passes here at every sample.
        return Reading(
            value=self.value,
            source=self.source,
            age_s=self.age_s + by_s,
            problem=self.problem,
            advice=self.advice,
            tells=self.tells,
        )


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
    user: str = ""
    """Whose it is; empty: not told."""
    host: str = ""
    """The machine that a login over the network came from; empty: this one, or not told."""


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
    """Share of the last 10 s in which some program waited for memory (Linux PSI, ``some avg10``), or of the last 4 s if that
    is more; None: not told."""
    short: bool | None = None
    """The system itself calls memory short (macOS: memory pressure is yellow or red); None: not told."""


@dataclass(frozen=True, kw_only=True)
class Power:
    battery: bool
    on_mains: bool | None
    """None: there is a battery, and the system does not tell whether it feeds the machine."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Somebody who is logged in, at a desktop, a console or from elsewhere."""

    name: str
    """Tells it from all others of this machine: ``3 of anna on seat0``."""
    user: str
    remote: bool
    """From another machine: ssh, RDP, a shared screen."""
    active: bool
    """In the foreground of its seat; for a remote one: connected."""
    locked: bool | None
    """None: the system does not tell."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Rates of programs other than ours and our guests since the last look; None: nothing to compare with yet, or not told."""

    disk_bytes_per_s: float | None
    network_bytes_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """One graphics processor, as programs other than our guests use it."""

    name: str
    """``NVIDIA GPU 0000:01:00.0``: the same at every look, asleep or not, which a model's name is not."""
    others_ratio: float | None
    """Share of its time, 0 to 1. None: the first look, or the driver does not tell."""
    others_bytes: int | None = None
    """Of its memory; None: not told."""
    asleep: bool = False
    """Switched off to save power: nobody uses it, and it was not woken to ask."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What listens or looks: programs, as far as they are known, else devices."""

    microphones: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Media:
    """What somebody may be watching or listening to without touching anything."""

    playing: tuple[str, ...] = ()
    """Players that say that they play, and programs that play sound."""
    inhibitors: tuple[str, ...] = ()
    """Programs that asked to keep the screen on."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What the foremost window does."""

    fullscreen: tuple[str, ...] = ()
    """Seats whose foremost window fills the screen."""


@dataclass(frozen=True, kw_only=True)
class Thermal:
    hottest_c: float | None
    """Of all sensors of processors and machine, in degrees Celsius; None: the system tells no temperature, but ``pressure``."""
    limit_c: float | None = None
    """Where that sensor says it gets critical; None: not told."""
    sensor: str = ""
    pressure: Literal["", "nominal", "moderate", "heavy", "trapping", "sleeping"] = ""
    """What the system itself calls it (macOS, OSThermalNotification.h): from ``heavy`` on it slows the machine to cool it.
    Empty: not told."""


@dataclass(frozen=True, kw_only=True)
class Network:
    metered: bool
    """What is sent costs money: a phone's hotspot, say."""
