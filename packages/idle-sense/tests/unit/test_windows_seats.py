"""Sessions of Windows as seats and as log-ons: the rules, with Windows' answers handed in."""

import ctypes
from collections.abc import Callable

import pytest

from idle_sense.facts import Reading
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.platform.windows_gamepads import Held
from idle_sense.platform.windows_seats import OTHERS_FRESH_S, WindowsSeats, idle_since
from idle_sense.platform.windows_sessions import (
    LogOn,
    LogOnTable,
    WindowsSessions,
    idle_of_times,
    lock_of,
    log_on_of,
    sessions_of,
)
from idle_sense.platform.windows_structures import WTSINFOEX_LEVEL1_W
from idle_sense.probes.aside import Aside

NEW = (10, 0)
SEVEN = (6, 1)


def log_on(session: int, **changes) -> LogOn:
    known = {"station": "Console", "user": "ada", "active": True, "locked": False, "idle_s": None}
    return LogOn(session=session, **{**known, **changes})


class Table(LogOnTable):
    """Answers at once, and as old as it is told."""

    age_s = 0.0

    def read(self, now_s: float) -> Reading[tuple[LogOn, ...]]:
        return super().read(now_s).aged(self.age_s)


def seats(own: int, *others: LogOn, own_idle_s: Callable[[], float] = lambda: 42.0) -> WindowsSeats:
    return WindowsSeats(own_session=own, own_idle_s=own_idle_s, log_ons=Table(lambda: others))


def by_name(reader: WindowsSeats) -> dict[str, Reading[float]]:
    return {seat.name: seat.idle_s for seat in reader.read(0.0).value or ()}


@pytest.mark.parametrize(
    ("last", "now", "idle_s"),
    [
        (1_000, 5_000, 4.0),
        (0xFFFFFC18, 1_000, 2.0),  # the count began again in between
        (5_001, 5_000, 0.0),  # stamped after the count was read
        (0, 0x7FFFFFFF, 2147483.647),
    ],
)
def test_ticks_survive_their_wrap_after_49_days(last: int, now: int, idle_s: float) -> None:
    assert idle_since(last, now) == pytest.approx(idle_s)


def test_a_session_without_a_time_of_last_input_tells_none() -> None:
    assert idle_of_times(0, 10**17) is None
    assert idle_of_times(10**17 - 5 * 10**7, 10**17) == pytest.approx(5.0)
    assert idle_of_times(10**17 + 1, 10**17) is None


def test_the_own_session_is_named_after_its_user() -> None:
    assert by_name(seats(1, log_on(1)))["session 1 of ada"].value == 42.0
    assert by_name(seats(1))["session 1"].value == 42.0


def test_another_user_at_work_counts_with_their_input_or_as_in_use() -> None:
    told = by_name(
        seats(
            1,
            log_on(1),
            log_on(2, user="bob", station="RDP-Tcp#3", idle_s=7.0),
            log_on(3, user="eve", idle_s=None),
            log_on(4, user="old", station="", active=False, idle_s=900.0),
            log_on(5, user="", active=True),
        )
    )
    assert told["session 2 of bob by remote desktop"].value == 7.0
    assert told["session 3 of eve"].value is None
    assert "log the other user off" in told["session 3 of eve"].advice
    assert set(told) == {"session 1 of ada", "session 2 of bob by remote desktop", "session 3 of eve"}


def test_a_service_says_that_it_cannot_see_the_keyboard() -> None:
    (seat,) = by_name(seats(0, log_on(1))).values()
    assert seat.value is None
    assert "not as a service" in seat.advice


def test_a_service_sees_what_windows_tells_of_a_remote_session() -> None:
    told = by_name(seats(0, log_on(2, station="RDP-Tcp#0", idle_s=3.0)))
    assert told["session 2 of ada by remote desktop"].value == 3.0


def test_a_service_has_no_seat_while_nobody_is_logged_on_or_connected() -> None:
    assert by_name(seats(0)) == {}
    assert by_name(seats(0, log_on(1, user=""))) == {}
    assert by_name(seats(0, log_on(3, active=False, station=""))) == {}


def test_a_failing_last_input_is_missing_and_never_idle() -> None:
    def refused() -> float:
        raise OSError("access is denied")

    (seat,) = by_name(seats(1, own_idle_s=refused)).values()
    assert seat.value is None
    assert seat.problem == "access is denied"
    assert seat.tells


