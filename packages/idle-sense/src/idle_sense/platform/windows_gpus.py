"""Graphics processors of Windows, by its performance counters: every engine by every program, since Windows 10 1709.

The counters are kept by the graphics kernel; asking wakes no device. A device that runs without Windows' graphics (NVIDIA's
TCC mode) is not among them.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from idle_sense.platform.gpus import GpuSample, GpuUnreadable, ProgramUse
from idle_sense.types import Verified

ENGINES = r"\GPU Engine(*)\Utilization Percentage"
PROGRAM_MEMORY = r"\GPU Process Memory(*)\Dedicated Usage"
DEVICE_MEMORY = r"\GPU Adapter Memory(*)\Dedicated Usage"
PATHS = (ENGINES, PROGRAM_MEMORY, DEVICE_MEMORY)

Values = Iterable[tuple[str, float]]
"""Names of instances, and what each counts."""

_INSTANCE = re.compile(
    r"(?:pid_(?P<pid>\d+)_)?luid_(?P<luid>0x[0-9a-f]+_0x[0-9a-f]+)_phys_(?P<part>\d+)"
    r"(?:_eng_(?P<engine>\d+)_engtype_(?P<kind>.*))?",
    re.IGNORECASE,
)


class Instance(NamedTuple):
    """``pid_4242_luid_0x00000000_0x0000D3C5_phys_0_eng_3_engtype_3D``, taken apart."""

    device: str
    pid: int
    """0: of no program alone."""
    engine: str
    """``3: 3D``; empty: of the whole device."""


def instance_of(name: str) -> Instance | None:
    """None: of another form."""
    match = _INSTANCE.fullmatch(name)
    if match is None:
        return None
    engine = "" if match["engine"] is None else f"{match['engine']}: {match['kind']}"
    return Instance(f"adapter {match['luid'].lower()} part {match['part']}", int(match["pid"] or 0), engine)


def samples_of(
    engines: Values | None, program_memory: Values | None, device_memory: Values | None, at_s: float
) -> tuple[GpuSample, ...]:
    """One for each device that is named in any of them. ``engines`` None: nothing to compare with yet."""
    ratios: dict[str, dict[int, dict[str, float]]] = {}
    for instance, percent in _known(engines):
        used = ratios.setdefault(instance.device, {}).setdefault(instance.pid, {})
        used[instance.engine] = used.get(instance.engine, 0.0) + percent / 100.0
    held: dict[str, dict[int, float]] = {}
    for instance, count in _known(program_memory):
        by_pid = held.setdefault(instance.device, {})
        by_pid[instance.pid] = by_pid.get(instance.pid, 0.0) + count
    wholes = {instance.device: count for instance, count in _known(device_memory)}
    return tuple(
        _sample(
            device,
            ratios.get(device, {}),
            held.get(device, {}),
            wholes.get(device),
            at_s,
            engines is not None,
        )
        for device in sorted({*ratios, *held, *wholes})
    )


def _sample(
    device: str,
    ratios: dict[int, dict[str, float]],
    held: dict[int, float],
    whole: float | None,
    at_s: float,
    measured: bool,
) -> GpuSample:
    engines: dict[str, float] = {}
    for used in ratios.values():
        for engine, ratio in used.items():
            engines[engine] = engines.get(engine, 0.0) + ratio
    programs = tuple(
        ProgramUse(
            pid=pid,
            ratios={engine: min(1.0, ratio) for engine, ratio in ratios.get(pid, {}).items()},
            used_bytes=int(held[pid]) if pid in held else None,
        )
        for pid in sorted({*ratios, *held})
    )
    return GpuSample(
        name=device,
        at_s=at_s,
        busy_ratio=min(1.0, max(engines.values(), default=0.0)) if measured else None,
        used_bytes=None if whole is None else int(whole),
        programs=programs if measured else None,
        complete=measured,
    )


def _known(values: Values | None) -> Iterator[tuple[Instance, float]]:
    for name, count in values or ():
        instance = instance_of(name)
        if instance is not None:
            yield instance, count


class WindowsGpus:
    """A ``gpus.GpuReader``."""

    name = "GPU Engine counters"
    verified: Verified = "signature-only"
    advice = ""

    def __init__(
        self,
        *,
        read: Callable[[], list[list[tuple[str, float]] | None]],
        known: Callable[[], list[bool]],
        close: Callable[[], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read``: the counters ``PATHS``; ``known``: which of them there are. Both may raise OSError."""
        self._read = read
        self._known = known
        self._close = close
        self._now_s = now_s
        self._told = False

    def samples(self) -> tuple[GpuSample, ...]:
        try:
            if not self._known()[0]:
                # No driver of a kind that Windows counts for: a display without acceleration, or an old driver.
                return (GpuSample(name=self.name, at_s=self._now_s(), tells=False),)
            engines, program_memory, device_memory = self._read()
        except OSError as error:
            raise GpuUnreadable(
                str(error), hint="rebuild the counters: run lodctr /r as administrator"
            ) from error
        if engines is None and self._told:
            raise GpuUnreadable(
                "The counters of graphics engines do not answer.",
                hint="rebuild the counters: run lodctr /r as administrator",
            )
        self._told = engines is not None or self._told
        return samples_of(engines, program_memory, device_memory, self._now_s())

    def programs(self, samples: tuple[GpuSample, ...]) -> tuple[GpuSample, ...]:
        """They are among the samples: the counters are of programs in the first place."""
        return samples

    def describe(self) -> tuple[str, ...]:
        return ("How much programs use each graphics processor, by engine.",)

    def close(self) -> None:
        self._close()
