"""What macOS's answers mean: rules without the system, on answers as its documentation and users have recorded them."""

import ctypes
import math
import threading

import pytest

from idle_sense.platform.macos_audio import AudioDevice, AudioProgram, named
from idle_sense.platform.macos_bounded import Bounded
from idle_sense.platform.macos_frameworks import Framework, Frameworks, c_type, prototypes
from idle_sense.platform.macos_gpus import busy_ratio, program, used_bytes
from idle_sense.platform.macos_network import Block
from idle_sense.platform.macos_power import power, pressure, screen_keepers
from idle_sense.platform.macos_screen import Box, Window, filled
from idle_sense.platform.macos_seats import MacSeats, smaller
from idle_sense.platform.macos_sessions import Login, console_sessions, remote_sessions
from idle_sense.platform.macos_structures import CHECKED, IfData64, IfMsghdr2
from idle_sense.platform.macos_traffic import NetworkCount, interfaces, passed
from idle_sense.platform.macos_values import mapping, number, sequence, text, truth, whole


def test_every_declaration_has_types_that_are_known() -> None:
    frameworks = Frameworks()
    seen = 0
    for framework in vars(frameworks).values():
        assert isinstance(framework, Framework)
        for prototype in prototypes(framework.declarations):
            for kind in (prototype.result, *prototype.arguments):
                c_type(kind)
            seen += 1
    assert seen > 70


def test_a_line_that_declares_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no declaration"):
        prototypes("int missing_parentheses")


def test_a_function_without_declaration_is_not_called() -> None:
    with pytest.raises(AttributeError):
        _ = Frameworks().system.exit


def test_a_library_that_is_not_there_is_an_error_of_the_system() -> None:
    framework = Framework("/no/such/framework", "int some_function(int)")
    with pytest.raises(OSError, match="no/such"):
        framework.some_function(1)


def test_a_function_that_this_macos_lacks_is_an_error_of_the_system() -> None:
    # None: this program itself, which has no such function.
    framework = Framework("", "int some_function(int)")
    framework.library = lambda: ctypes.pythonapi  # type: ignore[method-assign]
    with pytest.raises(OSError, match="has no some_function"):
        framework.some_function(1)


def test_structures_have_the_sizes_of_apples_headers() -> None:
    """As bench/macos_headers.py compiles them for arm64 and x86_64."""
    sizes = [ctypes.sizeof(structure) for _, _, structure in CHECKED]
    assert sizes == [296, 136, 64, 16, 152, 8, 640, 128, 160]
    assert (ctypes.sizeof(Block), Block.invoke.offset) == (32, 16)


@pytest.mark.parametrize(
    ("registry_s", "event_s", "idle_s", "source"),
    [
        (10.0, 3.0, 3.0, "CGEventSource"),
        (3.0, 10.0, 3.0, "HIDIdleTime"),
        (3.0, -1.0, 3.0, "HIDIdleTime"),
        (3.0, math.inf, 3.0, "HIDIdleTime"),
        (3.0, math.nan, 3.0, "HIDIdleTime"),
        (3.0, None, 3.0, "HIDIdleTime"),
        (0.0, 5.0, 0.0, "HIDIdleTime"),
        (None, 500.0, None, "HIDIdleTime"),
        (math.nan, 500.0, None, "HIDIdleTime"),
        (None, None, None, "HIDIdleTime"),
    ],
)
def test_input_is_the_smaller_of_what_makes_sense(registry_s, event_s, idle_s, source) -> None:
    reading = smaller(registry_s, event_s)
    assert (reading.value, reading.source) == (idle_s, source)
    assert reading.tells


def test_a_seat_whose_question_raises_is_missing() -> None:
    def refused() -> float:
        raise OSError("no IOKit")

    seats = MacSeats(registry_idle_s=refused, event_idle_s=lambda: 1.0)
    (one,) = seats.read(0.0).value or ()
    assert (one.idle_s.value, one.idle_s.problem) == (None, "no IOKit")
    seats.close()


