"""A share of the machine, while its owner is there: never more than it runs, and nothing freezes and thaws for nothing."""

import dataclasses
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.core.reclaim import Action, GuestState, OwnerState, reclaim
from idle_accelerator.core.share import Turn, User, fitting
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState

S = AttemptState
needs = st.builds(
    Requirements,
    cpus=st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 4.0]),
    memory_bytes=st.sampled_from([0, 1 << 30, 3 << 30]),
    gpus=st.sampled_from([0, 0, 0, 1]),
)
shares = st.builds(
    Resources,
    cpus=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 8.0]),
    memory_bytes=st.sampled_from([0, 1 << 30, 4 << 30, 64 << 30]),
    gpus=st.sampled_from([0, 1, 2]),
)
ACTIVE = [S.RUNNING, S.STAGING, S.SUSPENDED]


@st.composite
def guests(
    draw: st.DrawFn, states: Sequence[AttemptState] = (*ACTIVE, S.LEASED, S.VACATING)
) -> list[GuestState]:
    found: list[GuestState] = []
    for number in range(draw(st.integers(0, 12))):
        state = draw(st.sampled_from(states))
        found.append(
            GuestState(
                key=f"guest{number}",
                job_id="j",
                state=state,
                suspended_since_s=0.0 if state is S.SUSPENDED else None,
                vacating_since_s=0.0 if state is S.VACATING else None,
                grace_s=100.0,
                needs=draw(needs),
                began_s=None if state in (S.LEASED, S.STAGING) else draw(st.floats(0, 100)),
            )
        )
    return found


def there(share: Resources) -> OwnerState:
    return OwnerState(
        lent=True, lent_jobs=None, reason=reason("owner.share_taken", cpus=1), memory_short=False, share=share
    )


def after(states: list[GuestState], owner: OwnerState) -> list[GuestState]:
    """As the runner does what it is told."""
    said = {item.key: item.action for item in reclaim(owner, states, now_s=1.0, vacate_after_s=1e9)}
    moves = {
        Action.FREEZE: S.SUSPENDED,
        Action.THAW: S.RUNNING,
        Action.VACATE: S.VACATING,
        Action.KILL: None,
        Action.REJECT: None,
    }
    found: list[GuestState] = []
    for guest in states:
        if guest.key not in said:
            found.append(guest)
        elif (state := moves[said[guest.key]]) is not None:
            found.append(
                dataclasses.replace(
                    guest,
                    state=state,
                    suspended_since_s=1.0 if state is S.SUSPENDED else None,
                    vacating_since_s=1.0 if state is S.VACATING else None,
                )
            )
    return found


def used(states: list[GuestState]) -> tuple[float, int, int]:
    running = [
        guest.needs
        for guest in states
        if guest.needs
        and (guest.state in (S.RUNNING, S.STAGING) or (guest.state is S.VACATING and guest.began_s))
    ]
    return (
        sum(each.cpus for each in running),
        sum(each.memory_bytes for each in running),
        sum(each.gpus for each in running),
    )


@given(guests(ACTIVE), shares)
def test_never_more_than_the_share_runs(states: list[GuestState], share: Resources) -> None:
    """But for what has a graphics card, which runs until its grace is over."""
    states = [
        dataclasses.replace(guest, needs=guest.needs.model_copy(update={"gpus": 0}))
        for guest in states
        if guest.needs
    ]
    cpus, memory_bytes, gpus = used(after(states, there(share)))
    assert cpus <= share.cpus + 1e-5
    assert memory_bytes <= share.memory_bytes
    assert gpus <= share.gpus


@given(guests(), shares)
def test_the_same_input_changes_nothing_a_second_time(states: list[GuestState], share: Resources) -> None:
    once = after(states, there(share))
    assert after(once, there(share)) == once


@given(guests(ACTIVE), shares)
def test_what_leaves_counts_as_long_as_it_runs(states: list[GuestState], share: Resources) -> None:
    left = after(states, there(share))
    leaving = [guest for guest in left if guest.state is S.VACATING]
    moving = [guest for guest in left if guest.state in (S.RUNNING, S.STAGING)]
    if used(moving)[0]:
        assert used([*leaving, *moving])[0] <= share.cpus + 1e-5


@given(guests(), shares)
def test_nobody_is_frozen_for_one_that_stood_still(states: list[GuestState], share: Resources) -> None:
    said = reclaim(there(share), states, now_s=1.0, vacate_after_s=1e9)
    without = [guest for guest in states if guest.state is not S.SUSPENDED]
    assert {item.key for item in said if item.action is Action.FREEZE} == {
        item.key
        for item in reclaim(there(share), without, now_s=1.0, vacate_after_s=1e9)
        if item.action is Action.FREEZE
    }


@given(st.lists(st.tuples(needs, st.floats(0, 100)), max_size=12), shares, shares)
def test_an_owner_who_lends_more_freezes_no_more_of_equal_guests(
    asked: list[tuple[Requirements, float]], one: Resources, other: Resources
) -> None:
    """For guests that need the same; with others, a large one may take the room of two small ones."""
    same = Requirements(cpus=1.0, memory_bytes=1 << 30)
    users = [
        User(key=str(number), process=str(number), needs=same, turn=Turn.RUNNING, began_s=began_s)
        for number, (_, began_s) in enumerate(asked)
    ]
    less = Resources(
        cpus=min(one.cpus, other.cpus),
        memory_bytes=min(one.memory_bytes, other.memory_bytes),
        gpus=min(one.gpus, other.gpus),
    )
    assert fitting(less, users) <= fitting(one, users)


@given(guests(), shares)
def test_a_guest_with_a_graphics_card_is_told_to_go_and_never_frozen(
    states: list[GuestState], share: Resources
) -> None:
    holding = {guest.key for guest in states if guest.needs is not None and guest.needs.gpus}
    for owner in (there(share), dataclasses.replace(there(share), lent=False)):
        for item in reclaim(owner, states, now_s=1.0):
            assert not (item.key in holding and item.action is Action.FREEZE)


def test_the_newest_give_way() -> None:
    states = [
        GuestState(
            key=key,
            job_id="j",
            state=S.RUNNING,
            suspended_since_s=None,
            vacating_since_s=None,
            grace_s=5,
            needs=Requirements(cpus=1),
            began_s=began_s,
        )
        for key, began_s in (("young", 9.0), ("old", 1.0), ("middle", 5.0))
    ]
    share = Resources(cpus=2, memory_bytes=1 << 40)
    assert [item.key for item in reclaim(there(share), states, now_s=10.0)] == ["young"]


def test_calls_in_one_warm_process_take_one_place() -> None:
    users = [
        User(key=str(number), process="one", needs=Requirements(cpus=1), turn=Turn.RUNNING, began_s=0.0)
        for number in range(50)
    ]
    assert len(fitting(Resources(cpus=1), users)) == 50
    assert fitting(Resources(cpus=0.5), users) == frozenset()
