"""Jobs in the store: accepted once, counted truly, cancelled in every state."""

import pytest
from pool_builders import command_spec, report, succeeded
from sqlalchemy import select
from store_bench import StoreBench

from idle_accelerator.errors import Conflict, InvalidInput, NotFound
from idle_accelerator.scheduler.store import jobs as stored
from idle_accelerator.scheduler.store.schema import jobs
from idle_accelerator.wire.states import AttemptState, JobState, TaskState


def test_a_new_job_has_all_of_its_tasks_queued(bench: StoreBench) -> None:
    job_id = bench.submit(command_spec(tasks=1234))
    job = bench.job(job_id)
    assert (job.total, job.queued, job.state) == (1234, 1234, "QUEUED")
    assert len(bench.tasks(job_id)) == 1234


def test_a_large_array_is_made_in_pieces_without_a_gap(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_INDEX_CHUNK", 10)
    for size in (2, 10, 11, 20, 37):
        assert len(bench.tasks(bench.submit(command_spec(tasks=size)))) == size


def test_the_same_idempotency_key_gives_the_same_job(bench: StoreBench) -> None:
    first = bench.submit(command_spec("a"), key="k")
    assert bench.submit(command_spec("a"), key="k") == first
    assert len(bench.look(select(jobs.c.job_id))) == 1


def test_a_key_of_another_job_is_refused_and_adds_nothing(bench: StoreBench) -> None:
    bench.submit(command_spec("a"), key="k")
    with pytest.raises(Conflict) as caught:
        bench.submit(command_spec("b"), key="k")
    assert caught.value.field == "Idempotency-Key"
    assert len(bench.look(select(jobs.c.job_id))) == 1


def test_jobs_are_found_by_a_unique_prefix_only(bench: StoreBench) -> None:
    one, two = bench.submit(command_spec()), bench.submit(command_spec())
    assert bench.do(lambda connection: stored.find_job(connection, one)).job_id == one
    unique = next(one[: n + 1] for n in range(len(one)) if one[: n + 1] != two[: n + 1])
    assert bench.do(lambda connection: stored.find_job(connection, unique)).job_id == one
    with pytest.raises(Conflict):
        bench.do(lambda connection: stored.find_job(connection, "j"))
    with pytest.raises(NotFound):
        bench.do(lambda connection: stored.find_job(connection, "jzzzz"))
    with pytest.raises(InvalidInput):
        bench.do(lambda connection: stored.find_job(connection, ""))


@pytest.mark.parametrize("prefix", ["%", "_", "j%", "'; --", "j\0", "~", "😀"])
def test_no_character_of_a_prefix_is_a_wildcard(bench: StoreBench, prefix: str) -> None:
    bench.submit(command_spec())
    with pytest.raises(NotFound):
        bench.do(lambda connection: stored.find_job(connection, prefix))


def test_listing_pages_are_newest_first_and_complete(bench: StoreBench) -> None:
    made = [bench.submit(command_spec()) for _ in range(7)]
    seen: list[str] = []
    before: int | None = None
    while True:
        page = bench.do(
            lambda connection, before=before: stored.list_jobs(
                connection, state=None, before_seq=before, limit=3
            )
        )
        if not page:
            break
        seen += [row.job_id for row in page]
        before = page[-1].job_seq
    assert seen == made[::-1]


def test_finished_tasks_page_in_the_order_in_which_they_finished(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=5)), bench.enrol()
    refs = bench.lease(node, job_id, 5)
    order = [3, 0, 4, 2, 1]
    for index in order:
        bench.exchange(node, holding=refs, reports=[succeeded(refs[index])])
        refs_left = [ref for ref in refs if ref.task_index != index]
        assert len(refs_left) == 4
    job_seq = bench.job(job_id).job_seq
    first = bench.do(lambda connection: stored.finished_tasks(connection, job_seq, after=0, limit=2))
    rest = bench.do(
        lambda connection: stored.finished_tasks(connection, job_seq, after=first[-1].finish_seq, limit=99)
    )
    assert [row.task_index for row in [*first, *rest]] == order


def test_cancelling_a_queued_job_ends_it_at_once(bench: StoreBench) -> None:
    job_id = bench.submit(command_spec(tasks=3))
    assert bench.cancel(job_id) == set()
    assert bench.job(job_id).state == JobState.CANCELLED.value
    assert {task.state for task in bench.tasks(job_id)} == {TaskState.CANCELLED.value}


def test_cancelling_withdraws_leases_and_tells_who_runs(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=3)), bench.enrol()
    leased, running = bench.lease(node, job_id, 2)
    bench.exchange(node, holding=[leased, running], reports=[report(running, AttemptState.RUNNING)])
    assert bench.cancel(job_id) == {node}
    assert bench.attempt(leased).state == AttemptState.CANCELLED.value
    assert bench.attempt(running).state == AttemptState.RUNNING.value
    said = bench.exchange(node, holding=[leased, running])
    orders = {(item.task_index, item.reason.code) for item in said.orders}
    assert orders == {(running.task_index, "task.cancelled"), (leased.task_index, "lease.stale")}
    bench.exchange(node, holding=[running], reports=[report(running, AttemptState.VACATING)])
    assert bench.exchange(node, holding=[running]).orders == [], "it is on its way out: nothing more to say"
    bench.exchange(node, reports=[report(running, AttemptState.CANCELLED)])
    assert bench.job(job_id).state == JobState.CANCELLED.value


@pytest.mark.parametrize(
    ("end", "task_state"),
    [
        (AttemptState.SUCCEEDED, TaskState.SUCCEEDED),
        (AttemptState.FAILED, TaskState.CANCELLED),
        (AttemptState.VACATED, TaskState.CANCELLED),
        (AttemptState.CANCELLED, TaskState.CANCELLED),
    ],
)
def test_what_ends_after_a_cancel_never_runs_again(
    bench: StoreBench, end: AttemptState, task_state: TaskState
) -> None:
    job_id, node = bench.submit(command_spec(retries=5)), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, holding=[ref], reports=[report(ref, AttemptState.RUNNING)])
    bench.cancel(job_id)
    bench.exchange(node, reports=[report(ref, end)])
    assert bench.task(job_id).state == task_state.value
    assert bench.lease(node, job_id) == []


def test_cancelling_a_finished_job_changes_nothing(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    bench.exchange(node, reports=[succeeded(ref)])
    before = bench.job(job_id)
    bench.now += 1
    assert bench.cancel(job_id) == set()
    assert bench.job(job_id) == before


def test_results_stay_in_order_when_a_cancel_comes_between(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec(tasks=6)), bench.enrol()
    refs = bench.lease(node, job_id, 3)
    bench.exchange(node, holding=refs, reports=[succeeded(refs[1])])
    bench.exchange(node, holding=[refs[0], refs[2]], reports=[report(refs[0], AttemptState.RUNNING)])
    bench.cancel(job_id)
    bench.exchange(node, reports=[succeeded(refs[0])])
    job_seq = bench.job(job_id).job_seq
    rows = bench.do(lambda connection: stored.finished_tasks(connection, job_seq, after=0, limit=99))
    assert [row.task_index for row in rows] == [1, 3, 4, 5, 2, 0]
