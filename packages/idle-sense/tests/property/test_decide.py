"""What ``decide`` promises whatever it is shown, and in whatever order."""

import dataclasses
import itertools
import math
import random
from datetime import datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idle_sense import (
    Calls,
    GpuUse,
    Load,
    Media,
    Memory,
    MemoryUse,
    Network,
    Policy,
    Power,
    QuietHours,
    Reading,
    Screen,
    Seat,
    Session,
    Severity,
    Snapshot,
    State,
    Terminal,
    Thermal,
    Traffic,
    Verdict,
    decide,
)
from idle_sense.probes.bundle import FACTS

settings.register_profile(
    "pure", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pure")
ages = st.one_of(st.just(0.0), st.floats(0, 200))


def readings(values: st.SearchStrategy) -> st.SearchStrategy:
    good = st.builds(lambda value, age_s: Reading(value=value, source="test", age_s=age_s), values, ages)
    missing = st.builds(lambda: Reading.missing("test", "not there", "mend it"))
    return st.one_of(good, good, good, missing)


seats = st.lists(
    st.builds(Seat, name=st.sampled_from([":0", ":1"]), idle_s=readings(st.floats(0, 2000))), max_size=2
).map(tuple)
terminals = st.lists(st.builds(Terminal, name=st.just("pts/0"), idle_s=st.floats(0, 2000)), max_size=1).map(
    tuple
)
names = st.lists(st.sampled_from(["meeting", "player"]), max_size=2).map(tuple)
ratios = st.floats(0, 1) | st.just(math.nan)
rates = st.none() | st.floats(0, 1e9) | st.just(math.nan)
sessions = st.lists(
    st.builds(
        Session,
        name=st.sampled_from(["1 of anna", "2 of bob"]),
        user=st.just("anna"),
        remote=st.booleans(),
        active=st.booleans(),
        locked=st.sampled_from([True, False, None]),
    ),
    max_size=2,
    unique_by=lambda session: session.name,
).map(tuple)


def told_or_not(values: st.SearchStrategy) -> st.SearchStrategy:
    return readings(values) | st.just(Reading.untold("test", "no way to tell"))


snapshots = st.builds(
    Snapshot,
    now_s=st.floats(0, 400),
    seats=readings(seats),
    terminals=readings(terminals),
    load=readings(st.builds(Load, others_ratio=st.one_of(st.none(), ratios))),
    memory=readings(
        st.builds(
            MemoryUse,
            total_bytes=st.just(1 << 30),
            available_bytes=st.integers(0, 1 << 30),
            stalled_ratio=st.one_of(st.none(), ratios),
            short=st.sampled_from([None, None, False, True]),
        )
    ),
    power=told_or_not(st.builds(Power, battery=st.booleans(), on_mains=st.sampled_from([True, False, None]))),
    sessions=told_or_not(sessions),
    traffic=told_or_not(st.builds(Traffic, disk_bytes_per_s=rates, network_bytes_per_s=rates)),
    gpus=told_or_not(
        st.lists(
            st.builds(GpuUse, name=st.just("0"), others_ratio=st.none() | ratios, asleep=st.booleans()),
            max_size=1,
        ).map(tuple)
    ),
    calls=told_or_not(st.builds(Calls, microphones=names, cameras=names)),
    media=told_or_not(st.builds(Media, playing=names, inhibitors=names)),
    screen=told_or_not(st.builds(Screen, fullscreen=names)),
    thermal=told_or_not(
        st.builds(
            Thermal,
            hottest_c=st.none() | st.floats(20, 110) | st.just(math.nan),
            limit_c=st.none() | st.floats(60, 120),
            pressure=st.sampled_from(["", "nominal", "heavy"]),
        )
    ),
    network=told_or_not(st.builds(Network, metered=st.booleans())),
    local=st.datetimes(),
    paused_for_s=st.sampled_from([None, None, None, 60.0, math.inf]),
    slept_s=st.sampled_from([0.0, 0.0, 0.0, 600.0]),
    jumped_s=st.sampled_from([0.0, 0.0, 0.0, -600.0]),
)
OWN = dataclasses.replace(
    Policy.desktop(),
    name="own",
    lend_on_metered=True,
    lend_on_battery=True,
    watch_gpu=False,
    quiet_hours=(QuietHours.parse("mon-fri 22:00-07:00"),),
    ignore_programs=("player",),
)
policies = st.sampled_from([Policy.desktop(), Policy.server(), Policy.lab(), OWN])
PEOPLE = ("seats", "terminals", "sessions", "calls", "media", "screen")


CALM = Snapshot(
    now_s=10.0,
    seats=Reading(value=(Seat(name=":0", idle_s=Reading(value=9e9, source="t")),), source="t"),
    terminals=Reading(value=(), source="t"),
    load=Reading(value=Load(others_ratio=0.0), source="t"),
    memory=Reading(value=MemoryUse(total_bytes=100, available_bytes=90), source="t"),
    power=Reading(value=Power(battery=False, on_mains=None), source="t"),
    local=datetime(2026, 11, 25, 12, 0),  # noqa: DTZ001 - a time of day
)
"""A machine at rest, ten seconds after the look before."""


def replay(steps: list[Snapshot], policy: Policy) -> list[tuple[Snapshot, Verdict, Memory]]:
    """Each snapshot's ``now_s`` is taken as the time since the one before."""
    memory, now_s = Memory(), 1000.0
    told: list[tuple[Snapshot, Verdict, Memory]] = []
    for step in steps:
        now_s += step.now_s
        snapshot = dataclasses.replace(step, now_s=now_s)
        verdict, memory = decide(snapshot, policy, memory)
        told.append((snapshot, verdict, memory))
    return told


@given(st.lists(snapshots, min_size=1, max_size=12), policies)
def test_every_verdict_has_a_reason_and_a_sentence(steps: list[Snapshot], policy: Policy) -> None:
    for _, verdict, _ in replay(steps, policy):
        assert verdict.reasons
        assert verdict.since_s >= 0
        for reason in verdict.reasons:
            assert reason.sentence != reason.code, "every code has a sentence, and every parameter it names"
        busy = any(reason.severity is not Severity.INFO for reason in verdict.reasons)
        assert busy is (verdict.state is State.BUSY)


@given(st.lists(snapshots, min_size=1, max_size=12), policies)
def test_what_cannot_be_read_is_never_idle(steps: list[Snapshot], policy: Policy) -> None:
    for snapshot, verdict, _ in replay(steps, policy):
        asked = set(FACTS) - {"power", "network"}
        if policy.name == "server":
            asked -= set(PEOPLE)
        if not policy.watch_gpu:
            asked.discard("gpus")
        asked |= set() if policy.lend_on_battery else {"power"}
        asked |= set() if policy.lend_on_metered else {"network"}
        needed = [getattr(snapshot, fact) for fact in asked]
        if policy.watch_input:
            needed += [seat.idle_s for seat in snapshot.seats.value or ()]
        if any((reading.value is None and reading.tells) or reading.age_s > 120 for reading in needed):
            assert verdict.state is State.BUSY
        if any(getattr(snapshot, fact).value is None for fact in ("load", "memory")):
            assert verdict.state is State.BUSY


@given(st.lists(snapshots, min_size=1, max_size=12), st.sampled_from([Policy.desktop(), Policy.lab()]))
def test_recent_input_is_never_idle(steps: list[Snapshot], policy: Policy) -> None:
    """Even where the reading itself is old: it was recent when it was taken, and nothing newer says otherwise."""
    for snapshot, verdict, _ in replay(steps, policy):
        idle = [
            seat.idle_s.age_s + seat.idle_s.value
            for seat in snapshot.seats.value or ()
            if seat.idle_s.value is not None
        ]
        idle += [terminal.idle_s + snapshot.terminals.age_s for terminal in snapshot.terminals.value or ()]
        if any(seconds < policy.input_idle_s - 0.001 for seconds in idle):
            assert verdict.state is State.BUSY


@given(st.lists(snapshots, min_size=2, max_size=12), policies)
def test_idle_needs_the_grace_of_quiet_before_it(steps: list[Snapshot], policy: Policy) -> None:
    told = replay(steps, policy)
    assert told[0][1].state is not State.IDLE or policy.grace_s == 0
    for position, (snapshot, verdict, memory) in enumerate(told):
        if verdict.state is State.IDLE and told[position - 1][1].state is State.BUSY:
            between_s = snapshot.now_s - told[position - 1][0].now_s
            assert between_s > 0
            assert memory.grace_s is not None
            assert snapshot.now_s - memory.disturbed_s >= memory.grace_s


@given(st.lists(snapshots, max_size=8), snapshots, policies)
def test_the_way_out_is_never_delayed(steps: list[Snapshot], last: Snapshot, policy: Policy) -> None:
    """What is busy without a past is busy with any past."""
    alone, _ = decide(dataclasses.replace(last, now_s=1e6, slept_s=0, jumped_s=0), policy, Memory())
    *_, (_, verdict, _) = replay([*steps, dataclasses.replace(last, now_s=0.0)], policy)
    at_once = [
        reason
        for reason in alone.reasons
        if reason.severity in (Severity.HARD, Severity.POLICY)
        or reason.code in ("screen.fullscreen", "media.inhibitor", "memory.short", "memory.stalled")
        or reason.code.startswith("probe.")
    ]
    if at_once:
        assert verdict.state is State.BUSY
        assert {reason.code for reason in at_once} <= set(verdict.codes) | SIGNS


SIGNS = {"input.recent", "terminal.recent"}
"""Of signs of people only the latest is told, which in a past may be another one."""


@given(st.lists(snapshots, min_size=1, max_size=12), policies)
def test_a_hard_reason_is_never_idle_and_the_gravest_comes_first(
    steps: list[Snapshot], policy: Policy
) -> None:
    gravity = {Severity.HARD: 0, Severity.SOFT: 1, Severity.POLICY: 2, Severity.INFO: 3}
    for snapshot, verdict, _ in replay(steps, policy):
        order = [gravity[reason.severity] for reason in verdict.reasons]
        assert order == sorted(order)
        if snapshot.paused_for_s is not None:
            assert verdict.state is State.BUSY
        heard = snapshot.calls.value
        if policy.watch_calls and heard is not None:
            programs = {*heard.microphones, *heard.cameras} - set(policy.ignore_programs)
            assert not programs or verdict.state is State.BUSY


@given(st.lists(snapshots, max_size=8), snapshots, policies)
def test_quiet_that_lasts_only_leads_towards_idle(
    steps: list[Snapshot], last: Snapshot, policy: Policy
) -> None:
    """Nothing changes but time: once settling it is not busy again, once idle it stays idle; and idle it gets."""
    calm = dataclasses.replace(
        CALM, sessions=last.sessions if last.sessions.value is not None else CALM.sessions
    )
    calm = dataclasses.replace(calm, sessions=dataclasses.replace(calm.sessions, age_s=0.0))
    told = replay([*steps, *[calm] * 160], policy)[len(steps) :]
    order = {State.BUSY: 0, State.SETTLING: 1, State.IDLE: 2}
    states = [order[verdict.state] for _, verdict, _ in told]
    # The averages of quantities may still rise in the first step; people's signs do not.
    assert states[1:] == sorted(states[1:])
    assert states[-1] == 2


def steady(ratio: float, policy: Policy, latch_on: bool) -> list[bool]:
    """Whether the load is a reason, second by second, from a latch that is closed or open."""
    memory = Memory()
    for second in range(300):
        high = policy.cpu_busy_ratio if latch_on else 0.0
        _, memory = decide(with_load(second, high), policy, memory)
    states: list[bool] = []
    for second in range(300, 900):
        verdict, memory = decide(with_load(second, ratio), policy, memory)
        states.append("load.cpu" in verdict.codes)
    return states


def with_load(second: float, ratio: float) -> Snapshot:
    return dataclasses.replace(
        CALM, now_s=1000.0 + second, load=Reading(value=Load(others_ratio=ratio), source="t")
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.booleans(), st.lists(st.floats(0, 1), min_size=1, max_size=7), policies)
def test_a_latch_never_flaps_whatever_lies_between_its_thresholds(
    share: float, latch_on: bool, weights: list[float], policy: Policy
) -> None:
    between = policy.cpu_free_ratio + share * (policy.cpu_busy_ratio - policy.cpu_free_ratio)
    margin = 1e-6
    between = min(max(between, policy.cpu_free_ratio + margin), policy.cpu_busy_ratio - margin)
    assert set(steady(between, policy, latch_on)) == {latch_on}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 200), st.sampled_from(["busy", "calm"])), max_size=60))
