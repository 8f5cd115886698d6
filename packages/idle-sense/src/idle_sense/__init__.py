"""Is this machine truly idle, why, since when? What cannot be known counts as busy.

>>> from idle_sense import Monitor, Policy
>>> with Monitor(Policy.desktop()) as monitor:
...     print(monitor.check().reasons[0].sentence)
"""

from idle_sense.errors import InvalidPolicy, SenseError
from idle_sense.monitor import Monitor
from idle_sense.policy import Memory, decide
from idle_sense.probes.bundle import Probe, Probes
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import (
    Capability,
    Load,
    MemoryUse,
    Policy,
    Power,
    Reading,
    Reason,
    Seat,
    Severity,
    Snapshot,
    State,
    Terminal,
    Verdict,
)

__all__ = [
    "Capability",
    "GuestLedger",
    "InvalidPolicy",
    "Load",
    "Memory",
    "MemoryUse",
    "Monitor",
    "Policy",
    "Power",
    "Probe",
    "Probes",
    "Reading",
    "Reason",
    "Seat",
    "SenseError",
    "Severity",
    "Snapshot",
    "State",
    "Terminal",
    "Verdict",
    "decide",
]
