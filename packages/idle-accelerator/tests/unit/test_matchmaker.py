"""Rounds of matchmaking: nobody's news is missed, nobody waits in vain, and no failure stops them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pool_builders import node_facts, offer

from idle_accelerator.core.snapshot import NodeDemand
from idle_accelerator.errors import StorageFull
from idle_accelerator.scheduler import matchmaker as module
from idle_accelerator.scheduler.matchmaker import Demand, Matchmaker
from idle_accelerator.scheduler.signals import Signals
from idle_accelerator.scheduler.store.leases import Granted
from idle_accelerator.scheduler.store.waiting import waiting_jobs
from idle_accelerator.wire.nodes import Offer

PATIENT_S = 20.0
LINE = Granted(node_id="n1", job_id="j1", spec_json="", requirements_json="", attempts=((0, 1),))


class ScriptedStore:
    """Answers reads with jobs and writes with leases as a test tells it to, or fails, or waits."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.leases: list[Granted] = []
        self.failures: list[Exception] = []
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, operation: Callable[..., Any]) -> Any:
        assert operation is waiting_jobs
        self.reads += 1
        if self.failures:
            raise self.failures.pop(0)
        await self.gate.wait()
        return tuple(self.jobs)

    async def write(self, _operation: Callable[..., Any], *, durable: bool = True) -> Any:
        assert not durable, "a lease needs no fsync"
        await self.gate.wait()
        given, self.leases = self.leases, []
        return given


def node(lends: Offer | None = None, node_id: str = "n1") -> NodeDemand:
    return NodeDemand(node_id=node_id, facts=node_facts(), offer=lends or offer(), heard=("a", 1))


def waiting_job() -> Any:
    from idle_accelerator.core.snapshot import WaitingJob
    from idle_accelerator.wire.jobs import Requirements

    return WaitingJob(
        job_id="j1",
        order_key=1,
        priority=0,
        requirements=Requirements(),
        queued=1,
        is_function=False,
        mean_duration_s=None,
    )


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def matchmaker(store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matchmaker]:
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    made = Matchmaker(store, lambda: 0.0)  # pyright: ignore[reportArgumentType]
    made.start()
    yield made
    await made.close()


async def answer_of(demand: Demand) -> list[Granted]:
    return await asyncio.wait_for(asyncio.shield(demand.answer), PATIENT_S)


async def test_who_does_not_wait_is_answered_by_the_next_round(matchmaker: Matchmaker) -> None:
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == []


