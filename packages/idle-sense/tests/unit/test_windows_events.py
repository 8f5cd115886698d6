"""What is listened to, for how long, and who is called: the rules of Windows' events, without Windows."""

import ctypes
import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_sense.platform.windows_events import DESK, DESK_REST_S, PAD_REST_S, PADS, Ears, Events, Topic
from idle_sense.platform.windows_gamepads import REPORTS_AT, Gamepads, Held, reports
from idle_sense.platform.windows_structures import RAWHID

NOTHING = Held(frozenset(), None)
FIRE = Held(frozenset({1}), None)


def test_all_kinds_are_opened_first_and_only_once() -> None:
    ears = Ears()
    assert ears.changes(0.0) == (sorted((*DESK, *PADS)), [])
    assert ears.changes(0.0) == ([], [])
    assert ears.wait_s(0.0) is None


def test_a_kind_that_told_something_rests_and_comes_back() -> None:
    ears = Ears()
    ears.changes(0.0)
    ears.heard((DESK[0],), 5.0)
    assert ears.changes(5.0) == ([], [DESK[0]])
    assert ears.wait_s(5.0) == DESK_REST_S
    assert ears.changes(5.0 + DESK_REST_S / 2) == ([], [])
    assert ears.changes(5.0 + DESK_REST_S) == ([DESK[0]], [])


def test_controllers_rest_shortly() -> None:
    ears = Ears()
    ears.changes(0.0)
    ears.heard(PADS, 1.0)
    assert ears.changes(1.0) == ([], sorted(PADS))
    assert ears.wait_s(1.0) == PAD_REST_S


def test_a_kind_that_another_part_of_the_program_listens_to_is_left_alone() -> None:
    ears = Ears()
    ears.changes(0.0)
    ears.lose(DESK[0])
    ears.heard(DESK, 1.0)
    assert ears.changes(1.0) == ([], [DESK[1]])
    assert ears.changes(1.0 + DESK_REST_S) == ([DESK[1]], [])
    assert ears.kinds == {DESK[1], *PADS}


@given(st.lists(st.tuples(st.sampled_from((*DESK, *PADS)), st.floats(0.0, 2.0)), max_size=30))
def test_what_is_open_is_what_was_opened_and_not_closed(steps: list[tuple[int, float]]) -> None:
    ears, is_open, now_s = Ears(), set(), 0.0
    for kind, passed_s in steps:
        opened, closed = ears.changes(now_s)
        assert not is_open.intersection(opened)
        assert is_open.issuperset(closed)
        is_open = (is_open | set(opened)) - set(closed)
        if kind in is_open:
            ears.heard((kind,), now_s)
        now_s += passed_s
    ears.changes(now_s)
    wait_s = ears.wait_s(now_s)
    if wait_s is not None:
        now_s += wait_s
        while (wait_s := ears.wait_s(now_s)) is not None:
            now_s += wait_s
        ears.changes(now_s)
    assert ears._open == ears.kinds


def test_the_thread_runs_while_somebody_listens_and_starts_again_for_the_next() -> None:
    runs: list[threading.Thread] = []
    stirred = threading.Event()

    def run(events: Events) -> None:
        runs.append(threading.current_thread())
        events.hears = frozenset({Topic.INPUT})
        while events.running:
            stirred.wait(5)
            stirred.clear()

    events = Events(run, stirred.set)
    for count in (1, 2):
        events.subscribe(Topic.INPUT, len)
        events.subscribe(Topic.POWER, len)
        deadline_s = time.monotonic() + 10
        while len(runs) < count or not events.hears:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        events.unsubscribe(Topic.INPUT, len)
        assert runs[-1].is_alive()
        events.unsubscribe(Topic.POWER, len)
        runs[-1].join(10)
        assert not runs[-1].is_alive()
        assert events.hears == frozenset()
    assert len(runs) == 2


def test_a_window_that_cannot_be_made_leaves_polling_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def run(_events: Events) -> None:
        raise OSError("no window station")

    events = Events(run, lambda: None)
    with caplog.at_level(logging.WARNING, "idle_sense"):
        events.subscribe(Topic.INPUT, len)
        deadline_s = time.monotonic() + 10
        while not events.problem:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
    assert events.problem == "no window station"
    assert events.hears == frozenset()
    events.unsubscribe(Topic.INPUT, len)


def test_a_listener_that_raises_does_not_keep_others_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def broken() -> None:
        raise RuntimeError("not mine")

    stop = threading.Event()
    events = Events(lambda _events: stop.wait(10), stop.set)
    events.subscribe(Topic.INPUT, broken)
    events.subscribe(Topic.INPUT, lambda: heard.append(1))
    with caplog.at_level(logging.ERROR, "idle_sense"):
        events.call(Topic.INPUT)
    assert heard == [1]
    assert "a listener to input failed" in caplog.text
    stop.set()


def test_a_listener_that_never_listened_may_go() -> None:
    Events(lambda _events: None, lambda: None).unsubscribe(Topic.INPUT, len)


def test_buttons_count_and_silence_does_not() -> None:
    pads = Gamepads()
    assert not pads.report(1, "pad", NOTHING, 1.0)
    assert pads.idle_s(2.0) == {}
    assert pads.report(1, "pad", FIRE, 3.0)
    assert not pads.report(1, "pad", FIRE, 4.0)  # held down, reported without end
    assert pads.report(1, "pad", NOTHING, 5.0)
    assert pads.idle_s(7.0) == {"pad": 2.0}


def test_a_hat_counts_when_it_moves_and_its_rest_is_not_touch() -> None:
    pads = Gamepads()
    assert not pads.report(1, "pad", Held(frozenset(), 8), 1.0)
    assert pads.report(1, "pad", Held(frozenset(), 2), 2.0)


def test_a_controller_that_was_unplugged_keeps_when_it_was_touched() -> None:
    pads = Gamepads()
    pads.report(1, "pad", FIRE, 1.0)
    pads.remove(1)
    pads.remove(1)
    assert pads.idle_s(4.0) == {"pad": 3.0}
    assert not pads.report(2, "pad", NOTHING, 5.0)
    assert pads.idle_s(6.0) == {"pad": 5.0}


def raw(size: int, count: int, payload: bytes) -> bytes:
    head = RAWHID(dwSizeHid=size, dwCount=count)
    start = REPORTS_AT - RAWHID.bRawData.offset
    return bytes(start) + bytes(head)[: RAWHID.bRawData.offset] + payload


def test_several_reports_in_one_message_are_taken_apart() -> None:
    assert reports(raw(3, 2, b"abcdef")) == [b"abc", b"def"]


@pytest.mark.parametrize(
    "broken", [b"", b"short", raw(0, 4, b""), raw(8, 2, b"only eight.."), raw(2**31, 2**31, b"x")]
)
def test_reports_that_are_cut_short_are_none(broken: bytes) -> None:
    assert reports(broken) == []


@given(st.binary(max_size=200))
def test_noise_for_reports_is_no_error(noise: bytes) -> None:
    assert sum(map(len, reports(noise))) <= len(noise)


def test_headers_begin_where_windows_has_them() -> None:
    assert ctypes.sizeof(RAWHID) == 12
    assert REPORTS_AT == 32
