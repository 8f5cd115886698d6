"""A store under test: the store's own functions over one engine, with a clock that tests move and a check after every change."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pool_builders import holdings, node_facts, offer
from sqlalchemy import Connection, Engine, Select, select

from idle_accelerator.core.snapshot import GrantLine, Plan
from idle_accelerator.scheduler.store import jobs as stored_jobs
from idle_accelerator.scheduler.store import leases, logs
from idle_accelerator.scheduler.store import nodes as stored_nodes
from idle_accelerator.scheduler.store.rows import job_state
from idle_accelerator.scheduler.store.schema import attempts, checkpoints, jobs, nodes, notes, tasks
from idle_accelerator.wire.checkpoints import ProgressNote, SavedCheckpoint
from idle_accelerator.wire.exchange import AttemptReport, ExchangeRequest, LogChunk
from idle_accelerator.wire.ids import AttemptRef, from_random
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.nodes import NodeFacts, Offer
from idle_accelerator.wire.states import (
    LIVE_ATTEMPT_STATES,
    TERMINAL_JOB_STATES,
    TERMINAL_TASK_STATES,
    AttemptState,
    JobState,
    TaskState,
)

T = TypeVar("T")
_COUNTED = {state: state.value.lower() for state in TaskState}


class StoreBench:
    """Every change runs in a transaction of its own, and is followed by ``check_true``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connection = engine.connect()
        self.now = 1000.0
        self._numbers = itertools.count(1)
        self._seqs: Counter[str] = Counter()

    def do(self, operation: Callable[[Connection], T]) -> T:
        with self.connection.begin():
            result = operation(self.connection)
            check_true(self.connection)
        return result

    def look(self, query: Select[Any]) -> Sequence[Any]:
        """The query's rows."""
        with self.connection.begin():
            return self.connection.execute(query).all()

    def reopen(self, engine: Engine) -> None:
        """Goes on over another engine, as a scheduler does that was started anew."""
        self.close()
        self.engine = engine
        self.connection = engine.connect()

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()

    def submit(self, spec: JobSpec, *, key: str | None = None) -> str:
        job_id = from_random("j", next(self._numbers).to_bytes(10, "big"))
        return self.do(
            lambda connection: stored_jobs.add_job(
                connection, job_id=job_id, spec=spec, idempotency_key=key, now=self.now
            )
        )

    def enrol(self, name: str = "alpha", facts: NodeFacts | None = None) -> str:
        number = next(self._numbers)
        node_id = from_random("n", number.to_bytes(10, "big"))
        self.do(
            lambda connection: stored_nodes.add_node(
                connection,
                node_id=node_id,
                token_hash=f"hash-{number}",
                facts=facts or node_facts(name),
                loopback=False,
                now=self.now,
            )
        )
        return node_id

    def heard(self, node_id: str) -> tuple[str, int]:
        row = self.node(node_id)
        return row.incarnation, row.seq

    def lease(
        self, node_id: str, job_id: str, count: int = 1, *, heard: tuple[str, int] | None = None
    ) -> list[AttemptRef]:
        """Grants up to ``count`` tasks, as a plan made just now would."""
        granted = self._granted(node_id, job_id, count, heard)
        return [AttemptRef(item.job_id, *pair) for item in granted for pair in item.attempts]

    def grant(self, node_id: str, job_id: str, count: int = 1) -> leases.Granted:
        """As ``lease``, and all that the node is told."""
        (granted,) = self._granted(node_id, job_id, count, None)
        return granted

    def _granted(
        self, node_id: str, job_id: str, count: int, heard: tuple[str, int] | None
    ) -> list[leases.Granted]:
        line = GrantLine(
            node_id=node_id, job_id=job_id, count=count, heard=self.heard(node_id) if heard is None else heard
        )
        return self.do(lambda connection: leases.commit_plan(connection, Plan(grants=(line,)), now=self.now))

    def request(
        self, node_id: str, *, incarnation: str = "first", seq: int | None = None, **said: Any
    ) -> ExchangeRequest:
        """The node's next request, or the one with this ``seq``; ``said`` is make_request's."""
        self._seqs[node_id] += 1
        return self.make_request(
            incarnation=incarnation, seq=self._seqs[node_id] if seq is None else seq, **said
        )

    @staticmethod
    def make_request(
        *,
        incarnation: str,
        seq: int,
        holding: Iterable[AttemptRef] = (),
        reports: Sequence[AttemptReport] = (),
        lends: Offer | None = None,
        facts: NodeFacts | None = None,
        checkpoints: Sequence[SavedCheckpoint] = (),
        progress: Sequence[ProgressNote] = (),
    ) -> ExchangeRequest:
        return ExchangeRequest(
            incarnation=incarnation,
            seq=seq,
            offer=lends or offer(),
            holding=holdings(holding),
            reports=tuple(reports),
            facts=facts,
            checkpoints=tuple(checkpoints),
            progress=tuple(progress),
        )

    def deliver(self, node_id: str, request: ExchangeRequest) -> leases.Exchanged:
        return self.do(lambda connection: leases.apply_exchange(connection, node_id, request, now=self.now))

    def exchange(self, node_id: str, **said: Any) -> leases.Exchanged:
        return self.deliver(node_id, self.request(node_id, **said))

    def cancel(self, job_id: str) -> set[str]:
        job_seq = self.job(job_id).job_seq
        return self.do(lambda connection: stored_jobs.cancel_job(connection, job_seq, now=self.now))

    def expire(self) -> tuple[set[str], set[str]]:
        return self.do(lambda connection: leases.expire_leases(connection, now=self.now))

    def log(self, node_id: str, *chunks: LogChunk) -> set[str]:
        return self.do(lambda connection: logs.add_logs(connection, node_id, chunks))

    def read_log(self, ref: AttemptRef, stream: str = "stdout", *, offset: int = 0) -> logs.LogPiece:
        job_seq = self.job(ref.job_id).job_seq
        return self.do(
            lambda connection: logs.read_log(
                connection, job_seq, ref.task_index, ref.epoch, stream, offset=offset, limit_bytes=1 << 22
            )
        )

    def job(self, job_id: str) -> Any:
        (row,) = self.look(select(jobs).where(jobs.c.job_id == job_id))
        return row

    def node(self, node_id: str) -> Any:
        (row,) = self.look(select(nodes).where(nodes.c.node_id == node_id))
        return row

    def task(self, job_id: str, index: int = 0) -> Any:
        return self.tasks(job_id)[index]

    def tasks(self, job_id: str) -> Sequence[Any]:
        of_job = tasks.join(jobs, jobs.c.job_seq == tasks.c.job_seq)
        return self.look(
            select(tasks).select_from(of_job).where(jobs.c.job_id == job_id).order_by(tasks.c.task_index)
        )

    def attempt(self, ref: AttemptRef) -> Any:
        (row,) = self.look(
            select(attempts)
            .join(jobs, jobs.c.job_seq == attempts.c.job_seq)
            .where(
                jobs.c.job_id == ref.job_id,
                attempts.c.task_index == ref.task_index,
                attempts.c.epoch == ref.epoch,
            )
        )
        return row

    def live(self, node_id: str) -> set[AttemptRef]:
        """What the store takes for being in the node's hands."""
        rows = self.look(
            select(jobs.c.job_id, attempts.c.task_index, attempts.c.epoch)
            .join(jobs, jobs.c.job_seq == attempts.c.job_seq)
            .where(attempts.c.node_id == node_id, attempts.c.live)
        )
        return {AttemptRef(*row) for row in rows}


