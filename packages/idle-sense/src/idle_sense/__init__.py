"""Is this machine truly idle, why, since when? What cannot be known counts as busy.

>>> from idle_sense import Monitor, Policy
>>> with Monitor(Policy.desktop()) as monitor:
...     print(monitor.check().reasons[0].sentence)
"""

from idle_sense.decision import Memory, decide
from idle_sense.errors import InvalidPolicy, SenseError
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
from idle_sense.monitor import Monitor
from idle_sense.policy import Policy
from idle_sense.probes.bundle import Probe, Probes
from idle_sense.probes.guests import GuestLedger
from idle_sense.quiet_hours import QuietHours
from idle_sense.types import Capability, Reason, Severity, Snapshot, State, Verdict

__all__ = [
    "Calls",
    "Capability",
    "GpuUse",
    "GuestLedger",
    "InvalidPolicy",
    "Load",
    "Media",
    "Memory",
    "MemoryUse",
    "Monitor",
    "Network",
    "Policy",
    "Power",
    "Probe",
    "Probes",
    "QuietHours",
    "Reading",
    "Reason",
    "Screen",
    "Seat",
    "SenseError",
    "Session",
    "Severity",
    "Snapshot",
    "State",
    "Terminal",
    "Thermal",
    "Traffic",
    "Verdict",
    "decide",
]
