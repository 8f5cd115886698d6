"""Enrolled machines in the store."""

import pytest
from pool_builders import command_spec, node_facts, succeeded
from store_bench import StoreBench

from idle_accelerator.errors import Conflict, NotFound
from idle_accelerator.scheduler.store import nodes as stored
from idle_accelerator.scheduler.store.rows import load_facts


def test_names_are_made_unique_and_stay_valid_at_any_length(bench: StoreBench) -> None:
    for name in ("x", "x", "x" * 200, "x" * 200, "x%", "x%"):
        bench.enrol(name)
    rows = bench.do(stored.list_nodes)
    assert len({row.name for row in rows}) == 6
    for row in rows:
        assert load_facts(row.facts).name == row.name


def test_a_name_is_never_another_nodes_id(bench: StoreBench) -> None:
    victim = bench.enrol("victim")
    thief = bench.enrol(facts=node_facts(victim))
    assert bench.node(thief).name != victim
    assert bench.do(lambda connection: stored.find_node(connection, victim)).node_id == victim


def test_nodes_are_found_by_name_id_and_unique_prefix(bench: StoreBench) -> None:
    one, _two = bench.enrol("one"), bench.enrol("two")
    for word in ("one", one):
        assert bench.do(lambda connection, word=word: stored.find_node(connection, word)).node_id == one
    with pytest.raises(NotFound):
        bench.do(lambda connection: stored.find_node(connection, "three"))
    with pytest.raises(Conflict):
        bench.do(lambda connection: stored.find_node(connection, "n"))


def test_a_node_that_holds_work_is_not_removed(bench: StoreBench) -> None:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    (ref,) = bench.lease(node, job_id)
    with pytest.raises(Conflict):
        bench.do(lambda connection: stored.remove_node(connection, node))
    bench.exchange(node, reports=[succeeded(ref)])
    bench.do(lambda connection: stored.remove_node(connection, node))
    assert bench.do(stored.list_nodes) == []
    assert bench.task(job_id).state == "SUCCEEDED", "its history stays"
