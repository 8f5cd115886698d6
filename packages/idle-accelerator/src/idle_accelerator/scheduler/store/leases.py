"""Leases: granted by a plan, renewed and reported by exchanges, ended by expiry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from idle_accelerator.core.attempt import accepts_report
from idle_accelerator.core.snapshot import Plan
from idle_accelerator.errors import NotFound
from idle_accelerator.scheduler.store.ends import End, Ended, end_attempts
from idle_accelerator.scheduler.store.rows import job_state
from idle_accelerator.scheduler.store.saves import note_progress, resume_points, save_checkpoints
from idle_accelerator.scheduler.store.schema import TASK_QUEUED, attempts, jobs, nodes, tasks
from idle_accelerator.wire.checkpoints import ResumePoint
from idle_accelerator.wire.exchange import AttemptReport, ExchangeRequest, Order
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, AttemptState, TaskState

LEASE_TTL_S = 10.0
RENEW_BELOW_S = 7.0
"""A lease is written anew only when it has less than this left: agents speak more often than that."""
_EXPIRY_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Granted:
    """Leases of one job to one node that are on disk."""

    node_id: str
    job_id: str
    spec_json: str
    requirements_json: str
    attempts: tuple[tuple[int, int], ...]
    resume: tuple[ResumePoint, ...] = ()


@dataclass(kw_only=True)
class Exchanged:
    """What an exchange did, and what its answer must say."""

    granted_again: list[Granted] = field(default_factory=list[Granted])
    orders: list[Order] = field(default_factory=list[Order])
    jobs_moved: set[str] = field(default_factory=set[str])
    some_queued: bool = False
    """Whether any of the jobs that it moved has queued tasks."""
    draining: bool = False
    fresh: bool = True
    facts_json: str = ""
    """The node's facts as they stand after this exchange."""

    def take_in(self, ended: Ended) -> None:
        self.jobs_moved |= ended.jobs
        self.some_queued |= ended.some_queued


_LIVE_OF_NODE = (
    select(
        attempts.c.job_seq,
        attempts.c.task_index,
        attempts.c.epoch,
        attempts.c.state,
        attempts.c.lease_expires_at,
        jobs.c.job_id,
        jobs.c.cancel_wanted,
        jobs.c.has_saves,
    )
    .select_from(attempts.join(jobs, jobs.c.job_seq == attempts.c.job_seq))
    .where(attempts.c.node_id == bindparam("wanted"), attempts.c.live)
)
_BY_KEY = (
    attempts.c.job_seq == bindparam("b_job_seq"),
    attempts.c.task_index == bindparam("b_task_index"),
    attempts.c.epoch == bindparam("b_epoch"),
    attempts.c.live,
)
_JOB = select(
    jobs.c.job_seq,
    jobs.c.spec,
    jobs.c.requirements,
    jobs.c.cancel_wanted,
    jobs.c.queued,
    jobs.c.active,
    jobs.c.succeeded,
    jobs.c.failed,
    jobs.c.cancelled,
    jobs.c.has_saves,
).where(jobs.c.job_id == bindparam("wanted"))
_NODE = select(
    nodes.c.name, nodes.c.facts, nodes.c.incarnation, nodes.c.past_incarnation, nodes.c.seq, nodes.c.draining
).where(nodes.c.node_id == bindparam("wanted"))
_SET_STATE = update(attempts).where(*_BY_KEY).values(state=bindparam("b_state"))
_SET_RESUMED = update(attempts).where(*_BY_KEY).values(resumed=bindparam("b_resumed"))
_TAKE = (
    update(tasks)
    .where(
        tasks.c.job_seq == bindparam("b_job_seq"),
        tasks.c.task_index.in_(
            select(tasks.c.task_index)
            .where(tasks.c.job_seq == bindparam("b_job_seq"), TASK_QUEUED)
            .order_by(tasks.c.task_index)
            .limit(bindparam("b_count"))
        ),
    )
    .values(state=TaskState.ACTIVE.value, epoch=tasks.c.epoch + 1, reason=None)
    .returning(tasks.c.task_index, tasks.c.epoch)
)
_BEGIN_ATTEMPTS = insert(attempts)
_COUNT_TAKEN = (
    update(jobs)
    .where(jobs.c.job_seq == bindparam("b_job_seq"))
    .values(
        queued=jobs.c.queued - bindparam("b_count"),
        active=jobs.c.active + bindparam("b_count"),
        state=bindparam("b_state"),
    )
)
_HEARD = (
    update(nodes)
    .where(nodes.c.node_id == bindparam("b_node_id"))
    .values(
        {
            name: bindparam(f"b_{name}")
            for name in ("incarnation", "past_incarnation", "seq", "offer", "facts")
        }
    )
    .values(last_seen_at=bindparam("b_now"), offered_at=bindparam("b_now"))
)
_IS_EXPIRED = (attempts.c.live, attempts.c.lease_expires_at < bindparam("now"))
_EXPIRED = (
    select(attempts.c.job_seq, attempts.c.task_index, attempts.c.epoch, attempts.c.node_id)
    .where(*_IS_EXPIRED)
    .limit(_EXPIRY_BATCH)
)
_ANY_EXPIRED = select(attempts.c.epoch).where(*_IS_EXPIRED).limit(1)
_RENEW = update(attempts).where(*_BY_KEY).values(lease_expires_at=bindparam("b_expires"))


