"""All that speaks for and against idleness, fact by fact, in words. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from idle_sense.decision import Memory
from idle_sense.facts import Reading
from idle_sense.policy import Policy
from idle_sense.rules.quantities import gpu_ratio
from idle_sense.rules.wishes import heat_limits
from idle_sense.types import Reason, Severity, Snapshot, Verdict

Speaks = Literal["busy", "idle", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one fact says."""

    fact: str
    """As in ``Snapshot``; ``owner`` and ``clock`` for what the owner said and the time of day."""
    speaks: Speaks
    """``nothing``: this system does not tell it, or the policy does not ask."""
    reason: Reason
    """Code, value, limit and source; for what keeps the machine busy, that of the verdict."""
    age_s: float
    """How old the reading is."""

    @property
    def sentence(self) -> str:
        return self.reason.sentence


@dataclass(frozen=True, kw_only=True)
class Explanation:
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    """What speaks for busy first."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict, then the evidence."""
        told = {reason.sentence for reason in self.verdict.reasons}
        return (
            *(reason.sentence for reason in self.verdict.reasons),
            *(item.sentence for item in self.evidence if item.sentence not in told),
        )


def explain(snapshot: Snapshot, policy: Policy, memory: Memory, verdict: Verdict) -> Explanation:
    """``verdict`` and ``memory``: what ``decide`` made of ``snapshot``."""
    found = [*_against(snapshot, verdict), *_others(snapshot, policy, memory, verdict)]
    found.sort(key=lambda item: _ORDER[item.speaks])
    return Explanation(verdict=verdict, evidence=tuple(found))


_ORDER: Mapping[Speaks, int] = {"busy": 0, "idle": 1, "nothing": 2}

_FACTS: Mapping[str, str] = {
    "input.recent": "seats",
    "terminal.recent": "terminals",
    "session.changed": "sessions",
    "session.began": "sessions",
    "session.ended": "sessions",
    "session.unlocked": "sessions",
    "session.woke": "clock",
    "call.microphone": "calls",
    "call.camera": "calls",
    "call.ended": "calls",
    "pause.set": "owner",
    "pause.timed": "owner",
    "load.cpu": "load",
    "load.gpu": "gpus",
    "load.disk": "traffic",
    "load.network": "traffic",
    "memory.short": "memory",
    "memory.stalled": "memory",
    "screen.fullscreen": "screen",
    "media.playing": "media",
    "media.inhibitor": "media",
    "power.battery": "power",
    "heat.hot": "thermal",
    "heat.slowed": "thermal",
    "quiet.hours": "clock",
    "network.metered": "network",
}
"""The fact that each busy reason rests on."""
_PROBES: Mapping[str, str] = {
    "terminals": "terminals",
    "sessions": "sessions",
    "microphones and cameras": "calls",
    "processor load": "load",
    "graphics processors": "gpus",
    "disk and network traffic": "traffic",
    "memory": "memory",
    "screen": "screen",
    "media": "media",
    "power": "power",
    "temperature": "thermal",
    "kind of network": "network",
    "time of day": "clock",
}
"""The fact that a reason of a probe means, by the name that it is told with; else it is about a seat."""

_NAMES = {"seats": "keys and mouse", **{fact: name for name, fact in _PROBES.items()}}
"""What each fact is called."""


def fact_of(reason: Reason) -> str:
    """Of a reason that keeps the machine busy."""
    if reason.code.startswith("probe."):
        return _PROBES.get(str(reason.params.get("probe")), "seats")
    return _FACTS.get(reason.code, "owner")


def _against(snapshot: Snapshot, verdict: Verdict) -> Iterator[Evidence]:
    for reason in verdict.reasons:
        if reason.severity is not Severity.INFO:
            fact = fact_of(reason)
            reading = getattr(snapshot, fact, None)
            age_s = reading.age_s if isinstance(reading, Reading) else 0.0
            yield Evidence(fact=fact, speaks="busy", reason=reason, age_s=age_s)


