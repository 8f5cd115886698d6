"""The life of tasks in a hostile world: messages lost, repeated, late; agents and the scheduler crash; owners return.

Tasks save checkpoints, some of them torn; pieces are lost from the scheduler's disk. What a task goes on from was whole when it was kept, is its own, and is
the newest that can be had.

The store and the core are the real ones. Agents are modelled after the protocol in wire.exchange, and time is moved by hand.
For a longer run set IDLE_SIMULATION_EXAMPLES and IDLE_SIMULATION_STEPS.
"""

import os
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_builders import command_spec, digest_of, node_facts, offer, report, resources
from sqlalchemy import Engine, event
from store_bench import StoreBench

from idle_accelerator.core.attempt import Mover, may_move
from idle_accelerator.core.decide import decide
from idle_accelerator.core.resources import demand, minus
from idle_accelerator.core.snapshot import NodeDemand, Plan, Snapshot
from idle_accelerator.scheduler.checkpoints import whole_ones
from idle_accelerator.scheduler.store import leases
from idle_accelerator.scheduler.store.engines import writer_engine
from idle_accelerator.scheduler.store.leases import LEASE_TTL_S, Exchanged, Granted
from idle_accelerator.scheduler.store.migrations import migrate
from idle_accelerator.scheduler.store.saves import list_checkpoints
from idle_accelerator.scheduler.store.waiting import load_requirements, waiting_jobs
from idle_accelerator.wire.checkpoints import Checkpoint, CheckpointFile, Manifest, Resumed, SavedCheckpoint
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
BEGINNING = (S.LEASED, S.STAGING, S.RUNNING)


@dataclass(kw_only=True)
class Answer:
    """What the scheduler said, perhaps still on its way."""

    incarnation: str
    reports: tuple[AttemptReport, ...]
    checkpoints: tuple[SavedCheckpoint, ...]
    granted: list[AttemptRef]
    resume: dict[AttemptRef, tuple[Checkpoint, ...]]
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
    steps: dict[AttemptRef, int] = field(default_factory=dict)
    """How far each attempt is."""
    resumed: dict[AttemptRef, Resumed] = field(default_factory=dict)
    unsaid: dict[AttemptRef, SavedCheckpoint] = field(default_factory=dict)
    blobs: "Blobs"
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
            checkpoints=tuple(self.unsaid.values()),
            lends=offer("available" if self.lends else "in_use", free=self.free()),
        )

    def _report(self, ref: AttemptRef, state: AttemptState) -> AttemptReport:
        told = inline_payload(str(ref).encode()) if state is S.SUCCEEDED else None
        return report(ref, state, result=told, resumed=self.resumed.get(ref))

    def hear(self, answer: Answer) -> None:
        if answer.incarnation != self.incarnation:
            return
        for item in answer.reports:
            if item.state not in LIVE_ATTEMPT_STATES:
                self._let_go(AttemptRef(item.job_id, item.task_index, item.epoch))
        for saved in answer.checkpoints:
            ref = AttemptRef(saved.job_id, saved.task_index, saved.epoch)
            if self.unsaid.get(ref) is saved:
                del self.unsaid[ref]
        for ref in answer.granted:
            if ref not in self.held:
                self.held[ref] = S.LEASED
                self._go_on_from(ref, answer.resume[ref])
        for ref, code in answer.orders:
            state = self.held.get(ref)
            if code == "lease.stale":
                self._let_go(ref)
            elif state is not None and may_move(state, S.VACATING, Mover.AGENT):
                self.held[ref] = S.VACATING

    def _let_go(self, ref: AttemptRef) -> None:
        self.held.pop(ref, None)
        self.unsaid.pop(ref, None)

    def _go_on_from(self, ref: AttemptRef, points: tuple[Checkpoint, ...]) -> None:
        """The first that can be had, as the agent's ``restore``."""
        self.steps[ref] = 0
        for checkpoint in points:
            content = self.blobs.content(checkpoint)
            if content is not None:
                assert content == _content(ref, checkpoint.step), "it is another task's, or another step's"
                self.steps[ref] = checkpoint.step
                self.resumed[ref] = Resumed(checkpoint=checkpoint)
                return

    def save(self, ref: AttemptRef, *, missing: str | None) -> None:
        """Commits the next step and sends it; ``missing``: what of it never arrived."""
        self.steps[ref] += 1
        checkpoint = self.blobs.keep(ref, self.steps[ref], missing=missing)
        self.unsaid[ref] = SavedCheckpoint(
            job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, checkpoint=checkpoint
        )

    def crash(self) -> None:
        self.born += 1
        self.seq = 0
        self.held.clear()
        self.unsaid.clear()
        self.late_answers.clear()  # its requests may still be on their way


