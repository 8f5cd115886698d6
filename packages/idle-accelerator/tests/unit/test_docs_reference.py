"""The reference says what the code does: its tables are read back and compared."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from idle_accelerator.agent.workloads.contract import task_environment
from idle_accelerator.core.attempt import (
    LOST_CAP,
    TRANSITIONS,
    Mover,
    TaskCharge,
    after_attempt,
    may_move,
)
from idle_accelerator.core.reclaim import DEFAULT_GRACE_S, DEFAULT_VACATE_AFTER_S
from idle_accelerator.wire import states
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.states import LIVE_ATTEMPT_STATES, AttemptState, TaskState

DOCS = Path(__file__).parents[4] / "docs"
STATES = (DOCS / "reference/attempt-states.md").read_text(encoding="utf-8")
CONTRACT = (DOCS / "reference/task-contract.md").read_text(encoding="utf-8")
ENDS = [state for state in AttemptState if state not in LIVE_ATTEMPT_STATES]
SPENT = TaskCharge(failures=0, losses=0)


def table(page: str, *header: str) -> list[list[str]]:
    """The cells of the rows of the only table with this header."""
    found = re.findall(
        rf"^\| {re.escape(' | '.join(header))} \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE
    )
    assert len(found) == 1, f"{len(found)} tables have the columns {header}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[0].splitlines()]


def sentences() -> Iterator[tuple[str, str]]:
    """(state, sentence) of AttemptState, as they stand under the names in the source."""
    module = ast.parse(Path(states.__file__).read_text(encoding="utf-8"))
    body = next(
        node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "AttemptState"
    )
    for before, after in itertools.pairwise(body):
        match before, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


def test_the_moves_are_those_of_the_code() -> None:
    rows = {before: set(after.split(", ")) for before, after in table(STATES, "from", "to")}
    assert rows == {
        state.value: {after.value for after in TRANSITIONS[state]} for state in LIVE_ATTEMPT_STATES
    }


def test_who_makes_the_moves_is_as_the_page_says() -> None:
    assert "The scheduler writes `LOST` and `LEASED → CANCELLED`." in STATES
    by_scheduler = {
        (before, after)
        for before in AttemptState
        for after in AttemptState
        if may_move(before, after, Mover.SCHEDULER)
    }
    assert by_scheduler == {(AttemptState.LEASED, AttemptState.CANCELLED)} | {
        (live, AttemptState.LOST) for live in LIVE_ATTEMPT_STATES
    }


def test_every_state_has_a_sentence_and_the_page_has_the_same() -> None:
    written = dict(sentences())
    assert set(written) == {state.value for state in AttemptState}
    rows = dict(table(STATES, "state", "sentence"))
    assert rows == {name: text[0].lower() + text[1:] for name, text in written.items()}


def state_after(end: AttemptState, *, retries: int = 0, cancel_wanted: bool = False) -> TaskState:
    return after_attempt(end, None, SPENT, retries=retries, cancel_wanted=cancel_wanted).state


def test_what_an_end_does_to_its_task_is_as_the_page_says() -> None:
    rows = {end: (then, cost) for end, then, cost in table(STATES, "end", "the task is then", "it costs")}
    assert set(rows) == {end.value for end in ENDS}
    for end in ENDS:
        then, cost = rows[end.value]
        move = after_attempt(end, None, SPENT, retries=1, cancel_wanted=False)
        assert then.startswith(move.state.value)
        charged = {SPENT: "nothing", TaskCharge(failures=1, losses=0): "one retry"}
        assert cost == charged.get(move.charge, "one of five losses")
    assert state_after(AttemptState.FAILED, retries=0) is TaskState.FAILED
    assert LOST_CAP == 5
    last = after_attempt(
        AttemptState.LOST, None, TaskCharge(failures=0, losses=4), retries=9, cancel_wanted=False
    )
    assert last.state is TaskState.FAILED


def test_a_cancelled_job_ends_its_tasks_as_the_page_says() -> None:
    assert "the task is CANCELLED after any end but SUCCEEDED" in STATES
    assert {end: state_after(end, retries=9, cancel_wanted=True) for end in ENDS} == {
        end: TaskState.SUCCEEDED if end is AttemptState.SUCCEEDED else TaskState.CANCELLED for end in ENDS
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a task gets from an agent with much in its own environment."""
    return task_environment(
        ref=AttemptRef("j" + "a" * 16, 0, 1),
        task_count=1,
        threads=3,
        workspace=tmp_path,
        grace_s=5.0,
        extra={},
        inherited={"PATH": "/bin", "SECRET": "s", "IDLE_KEY": "k", "IDLE_SCHEDULER": "http://h"},
    )


def test_the_variables_are_those_that_a_task_gets(environment: dict[str, str]) -> None:
    named = [name.strip("`") for name, _ in table(CONTRACT, "variable", "value")]
    assert sorted(named) == sorted(name for name in environment if name.startswith("IDLE_"))


def test_the_other_variables_are_named_as_well(environment: dict[str, str]) -> None:
    named = set(re.findall(r"`([A-Z_]+)`", CONTRACT))
    assert {name for name in environment if not name.startswith("IDLE_")} <= named
    threads = CONTRACT[CONTRACT.index("- `OMP_NUM_THREADS`") : CONTRACT.index(", to the value of")]
    assert set(re.findall(r"`([A-Z_]+)`", threads)) == {
        name for name, value in environment.items() if value == "3" and name != "IDLE_THREADS"
    }


def test_the_times_that_the_pages_name_are_those_of_the_code() -> None:
    assert DEFAULT_GRACE_S == 5
    assert "the default is 5 s" in CONTRACT
    assert DEFAULT_VACATE_AFTER_S == 600
    assert "`--vacate-after` (10 minutes unless" in CONTRACT