def commit_plan(connection: Connection, plan: Plan, *, now: float) -> list[Granted]:
    """Turns the lines of a plan into leases, as far as the rows still allow: a line may give fewer tasks, or none."""
    granted: list[Granted] = []
    for line in plan.grants:
        job = connection.execute(_JOB, {"wanted": line.job_id}).one_or_none()
        node = connection.execute(_NODE, {"wanted": line.node_id}).one_or_none()
        if job is None or job.cancel_wanted or node is None or node.draining:
            continue
        if (node.incarnation, node.seq) != line.heard:
            continue
        key = {"b_job_seq": job.job_seq}
        taken = connection.execute(_TAKE, {**key, "b_count": line.count}).all()
        if not taken:
            continue
        connection.execute(
            _BEGIN_ATTEMPTS,
            [
                {
                    "job_seq": job.job_seq,
                    "task_index": row.task_index,
                    "epoch": row.epoch,
                    "node_id": line.node_id,
                    "state": AttemptState.LEASED.value,
                    "leased_at": now,
                    "lease_expires_at": now + LEASE_TTL_S,
                }
                for row in taken
            ],
        )
        count = len(taken)
        state = job_state(
            queued=job.queued - count,
            active=job.active + count,
            succeeded=job.succeeded,
            failed=job.failed,
            cancelled=job.cancelled,
        )
        connection.execute(_COUNT_TAKEN, {**key, "b_count": count, "b_state": state.value})
        pairs = tuple(sorted((row.task_index, row.epoch) for row in taken))
        granted.append(
            Granted(
                node_id=line.node_id,
                job_id=line.job_id,
                spec_json=job.spec,
                requirements_json=job.requirements,
                attempts=pairs,
                resume=_resume(connection, job, pairs),
            )
        )
    return granted


def _resume(connection: Connection, job: Any, pairs: Sequence[tuple[int, int]]) -> tuple[ResumePoint, ...]:
    if not job.has_saves:
        return ()
    return tuple(resume_points(connection, job.job_seq, [index for index, _ in pairs]))


def apply_exchange(
    connection: Connection, node_id: str, request: ExchangeRequest, *, now: float
) -> Exchanged:
    """Everything that a request says, in one transaction; of its checkpoints, the caller has made sure that they are whole.

    Reports are applied whatever the request's age: they are fenced by epoch and only ever move an attempt on. What the
    agent holds is believed only from its newest request, since an older one, or one of the process that the agent was
    before, may have been overtaken on its way. Raises NotFound when the node was removed meanwhile.
    """
    node = connection.execute(_NODE, {"wanted": node_id}).one_or_none()
    if node is None:
        raise NotFound("this node was removed.", field="node", hint="Enrol again: POST /v1/nodes.")
    outcome = Exchanged(draining=node.draining, facts_json=node.facts)
    same = node.incarnation == request.incarnation
    outcome.fresh = request.seq > node.seq if same else request.incarnation != node.past_incarnation
    live: dict[AttemptRef, Any] = {
        AttemptRef(row.job_id, row.task_index, row.epoch): row
        for row in connection.execute(_LIVE_OF_NODE, {"wanted": node_id})
    }
    if request.checkpoints:
        save_checkpoints(connection, live, request.checkpoints, now=now)
    if request.progress:
        note_progress(connection, live, request.progress)
    reported = _apply_reports(connection, live, request.reports, outcome, now=now)
    if outcome.fresh:
        held = {AttemptRef(item.job_id, *pair) for item in request.holding for pair in item.attempts}
        _reconcile(connection, node_id, live, held, reported, outcome, now=now)
        if request.facts is not None:
            # Its name is the one it was enrolled with: a machine may not call itself what another is trusted as.
            outcome.facts_json = request.facts.model_copy(update={"name": node.name}).model_dump_json()
        heard: dict[str, Any] = {
            "b_node_id": node_id,
            "b_incarnation": request.incarnation,
            "b_past_incarnation": node.past_incarnation if same else node.incarnation,
            "b_seq": request.seq,
            "b_offer": request.offer.model_dump_json(),
            "b_facts": outcome.facts_json,
            "b_now": now,
        }
        connection.execute(_HEARD, heard)
    return outcome


