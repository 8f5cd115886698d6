"""What counts as idle: ``decide(snapshot, policy, memory) -> (verdict, memory)``, a pure function.

BUSY → SETTLING → IDLE. Any busy reason leads to BUSY at once, from everywhere. What could not be read, or was read
too long ago, is a busy reason. The way to IDLE needs ``grace_s`` of quiet; a false start doubles it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from idle_sense.policy import Policy
from idle_sense.rules.calls import calls
from idle_sense.rules.latches import Latch
from idle_sense.rules.presence import Seen, presence
from idle_sense.rules.quantities import graphics, processors, traffic
from idle_sense.rules.quantities import memory as memory_rule
from idle_sense.rules.watching import fullscreen, media
from idle_sense.rules.wishes import battery, heat, metered, paused, quiet
from idle_sense.types import Reason, Severity, Snapshot, State, Verdict

JUMP_S = 5.0
"""A wall clock that moved by less was only adjusted."""
WOKE_S = 1.0
"""Sleep shorter than this is no sleep, but two clocks read one after the other."""
RESUMES = 2
"""So often the machine gets idle in ``Policy.pace_s``."""

_OFF = Latch()


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
    resumed_s: tuple[float, ...] = ()
    """When the machine last became idle, ``RESUMES`` times at most."""
    seen: Seen = field(default_factory=Seen)
    latches: Mapping[str, Latch] = field(default_factory=dict[str, Latch])
    memory_low: bool = False
    memory_stalled: bool = False
    hot: bool = False


def decide(snapshot: Snapshot, policy: Policy, memory: Memory) -> tuple[Verdict, Memory]:
    """The verdict now, and what to remember for the next snapshot."""
    first = memory.now_s is None
    now_s = snapshot.now_s if memory.now_s is None else max(snapshot.now_s, memory.now_s)
    passed_s = 0.0 if memory.now_s is None else now_s - memory.now_s
    woke = snapshot.slept_s >= WOKE_S
    old = memory.latches

    in_calls = calls(snapshot, policy)
    in_call = any(reason.code.startswith("call.") for reason in in_calls)
    people, seen = presence(snapshot, policy, memory.seen, now_s, woke=woke, in_call=in_call)
    people += paused(snapshot)
    load, cpu, measuring = processors(snapshot, policy, old.get("cpu", _OFF), passed_s)
    gpus, gpu = graphics(snapshot, policy, old.get("gpu", _OFF), passed_s)
    rates, disk, network = traffic(
        snapshot, policy, old.get("disk", _OFF), old.get("network", _OFF), passed_s
    )
    short, memory_low, memory_stalled = memory_rule(
        snapshot, policy, low=memory.memory_low, stalled=memory.memory_stalled
    )
    screen, full = fullscreen(snapshot, policy, old.get("screen", _OFF), passed_s)
    watched, playing, inhibited = media(
        snapshot, policy, old.get("playing", _OFF), old.get("inhibited", _OFF), passed_s
    )
    warm, hot = heat(snapshot, policy, hot=memory.hot)
    others = [
        *in_calls,
        *load,
        *gpus,
        *rates,
        *short,
        *screen,
        *watched,
        *battery(snapshot, policy),
        *warm,
        *quiet(snapshot, policy),
        *metered(snapshot, policy),
    ]
    busy = sorted([*people, *others], key=lambda reason: _GRAVITY[reason.severity])

    # Signs of people carry their time; all else lasts until it is gone.
    disturbing = bool(others) or any(reason.code.startswith(("probe.", "pause.")) for reason in people)
    jumped = abs(snapshot.jumped_s) >= JUMP_S
    disturbed_s = now_s if first or disturbing or measuring or woke or jumped else memory.disturbed_s
    grace_s = policy.grace_s if memory.grace_s is None else memory.grace_s
    spent_s = now_s - memory.since_s
    if memory.state is State.IDLE and busy and spent_s < policy.false_start_s:
        grace_s = min(policy.grace_cap_s, max(grace_s, 1.0) * 2)
    elif memory.state is not State.SETTLING and not first and spent_s >= policy.calm_s:
        grace_s = policy.grace_s

    quiet_since_s = disturbed_s if seen.sign is None else max(disturbed_s, seen.sign.at_s)
    quiet_s = now_s - quiet_since_s
    waits = _waits(policy, memory, seen, now_s, grace_s=grace_s, quiet_s=quiet_s, measuring=measuring)
    resumed_s = memory.resumed_s
    if busy:
        state, reasons = State.BUSY, busy
    elif waits is not None:
        state, reasons = State.SETTLING, [waits]
    else:
        state, reasons = State.IDLE, _idle(snapshot, policy, seen, cpu, now_s)
        if memory.state is not State.IDLE or first:
            resumed_s = (*resumed_s, now_s)[-RESUMES:]
    since_s = memory.since_s if state is memory.state and not first else now_s
    verdict = Verdict(
        state=state,
        reasons=tuple(reasons),
        memory_short=memory_low or memory_stalled,
        since_s=now_s - since_s,
    )
    return verdict, Memory(
        now_s=now_s,
        state=state,
        since_s=since_s,
        grace_s=grace_s,
        disturbed_s=disturbed_s,
        resumed_s=resumed_s,
        seen=seen,
        latches={
            "cpu": cpu,
            "gpu": gpu,
            "disk": disk,
            "network": network,
            "screen": full,
            "playing": playing,
            "inhibited": inhibited,
        },
        memory_low=memory_low,
        memory_stalled=memory_stalled,
        hot=hot,
    )


_GRAVITY = {Severity.HARD: 0, Severity.SOFT: 1, Severity.POLICY: 2, Severity.INFO: 3}


def _waits(
    policy: Policy,
    memory: Memory,
    seen: Seen,
    now_s: float,
    *,
    grace_s: float,
    quiet_s: float,
    measuring: bool,
) -> Reason | None:
    """Why it is not idle yet, though nothing speaks for busy."""
    if measuring:
        return _settling("settling.measuring", limit_s=grace_s)
    since_s = seen.unattended_since_s
    if since_s is not None and now_s - since_s < policy.input_idle_s:
        return _settling("settling.unattended", age_s=round(now_s - since_s, 1), limit_s=policy.input_idle_s)
    if quiet_s < grace_s:
        return _settling("settling.grace", age_s=round(quiet_s, 1), limit_s=grace_s)
    if memory.state is State.IDLE:
        return None
    if len(memory.resumed_s) == RESUMES and now_s - memory.resumed_s[0] < policy.pace_s:
        left_s = policy.pace_s - (now_s - memory.resumed_s[0])
        return _settling("settling.pace", remaining_s=round(left_s, 1), limit_s=policy.pace_s)
    return None


def _settling(code: str, **params: float) -> Reason:
    return Reason(code=code, severity=Severity.INFO, params=dict[str, str | float](params), source="policy")


def _idle(snapshot: Snapshot, policy: Policy, seen: Seen, cpu: Latch, now_s: float) -> list[Reason]:
    told: list[Reason] = []
    if not policy.watch_input:
        told.append(Reason(code="idle.unattended", severity=Severity.INFO, source="policy"))
    else:
        signs_s = [] if seen.sign is None else [seen.sign.at_s]
        code = "idle.input"
        if seen.unattended_since_s is not None:
            # What is known of a time without keyboard to ask begins with the watch.
            signs_s.append(seen.unattended_since_s)
            code = "idle.terminal"
        age_s = round(now_s - max(signs_s, default=now_s), 1)
        source = "policy" if seen.sign is None else seen.sign.source
        told.append(Reason(code=code, severity=Severity.INFO, params={"age_s": age_s}, source=source))
    if cpu.smoothed is not None:
        params = {"used_ratio": round(cpu.smoothed, 3)}
        told.append(
            Reason(code="idle.load", severity=Severity.INFO, params=params, source=snapshot.load.source)
        )
    return told
