"""Linux: all graphics processors of the machine, whoever made them, asked so that one that may sleep can fall asleep."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from idle_sense.platform.drm import DrmCards
from idle_sense.platform.drm_clients import DrmClients
from idle_sense.platform.gpu_devices import SILENT, GpuDevice, find, sees_all_processes, text
from idle_sense.platform.gpus import GpuSample, GpuUnreadable, ProgramUse, whole_ratio
from idle_sense.types import Verified

if TYPE_CHECKING:
    from idle_sense.platform.gpu_nvidia import NvidiaCards

FIND_EVERY_S = 60.0
"""Between two looks for cards that came or went."""
IDLE_RATIO = 0.01
"""A card that works for less than this share of the time may want to sleep."""
USUAL_DELAY_S = 10.0
"""How long a card must be left alone until it sleeps, where the kernel does not say."""
SPARE_S = 1.0
"""Added to the delay: the kernel's timers are not exact."""
LONGEST_REST_S = 11.0
"""What is known of a card that was left alone for longer would be too old for a policy (``signal_fresh_s``) ..."""
LONG_REST_EVERY_S = 1800.0
"""... so one that wants longer gets it only this often, if it did not fall asleep the last time: somebody keeps it awake."""
WHOLE_ADVICE = (
    "while guests use such a card, all of its use counts as others': to have the two told apart, let this program look into all "
    "processes (run it as root, or with CAP_SYS_PTRACE)"
)