def _others(snapshot: Snapshot, policy: Policy, memory: Memory, verdict: Verdict) -> Iterator[Evidence]:
    """All facts that keep nothing busy."""
    against = {fact_of(reason) for reason in verdict.reasons if reason.severity is not Severity.INFO}
    yield from _places(snapshot, policy, told=frozenset(_said(verdict)))
    for fact, asked in (
        ("sessions", policy.watch_input),
        ("calls", policy.watch_calls),
        ("load", True),
        ("gpus", policy.watch_gpu),
        ("traffic", True),
        ("memory", True),
        ("screen", policy.watch_fullscreen),
        ("media", policy.watch_media),
        ("power", not policy.lend_on_battery),
        ("thermal", True),
        ("network", not policy.lend_on_metered),
    ):
        reading: Reading[Any] = getattr(snapshot, fact)
        if fact in against:
            continue
        if not asked:
            yield _note(fact, "nothing", "unasked.fact", reading, fact=_NAMES[fact], policy=policy.name)
        elif reading.value is None:
            yield _note(fact, "nothing", "untold.fact", reading, fact=_NAMES[fact], problem=reading.problem)
        else:
            for code, params in _calm(fact, snapshot, policy, memory):
                yield _note(fact, "idle", code, reading, **params)
    if policy.quiet_hours and "clock" not in against:
        hours = ", ".join(str(item) for item in policy.quiet_hours)
        clock: Reading[float] = Reading(value=0.0, source="clock")
        yield _note("clock", "idle", "calm.hours", clock, hours=hours)


