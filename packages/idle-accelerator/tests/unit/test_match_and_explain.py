"""Why a node cannot run a task, and why a job waits: always a reason, and the right one."""

from collections.abc import Mapping
from typing import Any

import pytest
from pool_builders import GIB, JOB_ID, NODE_ID, node_facts, offer, requirements, resources

from idle_accelerator.core.explain import NODES_SHOWN, NodeStanding, why_waiting
from idle_accelerator.core.match import lasting_mismatches, present_mismatches
from idle_accelerator.wire.nodes import ISOLATION_LINES, Isolation, Lending, Offer
from idle_accelerator.wire.reasons import reason, render

FACTS = node_facts(labels={"room": "12"})


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"cpus": 5}, "match.cpus"),
        ({"memory_bytes": 9 * GIB}, "match.memory"),
        ({"disk_bytes": 101 * GIB}, "match.disk"),
        ({"gpus": 1}, "match.gpus"),
        ({"os": "windows"}, "match.os"),
        ({"arch": "aarch64"}, "match.arch"),
        ({"python": "3.12"}, "match.python"),
        ({"labels": {"room": "13"}}, "match.label"),
        ({"labels": {"floor": "1"}}, "match.label"),
        ({"node": "beta"}, "match.node"),
    ],
)
def test_every_requirement_that_is_not_met_is_named(wanted: Mapping[str, Any], code: str) -> None:
    (found,) = lasting_mismatches(requirements(**wanted), FACTS, node_id=NODE_ID)
    assert found.code == code
    assert "{" not in render(found)
    assert render(found) != code


def test_a_node_that_has_exactly_what_is_wanted_fits() -> None:
    wanted = requirements(
        cpus=4,
        memory_bytes=8 * GIB,
        disk_bytes=100 * GIB,
        os="linux",
        arch="x86_64",
        python="3.11",
        labels={"room": "12"},
        node="alpha",
    )
    assert lasting_mismatches(wanted, FACTS, node_id=NODE_ID) == ()
    assert lasting_mismatches(requirements(node=NODE_ID), FACTS, node_id=NODE_ID) == ()


def test_all_reasons_are_given_not_only_the_first() -> None:
    wanted = requirements(cpus=99, gpus=2, os="macos")
    codes = [item.code for item in lasting_mismatches(wanted, FACTS, node_id=NODE_ID)]
    assert codes == ["match.cpus", "match.gpus", "match.os"]


HELD = Isolation(
    tier="bubblewrap",
    **{
        **dict.fromkeys(ISOLATION_LINES, "by something"),
        "mem": "none: all that there is",
        "gpu": "fails: a card",
    },
    most_memory_bytes=2 * GIB,
)


@pytest.mark.parametrize(
    ("wanted", "codes"),
    [
        (("net", "fs"), []),
        (("mem",), ["match.isolation"]),
        (("gpu", "mem"), ["match.isolation", "match.isolation"]),
        (("bubblewrap",), []),
        (("container", "bubblewrap", "net"), []),
        (("container", "landlock"), ["match.tier"]),
        (("process", "mem"), ["match.tier", "match.isolation"]),
    ],
)
def test_a_job_asks_for_lines_that_hold_and_for_one_of_the_tiers(
    wanted: tuple[str, ...], codes: list[str]
) -> None:
    facts = node_facts(sandbox_tier="bubblewrap", isolation=HELD)
    found = lasting_mismatches(requirements(isolation=wanted), facts, node_id=NODE_ID)
    assert [item.code for item in found] == codes
    assert all("{" not in render(item) for item in found)


def test_a_node_that_says_nothing_of_its_isolation_holds_nothing() -> None:
    (found,) = lasting_mismatches(requirements(isolation=["net"]), FACTS, node_id=NODE_ID)
    assert (found.code, found.params["line"]) == ("match.isolation", "net")


def test_where_memory_has_no_hard_limit_more_than_the_node_takes_does_not_go_there() -> None:
    facts = node_facts(sandbox_tier="bubblewrap", isolation=HELD)
    (found,) = lasting_mismatches(requirements(memory_bytes=3 * GIB), facts, node_id=NODE_ID)
    assert found.code == "match.memory_unlimited"
    assert lasting_mismatches(requirements(memory_bytes=2 * GIB), facts, node_id=NODE_ID) == ()


def test_a_node_in_use_gives_its_own_reasons() -> None:
    why = (reason("node.paused"), reason("lend.hint"))
    assert present_mismatches(JOB_ID, requirements(), FACTS, offer("paused", reasons=why)) == why


@pytest.mark.parametrize("lending", ["settling", "in_use", "paused", "draining", "offline"])
def test_a_node_that_is_not_lent_is_never_without_a_reason(lending: Lending) -> None:
    assert present_mismatches(JOB_ID, requirements(), FACTS, offer(lending))


def test_the_owners_word_lends_to_the_named_jobs_only() -> None:
    other = "j" + "b" * 16
    lent = offer("lent", only_jobs=(JOB_ID,), reasons=(reason("lend.hint"),))
    assert present_mismatches(JOB_ID, requirements(), FACTS, lent) == ()
    codes = [item.code for item in present_mismatches(other, requirements(), FACTS, lent)]
    assert codes == ["match.only_jobs", "lend.hint"]


def test_a_share_that_is_too_small_says_so() -> None:
    why = (reason("node.shared", cpus=1, total=4), reason("lend.hint"))
    lent = offer("lent", free=resources(cpus=1), reasons=why)
    assert present_mismatches(JOB_ID, requirements(), FACTS, lent) == ()
    assert present_mismatches(JOB_ID, requirements(cpus=2), FACTS, lent) == why[:1]


def test_a_full_node_says_so() -> None:
    full = offer(free=resources(cpus=0.5))
    assert [item.code for item in present_mismatches(JOB_ID, requirements(), FACTS, full)] == ["wait.busy"]


def standing(name: str, lends: Offer, **facts: Any) -> NodeStanding:
    return NodeStanding(node_id=f"n-{name}", facts=node_facts(name, **facts), offer=lends)


def test_a_pool_without_nodes_says_how_to_get_one() -> None:
    assert [item.code for item in why_waiting(JOB_ID, requirements(), [])] == ["wait.no_nodes"]


def test_obstacles_that_pass_come_before_those_that_stay() -> None:
    nodes = [standing("never", offer(), os="windows"), standing("soon", offer("settling"))]
    said = [render(item) for item in why_waiting(JOB_ID, requirements(os="linux"), nodes)]
    assert said[0].startswith("soon: ")
    assert said[1] == "never: needs linux, is windows"


def test_a_node_that_could_take_it_now_ends_the_search() -> None:
    nodes = [standing("soon", offer("settling")), standing("now", offer())]
    assert [item.code for item in why_waiting(JOB_ID, requirements(), nodes)] == ["wait.next_round"]


def test_many_nodes_are_counted_not_listed() -> None:
    nodes = [standing(f"node-{number}", offer("in_use")) for number in range(NODES_SHOWN + 7)]
    said = why_waiting(JOB_ID, requirements(), nodes)
    assert len(said) == NODES_SHOWN + 1
    assert render(said[-1]) == "and 7 more node(s)"