def _apply_reports(
    connection: Connection,
    live: dict[AttemptRef, Any],
    reports: Sequence[AttemptReport],
    outcome: Exchanged,
    *,
    now: float,
) -> set[AttemptRef]:
    """Moves live attempts on and takes those that ended out of ``live``. Returns all that the reports were about."""
    newest: dict[AttemptRef, AttemptState] = {}
    ends: list[End] = []
    resumed: list[dict[str, Any]] = []
    reported: set[AttemptRef] = set()
    for report in reports:
        ref = AttemptRef(report.job_id, report.task_index, report.epoch)
        reported.add(ref)
        row = live.get(ref)
        if row is None or not accepts_report(newest.get(ref, AttemptState(row.state)), report.state):
            continue
        if report.resumed is not None:
            resumed.append({**_key(row), "b_resumed": report.resumed.model_dump_json()})
        if report.state in LIVE_ATTEMPT_STATES:
            newest[ref] = report.state
            continue
        newest.pop(ref, None)
        del live[ref]
        ends.append(
            End(
                job_seq=row.job_seq,
                task_index=report.task_index,
                epoch=report.epoch,
                state=report.state,
                reason=report.reason,
                exit_code=report.exit_code,
                encoding=report.encoding,
                result=report.result,
                error=report.error,
                artifacts=report.artifacts,
                usage=report.usage,
            )
        )
    if newest:
        connection.execute(
            _SET_STATE, [{**_key(live[ref]), "b_state": state.value} for ref, state in newest.items()]
        )
    if resumed:
        connection.execute(_SET_RESUMED, resumed)
    outcome.take_in(end_attempts(connection, ends, now=now))
    return reported


def _reconcile(
    connection: Connection,
    node_id: str,
    live: dict[AttemptRef, Any],
    held: set[AttemptRef],
    reported: set[AttemptRef],
    outcome: Exchanged,
    *,
    now: float,
) -> None:
    renew: list[dict[str, Any]] = []
    again: dict[str, list[tuple[int, int]]] = {}
    forgotten: list[End] = []
    for ref, row in live.items():
        state = AttemptState(row.state)
        if ref in held or ref in reported:
            if row.lease_expires_at < now + RENEW_BELOW_S:
                renew.append({**_key(row), "b_expires": now + LEASE_TTL_S})
            if row.cancel_wanted and state is not AttemptState.VACATING:
                outcome.orders.append(_order(ref, "task.cancelled"))
        elif state is AttemptState.LEASED:
            again.setdefault(ref.job_id, []).append((ref.task_index, ref.epoch))
            renew.append({**_key(row), "b_expires": now + LEASE_TTL_S})
        else:
            forgotten.append(
                End(
                    job_seq=row.job_seq,
                    task_index=ref.task_index,
                    epoch=ref.epoch,
                    state=AttemptState.LOST,
                    reason=reason("lease.forgotten"),
                )
            )
    outcome.orders += [_order(ref, "lease.stale") for ref in held if ref not in live and ref not in reported]
    if renew:
        connection.execute(_RENEW, renew)
    outcome.take_in(end_attempts(connection, forgotten, now=now))
    for job_id, pairs in again.items():
        job = connection.execute(_JOB, {"wanted": job_id}).one()
        pairs.sort()
        outcome.granted_again.append(
            Granted(
                node_id=node_id,
                job_id=job_id,
                spec_json=job.spec,
                requirements_json=job.requirements,
                attempts=tuple(pairs),
                resume=_resume(connection, job, pairs),
            )
        )


def expire_leases(connection: Connection, *, now: float) -> tuple[set[str], set[str]]:
    """Writes LOST to attempts whose lease ran out. Returns (ids of their jobs, ids of their nodes)."""
    rows = connection.execute(_EXPIRED, {"now": now}).all()
    ends = [
        End(
            job_seq=row.job_seq,
            task_index=row.task_index,
            epoch=row.epoch,
            state=AttemptState.LOST,
            reason=reason("lease.expired", ttl_s=LEASE_TTL_S),
        )
        for row in rows
    ]
    return set(end_attempts(connection, ends, now=now).jobs), {row.node_id for row in rows}


def has_expired_leases(connection: Connection, *, now: float) -> bool:
    return connection.execute(_ANY_EXPIRED, {"now": now}).first() is not None


def forgive_leases(connection: Connection, *, now: float, ttl_s: float) -> None:
    """After a start of the scheduler: agents could not renew while it was down, so every live lease begins anew."""
    connection.execute(update(attempts).where(attempts.c.live).values(lease_expires_at=now + ttl_s))


def _key(row: Any) -> dict[str, Any]:
    return {"b_job_seq": row.job_seq, "b_task_index": row.task_index, "b_epoch": row.epoch}


def _order(ref: AttemptRef, code: str) -> Order:
    return Order(
        job_id=ref.job_id,
        task_index=ref.task_index,
        epoch=ref.epoch,
        desired="CANCELLED",
        reason=reason(code),
    )