def test_a_question_that_hangs_is_asked_once_and_its_answer_is_taken_when_it_comes() -> None:
    let, clock, asked = threading.Event(), [0.0], []

    def ask() -> int:
        asked.append(clock[0])
        if len(asked) == 2:
            let.wait(30)
        return len(asked)

    bounded = Bounded(ask, now=lambda: clock[0])
    assert bounded.read() == (1, 0.0)
    clock[0] = 5.0
    for _ in range(5):
        assert bounded.read() == (1, clock[0])
        clock[0] += 1.0
    assert len(asked) == 2
    let.set()
    while bounded.read().value == 1:  # type: ignore[union-attr]
        pass
    assert bounded.read().value >= 3  # type: ignore[union-attr]
    bounded.close()
    bounded.close()


def test_a_late_answer_is_as_old_as_its_question() -> None:
    let, clock = threading.Event(), [0.0]
    bounded = Bounded(lambda: let.wait(30), now=lambda: clock[0])
    assert bounded.read() is None
    clock[0] = 50.0
    let.set()
    with bounded._changed:
        assert bounded._changed.wait_for(lambda: bounded._at_s is not None, 30)
    assert bounded._at_s == 0.0
    bounded.close()


def session(**facts: object) -> dict[str, object]:
    return {
        "kCGSSessionOnConsoleKey": True,
        "kCGSSessionUserNameKey": "anna",
        "kCGSSessionIDKey": 257,
    } | facts


def test_an_unlocked_session_has_no_key_and_a_locked_one_has() -> None:
    (open_one,) = console_sessions([session()], None)
    (locked,) = console_sessions([session(CGSSessionScreenIsLocked=True)], None)
    (number,) = console_sessions([session(CGSSessionScreenIsLocked=1)], None)
    assert (open_one.locked, locked.locked, number.locked) == (False, True, True)


def test_the_lock_of_this_programs_own_session_is_believed_from_either() -> None:
    own = session(CGSSessionScreenIsLocked=True)
    first, second = console_sessions(
        [session(), session(kCGSSessionIDKey=300, kCGSSessionUserNameKey="ben")], own
    )
    assert (first.locked, second.locked) == (True, False)


def test_the_login_window_is_nobodys_session() -> None:
    waiting = session(kCGSessionLoginDoneKey=False)
    assert console_sessions([waiting, {"kCGSSessionOnConsoleKey": True}], None) == ()


@pytest.mark.parametrize("garbage", [None, 5, "text", [], [1, None, "x", {}], {"a": 1}])
def test_garbage_for_sessions_is_none(garbage) -> None:
    assert console_sessions(garbage, garbage) == ()


def test_terminal_windows_and_lines_of_the_dead_are_no_remote_sessions() -> None:
    logins = [
        Login("anna", "console", "", 1),
        Login("anna", "ttys000", "", 2),
        Login("anna", "ttys001", ":0", 3),
        Login("cleo", "ttys002", "192.0.2.7", 4),
        Login("dead", "ttys003", "192.0.2.8", 5),
    ]
    (only,) = remote_sessions(logins, lambda pid: pid != 5)
    assert (only.user, only.remote, only.locked) == ("cleo", True, False)


@pytest.mark.parametrize(
    ("providing", "sources", "battery", "on_mains"),
    [
        ("AC Power", [], False, None),
        ("AC Power", [{"Type": "InternalBattery", "Is Present": True}], True, True),
        ("Battery Power", [{"Type": "InternalBattery", "Is Present": True}], True, False),
        ("AC Power", [{"Type": "InternalBattery", "Is Present": False}], False, None),
        ("UPS Power", [{"Type": "UPS"}], True, False),
        ("", [{"Type": "InternalBattery"}], True, None),
        ("AC Power", [{"Type": "Accessory"}, {}], False, None),
    ],
)
def test_power_is_told_by_what_feeds_the_machine(providing, sources, battery, on_mains) -> None:
    told = power(providing, sources)
    assert (told.battery, told.on_mains) == (battery, on_mains)


