"""Linux: how busy cards of AMD and Intel are, from sysfs, readable by everybody.

- amdgpu: ``gpu_busy_percent`` and ``mem_info_vram_used`` (Documentation/gpu/amdgpu/driver-misc), ``vcn_busy_percent`` where there
  is one: a share, as of now. Old kernels wake a sleeping card to answer, new ones refuse.
- i915: ``gt/gt*/rc6_residency_ms``, or ``power/rc6_residency_ms`` of kernels before 5.19: how long each part of the card slept
  deeply. What is not sleep counts as work, which is more than its engines do.
- xe: ``tile*/gt*/gtidle/idle_residency_ms`` of the device, the same by another name.

The counters of i915 and xe are read with the card awake: reading wakes one that sleeps, so the caller looks first.
"""

import errno
import time
from collections.abc import Callable
from pathlib import Path

from idle_sense.platform.gpu_devices import GpuDevice, text
from idle_sense.platform.gpus import EngineTime, GpuSample, GpuUnreadable

AMD_SHARES = ("gpu_busy_percent", "vcn_busy_percent")
INTEL_COUNTERS = {
    "i915": ("drm/card*/gt/gt*/rc6_residency_ms", "drm/card*/power/rc6_residency_ms"),
    "xe": ("tile*/gt*/gtidle/idle_residency_ms",),
}
"""Below the device's folder; the first pattern that finds something serves."""
SLEEPS = (errno.EPERM, errno.EAGAIN, errno.EBUSY, errno.ENODEV)
"""What a card answers that fell asleep, or goes away, between two files."""


class DrmCards:
    """Remembers which files each card has."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._files: dict[str, tuple[str, ...]] = {}

    def sample(self, device: GpuDevice) -> GpuSample:
        """Of a card that is awake. Raises GpuUnreadable when it told before and does not now."""
        files = self._files.get(device.path)
        if files is None:
            self._files[device.path] = files = _files(device)
        if not files:
            return GpuSample(name=device.name, at_s=self._now_s(), tells=False)
        try:
            return self._amd(device, files) if device.driver == "amdgpu" else self._intel(device, files)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in SLEEPS and device.asleep:
                return GpuSample(name=device.name, at_s=self._now_s(), asleep=True)
            # It may have come back with other files.
            del self._files[device.path]
            raise GpuUnreadable(
                f"{device.name} ({device.driver}) does not say how busy it is: {error}",
                hint="look into dmesg for an error of the card; restarting the machine often helps",
            ) from error

    def _amd(self, device: GpuDevice, files: tuple[str, ...]) -> GpuSample:
        shares = [int(_read(file)) / 100.0 for file in files]
        used = text(f"{device.path}/mem_info_vram_used")
        return GpuSample(
            name=device.name,
            at_s=self._now_s(),
            busy_ratio=min(1.0, max(shares)),
            used_bytes=int(used) if used.isdigit() else None,
        )

    def _intel(self, device: GpuDevice, files: tuple[str, ...]) -> GpuSample:
        idle_times: dict[str, EngineTime] = {}
        for file in files:
            idle_s = int(_read(file)) / 1000.0
            idle_times[file.removeprefix(device.path + "/")] = EngineTime(busy=idle_s, whole=self._now_s())
        return GpuSample(name=device.name, at_s=self._now_s(), idle_times=idle_times, upper_bound=True)


def _files(device: GpuDevice) -> tuple[str, ...]:
    """Those that tell how busy the card is; none where its driver does not."""
    if device.driver == "amdgpu":
        shares = [f"{device.path}/{name}" for name in AMD_SHARES]
        # The engines for film alone say nothing of games.
        return tuple(file for file in shares if _serves(file)) if _serves(shares[0]) else ()
    for pattern in INTEL_COUNTERS.get(device.driver, ()):
        # One that never counted belongs to a card that never sleeps deeply, or may not: it says nothing of work.
        found = sorted(str(path) for path in Path(device.path).glob(pattern))
        if found:
            return tuple(file for file in found if text(file) not in ("", "0"))
    return ()


def _serves(file: str) -> bool:
    return text(file).isdigit()


def _read(file: str) -> str:
    with open(file, encoding="ascii", errors="replace") as stream:  # noqa: PTH123 - read at every look
        return stream.read()
