"""One file per fact. A probe answers ``read`` at once or within a stated bound, and says what it can see."""

from idle_sense.probes.bundle import Probe, Probes

__all__ = ["Probe", "Probes"]