class LinuxGpus:
    """Implements ``GpuReader``."""

    verified: Verified = "emulated"

    def __init__(
        self,
        *,
        sysfs: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        nvidia: "NvidiaCards | None" = None,
        now_s: Callable[[], float] = time.monotonic,
        sees_all: Callable[[], bool] = sees_all_processes,
    ) -> None:
        self._sysfs = sysfs
        self._now_s = now_s
        self._nvidia = nvidia
        self._drm = DrmCards(now_s=now_s)
        self._clients = DrmClients(proc=proc, now_s=now_s)
        self._sees_all = sees_all
        self._devices: tuple[GpuDevice, ...] = ()
        self._found_at_s: float | None = None
        self._taken: dict[str, GpuSample] = {}
        self._left_alone_until_s: dict[str, float] = {}
        self._long_rest_at_s: dict[str, float] = {}
        self._closed = False
        """Whether programs could not be told apart at the last try."""

    @property
    def name(self) -> str:
        if not self._devices:
            return "no graphics processor"
        return ", ".join(sorted({self._back_end(device) for device in self._devices}))

    @property
    def advice(self) -> str:
        told = [
            f"{device.name}: {SILENT[device.driver]}" for device in self._devices if device.driver in SILENT
        ]
        told += [
            f"{device.name}: {device.driver} does not tell how busy this card is"
            for device in self._devices
            if device.driver not in SILENT and not self._tells(device)
        ]
        if self._closed:
            told.append(WHOLE_ADVICE)
        return "; ".join(told)

    def samples(self) -> tuple[GpuSample, ...]:
        now_s = self._now_s()
        if self._found_at_s is None or now_s - self._found_at_s >= FIND_EVERY_S:
            self._find(now_s)
        try:
            return self._samples(now_s)
        except GpuUnreadable:
            # A card that was taken out is no failure; the others are asked next time.
            before = self._devices
            self._find(now_s)
            if self._devices == before:
                raise
            return self._samples(now_s)

    def programs(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        by_name = {device.name: device for device in self._devices}
        found = {sample.name: sample for sample in samples}
        asked = [
            sample
            for sample in samples
            if sample.tells
            and not sample.asleep
            and sample.programs is None
            and sample.name in by_name
            and not by_name[sample.name].asleep
        ]
        cards = [by_name[sample.name] for sample in asked if by_name[sample.name].driver == "nvidia"]
        taken = [sample for sample in asked if by_name[sample.name] in cards]
        if cards:
            found |= {sample.name: sample for sample in self._of_nvidia().programs(cards, taken)}
        drm = [sample for sample in asked if by_name[sample.name] not in cards]
        if drm:
            seen = self._clients.look() if self._sees_all() else None
            self._closed = seen is None
            for sample in drm:
                found[sample.name] = self._with_clients(by_name[sample.name], sample, seen)
        return tuple(found[sample.name] for sample in samples)

    def describe(self) -> tuple[str, ...]:
        return tuple(f"{device.name}: {self._way(device)}." for device in self._devices)

    def close(self) -> None:
        if self._nvidia is not None:
            self._nvidia.close()

    def _of_nvidia(self) -> "NvidiaCards":
        if self._nvidia is None:
            # ctypes and the rest are worth their memory only where there is such a card.
            from idle_sense.platform.gpu_nvidia import NvidiaCards  # noqa: PLC0415

            self._nvidia = NvidiaCards(now_s=self._now_s)
        return self._nvidia

    def _find(self, now_s: float) -> None:
        self._found_at_s = now_s
        self._devices = find(self._sysfs)
        names = {device.name for device in self._devices}
        self._taken = {name: sample for name, sample in self._taken.items() if name in names}

    def _samples(self, now_s: float) -> tuple[GpuSample, ...]:
        due: list[GpuDevice] = []
        for device in self._devices:
            if device.driver in SILENT:
                self._taken[device.name] = GpuSample(name=device.name, at_s=now_s, tells=False)
            elif device.asleep:
                self._taken[device.name] = GpuSample(name=device.name, at_s=now_s, asleep=True)
                self._long_rest_at_s.pop(device.name, None)
            elif now_s >= self._left_alone_until_s.get(device.name, now_s) or self._woke(device):
                due.append(device)
        fresh = [self._drm.sample(device) for device in due if device.driver != "nvidia"]
        cards = [device for device in due if device.driver == "nvidia"]
        if cards:
            fresh += self._of_nvidia().samples(cards)
        taken = {sample.name: sample for sample in fresh}
        for device in due:
            before, sample = self._taken.get(device.name), taken[device.name]
            self._taken[device.name] = sample
            self._left_alone_until_s[device.name] = now_s + self._rest_s(device, before, sample)
        return tuple(self._taken[device.name] for device in self._devices)

    def _woke(self, device: GpuDevice) -> bool:
        before = self._taken.get(device.name)
        return before is None or before.asleep

    def _rest_s(self, device: GpuDevice, before: GpuSample | None, sample: GpuSample) -> float:
        """How long the card is not asked again: each question starts the time anew after which it would fall asleep."""
        ratio = whole_ratio(before, sample)
        if sample.asleep or ratio is None or ratio >= IDLE_RATIO or not device.may_sleep:
            return 0.0
        delay_s = device.falls_asleep_s
        if delay_s == math.inf:
            return 0.0
        rest_s = (USUAL_DELAY_S if math.isnan(delay_s) else delay_s) + SPARE_S
        if rest_s <= LONGEST_REST_S:
            return rest_s
        begun_s = self._long_rest_at_s.get(device.name)
        if begun_s is not None and sample.at_s - begun_s < LONG_REST_EVERY_S:
            return LONGEST_REST_S
        self._long_rest_at_s[device.name] = sample.at_s
        return rest_s

    def _with_clients(
        self, device: GpuDevice, sample: GpuSample, seen: dict[str, list[ProgramUse]] | None
    ) -> GpuSample:
        if seen is None:
            return dataclasses.replace(sample, programs=())
        programs = [use for card in device.cards for use in seen.get(card, ())]
        if device.driver == "amdgpu":
            programs += self._uncounted(programs)
        return dataclasses.replace(sample, programs=tuple(programs), complete=True)

    def _uncounted(self, programs: Iterable[ProgramUse]) -> list[ProgramUse]:
        """Work on cards of AMD that fdinfo leaves out: what goes through /dev/kfd (ROCm; its users are listed for everybody in
        /sys/class/kfd/kfd/proc), and, where the driver is told to have them, through user queues."""
        try:
            pids = {int(name) for name in os.listdir(self._sysfs / "class/kfd/kfd/proc") if name.isdigit()}  # noqa: PTH208 - names alone are wanted
        except OSError:
            pids = set[int]()
        if text(f"{self._sysfs}/module/amdgpu/parameters/user_queue") in ("1", "2"):
            pids |= {program.pid for program in programs}
        return [ProgramUse(pid=pid, timed=False) for pid in sorted(pids)]

    def _tells(self, device: GpuDevice) -> bool:
        taken = self._taken.get(device.name)
        return taken is None or taken.tells

    def _back_end(self, device: GpuDevice) -> str:
        return f"NVML {self._of_nvidia().version}".rstrip() if device.driver == "nvidia" else device.driver

    def _way(self, device: GpuDevice) -> str:
        taken = self._taken.get(device.name)
        if device.driver in SILENT or not self._tells(device):
            return "its use by others cannot be seen"
        if taken is not None and taken.asleep:
            return "asleep, and not woken to be asked"
        return f"its use by other programs ({self._back_end(device)})"
