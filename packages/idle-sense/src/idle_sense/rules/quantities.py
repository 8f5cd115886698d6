"""Do other programs use the machine? Processors, graphics processors, disks, network, memory."""

import math

from idle_sense.facts import GpuUse
from idle_sense.policy import Policy
from idle_sense.rules.latches import Latch, Thresholds, averaged
from idle_sense.rules.readings import unread
from idle_sense.types import Reason, Severity, Snapshot


def processors(
    snapshot: Snapshot, policy: Policy, before: Latch, passed_s: float
) -> tuple[list[Reason], Latch, bool]:
    """Reasons, the latch, and whether there is no measure yet."""
    reading = snapshot.load
    failed = unread(reading, "processor load", policy.load_fresh_s, Severity.SOFT, required=True)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed], before, False
    ratio = reading.value.others_ratio
    if ratio is None:
        return [], before, before.smoothed is None
    limits = _thresholds(policy, policy.cpu_busy_ratio, policy.cpu_free_ratio)
    latch = averaged(before, ratio, passed_s, limits)
    if not latch.on:
        return [], latch, False
    return [_ratio("load.cpu", before, latch, limits, reading.source)], latch, False


def graphics(
    snapshot: Snapshot, policy: Policy, before: Latch, passed_s: float
) -> tuple[list[Reason], Latch]:
    """By the one that is used most."""
    if not policy.watch_gpu:
        return [], Latch()
    reading = snapshot.gpus
    failed = unread(reading, "graphics processors", policy.signal_fresh_s, Severity.SOFT)
    if failed is not None or reading.value is None:
        return ([], Latch()) if failed is None else ([failed], before)
    used = [(gpu_ratio(gpu), gpu.name) for gpu in reading.value]
    told = [(ratio, name) for ratio, name in used if ratio is not None]
    if not told:
        return [], Latch()
    ratio, name = max(told)
    limits = _thresholds(policy, policy.gpu_busy_ratio, policy.gpu_free_ratio)
    latch = averaged(before, ratio, passed_s, limits)
    if not latch.on:
        return [], latch
    return [_ratio("load.gpu", before, latch, limits, reading.source, gpu=name)], latch


def gpu_ratio(gpu: GpuUse) -> float | None:
    """How much of it others use; one that sleeps is not used. What is no number counts as all."""
    if gpu.asleep:
        return 0.0
    ratio = gpu.others_ratio
    return 1.0 if ratio is not None and not math.isfinite(ratio) else ratio


def traffic(
    snapshot: Snapshot, policy: Policy, disk: Latch, network: Latch, passed_s: float
) -> tuple[list[Reason], Latch, Latch]:
    reading = snapshot.traffic
    failed = unread(reading, "disk and network traffic", policy.signal_fresh_s, Severity.SOFT)
    if failed is not None or reading.value is None:
        return ([], Latch(), Latch()) if failed is None else ([failed], disk, network)
    reasons: list[Reason] = []
    latches: list[Latch] = []
    for code, before, rate, busy, free in (
        (
            "load.disk",
            disk,
            reading.value.disk_bytes_per_s,
            policy.disk_busy_bytes_per_s,
            policy.disk_free_bytes_per_s,
        ),
        (
            "load.network",
            network,
            reading.value.network_bytes_per_s,
            policy.network_busy_bytes_per_s,
            policy.network_free_bytes_per_s,
        ),
    ):
        if rate is None:
            latches.append(before)
            continue
        limits = _thresholds(policy, busy, free)
        latch = averaged(before, rate, passed_s, limits)
        latches.append(latch)
        if latch.on:
            params: dict[str, str | float] = {
                "used_bytes_per_s": round(_decisive(before, latch)),
                "limit_bytes_per_s": limits.free,
                "calm_s": limits.easing_s,
            }
            reasons.append(Reason(code=code, severity=Severity.SOFT, params=params, source=reading.source))
    return reasons, latches[0], latches[1]


def memory(
    snapshot: Snapshot, policy: Policy, *, low: bool, stalled: bool
) -> tuple[list[Reason], bool, bool]:
    """Is memory short? Reasons and the two latches: too little of it, too much waiting for it."""
    reading = snapshot.memory
    failed = unread(reading, "memory", policy.load_fresh_s, Severity.SOFT, required=True)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed], low, stalled
    use = reading.value
    free_ratio = use.available_bytes / max(1, use.total_bytes)
    low = free_ratio < (policy.memory_free_ratio if low else policy.memory_short_ratio) or use.short is True
    waits = use.stalled_ratio
    if waits is not None and not math.isfinite(waits):
        waits = 1.0
    if waits is None:
        stalled = False
    elif stalled:
        stalled = waits > policy.stall_free_ratio
    else:
        stalled = waits >= policy.stall_busy_ratio > 0
    reasons: list[Reason] = []
    if low:
        params: dict[str, str | float] = {
            "free_bytes": use.available_bytes,
            "limit_ratio": policy.memory_free_ratio,
            "total_bytes": use.total_bytes,
        }
        reasons.append(
            Reason(code="memory.short", severity=Severity.SOFT, params=params, source=reading.source)
        )
    if stalled and waits is not None:
        params = {"stalled_ratio": round(waits, 3), "limit_ratio": policy.stall_free_ratio}
        reasons.append(
            Reason(code="memory.stalled", severity=Severity.SOFT, params=params, source=reading.source)
        )
    return reasons, low, stalled


def _thresholds(policy: Policy, busy: float, free: float) -> Thresholds:
    return Thresholds(busy=busy, free=free, smoothing_s=policy.smoothing_s, easing_s=policy.easing_s)


def _decisive(before: Latch, latch: Latch) -> float:
    """The average that keeps the latch closed: the quick one has closed it, the slow one would open it."""
    return (latch.calm if before.on else latch.smoothed) or 0.0


def _ratio(code: str, before: Latch, latch: Latch, limits: Thresholds, source: str, **more: str) -> Reason:
    params: dict[str, str | float] = {
        "used_ratio": round(_decisive(before, latch), 3),
        "limit_ratio": limits.free,
        "calm_s": limits.easing_s,
        **more,
    }
    return Reason(code=code, severity=Severity.SOFT, params=params, source=source)