def test_a_session_manager_that_refuses_or_hangs_makes_the_others_unknown() -> None:
    def refused() -> tuple[LogOn, ...]:
        raise OSError("the RPC server is unavailable")

    reader = WindowsSeats(own_session=1, own_idle_s=lambda: 5.0, log_ons=Table(refused))
    told = by_name(reader)
    assert told["session 1"].value == 5.0
    assert told["other sessions"].value is None
    assert "RPC" in told["other sessions"].problem

    table = Table(lambda: (log_on(1),))
    table.age_s = OTHERS_FRESH_S + 1
    old = by_name(WindowsSeats(own_session=1, own_idle_s=lambda: 5.0, log_ons=table))
    assert old["other sessions"].value is None
    assert old["other sessions"].tells


def test_a_hanging_session_manager_does_not_hold_up_the_own_seat() -> None:
    import threading
    import time

    let_go = threading.Event()

    def hang() -> tuple[LogOn, ...]:
        let_go.wait(30)
        return ()

    reader = WindowsSeats(own_session=1, own_idle_s=lambda: 5.0, log_ons=Aside(LogOnTable(hang), every_s=0.0))
    try:
        reader.read(time.monotonic())
        for _ in range(50):
            told = by_name(reader)
        assert told["session 1"].value == 5.0
        assert told["other sessions"].value is None
    finally:
        let_go.set()
        reader.close()


def test_a_game_controller_is_a_seat_once_somebody_touched_it() -> None:
    events = Events(lambda _events: None, lambda: None)
    reader = WindowsSeats(own_session=1, own_idle_s=lambda: 400.0, log_ons=Table(lambda: ()), events=events)
    events.gamepads.report(7, "gamepad 045e:028e", Held(frozenset(), None), 10.0)
    assert set(by_name(reader)) == {"session 1"}
    events.gamepads.report(7, "gamepad 045e:028e", Held(frozenset({1}), None), 20.0)
    told = {seat.name: seat.idle_s.value for seat in reader.read(25.0).value or ()}
    assert told["gamepad 045e:028e"] == 5.0


@pytest.mark.parametrize(
    ("flags", "version", "locked"),
    [
        (0, NEW, True),
        (1, NEW, False),
        (0, SEVEN, False),
        (1, SEVEN, True),
        (-1, NEW, None),
        (-1, SEVEN, None),
        (0, (6, 2), True),
    ],
)
def test_lock_state_is_read_the_right_way_round_on_every_windows(flags, version, locked) -> None:
    assert lock_of(flags, version) is locked


def test_a_session_is_read_from_what_windows_hands_out() -> None:
    def wide(words: str, length: int):
        return (ctypes.c_uint16 * length)(*[ord(letter) for letter in words])

    told = WTSINFOEX_LEVEL1_W(
        SessionId=2,
        SessionState=0,
        SessionFlags=1,
        WinStationName=wide("RDP-Tcp#4", 33),
        UserName=wide("bob", 21),
        LastInputTime=10**17,
        CurrentTime=10**17 + 30_000_000,
    )
    found = log_on_of(told, NEW)
    assert found == LogOn(2, "RDP-Tcp#4", "bob", True, False, 3.0)
    assert found.remote


def test_sessions_are_those_in_which_somebody_has_logged_on() -> None:
    here, away, nobody = log_on(1), log_on(2, station="", active=False, locked=None), log_on(3, user="")
    told = sessions_of((here, away, nobody))
    assert [(one.name, one.user, one.remote, one.active, one.locked) for one in told] == [
        ("session 1 of ada", "ada", False, True, False),
        ("session 2 of ada", "ada", False, False, None),
    ]


def test_sessions_that_cannot_be_asked_are_missing() -> None:
    def refused() -> tuple[LogOn, ...]:
        raise OSError("access is denied")

    reading = WindowsSessions(refused).read(0.0)
    assert reading.value is None
    assert reading.tells


def test_listening_and_closing_leave_no_thread_and_no_listener() -> None:
    import threading

    over = threading.Event()
    events = Events(lambda _events: over.wait(10), over.set)
    reader = WindowsSeats(
        own_session=1, own_idle_s=lambda: 1.0, log_ons=Table(lambda: (), events), events=events
    )
    heard: list[int] = []
    reader.listen(lambda: heard.append(1))
    events.call(Topic.INPUT)
    events.call(Topic.SESSIONS)
    assert len(heard) == 2
    reader.close()
    events.call(Topic.INPUT)
    assert len(heard) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "idle-sense-events"]
