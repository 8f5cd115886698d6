"""Leases in the store: granted once, fenced by epoch, renewed and ended by what nodes say, or by time."""

import pytest
from pool_builders import command_spec, node_facts, report, succeeded
from sqlalchemy import event
from store_bench import StoreBench

from idle_accelerator.core.attempt import LOST_CAP
from idle_accelerator.core.snapshot import GrantLine, Plan
from idle_accelerator.errors import NotFound
from idle_accelerator.scheduler.store import leases
from idle_accelerator.scheduler.store import nodes as stored_nodes
from idle_accelerator.scheduler.store.leases import LEASE_TTL_S, RENEW_BELOW_S
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.states import AttemptState, TaskState

S = AttemptState


def granted_again(said: leases.Exchanged) -> list[AttemptRef]:
    return [AttemptRef(line.job_id, *pair) for line in said.granted_again for pair in line.attempts]


def test_a_plan_gives_no_more_than_is_queued(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=3)), bench.enrol()
    assert len(bench.lease(node, job_id, 2)) == 2
    assert len(bench.lease(node, job_id, 2)) == 1
    assert bench.lease(node, job_id, 2) == []


def test_each_lease_of_a_task_raises_its_epoch(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    for epoch in (1, 2, 3):
        (ref,) = bench.lease(node, job_id)
        assert ref.epoch == epoch
        bench.exchange(node, reports=[report(ref, S.REJECTED)])


def test_the_commit_refuses_a_node_that_has_spoken_since_the_decision(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    bench.exchange(node)
    decided_on = bench.heard(node)
    bench.exchange(node)
    assert bench.lease(node, job_id, heard=decided_on) == []
    assert len(bench.lease(node, job_id)) == 1


def test_the_commit_refuses_cancelled_jobs_and_draining_or_unknown_nodes(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=2)), bench.enrol()
    bench.do(lambda connection: stored_nodes.set_draining(connection, node, draining=True))
    assert bench.lease(node, job_id) == []
    bench.do(lambda connection: stored_nodes.set_draining(connection, node, draining=False))
    assert bench.lease("n" + "7" * 16, job_id, heard=("", 0)) == []
    assert bench.lease(node, "j" + "7" * 16) == []
    bench.cancel(job_id)
    assert bench.lease(node, job_id) == []


def test_an_exchange_sent_twice_does_nothing_twice(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=2, retries=3)), bench.enrol()
    one, two = bench.lease(node, job_id, 2)
    request = bench.request(node, reports=[succeeded(one), report(two, S.FAILED)])
    first = bench.deliver(node, request)
    assert first.fresh
    assert first.jobs_moved == {job_id}
    before = (bench.job(job_id), bench.tasks(job_id), bench.node(node))
    bench.now += 1
    again = bench.deliver(node, request)
    assert not again.fresh
    assert again.jobs_moved == set()
    assert (bench.job(job_id), bench.tasks(job_id), bench.node(node)) == before


def test_a_stale_epoch_is_refused(bench: StoreBench) -> None:
    job_id = bench.submit(command_spec())
    old, new = bench.enrol("old"), bench.enrol("new")
    (first,) = bench.lease(old, job_id)
    bench.now += LEASE_TTL_S + 1
    assert bench.expire() == ({job_id}, {old})
    (second,) = bench.lease(new, job_id)
    said = bench.exchange(old, reports=[succeeded(first, b"late")])
    assert said.jobs_moved == set()
    assert bench.task(job_id).state == TaskState.ACTIVE.value
    bench.exchange(new, reports=[succeeded(second, b"right")])
    assert bench.attempt(second).result_inline == b"right"
    assert bench.attempt(first).state == S.LOST.value