def _said(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """(code, seat or terminal) of reasons already told."""
    for reason in verdict.reasons:
        yield reason.code, str(reason.params.get("seat", reason.params.get("terminal", "")))


def _places(snapshot: Snapshot, policy: Policy, *, told: frozenset[tuple[str, str]]) -> Iterator[Evidence]:
    """Each seat and terminal. The verdict tells only the latest sign of a person."""
    if not policy.watch_input:
        for fact in ("seats", "terminals"):
            yield _note(
                fact,
                "nothing",
                "unasked.fact",
                getattr(snapshot, fact),
                fact=_NAMES[fact],
                policy=policy.name,
            )
        return
    if snapshot.seats.value == ():
        yield _note("seats", "nothing", "calm.no_seat", snapshot.seats)
    for seat in snapshot.seats.value or ():
        if seat.idle_s.value is not None and seat.idle_s.age_s <= policy.input_fresh_s:
            age_s = seat.idle_s.value + seat.idle_s.age_s
            if age_s >= policy.input_idle_s:
                yield _age("seats", "calm.input", "seat", seat.name, age_s, policy, seat.idle_s)
            elif ("input.recent", seat.name) not in told:
                yield _age("seats", "input.recent", "seat", seat.name, age_s, policy, seat.idle_s)
    yield from _terminals(snapshot, policy, told=told)


def _terminals(snapshot: Snapshot, policy: Policy, *, told: frozenset[tuple[str, str]]) -> Iterator[Evidence]:
    reading = snapshot.terminals
    if reading.value is None or reading.age_s > policy.input_fresh_s:
        return
    if not reading.value:
        yield _note("terminals", "idle", "calm.no_terminal", reading)
    calm: list[tuple[float, str]] = []
    for terminal in reading.value:
        age_s = terminal.idle_s + reading.age_s
        if age_s >= policy.input_idle_s:
            calm.append((age_s, terminal.name))
        elif ("terminal.recent", terminal.name) not in told:
            yield _age("terminals", "terminal.recent", "terminal", terminal.name, age_s, policy, reading)
    if calm:
        age_s, name = min(calm)
        yield _note(
            "terminals",
            "idle",
            "calm.terminal",
            reading,
            age_s=round(age_s, 1),
            limit_s=policy.input_idle_s,
            count=len(calm),
            terminal=name,
        )


def _age(
    fact: str, code: str, kind: str, name: str, age_s: float, policy: Policy, reading: Reading[Any]
) -> Evidence:
    recent = code.endswith(".recent")
    params: dict[str, str | float] = {"age_s": round(age_s, 1), "limit_s": policy.input_idle_s, kind: name}
    severity = Severity.HARD if recent else Severity.INFO
    reason = Reason(code=code, severity=severity, params=params, source=reading.source)
    return Evidence(fact=fact, speaks="busy" if recent else "idle", reason=reason, age_s=reading.age_s)


def _note(fact: str, speaks: Speaks, code: str, reading: Reading[Any], /, **params: str | float) -> Evidence:
    reason = Reason(code=code, severity=Severity.INFO, params=params, source=reading.source)
    return Evidence(fact=fact, speaks=speaks, reason=reason, age_s=reading.age_s)


_Calm = Iterable[tuple[str, dict[str, str | float]]]


def _calm(fact: str, snapshot: Snapshot, policy: Policy, memory: Memory) -> _Calm:
    """Codes and parameters of what a fact that was read says for idleness."""
    match fact:
        case "sessions":
            count = len(snapshot.sessions.value or ())
            yield "calm.sessions", {"count": count, "limit_s": policy.input_idle_s}
        case "calls":
            yield "calm.calls", {}
        case "load":
            cpu = memory.latches.get("cpu")
            if cpu is not None and cpu.smoothed is not None:
                yield (
                    "calm.load",
                    {"used_ratio": round(cpu.smoothed, 3), "limit_ratio": policy.cpu_busy_ratio},
                )
        case "gpus":
            yield from _gpus(snapshot, policy)
        case "traffic":
            yield from _traffic(snapshot, policy)
        case "memory":
            yield from _memory(snapshot, policy)
        case "screen":
            yield "calm.screen", {}
        case "media":
            yield "calm.media", {}
        case "power":
            power = snapshot.power.value
            yield ("calm.mains" if power is not None and power.battery else "calm.no_battery"), {}
        case "thermal":
            yield from _heat(snapshot, policy)
        case _:
            yield "calm.network_kind", {}


def _gpus(snapshot: Snapshot, policy: Policy) -> _Calm:
    if not snapshot.gpus.value:
        yield "calm.no_gpu", {}
    for gpu in snapshot.gpus.value or ():
        ratio = gpu_ratio(gpu)
        if ratio is None:
            yield "untold.gpu", {"gpu": gpu.name}
        else:
            yield (
                "calm.gpu",
                {"used_ratio": round(ratio, 3), "limit_ratio": policy.gpu_busy_ratio, "gpu": gpu.name},
            )


def _traffic(snapshot: Snapshot, policy: Policy) -> _Calm:
    use = snapshot.traffic.value
    if use is None:
        return
    for code, rate, limit in (
        ("calm.disk", use.disk_bytes_per_s, policy.disk_busy_bytes_per_s),
        ("calm.network", use.network_bytes_per_s, policy.network_busy_bytes_per_s),
    ):
        if rate is not None:
            yield code, {"used_bytes_per_s": round(rate), "limit_bytes_per_s": limit}


def _memory(snapshot: Snapshot, policy: Policy) -> _Calm:
    use = snapshot.memory.value
    if use is not None:
        yield (
            "calm.memory",
            {
                "free_bytes": use.available_bytes,
                "limit_ratio": policy.memory_short_ratio,
                "total_bytes": use.total_bytes,
            },
        )


def _heat(snapshot: Snapshot, policy: Policy) -> _Calm:
    thermal = snapshot.thermal.value
    if thermal is None:
        return
    if thermal.hottest_c is None:
        yield "calm.unslowed", {"pressure": thermal.pressure}
    else:
        hot_c, _ = heat_limits(thermal, policy)
        sensor = thermal.sensor or "a sensor"
        yield "calm.heat", {"hottest_c": round(thermal.hottest_c, 1), "limit_c": hot_c, "sensor": sensor}