async def test_a_waiting_node_gets_work_that_comes_later(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    demand = matchmaker.enter(node(), wait_s=30)
    while store.reads == 0:
        await asyncio.sleep(0)
    assert matchmaker.holds("n1")
    store.jobs, store.leases = [waiting_job()], [LINE]
    matchmaker.wake()
    assert await answer_of(demand) == [LINE]
    assert not matchmaker.holds("n1")


async def test_a_newer_request_answers_the_held_one_at_once(matchmaker: Matchmaker) -> None:
    older = matchmaker.enter(node(), wait_s=30)
    newer = matchmaker.enter(node(), wait_s=30)
    assert await answer_of(older) == []
    assert matchmaker.holds("n1")
    assert matchmaker.leave(older) == []
    assert matchmaker.holds("n1"), "the older one's leaving does not take the newer one's place"
    assert matchmaker.leave(newer) == []


async def test_a_release_right_after_entering_is_not_missed(matchmaker: Matchmaker) -> None:
    demand = matchmaker.enter(node(offer("in_use")), wait_s=30)
    matchmaker.release("n1")
    assert demand.answer.done()


async def test_a_node_that_is_not_lent_is_held_but_given_nothing(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    store.jobs, store.leases = [waiting_job()], [LINE]
    held = matchmaker.enter(node(offer("in_use")), wait_s=30)
    other = matchmaker.enter(node(node_id="n2"), wait_s=0)
    store.leases = []
    assert await answer_of(other) == []
    assert not held.answer.done()
    assert matchmaker.enter(node(offer("in_use"), "n3"), wait_s=0).answer.done()


async def test_a_round_that_is_under_way_answers_only_those_it_saw(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    store.gate.clear()
    first = matchmaker.enter(node(), wait_s=0)
    while store.reads == 0:
        await asyncio.sleep(0)
    late = matchmaker.enter(node(node_id="n2"), wait_s=0)
    store.gate.set()
    assert await answer_of(first) == []
    assert await answer_of(late) == []
    assert store.reads == 2


async def test_where_nothing_is_queued_nobody_looks_again_before_somebody_queues(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == []
    assert matchmaker.enter(node(), wait_s=0).answer.done(), "answered without a look"
    held = matchmaker.enter(node(), wait_s=30)
    assert store.reads == 1
    store.jobs, store.leases = [waiting_job()], [LINE]
    matchmaker.wake()
    assert await answer_of(held) == [LINE]
    assert store.reads == 2


async def test_a_task_that_was_queued_without_a_word_is_found_some_seconds_later(
    store: ScriptedStore,
) -> None:
    now = 0.0
    matchmaker = Matchmaker(store, lambda: now)  # pyright: ignore[reportArgumentType]
    matchmaker.start()
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == []
    store.jobs, store.leases = [waiting_job()], [LINE]
    now = 9.9
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == []
    now = 10.0
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]
    await matchmaker.close()


async def test_when_all_that_was_queued_is_given_no_other_look_follows_until_more_is_queued(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    store.jobs, store.leases = [waiting_job()], [LINE]
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]
    looks = store.reads
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == []
    assert store.reads == looks
    store.leases = [LINE]
    matchmaker.wake()
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]


async def test_when_the_commit_gives_less_than_was_queued_the_next_node_is_looked_for_again(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    two = dataclasses.replace(waiting_job(), queued=2)
    store.jobs, store.leases = [two], [LINE]
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]
    store.leases = [LINE]
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]


async def test_what_is_queued_while_a_round_looks_is_seen_by_the_next(
    matchmaker: Matchmaker, store: ScriptedStore
) -> None:
    store.gate.clear()
    leaving = matchmaker.enter(node(), wait_s=30)
    while store.reads == 0:
        await asyncio.sleep(0)
    matchmaker.leave(leaving)
    matchmaker.wake()  # nobody waits now, and the look under way may have come too early
    store.gate.set()
    while matchmaker._work.is_set() or matchmaker._demands:
        await asyncio.sleep(0)
    store.jobs, store.leases = [waiting_job()], [LINE]
    assert await answer_of(matchmaker.enter(node(), wait_s=0)) == [LINE]


@pytest.mark.parametrize("failure", [StorageFull("full."), RuntimeError("a defect")])
async def test_a_failed_round_is_followed_by_another(
    matchmaker: Matchmaker, store: ScriptedStore, failure: Exception
) -> None:
    store.failures = [failure]
    store.jobs, store.leases = [waiting_job()], [LINE]
    demand = matchmaker.enter(node(), wait_s=30)
    assert await answer_of(demand) == [LINE]


async def test_at_the_stop_everybody_is_answered_and_nobody_waits_any_more(matchmaker: Matchmaker) -> None:
    held = matchmaker.enter(node(), wait_s=30)
    matchmaker.release_all()
    assert held.answer.done()
    assert matchmaker.enter(node(), wait_s=30).answer.done()


async def test_signals_reach_whoever_listened_before_and_the_stop_reaches_all() -> None:
    signals = Signals()
    one, other = signals.listen("a"), signals.listen("b")
    signals.call("a")
    assert one.done()
    assert not other.done()
    signals.close()
    assert other.done()
    assert signals.listen("a").done()


async def test_a_topic_is_silent_from_its_beginning_to_its_first_call() -> None:
    signals = Signals()
    assert not signals.is_silent("a"), "of what it has not seen begin, nothing is known"
    signals.begin("a")
    signals.begin("b")
    assert signals.is_silent("a")
    signals.call("a")
    assert not signals.is_silent("a")
    assert signals.is_silent("b")


async def test_forgotten_listeners_leave_nothing_behind() -> None:
    signals = Signals()
    for _ in range(100):
        signals.forget("a", signals.listen("a"))
    assert not signals._waiters