def check_true(connection: Connection) -> None:
    """Everything that must hold between any two transactions: counters, states and epochs agree with the rows."""
    of_job: defaultdict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(select(tasks).order_by(tasks.c.job_seq, tasks.c.task_index)):
        of_job[row.job_seq].append(row)
    of_task: defaultdict[tuple[int, int], list[Any]] = defaultdict(list)
    for row in connection.execute(select(attempts).order_by(attempts.c.epoch)):
        of_task[row.job_seq, row.task_index].append(row)
    for job in connection.execute(select(jobs)):
        _check_job(job, of_job[job.job_seq])
        for task in of_job[job.job_seq]:
            _check_task(task, of_task[task.job_seq, task.task_index])
    _check_saves(connection, {row.job_seq: row for row in connection.execute(select(jobs))}, of_job)


def _check_saves(connection: Connection, of_id: dict[int, Any], of_job: dict[int, list[Any]]) -> None:
    """Rows of tasks that go on, in jobs that are marked; at most two checkpoints of each, of attempts that there were."""
    kept: Counter[tuple[int, int]] = Counter()
    rows = [*connection.execute(select(checkpoints)), *connection.execute(select(notes))]
    for row in rows:
        task = of_job[row.job_seq][row.task_index]
        assert of_id[row.job_seq].has_saves
        assert TaskState(task.state) not in TERMINAL_TASK_STATES, (
            "what it saved should have gone with its end"
        )
        assert 1 <= row.epoch <= task.epoch
        kept[row.job_seq, row.task_index] += hasattr(row, "manifest")
    assert max(kept.values(), default=0) <= 2


def _check_job(job: Any, of_job: list[Any]) -> None:
    found = Counter(_COUNTED[TaskState(task.state)] for task in of_job)
    kept = {name: getattr(job, name) for name in _COUNTED.values()}
    assert kept == {name: found[name] for name in kept}, f"counters of {job.job_id} are not true"
    assert job.total == len(of_job)
    assert [task.task_index for task in of_job] == list(range(job.total))
    assert JobState(job.state) is job_state(**kept)
    assert (job.finished_at is not None) == (JobState(job.state) in TERMINAL_JOB_STATES)
    assert job.duration_count == job.succeeded
    finished = sorted(task.finish_seq for task in of_job if task.finish_seq is not None)
    assert finished == list(range(1, len(finished) + 1)), f"results of {job.job_id} cannot be paged"


def _check_task(task: Any, of_task: list[Any]) -> None:
    state = TaskState(task.state)
    ends = Counter(attempt.state for attempt in of_task)
    live = [attempt for attempt in of_task if attempt.live]
    assert [attempt.epoch for attempt in of_task] == list(range(1, task.epoch + 1))
    for attempt in of_task:
        assert attempt.live == (AttemptState(attempt.state) in LIVE_ATTEMPT_STATES)
        assert (attempt.finished_at is None) == attempt.live
    assert [attempt.epoch for attempt in live] == ([task.epoch] if state is TaskState.ACTIVE else [])
    assert ends[AttemptState.SUCCEEDED] == (state is TaskState.SUCCEEDED), (
        "one success, and no task without it"
    )
    assert (task.finish_seq is not None) == (task.finished_at is not None) == (state in TERMINAL_TASK_STATES)
    if state is not TaskState.SUCCEEDED:
        # A success and a cancel that overtook the end charge nothing more.
        assert task.failures <= ends[AttemptState.FAILED]
        assert task.losses <= ends[AttemptState.LOST]
