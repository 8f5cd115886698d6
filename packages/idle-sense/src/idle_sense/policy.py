"""What counts as idle: ``decide(snapshot, policy, memory) -> (verdict, memory)``, a pure function.

BUSY → SETTLING → IDLE. Any busy reason leads to BUSY at once, from everywhere. What could not be read, or was read
too long ago, is a busy reason. The way to IDLE needs ``grace_s`` of quiet; a false start doubles it.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from idle_sense.types import (
    Policy,
    Reading,
    Reason,
    Severity,
    Snapshot,
    State,
    Verdict,
)

JUMP_S = 5.0
"""A wall clock that moved by less was only adjusted."""

Origin = Literal["seat", "terminal", "session", "woke"]
"""What the latest sign of a person was."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The latest sign of a person that is known."""

    at_s: float
    origin: Origin
    name: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Latch:
    """A soft signal's past."""

    on: bool = False
    smoothed: float | None = None
    """Follows the signal quickly: decides when the latch closes."""
    calm: float | None = None
    """Follows it slowly: decides when it opens, so that noise does not hold it closed."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What ``decide`` has to know of the past. Start with ``Memory()``."""

    now_s: float | None = None
    """When the last snapshot was; None before the first."""
    state: State = State.BUSY
    since_s: float = 0.0
    grace_s: float | None = None
    """None: the policy's."""
    disturbed_s: float = 0.0
    """When something other than input last spoke against idleness."""
    sign: Sign | None = None
    seats: frozenset[str] | None = None
    """Names of the seats seen last; None: never read."""
    unattended_since_s: float | None = None
    """Since when there is no seat to ask."""
    cpu: Latch = field(default_factory=Latch)
    memory_low: bool = False
    memory_stalled: bool = False


def decide(snapshot: Snapshot, policy: Policy, memory: Memory) -> tuple[Verdict, Memory]:
    """The verdict now, and what to remember for the next snapshot."""
    first = memory.now_s is None
    now_s = snapshot.now_s if memory.now_s is None else max(snapshot.now_s, memory.now_s)
    woke = snapshot.slept_s >= 1.0
    presence, sign, seats = _presence(snapshot, policy, memory, now_s, woke=woke)
    # Where there is no keyboard to ask, whoever left just before the watch began leaves no trace: the watch must last.
    unattended_since_s = memory.unattended_since_s
    if not policy.watch_input or seats is None or seats:
        unattended_since_s = None
    elif unattended_since_s is None:
        unattended_since_s = now_s
    load, cpu, measuring = _load(snapshot, policy, memory, now_s)
    short, memory_low, memory_stalled = _memory(snapshot, policy, memory)
    quantities = [*load, *short, *_power(snapshot, policy)]
    busy = sorted([*presence, *quantities], key=lambda reason: _GRAVITY[reason.severity])

    unread = any(reason.code.startswith("probe.") for reason in presence)
    jumped = abs(snapshot.jumped_s) >= JUMP_S
    disturbed_s = (
        now_s if first or quantities or unread or measuring or woke or jumped else memory.disturbed_s
    )
    grace_s = policy.grace_s if memory.grace_s is None else memory.grace_s
    spent_s = now_s - memory.since_s
    if memory.state is State.IDLE and busy and spent_s < policy.false_start_s:
        grace_s = min(policy.grace_cap_s, max(grace_s, 1.0) * 2)
    elif memory.state is not State.SETTLING and not first and spent_s >= policy.calm_s:
        grace_s = policy.grace_s

    quiet_since_s = disturbed_s
    if sign is not None:
        quiet_since_s = max(quiet_since_s, sign.at_s)
    quiet_s = now_s - quiet_since_s
    watched_since_s: float | None = None
    if unattended_since_s is not None and now_s - unattended_since_s < policy.input_idle_s:
        watched_since_s = unattended_since_s

    if busy:
        state, reasons = State.BUSY, busy
    elif watched_since_s is not None or measuring or quiet_s < grace_s:
        state = State.SETTLING
        reasons = [_settling(policy, grace_s, quiet_s, now_s, watched_since_s, measuring=measuring)]
    else:
        state, reasons = State.IDLE, _idle(snapshot, policy, sign, unattended_since_s, cpu, now_s)
    since_s = memory.since_s if state is memory.state and not first else now_s

    return Verdict(
        state=state,
        reasons=tuple(reasons),
        memory_short=memory_low or memory_stalled,
        since_s=now_s - since_s,
    ), Memory(
        now_s=now_s,
        state=state,
        since_s=since_s,
        grace_s=grace_s,
        disturbed_s=disturbed_s,
        sign=sign,
        seats=seats,
        unattended_since_s=unattended_since_s,
        cpu=cpu,
        memory_low=memory_low,
        memory_stalled=memory_stalled,
    )


