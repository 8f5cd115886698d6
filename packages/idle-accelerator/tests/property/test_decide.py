"""Plans: never more than there is, the first in order first, and work ahead only where it harms nobody."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_builders import node_facts, offer, requirements, resources

from idle_accelerator.core.decide import PREFETCH_LIMIT, PREFETCH_TARGET_S, decide, prefetch
from idle_accelerator.core.match import LENDING_NOW
from idle_accelerator.core.snapshot import NodeDemand, Snapshot, WaitingJob
from idle_accelerator.wire.ids import from_random
from idle_accelerator.wire.nodes import WarmJob


def job_id(number: int) -> str:
    return from_random("j", number.to_bytes(10, "big"))


def waiting(number: int, **fields) -> WaitingJob:
    plain = {
        "priority": 0,
        "requirements": requirements(),
        "queued": 10,
        "is_function": False,
        "mean_duration_s": None,
    }
    return WaitingJob(job_id=job_id(number), order_key=number, **{**plain, **fields})


def node(number: int, **fields) -> NodeDemand:
    plain = {"facts": node_facts(f"node-{number}", resources=resources(cpus=64)), "offer": offer()}
    return NodeDemand(node_id=f"n{number}", heard=("first", 1), **{**plain, **fields})


def counts(plan) -> Counter[tuple[str, str]]:
    return Counter({(line.node_id, line.job_id): line.count for line in plan.grants})


jobs_ = st.lists(
    st.builds(
        waiting,
        st.integers(1, 8),
        priority=st.integers(-2, 2),
        requirements=st.builds(
            requirements,
            cpus=st.sampled_from([0.01, 0.1, 0.3, 1.0, 2.5]),
            memory_bytes=st.sampled_from([0, 3 << 30, 9 << 30]),
            gpus=st.integers(0, 1),
            os=st.sampled_from([None, "linux", "windows"]),
        ),
        queued=st.integers(1, 40),
        is_function=st.booleans(),
        mean_duration_s=st.none() | st.floats(0, 100),
    ),
    max_size=8,
    unique_by=lambda item: item.job_id,
)
demands_ = st.lists(
    st.builds(
        node,
        st.integers(1, 6),
        offer=st.builds(
            offer,
            st.sampled_from(["available", "lent", "in_use", "draining"]),
            st.builds(
                resources,
                cpus=st.floats(0, 8),
                memory_bytes=st.integers(0, 16 << 30),
                gpus=st.integers(0, 2),
            ),
            only_jobs=st.none() | st.lists(st.integers(1, 8).map(job_id), max_size=3).map(tuple),
            warm=st.lists(
                st.builds(
                    WarmJob,
                    job_id=st.integers(1, 8).map(job_id),
                    slots=st.integers(0, 4),
                    queued=st.integers(0, 50),
                ),
                max_size=3,
            ).map(tuple),
        ),
    ),
    max_size=6,
    unique_by=lambda item: item.node_id,
)


@given(jobs_, demands_)
def test_no_plan_gives_more_than_is_queued_or_lent(jobs, demands) -> None:
    plan = decide(Snapshot(jobs=tuple(jobs), demands=tuple(demands)))
    by_id = {item.job_id: item for item in jobs}
    given_of = Counter()
    used = {item.node_id: [0.0, 0, 0] for item in demands}
    for line in plan.grants:
        job = by_id[line.job_id]
        lends = next(item for item in demands if item.node_id == line.node_id).offer
        assert line.count > 0
        assert line.heard == ("first", 1)
        assert lends.lending in LENDING_NOW
        assert lends.only_jobs is None or job.job_id in lends.only_jobs
        assert job.requirements.os in (None, "linux")
        given_of[line.job_id] += line.count
        warm = next((item for item in lends.warm if item.job_id == job.job_id), None)
        ahead = 0
        if job.is_function:
            slots = (warm.slots if warm else 0) + line.count
            ahead = prefetch(job.mean_duration_s, slots)
        slots_used = max(0, line.count - ahead)
        used[line.node_id][0] += slots_used * job.requirements.cpus
        used[line.node_id][1] += slots_used * job.requirements.memory_bytes
        used[line.node_id][2] += slots_used * job.requirements.gpus
    for name, count in given_of.items():
        assert count <= by_id[name].queued
    for item in demands:
        cpus, memory, gpus = used[item.node_id]
        assert cpus <= item.offer.free.cpus + 1e-3
        assert memory <= item.offer.free.memory_bytes
        assert gpus <= item.offer.free.gpus


@given(jobs_, demands_)
def test_a_decision_depends_on_nothing_but_the_snapshot(jobs, demands) -> None:
    forwards = decide(Snapshot(jobs=tuple(jobs), demands=tuple(demands)))
    backwards = decide(Snapshot(jobs=tuple(jobs[::-1]), demands=tuple(demands[::-1])))
    assert counts(forwards) == counts(backwards)


@given(st.permutations([waiting(1, priority=1), waiting(2, priority=5), waiting(3, priority=5)]))
def test_priority_goes_first_then_age(jobs) -> None:
    one_core = node(1, offer=offer(free=resources(cpus=1)))
    plan = decide(Snapshot(jobs=tuple(jobs), demands=(one_core,)))
    assert counts(plan) == {("n1", job_id(2)): 1}


def test_a_job_spreads_from_the_freest_node_on() -> None:
    demands = tuple(node(n, offer=offer(free=resources(cpus=n))) for n in (1, 3, 2))
    plan = decide(Snapshot(jobs=(waiting(1, queued=4),), demands=demands))
    assert counts(plan) == {("n3", job_id(1)): 3, ("n2", job_id(1)): 1}


def test_work_ahead_covers_a_quarter_of_a_second_of_each_slot() -> None:
    assert prefetch(None, 8) == 0, "nothing is known yet: a long task must not be held ahead"
    assert prefetch(0.01, 2) == 50
    assert prefetch(1.0, 2) == 0
    assert prefetch(0.0, 1000) == PREFETCH_LIMIT
    assert prefetch(0.01, 0) == 0


@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_work_ahead_is_bounded(mean_s: float, slots: int) -> None:
    ahead = prefetch(mean_s, slots)
    assert 0 <= ahead <= PREFETCH_LIMIT
    assert ahead * mean_s <= PREFETCH_TARGET_S * slots * (1 + 1e-9)


def short_function(number: int, **fields) -> WaitingJob:
    return waiting(number, is_function=True, mean_duration_s=0.01, queued=1000, **fields)


def warm_node(number: int, of_job: int, *, queued: int = 0) -> NodeDemand:
    held = WarmJob(job_id=job_id(of_job), slots=2, queued=queued)
    return node(number, offer=offer(free=resources(cpus=0), warm=(held,)))


def test_warm_processes_get_work_ahead_once() -> None:
    plan = decide(Snapshot(jobs=(short_function(1),), demands=(warm_node(1, 1),)))
    assert counts(plan) == {("n1", job_id(1)): 50}
    topped_up = decide(Snapshot(jobs=(short_function(1),), demands=(warm_node(1, 1, queued=45),)))
    assert counts(topped_up) == {("n1", job_id(1)): 5}


def test_nothing_is_held_ahead_where_work_that_goes_first_waits() -> None:
    urgent = waiting(2, priority=9)
    plan = decide(Snapshot(jobs=(short_function(1), urgent), demands=(warm_node(1, 1),)))
    assert counts(plan) == {}


def test_a_command_is_never_held_ahead() -> None:
    job = waiting(1, mean_duration_s=0.001, queued=1000)
    plan = decide(Snapshot(jobs=(job,), demands=(node(1, offer=offer(free=resources(cpus=2))),)))
    assert counts(plan) == {("n1", job_id(1)): 2}


@pytest.mark.parametrize("cpus", [0.01, 0.1, 0.7, 1 / 3])
def test_fractions_of_cores_add_up_to_the_whole(cpus: float) -> None:
    job = waiting(1, requirements=requirements(cpus=cpus), queued=10_000)
    plan = decide(
        Snapshot(jobs=(job,), demands=(node(1, offer=offer(free=resources(cpus=round(10 * cpus, 9)))),))
    )
    assert counts(plan) == {("n1", job_id(1)): 10}
