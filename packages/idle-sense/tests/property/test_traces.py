"""A trace gives back what was recorded, whatever that was, and a reader never fails but by InvalidTrace."""

import contextlib
import io
import typing
from datetime import UTC
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idle_sense.decision import Memory, decide
from idle_sense.errors import InvalidTrace
from idle_sense.facts import (
    Calls,
    GpuUse,
    Load,
    Media,
    MemoryUse,
    Network,
    Power,
    Reading,
    Screen,
    Seat,
    Session,
    Terminal,
    Thermal,
    Traffic,
)
from idle_sense.policy import Policy
from idle_sense.trace_codec import Unchanged, changed, changes
from idle_sense.trace_names import Names
from idle_sense.traces import Recorder, Trace, replay
from idle_sense.types import Snapshot

numbers = st.floats(allow_nan=False)
texts = st.text(max_size=8) | st.just("\udc80")
st.register_type_strategy(float, numbers)
st.register_type_strategy(str, texts)


def readings(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        Reading,
        value=st.none() | values,
        source=texts,
        age_s=numbers,
        problem=texts,
        advice=texts,
        tells=st.booleans(),
    )


def records(kind: Any, **fixed: st.SearchStrategy) -> st.SearchStrategy:
    """Every field filled in by its type, so that a field that is added later is tried as well."""
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name not in fixed}
    return st.builds(kind, **fixed, **{name: st.from_type(hint) for name, hint in hints.items()})


def some(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(values, max_size=3).map(tuple)


snapshots = st.builds(
    Snapshot,
    now_s=numbers,
    seats=readings(some(records(Seat, idle_s=readings(numbers)))),
    terminals=readings(some(records(Terminal))),
    load=readings(records(Load)),
    memory=readings(records(MemoryUse)),
    power=readings(records(Power)),
    sessions=readings(some(records(Session))),
    traffic=readings(records(Traffic)),
    gpus=readings(some(records(GpuUse))),
    calls=readings(records(Calls)),
    media=readings(records(Media)),
    screen=readings(records(Screen)),
    thermal=readings(records(Thermal)),
    network=readings(records(Network)),
    local=st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC)),
    paused_for_s=st.none() | numbers,
    slept_s=numbers,
    jumped_s=numbers,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts.filter(lambda name: name != "-"), inner, max_size=4)
    ),
    max_leaves=12,
)


def written(told: list[Snapshot], names: Names) -> list[str]:
    stream = io.StringIO(newline="\n")
    recorder = Recorder(stream, Policy.desktop(), names=names, digits=None)
    for snapshot in told:
        recorder.write(snapshot)
    stream.seek(0)
    return stream.readlines()


class Nobody(Names):
    """Hides nothing."""

    def hidden(self, snapshot: Snapshot) -> Snapshot:
        return snapshot


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(snapshots, max_size=4))
def test_whatever_was_recorded_reads_back(told: list[Snapshot]) -> None:
    assert list(Trace(written(told, Nobody()))) == told


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(snapshots, max_size=4))
def test_numbers_for_names_change_no_verdict(told: list[Snapshot]) -> None:
    memory, expected = Memory(), []
    for snapshot in told:
        verdict, memory = decide(snapshot, Policy.desktop(), memory)
        expected.append((verdict.state, verdict.codes, verdict.memory_short, verdict.since_s))
    replayed = [
        (verdict.state, verdict.codes, verdict.memory_short, verdict.since_s)
        for _, verdict in replay(Trace(written(told, Names(people=["anna"]))))
    ]
    assert repr(replayed) == repr(expected), "no number is equal to itself if it is none"


@given(plain, plain)
def test_a_change_turns_one_value_into_the_other(before: Any, after: Any) -> None:
    change = changes(before, after)
    if isinstance(change, Unchanged):
        assert before == after
    else:
        assert changed(before, change) == after


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40) | plain.map(repr), max_size=4), st.booleans())
def test_garbage_raises_nothing_but_invalid_trace(garbage: list[str], with_header: bool) -> None:
    start = written([], Nobody()) if with_header else []
    with contextlib.suppress(InvalidTrace):
        list(Trace([*start, *(f"{line}\n" for line in garbage)]))


def test_the_strategy_covers_every_field_of_a_snapshot() -> None:
    """Else a fact that is added later would not be tried here."""
    known = set(typing.get_type_hints(Snapshot))
    tried = {
        "now_s", "seats", "terminals", "load", "memory", "power", "sessions", "traffic", "gpus", "calls", "media",
        "screen", "thermal", "network", "local", "paused_for_s", "slept_s", "jumped_s",
    }  # fmt: skip
    assert known == tried
