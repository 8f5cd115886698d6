"""What an owner wants: from when on a machine counts as idle, and when it is not lent though it is."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idle_sense.errors import InvalidPolicy
from idle_sense.quiet_hours import QuietHours

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What counts as idle. Start from ``desktop()``, ``server()`` or ``lab()``; change with ``dataclasses.replace``, or keep
    it in a file: ``from_toml``.

    Raises InvalidPolicy, naming the field, for values that make no sense.
    """

    name: str = "desktop"

    # A person is there.
    watch_input: bool = True
    """False: nobody sits here; keyboards, terminals and sessions are not looked at."""
    input_idle_s: float = 300.0
    """Without input for this long, on every seat and terminal."""
    watch_calls: bool = True
    """A microphone or camera in use is a call."""
    watch_media: bool = True
    """Sound, a player that plays, or a program that keeps the screen on."""
    watch_fullscreen: bool = True
    """A window that fills the screen of a seat that is not locked."""
    ignore_programs: tuple[str, ...] = ()
    """Of these, nothing counts as call, sound or wish to keep the screen on: ``("surveillance",)``."""

    # The way to idle.
    grace_s: float = 10.0
    """How long everything must have been quiet before the machine counts as idle."""
    grace_cap_s: float = 900.0
    """The grace doubles after each false start, up to this."""
    false_start_s: float = 60.0
    """Idle for less than this before it was busy again: a false start."""
    calm_s: float = 600.0
    """Idle, or busy, for this long at a stretch: the grace starts from ``grace_s`` again."""
    pace_s: float = 600.0
    """In this time the machine gets idle at most twice; 0: as often as it may."""

    # What other programs use. Busy from the first of two values on, free below the second.
    cpu_busy_ratio: float = 0.25
    """Of all processors."""
    cpu_free_ratio: float = 0.15
    watch_gpu: bool = True
    gpu_busy_ratio: float = 0.2
    """Of the time of the graphics processor that is used most."""
    gpu_free_ratio: float = 0.1
    disk_busy_bytes_per_s: float = 40e6
    disk_free_bytes_per_s: float = 10e6
    network_busy_bytes_per_s: float = 10e6
    network_free_bytes_per_s: float = 2e6
    smoothing_s: float = 5.0
    """Time constant of the average that must reach the busy value: short spikes of background programs pass."""
    easing_s: float = 20.0
    """Time constant of the slower average that must fall below the free value."""
    memory_short_ratio: float = 0.08
    """Memory is short when less than this share is available, until ``memory_free_ratio`` is."""
    memory_free_ratio: float = 0.12
    stall_busy_ratio: float = 0.2
    """... or when programs wait for memory this share of the time, until less than ``stall_free_ratio``."""
    stall_free_ratio: float = 0.05

    # What the owner does not want.
    lend_on_battery: bool = False
    lend_on_metered: bool = False
    """Over a network where what is sent costs money."""
    hot_c: float = 92.0
    """The hottest sensor: not lent from here on (or from 5 degrees below its own critical value), until ``cool_c``."""
    cool_c: float = 80.0
    quiet_hours: tuple[QuietHours, ...] = ()
    """Not lent then."""

    # How old a reading may be.
    input_fresh_s: float = 3.0
    """A reading of input or terminals older than this counts as busy."""
    load_fresh_s: float = 5.0
    """The same for load and memory."""
    signal_fresh_s: float = 15.0
    """The same for sessions, calls, media, the screen, graphics processors, disks and network traffic."""
    power_fresh_s: float = 120.0
    """The same for power, heat and the kind of network, which change seldom and can be slow to read."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check(item.name, getattr(self, item.name), item.default)
        for low, high in _ORDER:
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
        """A machine that nobody sits at: what tells of people is not looked at; what other programs use, memory, power, heat
        and the owner's word count."""
        return cls(
            name="server",
            watch_input=False,
            watch_calls=False,
            watch_media=False,
            watch_fullscreen=False,
            grace_s=5.0,
            pace_s=0.0,
            cpu_busy_ratio=0.75,
            cpu_free_ratio=0.6,
            gpu_busy_ratio=0.5,
            gpu_free_ratio=0.3,
            disk_busy_bytes_per_s=200e6,
            disk_free_bytes_per_s=100e6,
            network_busy_bytes_per_s=100e6,
            network_free_bytes_per_s=50e6,
            easing_s=10.0,
        )

    @classmethod
    def lab(cls) -> "Policy":
        """A machine that many people share: as a desktop, but free 2 minutes after the last one left."""
        return cls(name="lab", input_idle_s=120.0, cpu_busy_ratio=0.4, cpu_free_ratio=0.25)

    @classmethod
    def from_toml(cls, source: "str | Path") -> "Policy":
        """From a file (a ``Path``) or its text (a ``str``); see ``idle_sense.policy_text``.

        Raises InvalidPolicy, naming the field, the line and the mend.
        """
        from idle_sense import policy_text  # noqa: PLC0415 - it imports this module, and is needed seldom

        return policy_text.parse(source) if isinstance(source, str) else policy_text.read(source)

    def to_toml(self) -> str:
        """A file that ``from_toml`` reads as this very policy: every field, with its unit."""
        from idle_sense import policy_text  # noqa: PLC0415 - as above

        return policy_text.write(self)


_ORDER = (
    ("cpu_free_ratio", "cpu_busy_ratio"),
    ("gpu_free_ratio", "gpu_busy_ratio"),
    ("disk_free_bytes_per_s", "disk_busy_bytes_per_s"),
    ("network_free_bytes_per_s", "network_busy_bytes_per_s"),
    ("memory_short_ratio", "memory_free_ratio"),
    ("stall_free_ratio", "stall_busy_ratio"),
    ("cool_c", "hot_c"),
    ("grace_s", "grace_cap_s"),
)
"""The first must not be above the second."""


def _check(field: str, value: object, default: object) -> None:
    if isinstance(default, bool | str):
        if not isinstance(value, type(default)):
            kind = "text" if isinstance(default, str) else "true or false"
            raise InvalidPolicy(f"{value!r} is not {kind}.", field=field, hint=f"Give {kind}.")
    elif isinstance(default, tuple):
        kind = QuietHours if field == "quiet_hours" else str
        if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):  # pyright: ignore[reportUnknownVariableType]
            raise InvalidPolicy(
                f"{value!r} is no tuple of {kind.__name__}.",
                field=field,
                hint=f"Give a tuple of {kind.__name__}.",
            )
    elif (
        isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0
    ):
        raise InvalidPolicy(f"{value!r} is no amount.", field=field, hint="Give a number of at least 0.")
    elif field.endswith("_ratio") and value > 1:
        raise InvalidPolicy(
            f"{value:g} is more than everything.", field=field, hint="Give a share from 0 to 1."
        )