@pytest.mark.parametrize(
    ("level", "limit", "told"),
    [
        (0, None, "nominal"),
        (0, 100, "nominal"),
        (1, 99, "heavy"),
        (3, 50, "trapping"),
        (4, None, "sleeping"),
        (5, None, "sleeping"),
        (1 << 40, 100, "sleeping"),
    ],
)
def test_heat_is_pressure_and_the_unknown_is_the_worst(level, limit, told) -> None:
    assert pressure(level, limit) == told


def keepers(assertions: dict[int, object], guests: tuple[int, ...] = ()) -> tuple[str, ...]:
    return screen_keepers(
        assertions,  # type: ignore[arg-type]
        is_guest=lambda pid: pid in guests,
        name_of=lambda pid: {7: "seven"}.get(pid, ""),
    )


def test_only_what_keeps_the_screen_on_counts() -> None:
    assert keepers({5: [{"AssertType": "UserIsActive", "Process Name": "hidd"}]}) == ()
    assert keepers({5: [{"AssertType": "NoDisplaySleepAssertion", "Process Name": "Film"}]}) == ("Film",)
    assert keepers({7: [{"AssertType": "NoDisplaySleepAssertion"}]}) == ("seven",)
    assert keepers({8: [{"AssertType": "NoDisplaySleepAssertion"}]}) == ("process 8",)
    assert keepers({8: [{"AssertType": "NoDisplaySleepAssertion"}]}, guests=(8,)) == ()
    assert keepers({8: "garbage", 9: [None, 4]}) == ()


HEADSET = AudioDevice("Headset", True, True, True)
SPEAKERS = AudioDevice("Speakers", False, True, True)
SILENT = AudioDevice("Microphone", True, False, False)


def names(devices, programs, *, recording: bool, asked: list[bool] | None = None) -> tuple[str, ...]:
    def told():
        if asked is not None:
            asked.append(True)
        return programs

    return named(devices, told, recording=recording, is_guest=lambda pid: pid == 9, name_of=lambda pid: "")


def test_programs_are_asked_only_when_a_device_runs() -> None:
    asked: list[bool] = []
    assert names([SILENT, SPEAKERS], (), recording=True, asked=asked) == ()
    assert asked == []
    assert names([HEADSET], (AudioProgram(1, "a.b", True, False),), recording=True, asked=asked) == ("a.b",)
    assert asked == [True]


def test_music_in_a_headset_is_no_call_where_programs_are_told() -> None:
    music = (AudioProgram(1, "music", False, True),)
    assert names([HEADSET], music, recording=True) == ()
    assert names([HEADSET], music, recording=False) == ("music",)
    # Else it cannot be told apart, and counts as one.
    assert names([HEADSET], None, recording=True) == ("Headset",)


def test_a_program_that_nobody_names_counts_and_a_guest_does_not() -> None:
    unknown = (AudioProgram(0, "", True, False), AudioProgram(9, "guest", True, False))
    assert names([HEADSET], unknown, recording=True) == ("an unknown program",)


DISPLAY = ("display 1", Box(0, 0, 1512, 982))
MENU_BAR = Window("Window Server", 24, Box(0, 0, 1512, 37), 1.0)


def test_a_window_that_covers_the_display_fills_it_with_or_without_menu_bar() -> None:
    game = Window("Game", 0, Box(0, 0, 1512, 982), 1.0)
    assert filled([DISPLAY], [game]) == ("display 1",)
    assert filled([DISPLAY], [MENU_BAR, game]) == ("display 1",)


def test_a_large_window_below_the_menu_bar_does_not_fill_it() -> None:
    editor = Window("Editor", 0, Box(0, 37, 1512, 945), 1.0)
    assert filled([DISPLAY], [MENU_BAR, editor]) == ()


def test_beside_a_camera_housing_a_full_screen_window_begins_lower() -> None:
    film = Window("Film", 0, Box(0, 37, 1512, 945), 1.0)
    assert filled([DISPLAY], [film]) == ("display 1",)
    assert filled([DISPLAY], [Window("Film", 0, Box(0, 60, 1512, 922), 1.0)]) == ()