_GRAVITY = {Severity.HARD: 0, Severity.SOFT: 1, Severity.POLICY: 2, Severity.INFO: 3}


def unread(reading: Reading[object], probe: str, fresh_s: float, severity: Severity) -> Reason | None:
    """The reason to count as busy when a reading has no value, or is too old; None when it serves."""
    advice = reading.advice or "see idle-sense doctor"
    if reading.value is None:
        return Reason(
            code="probe.missing",
            severity=severity,
            params={"probe": probe, "problem": reading.problem or "no answer", "advice": advice},
            source=reading.source,
        )
    if not reading.age_s <= fresh_s:
        return Reason(
            code="probe.stale",
            severity=severity,
            params={
                "probe": probe,
                "age_s": round(reading.age_s, 1),
                "limit_s": fresh_s,
                "problem": reading.problem or "no newer answer",
                "advice": advice,
            },
            source=reading.source,
        )
    return None


def _presence(
    snapshot: Snapshot, policy: Policy, memory: Memory, now_s: float, *, woke: bool
) -> tuple[list[Reason], Sign | None, frozenset[str] | None]:
    """Is somebody there? Reasons, the latest sign of a person, and the seats seen."""
    if not policy.watch_input:
        return [], None, None
    reasons: list[Reason] = []
    signs: list[Sign] = [] if memory.sign is None else [memory.sign]
    names = memory.seats

    failed = unread(snapshot.seats, "input", policy.input_fresh_s, Severity.HARD)
    if failed is not None:
        reasons.append(failed)
    elif snapshot.seats.value is not None:
        for seat in snapshot.seats.value:
            failed = unread(seat.idle_s, f"input on {seat.name}", policy.input_fresh_s, Severity.HARD)
            if failed is not None:
                reasons.append(failed)
            elif seat.idle_s.value is not None:
                at_s = now_s - seat.idle_s.age_s - max(0.0, seat.idle_s.value)
                signs.append(Sign(at_s=at_s, origin="seat", name=seat.name, source=seat.idle_s.source))
        names = frozenset(seat.name for seat in snapshot.seats.value)
        if memory.seats is not None and names != memory.seats:
            signs.append(Sign(at_s=now_s, origin="session", source=snapshot.seats.source))

    failed = unread(snapshot.terminals, "terminals", policy.input_fresh_s, Severity.HARD)
    if failed is not None:
        reasons.append(failed)
    elif snapshot.terminals.value is not None:
        signs.extend(
            Sign(
                at_s=now_s - snapshot.terminals.age_s - max(0.0, terminal.idle_s),
                origin="terminal",
                name=terminal.name,
                source=snapshot.terminals.source,
            )
            for terminal in snapshot.terminals.value
        )

    if woke:
        signs.append(Sign(at_s=now_s, origin="woke", source="clock"))
    sign = max(signs, key=lambda item: item.at_s, default=None)
    if sign is not None and now_s - sign.at_s < policy.input_idle_s:
        reasons.append(_recent(sign, now_s, policy.input_idle_s))
    return reasons, sign, names


def _recent(sign: Sign, now_s: float, limit_s: float) -> Reason:
    params: dict[str, str | float] = {"age_s": round(now_s - sign.at_s, 1), "limit_s": limit_s}
    match sign.origin:
        case "seat":
            code = "input.recent"
            params["seat"] = sign.name
        case "terminal":
            code = "terminal.recent"
            params["terminal"] = sign.name
        case "woke":
            code = "session.woke"
        case _:
            code = "session.changed"
    return Reason(code=code, severity=Severity.HARD, params=params, source=sign.source)


def _load(
    snapshot: Snapshot, policy: Policy, memory: Memory, now_s: float
) -> tuple[list[Reason], Latch, bool]:
    """Do other programs use the processors? Reasons, the latch, and whether there is no measure yet."""
    failed = unread(snapshot.load, "processor load", policy.load_fresh_s, Severity.SOFT)
    if failed is not None or snapshot.load.value is None:
        return [] if failed is None else [failed], memory.cpu, False
    ratio = snapshot.load.value.others_ratio
    if ratio is None:
        return [], memory.cpu, memory.cpu.smoothed is None
    if not math.isfinite(ratio):
        ratio = 1.0
    before = memory.cpu
    passed_s = 0.0 if memory.now_s is None else max(0.0, now_s - memory.now_s)
    smoothed = _smoothed(before.smoothed, ratio, passed_s, policy.cpu_smoothing_s)
    calm = _smoothed(before.calm, ratio, passed_s, policy.cpu_calm_s)
    on = calm > policy.cpu_free_ratio if before.on else smoothed >= policy.cpu_busy_ratio
    if on and not before.on:
        # The slow average must not open what the quick one has just closed.
        calm = max(calm, smoothed)
    latch = Latch(on=on, smoothed=smoothed, calm=calm)
    if not on:
        return [], latch, False
    params: dict[str, str | float] = {
        "used_ratio": round(calm if before.on else smoothed, 3),
        "limit_ratio": policy.cpu_free_ratio,
        "calm_s": policy.cpu_calm_s,
    }
    reason = Reason(code="load.cpu", severity=Severity.SOFT, params=params, source=snapshot.load.source)
    return [reason], latch, False


