"""An attempt shows what its sandbox held, as long as that is what the node still says."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from pool_builders import node_facts

from idle_accelerator.scheduler.store.rows import attempt_view
from idle_accelerator.wire.isolation import ISOLATION_LINES, Isolation, RanUnder
from idle_accelerator.wire.jobs import Usage

TRIED = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HELD = Isolation(tier="bubblewrap", **dict.fromkeys(ISOLATION_LINES, "by something"), probed_at=TRIED)
UNDER = RanUnder(tier="bubblewrap", probed_at=TRIED)


def row(usage: Usage | None, held: Isolation | None) -> Any:
    facts = None if held is None else node_facts(isolation=held).model_dump_json()
    stored = None if usage is None else usage.model_dump_json(exclude_defaults=True)
    fields = dict.fromkeys(("finished_at", "reason", "exit_code", "resumed"))
    return SimpleNamespace(
        **fields,
        epoch=1,
        state="SUCCEEDED",
        node_id="n",
        node_name="alpha",
        leased_at=1.0,
        usage=stored,
        node_facts=facts,
    )


def test_what_held_when_it_ran_is_shown() -> None:
    view = attempt_view(row(Usage(wall_s=1, ran_under=UNDER), HELD))
    assert view.isolation == HELD
    assert view.usage is not None
    assert view.usage.ran_under == UNDER


def test_what_the_node_found_later_is_not_passed_off_as_it() -> None:
    later = HELD.model_copy(update={"probed_at": TRIED.replace(hour=5)})
    other = HELD.model_copy(update={"tier": "landlock"})
    for now in (later, other, None):
        assert attempt_view(row(Usage(ran_under=UNDER), now)).isolation is None


def test_a_plain_process_and_an_attempt_without_an_end_say_nothing() -> None:
    assert attempt_view(row(Usage(wall_s=1), HELD)).isolation is None
    assert attempt_view(row(None, HELD)).isolation is None
