"""What ``decide`` promises whatever it is shown, and in whatever order."""

import dataclasses
import itertools
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idle_sense import (
    Load,
    Memory,
    MemoryUse,
    Policy,
    Power,
    Reading,
    Seat,
    Severity,
    Snapshot,
    State,
    Terminal,
    Verdict,
    decide,
)

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
snapshots = st.builds(
    Snapshot,
    now_s=st.floats(0, 400),
    seats=readings(seats),
    terminals=readings(terminals),
    load=readings(st.builds(Load, others_ratio=st.one_of(st.none(), st.floats(0, 1)))),
    memory=readings(
        st.builds(
            MemoryUse,
            total_bytes=st.just(1 << 30),
            available_bytes=st.integers(0, 1 << 30),
            stalled_ratio=st.one_of(st.none(), st.floats(0, 1)),
        )
    ),
    power=readings(st.builds(Power, battery=st.booleans(), on_mains=st.sampled_from([True, False, None]))),
    slept_s=st.sampled_from([0.0, 0.0, 0.0, 600.0]),
    jumped_s=st.sampled_from([0.0, 0.0, 0.0, -600.0]),
)
policies = st.sampled_from([Policy.desktop(), Policy.server(), Policy.lab()])


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
        needed = [snapshot.load, snapshot.memory, snapshot.power]
        if policy.watch_input:
            needed += [snapshot.seats, snapshot.terminals]
            needed += [seat.idle_s for seat in snapshot.seats.value or ()]
        if any(reading.value is None for reading in needed):
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
    hard = [reason for reason in alone.reasons if reason.severity is Severity.HARD]
    if hard:
        assert verdict.state is State.BUSY


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


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.0, 0.05))
def test_a_noisy_load_does_not_make_the_machine_flap(seed: int, base: float) -> None:
    """Ten minutes, a look a second; in each ten seconds one is loud. At most two resumes, 90 % of the time used."""
    memory, noise = Memory(), random.Random(seed)
    states: list[State] = []
    for second in range(600):
        ratio = noise.random() if second % 10 == 9 else base
        snapshot = Snapshot(
            now_s=1000.0 + second,
            seats=Reading(value=(Seat(name=":0", idle_s=Reading(value=9e4, source="t")),), source="t"),
            terminals=Reading(value=(), source="t"),
            load=Reading(value=Load(others_ratio=ratio), source="t"),
            memory=Reading(value=MemoryUse(total_bytes=100, available_bytes=90), source="t"),
            power=Reading(value=Power(battery=False, on_mains=None), source="t"),
        )
        verdict, memory = decide(snapshot, Policy.desktop(), memory)
        states.append(verdict.state)
    resumes = sum(
        before is not State.IDLE and after is State.IDLE for before, after in itertools.pairwise(states)
    )
    assert resumes <= 2
    assert states.count(State.IDLE) >= 0.9 * len(states)
