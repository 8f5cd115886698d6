"""The life of tasks in a hostile world: messages lost, repeated, late; agents and the scheduler crash; owners return.

The store and the core are the real ones. Agents are modelled after the protocol in wire.exchange, and time is moved by hand.
For a longer run set IDLE_SIMULATION_EXAMPLES and IDLE_SIMULATION_STEPS.
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_builders import command_spec, node_facts, offer, report, resources
from sqlalchemy import Engine, event
from store_bench import StoreBench

from idle_accelerator.core.attempt import Mover, may_move
from idle_accelerator.core.decide import decide
from idle_accelerator.core.resources import demand, minus
from idle_accelerator.core.snapshot import NodeDemand, Plan, Snapshot
from idle_accelerator.scheduler.store import leases
from idle_accelerator.scheduler.store.engines import writer_engine
from idle_accelerator.scheduler.store.leases import LEASE_TTL_S, Exchanged, Granted
from idle_accelerator.scheduler.store.migrations import migrate
from idle_accelerator.scheduler.store.waiting import load_requirements, waiting_jobs
from idle_accelerator.wire.exchange import AttemptReport, ExchangeRequest
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.payload import inline_payload
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, TERMINAL_TASK_STATES, AttemptState, TaskState

S = AttemptState
CPUS = 3
NAMES = ("alpha", "beta", "gamma")
HEALING_ROUNDS = 300


@dataclass(kw_only=True)
class Answer:
    """What the scheduler said, perhaps still on its way."""

    incarnation: str
    reports: tuple[AttemptReport, ...]
    granted: list[AttemptRef]
    orders: list[tuple[AttemptRef, str]]


@dataclass(kw_only=True)
class Agent:
    """A machine: it keeps the rules of the protocol, and starts nothing."""

    node_id: str
    cpus_of: dict[str, float]
    born: int = 1
    seq: int = 0
    lends: bool = True
    held: dict[AttemptRef, AttemptState] = field(default_factory=dict)
    late_requests: list[ExchangeRequest] = field(default_factory=list)
    late_answers: list[Answer] = field(default_factory=list)

    @property
    def incarnation(self) -> str:
        return f"start-{self.born}"

    def free(self) -> Resources:
        used = sum(
            self.cpus_of[ref.job_id] for ref, state in self.held.items() if state in LIVE_ATTEMPT_STATES
        )
        return resources(cpus=max(0.0, CPUS - used))

    def request(self) -> ExchangeRequest:
        self.seq += 1
        reports = [self._report(ref, state) for ref, state in self.held.items() if state is not S.LEASED]
        return StoreBench.make_request(
            incarnation=self.incarnation,
            seq=self.seq,
            holding=self.held,
            reports=reports,
            lends=offer("available" if self.lends else "in_use", free=self.free()),
        )

    def _report(self, ref: AttemptRef, state: AttemptState) -> AttemptReport:
        told = inline_payload(str(ref).encode()) if state is S.SUCCEEDED else None
        return report(ref, state, result=told)

    def hear(self, answer: Answer) -> None:
        if answer.incarnation != self.incarnation:
            return
        for item in answer.reports:
            if item.state not in LIVE_ATTEMPT_STATES:
                self.held.pop(AttemptRef(item.job_id, item.task_index, item.epoch), None)
        for ref in answer.granted:
            self.held.setdefault(ref, S.LEASED)
        for ref, code in answer.orders:
            state = self.held.get(ref)
            if code == "lease.stale":
                self.held.pop(ref, None)
            elif state is not None and may_move(state, S.VACATING, Mover.AGENT):
                self.held[ref] = S.VACATING

    def crash(self) -> None:
        self.born += 1
        self.seq = 0
        self.held.clear()
        self.late_answers.clear()  # its requests may still be on their way


class TaskLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.bench = StoreBench(self._open())
        self.agents: list[Agent] = []
        self.jobs: dict[str, int] = {}
        self.cpus_of: dict[str, float] = {}
        self.ended: dict[tuple[str, int], tuple[str, int]] = {}

    def _open(self) -> Engine:
        engine = writer_engine(Path(self._folder.name) / "store.sqlite3")
        event.listen(engine, "connect", _without_fsync)
        with engine.begin() as connection:
            migrate(connection)
        return engine

    @initialize()
    def machines_join(self) -> None:
        for name in NAMES:
            node_id = self.bench.enrol(facts=node_facts(name, resources=resources(cpus=CPUS)))
            self.agents.append(Agent(node_id=node_id, cpus_of=self.cpus_of))

    @rule(
        tasks=st.integers(1, 6),
        retries=st.integers(0, 2),
        cpus=st.sampled_from([0.5, 1.0, 2.0]),
        priority=st.integers(-1, 1),
    )
    def submit(self, tasks: int, retries: int, cpus: float, priority: int) -> None:
        spec = command_spec(
            tasks=tasks, retries=retries, priority=priority, requirements=Requirements(cpus=cpus)
        )
        job_id = self.bench.submit(spec)
        self.jobs[job_id] = tasks
        self.cpus_of[job_id] = cpus

    @rule(
        who=st.integers(0, len(NAMES) - 1),
        fate=st.sampled_from(["heard", "heard", "heard", "lost", "late", "answer lost", "answer late"]),
        overtaken=st.booleans(),
    )
    def exchange(self, who: int, fate: str, overtaken: bool) -> None:
        agent = self.agents[who]
        request = agent.request()
        if fate == "lost":
            return
        if fate == "late":
            agent.late_requests.append(request)
            return
        answer = self._answer(agent, request, overtaken=overtaken)
        if fate == "heard":
            agent.hear(answer)
        elif fate == "answer late":
            agent.late_answers.append(answer)

    @rule(who=st.integers(0, len(NAMES) - 1), data=st.data(), again=st.booleans())
    def a_late_request_arrives(self, who: int, data: st.DataObject, again: bool) -> None:
        agent = self.agents[who]
        if not agent.late_requests:
            return
        at = data.draw(st.integers(0, len(agent.late_requests) - 1))
        request = agent.late_requests[at] if again else agent.late_requests.pop(at)
        self._answer(agent, request, overtaken=False)

    @rule(who=st.integers(0, len(NAMES) - 1), data=st.data())
    def a_late_answer_arrives(self, who: int, data: st.DataObject) -> None:
        agent = self.agents[who]
        if agent.late_answers:
            agent.hear(agent.late_answers.pop(data.draw(st.integers(0, len(agent.late_answers) - 1))))

    @rule(who=st.integers(0, len(NAMES) - 1), data=st.data(), moves=st.integers(1, 6))
    def work_goes_on(self, who: int, data: st.DataObject, moves: int) -> None:
        agent = self.agents[who]
        for _ in range(moves):
            movable = [ref for ref, state in sorted(agent.held.items()) if state in LIVE_ATTEMPT_STATES]
            if not movable:
                return
            ref = data.draw(st.sampled_from(movable))
            after = [state for state in AttemptState if may_move(agent.held[ref], state, Mover.AGENT)]
            agent.held[ref] = data.draw(st.sampled_from(after))

    @rule(who=st.integers(0, len(NAMES) - 1))
    def the_owner_returns_or_leaves(self, who: int) -> None:
        agent = self.agents[who]
        agent.lends = not agent.lends
        before, after = (S.SUSPENDED, S.RUNNING) if agent.lends else (S.RUNNING, S.SUSPENDED)
        for ref, state in agent.held.items():
            if state is before:
                agent.held[ref] = after

    @rule(who=st.integers(0, len(NAMES) - 1))
    def an_agent_crashes(self, who: int) -> None:
        self.agents[who].crash()

    @rule(by_s=st.sampled_from([1.0, 4.0, LEASE_TTL_S + 1]))
    def time_passes(self, by_s: float) -> None:
        self.bench.now += by_s
        self.bench.expire()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.bench.cancel(data.draw(st.sampled_from(sorted(self.jobs))))

    @rule(down_s=st.sampled_from([0.0, 100.0]))
    def the_scheduler_restarts(self, down_s: float) -> None:
        self.bench.reopen(self._open())
        self.bench.now += down_s
        self.bench.do(lambda connection: leases.forgive_leases(connection, now=self.bench.now, ttl_s=30))

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        """And nothing that was accepted is gone."""
        for job_id, total in self.jobs.items():
            rows = self.bench.tasks(job_id)
            assert len(rows) == total
            for row in rows:
                key, now = (job_id, row.task_index), (row.state, row.epoch)
                if TaskState(row.state) in TERMINAL_TASK_STATES:
                    assert self.ended.setdefault(key, now) == now
                else:
                    assert key not in self.ended
                if row.state == TaskState.SUCCEEDED.value:
                    ref = AttemptRef(job_id, row.task_index, row.epoch)
                    assert self.bench.attempt(ref).result_inline == str(ref).encode()

    def _answer(self, agent: Agent, request: ExchangeRequest, *, overtaken: bool) -> Answer:
        outcome = self.bench.deliver(agent.node_id, request)
        granted = list(outcome.granted_again)
        if outcome.fresh and not outcome.draining:
            granted += self._match(agent, request, outcome, overtaken=overtaken)
        return Answer(
            incarnation=request.incarnation,
            reports=request.reports,
            granted=[AttemptRef(line.job_id, *pair) for line in granted for pair in line.attempts],
            orders=[
                (AttemptRef(item.job_id, item.task_index, item.epoch), item.reason.code)
                for item in outcome.orders
            ],
        )

    def _match(
        self, agent: Agent, request: ExchangeRequest, outcome: Exchanged, *, overtaken: bool
    ) -> list[Granted]:
        """A round for one node; ``overtaken``: the agent is heard again between the decision and the commit."""
        free = request.offer.free
        for line in outcome.granted_again:
            free = minus(free, demand(load_requirements(line.requirements_json)), len(line.attempts))
        wanted = NodeDemand(
            node_id=agent.node_id,
            facts=node_facts(resources=resources(cpus=CPUS)),
            offer=request.offer.model_copy(update={"free": free}),
            heard=(request.incarnation, request.seq),
        )
        waiting = self.bench.do(waiting_jobs)
        plan: Plan = decide(Snapshot(jobs=waiting, demands=(wanted,)))
        if overtaken:
            agent.late_answers.append(self._answer(agent, agent.request(), overtaken=False))
        granted = self.bench.do(lambda connection: leases.commit_plan(connection, plan, now=self.bench.now))
        used = sum(self.cpus_of[ref.job_id] for ref in self.bench.live(agent.node_id))
        assert used <= CPUS, "a node was given more than it lends"
        return granted

    def teardown(self) -> None:
        try:
            self._heal()
        finally:
            self.bench.close()
            self._folder.cleanup()

    def _heal(self) -> None:
        """Everybody works and every message arrives: then every task ends."""
        for agent in self.agents:
            agent.lends = True
            agent.late_requests.clear()
            agent.late_answers.clear()
        for _ in range(HEALING_ROUNDS):
            if all(self.bench.job(job_id).finished_at is not None for job_id in self.jobs):
                self.what_has_ended_stays_so()
                return
            for agent in self.agents:
                for ref, state in agent.held.items():
                    if state in LIVE_ATTEMPT_STATES:
                        agent.held[ref] = S.SUCCEEDED if state is not S.SUSPENDED else S.RUNNING
                agent.hear(self._answer(agent, agent.request(), overtaken=False))
            self.bench.now += 1
            self.bench.expire()
        raise AssertionError("tasks wait for ever in a pool that is well")


def _without_fsync(connection, _record) -> None:
    connection.execute(
        "PRAGMA synchronous=OFF"
    )  # nobody pulls the plug here, and a run has thousands of commits


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = settings(
    max_examples=int(os.environ.get("IDLE_SIMULATION_EXAMPLES", "40")),
    stateful_step_count=int(os.environ.get("IDLE_SIMULATION_STEPS", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