def test_a_nodes_word_on_an_older_lease_of_its_own_is_refused_too(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (first,) = bench.lease(node, job_id)
    bench.now += LEASE_TTL_S + 1
    bench.expire()
    (second,) = bench.lease(node, job_id)
    said = bench.exchange(node, holding=[first], reports=[succeeded(first)])
    assert bench.attempt(second).state == S.LEASED.value
    assert granted_again(said) == [second]


def test_a_node_cannot_report_what_another_holds(bench: StoreBench) -> None:
    job_id = bench.submit(command_spec())
    holder, thief = bench.enrol("holder"), bench.enrol("thief")
    (ref,) = bench.lease(holder, job_id)
    bench.exchange(thief, reports=[succeeded(ref, b"forged")])
    assert bench.attempt(ref).state == S.LEASED.value


def test_what_the_agent_holds_but_lost_it_is_told_to_drop(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.now += LEASE_TTL_S + 1
    bench.expire()
    (order,) = bench.exchange(node, holding=[ref]).orders
    assert (order.desired, order.reason.code) == ("CANCELLED", "lease.stale")


def test_a_lease_that_did_not_arrive_is_granted_again(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    assert granted_again(bench.exchange(node)) == [ref]
    assert granted_again(bench.exchange(node)) == [ref]
    assert granted_again(bench.exchange(node, holding=[ref])) == []


def test_what_an_agent_began_and_no_longer_holds_is_lost_at_once(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, holding=[ref], reports=[report(ref, S.RUNNING)])
    said = bench.exchange(node, incarnation="second")
    assert said.jobs_moved == {job_id}
    assert bench.attempt(ref).state == S.LOST.value
    assert '"lease.forgotten"' in bench.attempt(ref).reason
    assert bench.task(job_id).state == TaskState.QUEUED.value


def test_an_overtaken_exchange_reports_but_is_not_believed_on_what_is_held(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=2)), bench.enrol()
    one, two = bench.lease(node, job_id, 2)
    early = bench.request(node, holding=[two], reports=[succeeded(one)])
    bench.exchange(node, holding=[one, two], reports=[report(two, S.RUNNING)])
    late_and_empty = bench.request(node, seq=1)
    assert not bench.deliver(node, early).fresh
    assert not bench.deliver(node, late_and_empty).fresh
    assert bench.attempt(one).state == S.SUCCEEDED.value
    assert bench.attempt(two).state == S.RUNNING.value, "an old, empty list of holdings loses nothing"


def test_a_late_word_of_the_process_before_loses_nothing(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    bench.exchange(node, incarnation="first")
    late = bench.request(node, incarnation="first")
    bench.exchange(node, incarnation="second")
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, incarnation="second", holding=[ref], reports=[report(ref, S.RUNNING)])
    assert not bench.deliver(node, late).fresh
    assert bench.attempt(ref).state == S.RUNNING.value


def test_leases_run_out_unless_the_node_is_heard(bench: StoreBench) -> None:
    job_id = bench.submit(command_spec(tasks=2))
    heard, silent = bench.enrol("heard"), bench.enrol("silent")
    (kept,), (lost,) = bench.lease(heard, job_id), bench.lease(silent, job_id)
    bench.now += LEASE_TTL_S - RENEW_BELOW_S + 0.1
    bench.exchange(heard, holding=[kept])
    bench.now += RENEW_BELOW_S
    assert bench.do(lambda connection: leases.has_expired_leases(connection, now=bench.now))
    assert bench.expire() == ({job_id}, {silent})
    assert bench.attempt(kept).live
    assert bench.attempt(lost).state == S.LOST.value
    assert not bench.do(lambda connection: leases.has_expired_leases(connection, now=bench.now))


def test_after_a_restart_every_live_lease_begins_anew(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.now += 1000
    bench.do(lambda connection: leases.forgive_leases(connection, now=bench.now, ttl_s=30))
    assert bench.expire() == (set(), set())
    bench.now += 31
    assert bench.expire() == ({job_id}, {node})
    assert bench.attempt(ref).state == S.LOST.value


def test_only_failures_spend_retries(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(retries=1)), bench.enrol()
    for end in (S.REJECTED, S.VACATED, S.FAILED, S.VACATED, S.REJECTED):
        (ref,) = bench.lease(node, job_id)
        bench.exchange(node, reports=[report(ref, end)])
        assert bench.task(job_id).state == TaskState.QUEUED.value
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, reports=[report(ref, S.FAILED)])
    task = bench.task(job_id)
    assert (task.state, task.failures, task.losses) == (TaskState.FAILED.value, 2, 0)


def test_a_task_that_kills_its_nodes_is_given_up(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    for count in range(1, LOST_CAP + 1):
        assert bench.task(job_id).state == TaskState.QUEUED.value
        bench.lease(node, job_id)
        bench.now += LEASE_TTL_S + 1
        bench.expire()
        assert bench.task(job_id).losses == count
    assert bench.task(job_id).state == TaskState.FAILED.value
    assert '"attempts.lost_cap"' in bench.task(job_id).reason


def test_an_agents_word_alone_cancels_no_task(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, holding=[ref], reports=[report(ref, S.RUNNING)])
    bench.exchange(node, reports=[report(ref, S.CANCELLED)])
    assert bench.task(job_id).state == TaskState.QUEUED.value


def test_one_exchange_may_tell_the_whole_story_of_an_attempt(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    story = [report(ref, state) for state in (S.STAGING, S.RUNNING, S.SUSPENDED, S.RUNNING)]
    bench.exchange(node, holding=[ref], reports=[*story, succeeded(ref), report(ref, S.FAILED)])
    assert bench.attempt(ref).state == S.SUCCEEDED.value


def test_a_node_keeps_the_name_that_it_enrolled_with(bench: StoreBench) -> None:
    bench.enrol("alpha")
    other = bench.enrol("alpha")
    assert bench.node(other).name == "alpha-2"
    said = bench.exchange(other, facts=node_facts("alpha", cpu_model="new"))
    assert '"name":"alpha-2"' in bench.node(other).facts
    assert '"cpu_model":"new"' in said.facts_json


def test_an_exchange_of_a_removed_node_is_refused_plainly(bench: StoreBench) -> None:
    node = bench.enrol()
    bench.do(lambda connection: stored_nodes.remove_node(connection, node))
    with pytest.raises(NotFound):
        bench.exchange(node)


def test_looking_for_leases_reads_only_live_rows(bench: StoreBench) -> None:
    """The indexes are partial; a query in other words than theirs would read every attempt there ever was."""
    if bench.engine.dialect.name != "sqlite":
        pytest.skip("EXPLAIN QUERY PLAN is SQLite's")
    job_id, node = bench.submit(command_spec(tasks=2)), bench.enrol()
    bench.lease(node, job_id)
    request = bench.request(node)
    asked: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, many) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE")):
            asked.append((statement, parameters[0] if many else parameters))

    connection = bench.connection
    with connection.begin():
        event.listen(bench.engine, "before_cursor_execute", note)
        leases.has_expired_leases(connection, now=bench.now + 99)
        leases.expire_leases(connection, now=bench.now - 99)
        leases.apply_exchange(connection, node, request, now=bench.now)
        line = GrantLine(node_id=node, job_id=job_id, count=1, heard=(request.incarnation, request.seq))
        assert leases.commit_plan(connection, Plan(grants=(line,)), now=bench.now)
        event.remove(bench.engine, "before_cursor_execute", note)
        for statement, parameters in asked:
            plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters).all()
            scans = [row[-1] for row in plan if row[-1].startswith("SCAN ") and "SUBQUERY" not in row[-1]]
            assert not scans, f"{statement}\n{plan}"
            if "LIMIT" in statement and "tasks" in statement:
                assert any("tasks_queued" in row[-1] for row in plan), plan
