"""The owner comes first: what happens to guests when the owner returns."""

import dataclasses

import pytest
from pool_builders import JOB_ID

from idle_accelerator.core.reclaim import (
    Action,
    GuestState,
    Instruction,
    OwnerState,
    next_deadline_s,
    reclaim,
)
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState

S = AttemptState
BACK = reason("owner.returned")


def owner(*, lent: bool, jobs: frozenset[str] | None = None, memory_short: bool = False) -> OwnerState:
    return OwnerState(lent=lent, lent_jobs=jobs, reason=BACK, memory_short=memory_short)


def guest(
    key: str = "a",
    state: AttemptState = S.RUNNING,
    *,
    job_id: str = JOB_ID,
    suspended_since_s: float | None = None,
    vacating_since_s: float | None = None,
    grace_s: float = 5.0,
) -> GuestState:
    return GuestState(
        key=key,
        job_id=job_id,
        state=state,
        suspended_since_s=suspended_since_s,
        vacating_since_s=vacating_since_s,
        grace_s=grace_s,
    )


def actions(instructions: list[Instruction]) -> list[tuple[str, Action]]:
    return [(item.key, item.action) for item in instructions]


def test_freezes_come_before_everything_else() -> None:
    guests = [
        guest("leased", S.LEASED),
        guest("staging", S.STAGING),
        guest("frozen long", S.SUSPENDED, suspended_since_s=0),
        guest("out of grace", S.VACATING, vacating_since_s=0),
        guest("one"),
        guest("two"),
    ]
    said = actions(reclaim(owner(lent=False), guests, now_s=1000))
    assert said == [
        ("one", Action.FREEZE),
        ("two", Action.FREEZE),
        ("out of grace", Action.KILL),
        ("leased", Action.REJECT),
        ("staging", Action.VACATE),
        ("frozen long", Action.VACATE),
    ]


def test_guests_of_an_idle_machine_are_left_alone() -> None:
    guests = [guest("a"), guest("b", S.STAGING), guest("c", S.LEASED)]
    assert reclaim(owner(lent=True), guests, now_s=0) == []


def test_frozen_guests_thaw_when_the_owner_leaves() -> None:
    frozen = guest(state=S.SUSPENDED, suspended_since_s=0)
    assert actions(reclaim(owner(lent=True), [frozen], now_s=1)) == [("a", Action.THAW)]


def test_the_owners_word_covers_only_the_named_jobs() -> None:
    other = "j" + "b" * 16
    guests = [guest("allowed"), guest("stranger", job_id=other)]
    word = owner(lent=True, jobs=frozenset({JOB_ID}))
    assert actions(reclaim(word, guests, now_s=0)) == [("stranger", Action.FREEZE)]


def test_frozen_guests_vacate_only_after_a_while() -> None:
    frozen = guest(state=S.SUSPENDED, suspended_since_s=100)
    assert reclaim(owner(lent=False), [frozen], now_s=699.9) == []
    (said,) = reclaim(owner(lent=False), [frozen], now_s=700)
    assert said.action is Action.VACATE
    assert (said.reason.code, said.reason.params["suspended_s"]) == ("owner.returned_long", 600)


@pytest.mark.parametrize("state", [S.RUNNING, S.SUSPENDED])
def test_memory_pressure_sends_guests_away_at_once(state: AttemptState) -> None:
    held = guest(state=state, suspended_since_s=0 if state is S.SUSPENDED else None)
    (said,) = reclaim(owner(lent=False, memory_short=True), [held], now_s=1)
    assert (said.action, said.reason.code) == (Action.VACATE, "memory.pressure")


@pytest.mark.parametrize("state", [S.RUNNING, S.SUSPENDED])
def test_a_machine_that_will_not_be_lent_for_long_sends_guests_away_at_once(state: AttemptState) -> None:
    over = dataclasses.replace(owner(lent=False), leave=reason("owner.hours"))
    held = guest(state=state, suspended_since_s=0 if state is S.SUSPENDED else None)
    (said,) = reclaim(over, [held], now_s=1)
    assert (said.action, said.reason.code) == (Action.VACATE, "owner.hours")


def test_grace_is_kept_and_not_exceeded() -> None:
    leaving = guest(state=S.VACATING, vacating_since_s=10, grace_s=5)
    assert reclaim(owner(lent=False), [leaving], now_s=14.9) == []
    assert actions(reclaim(owner(lent=False), [leaving], now_s=15)) == [("a", Action.KILL)]
    assert actions(reclaim(owner(lent=True), [leaving], now_s=15)) == [("a", Action.KILL)], (
        "the owner's leaving does not stop a vacate"
    )


def test_no_grace_kills_at_once() -> None:
    leaving = guest(state=S.VACATING, vacating_since_s=10, grace_s=0)
    assert actions(reclaim(owner(lent=False), [leaving], now_s=10)) == [("a", Action.KILL)]


def test_the_next_deadline_is_the_first_moment_at_which_reclaim_says_something() -> None:
    guests = [
        guest("a", S.SUSPENDED, suspended_since_s=50),
        guest("b", S.VACATING, vacating_since_s=640, grace_s=20),
        guest("c"),
    ]
    at = next_deadline_s(guests)
    assert at == 650
    quiet = [item for item in guests if item.key != "c"]
    assert reclaim(owner(lent=False), quiet, now_s=at - 0.01) == []
    assert reclaim(owner(lent=False), quiet, now_s=at)
    assert next_deadline_s([guest()]) is None