class Blobs:
    """The scheduler's disk."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def size_of(self, digest: str) -> int | None:
        return len(self._kept[digest]) if digest in self._kept else None

    def read(self, digest: str) -> bytes:
        return self._kept[digest]

    def keep(self, ref: AttemptRef, step: int, *, missing: str | None) -> Checkpoint:
        content = _content(ref, step)
        piece = digest_of(content)
        files = (CheckpointFile(path="state", size_bytes=len(content), chunks=(piece,)),)
        manifest = Manifest(files=files).model_dump_json().encode()
        name = digest_of(manifest)
        for what, digest, blob in (("piece", piece, content), ("manifest", name, manifest)):
            if what == missing:
                self._kept.pop(digest, None)
            else:
                self._kept[digest] = blob
        return Checkpoint(step=step, manifest=name, size_bytes=len(content), files=1)

    def content(self, checkpoint: Checkpoint) -> bytes | None:
        """None when any of it cannot be had."""
        manifest = self._kept.get(checkpoint.manifest)
        if manifest is None:
            return None
        return self._kept.get(Manifest.model_validate_json(manifest).files[0].chunks[0])

    def lose(self, checkpoint: Checkpoint) -> None:
        self._kept.pop(checkpoint.manifest, None)


def _content(ref: AttemptRef, step: int) -> bytes:
    return f"{ref.job_id}.{ref.task_index} at {step}".encode()


class TaskLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.bench = StoreBench(self._open())
        self.agents: list[Agent] = []
        self.jobs: dict[str, int] = {}
        self.cpus_of: dict[str, float] = {}
        self.ended: dict[tuple[str, int], tuple[str, int]] = {}
        self.blobs = Blobs()
        self.saved: dict[tuple[str, int], list[tuple[int, Checkpoint]]] = {}
        """What the scheduler must have kept: (epoch, checkpoint) of each task, oldest first."""

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
            self.agents.append(Agent(node_id=node_id, cpus_of=self.cpus_of, blobs=self.blobs))

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

    def able(self) -> list[tuple[int, AttemptRef]]:
        return [
            (who, ref)
            for who, agent in enumerate(self.agents)
            for ref, state in sorted(agent.held.items())
            if state in (*BEGINNING, S.VACATING)
        ]

    @precondition(lambda self: self.able())
    @rule(
        data=st.data(),
        missing=st.lists(st.sampled_from([None, None, "piece", "manifest"]), min_size=1, max_size=3),
        heard=st.sampled_from([True, True, False]),
        then=st.sampled_from([None, S.VACATED, S.VACATED, S.FAILED, S.SUCCEEDED]),
    )
    def a_task_runs_and_saves(
        self, data: st.DataObject, missing: list[str | None], heard: bool, then: AttemptState | None
    ) -> None:
        who, ref = data.draw(st.sampled_from(self.able()))
        agent = self.agents[who]
        if agent.held[ref] in BEGINNING:
            agent.held[ref] = S.RUNNING
        for what in missing:
            if ref not in agent.held:
                return
            agent.save(ref, missing=what)
            if heard:
                agent.hear(self._answer(agent, agent.request(), overtaken=False))
        if then is not None and agent.held.get(ref) in (S.RUNNING, S.VACATING):
            agent.held[ref] = then
            if heard:
                agent.hear(self._answer(agent, agent.request(), overtaken=False))

    @precondition(lambda self: any(self.saved.values()))
    @rule(data=st.data())
    def a_checkpoint_is_lost(self, data: st.DataObject) -> None:
        kept = sorted(key for key, of_task in self.saved.items() if of_task)
        of_task = self.saved[data.draw(st.sampled_from(kept))]
        self.blobs.lose(of_task[-1][1])

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

    @invariant()
    def what_was_saved_is_kept(self) -> None:
        """The newest two of every task that goes on, and of no other."""
        for job_id, total in self.jobs.items():
            job_seq = self.bench.job(job_id).job_seq
            for index in range(total):
                rows = self.bench.do(partial(list_checkpoints, job_seq=job_seq, task_index=index))
                kept = [(row.epoch, row.step, row.manifest) for row in rows]
                if (job_id, index) in self.ended:
                    assert kept == []
                    self.saved.pop((job_id, index), None)
                else:
                    newest = reversed(self.saved.get((job_id, index), [])[-2:])
                    assert kept == [(epoch, item.step, item.manifest) for epoch, item in newest]

    def _deliver(self, agent: Agent, request: ExchangeRequest) -> Exchanged:
        """As the API does, and keeps in mind what must have been kept by it."""
        whole = whole_ones(self.blobs, request.checkpoints)
        live = self.bench.live(agent.node_id)
        outcome = self.bench.deliver(agent.node_id, request.model_copy(update={"checkpoints": whole}))
        for item in request.checkpoints:
            if AttemptRef(item.job_id, item.task_index, item.epoch) not in live:
                continue
            content = self.blobs.content(item.checkpoint)
            assert (content is not None) == (item in whole)
            of_task = self.saved.setdefault((item.job_id, item.task_index), [])
            newest = (of_task[-1][0], of_task[-1][1].step) if of_task else (0, 0)
            if content is not None and (item.epoch, item.checkpoint.step) > newest:
                of_task.append((item.epoch, item.checkpoint))
        return outcome

    def _points(self, line: Granted) -> dict[AttemptRef, tuple[Checkpoint, ...]]:
        """What each attempt may go on from: exactly what was kept last, so that no step goes backwards but for what was lost."""
        points: dict[AttemptRef, tuple[Checkpoint, ...]] = {}
        for index, epoch in line.attempts:
            given = tuple(point.checkpoint for point in line.resume if point.task_index == index)
            kept = [item for _, item in self.saved.get((line.job_id, index), [])]
            assert list(given) == list(reversed(kept[-2:]))
            points[AttemptRef(line.job_id, index, epoch)] = given
        return points

    def _answer(self, agent: Agent, request: ExchangeRequest, *, overtaken: bool) -> Answer:
        outcome = self._deliver(agent, request)
        granted = list(outcome.granted_again)
        resume: dict[AttemptRef, tuple[Checkpoint, ...]] = {}
        for line in granted:
            resume |= self._points(line)
        if outcome.fresh and not outcome.draining:
            new = self._match(agent, request, outcome, overtaken=overtaken)
            for line in new:
                resume |= self._points(line)
            granted += new
        return Answer(
            incarnation=request.incarnation,
            reports=request.reports,
            checkpoints=request.checkpoints,
            resume=resume,
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


BUSY = (
    *("submit",) * 2,
    *("exchange",) * 8,
    *("a_task_runs_and_saves",) * 8,
    "work_goes_on",
    "a_late_request_arrives",
    "a_late_answer_arrives",
    "a_checkpoint_is_lost",
    "an_agent_crashes",
    "time_passes",
    "the_owner_returns_or_leaves",
    "the_scheduler_restarts",
)
"""How often each happens. The machine above takes a few kinds of rules in each run, which seldom are those that a checkpoint needs to move."""


@settings(
    max_examples=int(os.environ.get("IDLE_SIMULATION_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_busy_life_with_checkpoints(data: st.DataObject) -> None:
    life = TaskLife()
    try:
        life.machines_join()
        for _ in range(int(os.environ.get("IDLE_SIMULATION_STEPS", "40"))):
            _happen(life, data, data.draw(st.sampled_from(BUSY)))
            life.what_has_ended_stays_so()
            life.what_was_saved_is_kept()
    finally:
        life.teardown()


def _happen(life: TaskLife, data: st.DataObject, what: str) -> None:
    who = data.draw(st.integers(0, len(NAMES) - 1))
    match what:
        case "submit":
            life.submit(tasks=data.draw(st.integers(1, 3)), retries=2, cpus=1.0, priority=0)
        case "exchange":
            fate = data.draw(st.sampled_from(["heard"] * 6 + ["lost", "late", "answer lost", "answer late"]))
            life.exchange(who=who, fate=fate, overtaken=False)
        case "a_task_runs_and_saves":
            if life.able():
                missing = data.draw(
                    st.lists(st.sampled_from([None, None, "piece", "manifest"]), min_size=1, max_size=3)
                )
                then = data.draw(st.sampled_from([None, S.VACATED, S.VACATED, S.FAILED, S.SUCCEEDED]))
                heard = data.draw(st.sampled_from([True, True, False]))
                life.a_task_runs_and_saves(data=data, missing=missing, heard=heard, then=then)
        case "a_checkpoint_is_lost":
            if any(life.saved.values()):
                life.a_checkpoint_is_lost(data=data)
        case "work_goes_on":
            life.work_goes_on(who=who, data=data, moves=2)
        case "a_late_request_arrives":
            life.a_late_request_arrives(who=who, data=data, again=data.draw(st.booleans()))
        case "a_late_answer_arrives":
            life.a_late_answer_arrives(who=who, data=data)
        case "an_agent_crashes":
            life.an_agent_crashes(who=who)
        case "time_passes":
            life.time_passes(by_s=data.draw(st.sampled_from([1.0, 4.0, LEASE_TTL_S + 1])))
        case "the_owner_returns_or_leaves":
            life.the_owner_returns_or_leaves(who=who)
        case _:
            life.the_scheduler_restarts(down_s=0.0)