def test_what_cannot_be_seen_or_is_the_systems_fills_nothing() -> None:
    whole_screen = Box(0, 0, 1512, 982)
    hidden, dock = Window("Film", 0, whole_screen, 0.0), Window("Dock", 20, whole_screen, 1.0)
    assert filled([DISPLAY], [hidden, dock]) == ()
    assert filled([], [Window("Film", 0, whole_screen, 1.0)]) == ()


def test_a_menu_bar_on_another_display_does_not_matter() -> None:
    elsewhere = Window("Window Server", 24, Box(1512, 0, 1920, 24), 1.0)
    film = Window("Film", 0, Box(0, 37, 1512, 945), 1.0)
    assert filled([DISPLAY], [elsewhere, film]) == ("display 1",)


def test_load_of_a_graphics_processor_is_read_by_every_name_it_has() -> None:
    assert busy_ratio({"Device Utilization %": 37}) == 0.37
    assert busy_ratio({"GPU Activity(%)": 250}) == 1.0
    assert busy_ratio({"GPU Core Utilization": 5_000_000}) == 0.5
    assert busy_ratio({"recoveryCount": 0}) is None
    assert used_bytes({"vramUsedBytes": 5}) == 5
    assert used_bytes({}) is None


def test_programs_on_a_graphics_processor_are_told_by_each_driver() -> None:
    intel = program("pid 12, game", {"accumulatedGPUTime": 2_000_000_000}, 5, 9.0)
    assert intel is not None
    assert (intel.pid, intel.times["gpu 5"].busy, intel.timed) == (12, 2.0, True)
    silent = program("pid 12, game", {}, 5, 9.0)
    assert silent is not None
    assert not silent.timed
    assert program("kernel", {}, 5, 9.0) is None
    assert program(None, {}, 5, 9.0) is None


def message(number: int, kind: int, received: int, sent: int) -> bytes:
    data = IfData64(ifi_type=kind, ifi_ibytes=received, ifi_obytes=sent)
    return bytes(IfMsghdr2(ifm_msglen=160, ifm_type=0x12, ifm_index=number, ifm_data=data))


def test_interfaces_are_read_out_of_all_messages() -> None:
    address = bytes([24, 0, 5, 12]) + bytes(20)
    raw = message(1, 0x18, 1, 2) + address + message(4, 6, 1 << 40, 7)
    first, second = interfaces(raw)
    assert (first.number, first.kind) == (1, 0x18)
    assert (second.number, second.received_bytes, second.sent_bytes) == (4, 1 << 40, 7)


@pytest.mark.parametrize("raw", [b"", b"\0", bytes(100), b"\x02\x00\x05\x12" * 10, message(4, 6, 1, 1)[:-1]])
def test_an_answer_that_is_cut_off_or_noise_ends(raw: bytes) -> None:
    assert list(interfaces(raw)) == []


def test_counts_of_interfaces_may_begin_again_at_4_gib_or_with_a_new_card() -> None:
    assert passed(10, 25) == 15
    assert passed((1 << 32) - 10, 5) == 15
    assert passed(1000, 5) == 5
    assert passed(1 << 40, 5) == 5


def test_tunnels_and_loopback_are_not_counted_and_a_new_card_brings_nothing() -> None:
    raw = [message(1, 0x18, 100, 100) + message(2, 0x83, 100, 100) + message(4, 6, 100, 100)]
    count = NetworkCount(lambda: raw[0])
    assert count.bytes() == 0
    raw[0] = message(1, 0x18, 999, 999) + message(2, 0x83, 999, 999) + message(4, 6, 150, 110)
    assert count.bytes() == 60
    raw[0] += message(5, 6, 1 << 30, 1 << 30)
    assert count.bytes() == 60


def test_values_of_the_wrong_kind_are_nothing() -> None:
    assert (text(5), number(True), number("5"), whole(None), truth("yes")) == ("", None, None, None, None)
    assert (dict(mapping([1])), list(sequence("text")), list(sequence(b"x"))) == ({}, [], [])
    assert (number((7).to_bytes(8, "little")), number(b"abc"), whole(2.9), truth(0)) == (7, None, 2, False)
    assert mapping({1: "a", "b": 2}) == {"b": 2}
