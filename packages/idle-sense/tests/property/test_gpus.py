"""Others' share of a graphics processor, whatever a driver tells: never less than is known, never more than all."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from idle_sense.platform.gpus import (
    EngineTime,
    GpuSample,
    ProgramUse,
    lacks_start,
    use_between,
    whole_ratio,
    with_starts,
)

ENGINES = ("gfx", "compute", "video")
ratios = st.floats(0.0, 1.0)
any_number = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def looks(draw: st.DrawFn) -> tuple[GpuSample, GpuSample, dict[int, dict[str, float]]]:
    """Two looks at a device, 2 s apart, and how busy each program really kept each engine in between."""
    truth: dict[int, dict[str, float]] = {}
    left = dict.fromkeys(ENGINES, 1.0)
    for pid in draw(st.lists(st.integers(2, 40), unique=True, max_size=5)):
        truth[pid] = {}
        for engine in ENGINES:
            share = draw(ratios) * left[engine]
            truth[pid][engine] = share
            left[engine] -= share
    past = draw(st.floats(0, 1e6))
    before = GpuSample(name="card", at_s=1000.0, programs=_programs(truth, past, 0.0, 1000.0), complete=True)
    whole = max((sum(truth[pid][engine] for pid in truth) for engine in ENGINES), default=0.0)
    after = GpuSample(
        name="card",
        at_s=1002.0,
        busy_ratio=min(1.0, whole),
        programs=_programs(truth, past, 2.0, 1002.0),
        complete=True,
    )
    return before, after, truth


def _programs(
    truth: dict[int, dict[str, float]], past: float, passed_s: float, at_s: float
) -> tuple[ProgramUse, ...]:
    return tuple(
        ProgramUse(
            pid=pid,
            times={
                f"{engine} {pid}": EngineTime(busy=past + share * passed_s, whole=at_s)
                for engine, share in shares.items()
            },
        )
        for pid, shares in truth.items()
    )


@given(looks(), st.sets(st.integers(2, 40)))
def test_where_all_is_seen_others_share_is_theirs(seen, guests) -> None:
    before, after, truth = seen
    told = use_between(before, after, guests.__contains__).others_ratio
    theirs = max(
        (sum(truth[pid][engine] for pid in truth if pid not in guests) for engine in ENGINES), default=0.0
    )
    assert told is not None
    assert math.isclose(told, min(1.0, theirs), abs_tol=1e-6)


@given(looks(), st.sets(st.integers(2, 40)), st.booleans())
def test_what_is_not_seen_or_not_timed_takes_nothing_off(seen, guests, untimed) -> None:
    before, after, truth = seen
    others = [pid for pid in truth if pid not in guests]
    if untimed and others:
        hidden = [
            dataclasses.replace(program, times={}, timed=False) if program.pid == others[0] else program
            for program in after.programs or ()
        ]
        after = dataclasses.replace(after, programs=tuple(hidden))
    else:
        after = dataclasses.replace(after, complete=False)
    assert use_between(before, after, guests.__contains__).others_ratio == after.busy_ratio


@given(looks(), st.sets(st.integers(2, 40)), st.integers(2, 40))
def test_one_guest_more_never_makes_others_busier(seen, guests, pid) -> None:
    before, after, _ = seen
    fewer = use_between(before, after, guests.__contains__).others_ratio
    more = use_between(before, after, (guests | {pid}).__contains__).others_ratio
    assert fewer is not None
    assert more is not None
    assert more <= fewer + 1e-9


@given(
    busy=st.none() | any_number,
    counters=st.lists(st.tuples(any_number, any_number), max_size=3),
    later=st.lists(st.tuples(any_number, any_number), max_size=3),
    shares=st.lists(any_number, max_size=4),
    timed=st.booleans(),
    complete=st.booleans(),
    upper_bound=st.booleans(),
    guest=st.booleans(),
    first=st.booleans(),
)
def test_whatever_a_driver_says_a_share_is_a_share(
    busy, counters, later, shares, timed, complete, upper_bound, guest, first
) -> None:
    def sample(at_s: float, times: list[tuple[float, float]]) -> GpuSample:
        return GpuSample(
            name="card",
            at_s=at_s,
            busy_ratio=busy,
            idle_times={str(i): EngineTime(busy=b, whole=w) for i, (b, w) in enumerate(times)},
            programs=tuple(
                ProgramUse(
                    pid=pid,
                    ratios={"sm": share},
                    times={f"gfx {i}": EngineTime(busy=b, whole=w) for i, (b, w) in enumerate(times)},
                    timed=timed,
                )
                for pid, share in enumerate(shares, start=2)
            ),
            complete=complete,
            upper_bound=upper_bound,
        )

    before, after = None if first else sample(1.0, counters), sample(2.0, later)
    use = use_between(before, after, lambda pid: guest and pid == 2)
    for ratio in (use.others_ratio, whole_ratio(before, after)):
        assert ratio is None or 0.0 <= ratio <= 1.0


@given(looks())
def test_a_second_look_gives_every_counter_a_start(seen) -> None:
    before, after, truth = seen
    assert lacks_start(None, after) == bool(truth)
    assert not lacks_start(with_starts(None, after), after)
    blank = dataclasses.replace(before, programs=None)
    assert not lacks_start(with_starts(blank, after), after)
    # Those that were known keep the start that they had, so that no time is lost.
    known = {counter: time for program in before.programs or () for counter, time in program.times.items()}
    started = with_starts(before, after)
    assert (
        known.items()
        <= {
            counter: time for program in started.programs or () for counter, time in program.times.items()
        }.items()
    )


def test_a_handle_that_a_guest_shares_with_another_counts_once_and_as_the_others() -> None:
    def sample(at_s: float, busy: float) -> GpuSample:
        times = {"gfx 7": EngineTime(busy=busy, whole=at_s)}
        return GpuSample(
            name="card",
            at_s=at_s,
            busy_ratio=0.4,
            programs=(ProgramUse(pid=5, times=times), ProgramUse(pid=6, times=times)),
            complete=True,
        )

    before, after = sample(10.0, 1.0), sample(12.0, 1.8)
    for guest in (5, 6):
        use = use_between(before, after, lambda pid, guest=guest: pid == guest)
        assert use.others_ratio is not None
        assert math.isclose(use.others_ratio, 0.4)
    assert use_between(before, after, lambda _: True).others_ratio == 0.0
    third = ProgramUse(pid=7, ratios={"gfx": 0.1})
    after = dataclasses.replace(after, programs=(*(after.programs or ()), third))
    use = use_between(before, after, lambda pid: pid == 7)
    assert use.others_ratio is not None
    assert math.isclose(use.others_ratio, 0.4)


def test_a_card_of_which_only_the_programs_are_told_is_busy_with_any_that_is_no_guest() -> None:
    """As NVIDIA's in MIG mode: whether somebody is there is all that can be known."""

    def sample(*pids: int, complete: bool = True) -> GpuSample:
        programs = tuple(ProgramUse(pid=pid, timed=False) for pid in pids)
        return GpuSample(name="card", at_s=1.0, programs=programs, complete=complete)

    assert use_between(None, sample(5), lambda pid: pid == 5).others_ratio == 0.0
    assert use_between(None, sample(), lambda pid: pid == 5).others_ratio == 0.0
    assert use_between(None, sample(5, 6), lambda pid: pid == 5).others_ratio == 1.0
    assert use_between(None, sample(complete=False), lambda pid: pid == 5).others_ratio == 1.0


def test_a_driver_that_tells_nothing_says_nothing() -> None:
    silent = GpuSample(name="card", at_s=1.0, tells=False)
    assert use_between(None, silent, lambda _: False).others_ratio is None


def test_memory_of_guests_is_taken_off() -> None:
    programs = (ProgramUse(pid=5, used_bytes=600), ProgramUse(pid=6, used_bytes=100))
    told = GpuSample(name="card", at_s=1.0, busy_ratio=0.0, used_bytes=1000, programs=programs)
    assert use_between(None, told, lambda pid: pid == 5).others_bytes == 400
    summed = dataclasses.replace(told, used_bytes=None)
    assert use_between(None, summed, lambda pid: pid == 5).others_bytes == 100