def test_it_never_gets_idle_more_than_twice_in_ten_minutes(turns: list[tuple[float, str]]) -> None:
    """Whatever the machine does, at whatever pace."""
    policy = dataclasses.replace(Policy.desktop(), grace_s=1.0, grace_cap_s=1.0)
    memory, now_s, resumed_s, before = Memory(), 1000.0, [], State.BUSY
    for seconds, turn in turns:
        power = Reading(value=Power(battery=turn == "busy", on_mains=False), source="t")
        until_s = now_s + seconds
        while now_s < until_s:
            now_s += 0.5
            verdict, memory = decide(dataclasses.replace(CALM, now_s=now_s, power=power), policy, memory)
            if verdict.state is State.IDLE and before is not State.IDLE:
                resumed_s.append(now_s)
            before = verdict.state
    assert all(third - first >= 600 for first, third in zip(resumed_s, resumed_s[2:], strict=False))


def noise(kind: str, seed: int) -> list[float]:
    """Ten minutes of load of others, a value a second, as background programs make it."""
    dice = random.Random(seed)
    match kind:
        case "spikes":
            return [dice.random() if second % 10 == 9 else 0.03 for second in range(600)]
        case "white":
            return [min(1.0, max(0.0, dice.gauss(0.08, 0.08))) for _ in range(600)]
        case "rare bursts":
            return [1.0 if second % 97 < 1 else dice.random() * 0.1 for second in range(600)]
        case "slow swell":
            return [
                0.08 + 0.06 * math.sin(second / 30 + seed) + 0.03 * dice.random() for second in range(600)
            ]
        case _:
            level = 0.05
            walk: list[float] = []
            for _ in range(600):
                level = min(0.13, max(0.0, level + dice.gauss(0, 0.02)))
                walk.append(level)
            return walk


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["spikes", "white", "rare bursts", "slow swell", "walk"]),
    st.integers(0, 2**32),
    policies.filter(lambda policy: not policy.quiet_hours),
)
def test_noise_of_every_kind_leaves_the_machine_idle(kind: str, seed: int, policy: Policy) -> None:
    """At most two resumes in ten minutes, and 90 % of the idle time used."""
    memory = Memory()
    states: list[State] = []
    for second, ratio in enumerate(noise(kind, seed)):
        verdict, memory = decide(with_load(second, ratio), policy, memory)
        states.append(verdict.state)
    resumes = sum(
        before is not State.IDLE and after is State.IDLE for before, after in itertools.pairwise(states)
    )
    assert resumes <= 2
    assert states.count(State.IDLE) >= 0.9 * len(states)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(5, 60), st.floats(5, 200))