def _smoothed(before: float | None, value: float, passed_s: float, constant_s: float) -> float:
    """Exponential smoothing over uneven steps; the first value stands for itself."""
    if before is None or constant_s == 0:
        return value
    return before + (1.0 - math.exp(-passed_s / constant_s)) * (value - before)


def _memory(snapshot: Snapshot, policy: Policy, memory: Memory) -> tuple[list[Reason], bool, bool]:
    """Is memory short? Reasons and the two latches: too little of it, too much waiting for it."""
    reading = snapshot.memory
    failed = unread(reading, "memory", policy.load_fresh_s, Severity.SOFT)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed], memory.memory_low, memory.memory_stalled
    use = reading.value
    free_ratio = use.available_bytes / max(1, use.total_bytes)
    low = free_ratio < (policy.memory_free_ratio if memory.memory_low else policy.memory_short_ratio)
    stalled = False
    if use.stalled_ratio is not None:
        if memory.memory_stalled:
            stalled = use.stalled_ratio > policy.stall_free_ratio
        else:
            stalled = use.stalled_ratio >= policy.stall_busy_ratio > 0
    reasons: list[Reason] = []
    if low:
        params: dict[str, str | float] = {
            "free_bytes": use.available_bytes,
            "total_bytes": use.total_bytes,
            "limit_ratio": policy.memory_free_ratio,
        }
        reasons.append(
            Reason(code="memory.short", severity=Severity.SOFT, params=params, source=reading.source)
        )
    if stalled and use.stalled_ratio is not None:
        params = {"stalled_ratio": round(use.stalled_ratio, 3), "limit_ratio": policy.stall_free_ratio}
        reasons.append(
            Reason(code="memory.stalled", severity=Severity.SOFT, params=params, source=reading.source)
        )
    return reasons, low, stalled


def _power(snapshot: Snapshot, policy: Policy) -> list[Reason]:
    if policy.lend_on_battery:
        return []
    reading = snapshot.power
    failed = unread(reading, "power", policy.power_fresh_s, Severity.POLICY)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed]
    if not reading.value.battery or reading.value.on_mains is True:
        return []
    if reading.value.on_mains is None:
        told = dataclasses.replace(
            reading,
            value=None,
            problem="there is a battery, and the system does not tell whether it is in use",
            advice=reading.advice or "a policy with lend_on_battery = true does not ask",
        )
        failed = unread(told, "power", policy.power_fresh_s, Severity.POLICY)
        return [] if failed is None else [failed]
    return [Reason(code="power.battery", severity=Severity.POLICY, source=reading.source)]


def _settling(
    policy: Policy,
    grace_s: float,
    quiet_s: float,
    now_s: float,
    watched_since_s: float | None,
    *,
    measuring: bool,
) -> Reason:
    if watched_since_s is not None:
        code = "settling.unattended"
        params: Mapping[str, str | float] = {
            "age_s": round(now_s - watched_since_s, 1),
            "limit_s": policy.input_idle_s,
        }
    elif measuring:
        code, params = "settling.measuring", {"limit_s": grace_s}
    else:
        code, params = "settling.grace", {"age_s": round(quiet_s, 1), "limit_s": grace_s}
    return Reason(code=code, severity=Severity.INFO, params=params, source="policy")


def _idle(
    snapshot: Snapshot,
    policy: Policy,
    sign: Sign | None,
    unattended_since_s: float | None,
    cpu: Latch,
    now_s: float,
) -> Iterable[Reason]:
    if not policy.watch_input:
        yield Reason(code="idle.unattended", severity=Severity.INFO, source="policy")
    else:
        signs_s = [] if sign is None else [sign.at_s]
        code = "idle.input"
        if unattended_since_s is not None:
            # What is known of a time without keyboard to ask begins with the watch.
            signs_s.append(unattended_since_s)
            code = "idle.terminal"
        age_s = round(now_s - max(signs_s, default=now_s), 1)
        source = "policy" if sign is None else sign.source
        yield Reason(code=code, severity=Severity.INFO, params={"age_s": age_s}, source=source)
    if cpu.smoothed is not None:
        used_ratio = round(cpu.smoothed, 3)
        yield Reason(
            code="idle.load",
            severity=Severity.INFO,
            params={"used_ratio": used_ratio},
            source=snapshot.load.source,
        )
