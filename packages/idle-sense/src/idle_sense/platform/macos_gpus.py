"""Graphics processors of a Mac, by the I/O registry.

IOAccelerator keeps ``PerformanceStatistics`` there, undocumented but read alike by many programs since OS X 10.6; its
clients keep who opened them (``IOUserClientCreator``) and, on Apple's own and on newer Intel drivers, how long the processor
worked for them (``accumulatedGPUTime``, ns). Reading the registry wakes no processor.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from idle_sense.platform.gpus import EngineTime, GpuSample, GpuUnreadable, ProgramUse
from idle_sense.platform.macos_registry import Entry, Registry
from idle_sense.platform.macos_values import Plain, mapping, sequence, text, whole
from idle_sense.types import Verified

PERCENT = ("Device Utilization %", "GPU Activity(%)")
TEN_MILLIONTHS = "GPU Core Utilization"
"""Of the whole processor."""
USED_BYTES = ("In use system memory", "vramUsedBytes", "inUseVidMemoryBytes")
LOOK_AROUND_S = 30.0
"""How often processors are looked for anew: some are plugged in."""
ADVICE = "report this, with what ``ioreg -rc IOAccelerator`` prints"


def busy_ratio(statistics: Mapping[str, Plain]) -> float | None:
    """Of its time, 0 to 1; None: the driver does not tell."""
    for key in PERCENT:
        told = whole(statistics.get(key))
        if told is not None:
            return min(1.0, max(0.0, told / 100.0))
    told = whole(statistics.get(TEN_MILLIONTHS))
    return None if told is None else min(1.0, max(0.0, told / 1e7))


def used_bytes(statistics: Mapping[str, Plain]) -> int | None:
    """Of graphics memory, by all programs; None: not told."""
    told = (whole(statistics.get(key)) for key in USED_BYTES)
    return next((max(0, amount) for amount in told if amount is not None), None)


def program(creator: Plain, properties: Mapping[str, Plain], handle: int, at_s: float) -> ProgramUse | None:
    """``creator``: such as ``pid 412, WindowServer``; ``handle``: tells this client from others of the program. Intel's
    drivers keep the time at the client, Apple's in a list with one entry for each interface that it uses. None: it is no
    program's."""
    match = re.match(r"pid (\d+)", text(creator))
    if match is None:
        return None
    spent_ns = whole(properties.get("accumulatedGPUTime"))
    for entry in sequence(properties.get("AppUsage")):
        more = whole(mapping(entry).get("accumulatedGPUTime"))
        if more is not None:
            spent_ns = (spent_ns or 0) + more
    if spent_ns is None:
        # An empty list: it has opened the processor, and has not given it any work.
        idle = properties.get("AppUsage") is not None
        return ProgramUse(pid=int(match[1]), timed=idle)
    spent = EngineTime(busy=spent_ns / 1e9, whole=at_s)
    return ProgramUse(pid=int(match[1]), times={f"gpu {handle}": spent})


class MacGpus:
    """A ``gpus.GpuReader``."""

    name = "IOAccelerator"
    verified: Verified = "signature-only"
    advice = ""

    def __init__(self, registry: Registry, now: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._now = now
        self._entries: dict[str, Entry] = {}
        self._looked_at_s: float | None = None
        self._told: set[str] = set()

    def samples(self) -> tuple[GpuSample, ...]:
        """Raises GpuUnreadable."""
        now_s = self._now()
        try:
            if self._looked_at_s is None or now_s - self._looked_at_s >= LOOK_AROUND_S:
                self._look_around()
                self._looked_at_s = now_s
            return tuple(self._sample(name, entry) for name, entry in self._entries.items())
        except OSError as error:
            raise GpuUnreadable(f"The I/O registry does not tell: {error}.", hint=ADVICE) from error

    def programs(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        """Raises GpuUnreadable."""
        try:
            return tuple(self._with_programs(sample) for sample in samples)
        except OSError as error:
            raise GpuUnreadable(f"The I/O registry does not tell: {error}.", hint=ADVICE) from error

    def describe(self) -> tuple[str, ...]:
        return ("How much of the graphics processors other programs use, by the I/O registry.",)

    def close(self) -> None:
        for entry in self._entries.values():
            entry.close()
        self._entries = {}
        self._looked_at_s = None

    def _look_around(self) -> None:
        self.close()
        for index, entry in enumerate(self._registry.services("IOAccelerator")):
            kind = text(entry.read("IOClass")) or "IOAccelerator"
            self._entries[f"{index}: {text(entry.read('model')) or kind}"] = entry

    def _sample(self, name: str, entry: Entry) -> GpuSample:
        statistics = mapping(entry.read("PerformanceStatistics"))
        ratio = busy_ratio(statistics)
        if ratio is not None:
            self._told.add(name)
        elif name in self._told:
            raise GpuUnreadable(f"{name} does not tell any more how much it works.", hint=ADVICE)
        return GpuSample(
            name=name,
            at_s=self._now(),
            busy_ratio=ratio,
            used_bytes=used_bytes(statistics),
            tells=ratio is not None,
        )

    def _with_programs(self, sample: GpuSample) -> GpuSample:
        entry = self._entries.get(sample.name)
        if entry is None:
            return sample
        found: list[ProgramUse] = []
        at_s = self._now()
        with entry.children() as children:
            for index, child in enumerate(children):
                creator = child.read("IOUserClientCreator")
                if creator is None:
                    continue
                keys = ("accumulatedGPUTime", "AppUsage")
                one = program(
                    creator, {key: child.read(key) for key in keys}, child.identity() or index, at_s
                )
                if one is not None:
                    found.append(one)
        return replace(sample, at_s=at_s, programs=tuple(found), complete=True)