def test_work_that_comes_and_goes_makes_at_most_two_resumes_in_ten_minutes(
    seed: int, busy_s: float, calm_s: float
) -> None:
    dice = random.Random(seed)
    memory, states, until_s, loud = Memory(), [], 0.0, False
    for second in range(1800):
        if second >= until_s:
            loud = not loud
            until_s = second + dice.uniform(0.5, 1.5) * (busy_s if loud else calm_s)
        verdict, memory = decide(with_load(second, 0.9 if loud else 0.02), Policy.desktop(), memory)
        states.append(verdict.state)
    resumed = [at for at in range(1, 1800) if states[at] is State.IDLE and states[at - 1] is not State.IDLE]
    assert all(third - first >= 600 for first, third in zip(resumed, resumed[2:], strict=False))


@given(st.lists(snapshots, min_size=1, max_size=12), policies)
def test_the_grace_stays_between_its_start_and_its_cap(steps: list[Snapshot], policy: Policy) -> None:
    for _, _, memory in replay(steps, policy):
        assert memory.grace_s is not None
        assert policy.grace_s <= memory.grace_s <= policy.grace_cap_s


@given(st.lists(snapshots, min_size=1, max_size=8), policies)
def test_the_same_past_gives_the_same_verdict(steps: list[Snapshot], policy: Policy) -> None:
    assert [verdict for _, verdict, _ in replay(steps, policy)] == [
        verdict for _, verdict, _ in replay(steps, policy)
    ]
