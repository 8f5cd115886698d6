"""Fact: how much programs other than our guests use the graphics processors."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from idle_sense.facts import GpuUse, Reading
from idle_sense.platform.gpus import (
    QUIET_RATIO,
    GpuReader,
    GpuSample,
    GpuUnreadable,
    lacks_start,
    use_between,
    whole_ratio,
    with_starts,
)
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Capability

LOOK_EVERY_S = 2.0
SECOND_LOOK_S = 0.3
"""After a look that found programs for the first time, whose counters say nothing yet."""
MEMORY_STEP_BYTES = 64 << 20
"""Use of memory is told in steps of this, so that each look does not seem to bring news."""
REMEMBERED = 512
"""Of guests, after they have ended."""


class GpuProbe(Polled):
    """Asks in the thread that calls it, which drivers may keep waiting: ``slow`` puts it aside.

    Whose work it is, is asked only while there are guests and a device works, or where the device's own measure is too high.
    """

    every_s = LOOK_EVERY_S
    slow = True

    def __init__(
        self,
        reader: GpuReader,
        guests: GuestLedger,
        processes: Processes,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reader = reader
        self._guests = guests
        self._processes = processes
        self._now_s = now_s
        self._wait = wait
        self._before: dict[str, GpuSample] = {}
        self._uses: dict[str, GpuUse] = {}
        self._guest_pids: OrderedDict[int, None] = OrderedDict()
        self._last: Reading[tuple[GpuUse, ...]] | None = None

    def read(self, now_s: float) -> Reading[tuple[GpuUse, ...]]:
        del now_s  # samples are stamped when they are taken
        try:
            self._last = self._look()
        except GpuUnreadable as error:
            self._last = Reading[tuple[GpuUse, ...]].missing(
                self._reader.name, error.message, error.hint or "see idle-sense doctor"
            )
        return self._last

    def capability(self) -> Capability:
        last = self._last
        value = None if last is None else last.value
        serves = value is not None and (not value or any(use.others_ratio is not None for use in value))
        tells = not self._before or any(sample.tells for sample in self._before.values())
        problem = f": {last.problem}" if last is not None and value is None else ""
        advice = last.advice if last is not None and value is None else self._reader.advice
        return Capability(
            probe="gpus",
            back_end=self._reader.name + problem,
            verified=self._reader.verified,
            serves=serves,
            advice=advice
            or ("" if serves else "wait for its first answers" if tells else "its driver does not tell"),
            tells=tells,
        )

    def describe(self) -> tuple[str, ...]:
        return self._reader.describe()

    def close(self) -> None:
        self._reader.close()

    def _look(self) -> Reading[tuple[GpuUse, ...]]:
        samples = self._with_programs(self._reader.samples())
        worth = self._worth_asking(samples)
        if any(lacks_start(self._before.get(sample.name), sample) for sample in worth):
            starts = {sample.name: with_starts(self._before.get(sample.name), sample) for sample in worth}
            self._wait(SECOND_LOOK_S)
            self._before |= starts
            samples = self._with_programs(self._reader.samples())
        self._uses = {sample.name: self._use(sample) for sample in samples}
        self._before = {sample.name: sample for sample in samples}
        now_s = self._now_s()
        age_s = max((now_s - sample.at_s for sample in samples), default=0.0)
        resting = [sample.name for sample in samples if now_s - sample.at_s > LOOK_EVERY_S]
        return Reading(
            value=tuple(self._uses.values()),
            source=self._reader.name,
            age_s=max(0.0, age_s),
            problem=f"{', '.join(resting)} is left alone so that it can fall asleep" if resting else "",
            advice="wait until it sleeps" if resting else "",
        )

    def _with_programs(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        worth = self._worth_asking(samples)
        asked = {sample.name: sample for sample in self._reader.programs(worth)} if worth else {}
        return tuple(asked.get(sample.name, sample) for sample in samples)

    def _worth_asking(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        """Those of which it matters whose work they do. One that is being let to fall asleep does none."""
        found: list[GpuSample] = []
        for sample in samples:
            if not sample.tells or sample.asleep or self._is_known(sample):
                continue
            ratio = whole_ratio(self._before.get(sample.name), sample)
            if ratio is None or (ratio >= QUIET_RATIO and (len(self._guests) or sample.upper_bound)):
                found.append(sample)
        return tuple(found)

    def _use(self, sample: GpuSample) -> GpuUse:
        before = self._before.get(sample.name)
        known = self._uses.get(sample.name)
        if known is not None and self._is_known(sample):
            return known
        use = use_between(before, sample, self._is_guest)
        ratio = None if use.others_ratio is None else round(use.others_ratio, 2)
        size = use.others_bytes
        if size is not None:
            size = round(size / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES
        return replace(use, others_ratio=ratio, others_bytes=size)

    def _is_known(self, sample: GpuSample) -> bool:
        """Whether it was given before: a card that is let to fall asleep is not asked anew."""
        before = self._before.get(sample.name)
        return before is not None and (before.at_s, before.asleep) == (sample.at_s, sample.asleep)

    def _is_guest(self, pid: int) -> bool:
        """Drivers tell of work a moment later, when a guest may have ended: it is remembered until its number serves anew."""
        if pid == os.getpid() or self._guests.contains(pid, self._processes):
            self._guest_pids[pid] = None
            self._guest_pids.move_to_end(pid)
            while len(self._guest_pids) > REMEMBERED:
                self._guest_pids.popitem(last=False)
            return True
        return pid in self._guest_pids and self._processes.process(pid) is None
