"""What Windows' answers about power, screen, calls, sound, graphics, networks and processes mean."""

import ctypes
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_sense.facts import Calls, Media, Power
from idle_sense.platform.gpus import GpuUnreadable, use_between
from idle_sense.platform.windows_consent import Use, WindowsCalls, in_use
from idle_sense.platform.windows_gpus import WindowsGpus, instance_of, samples_of
from idle_sense.platform.windows_network import (
    Card,
    WindowsNetwork,
    WindowsTraffic,
    card_of,
    moved_between,
)
from idle_sense.platform.windows_power import WindowsPower, keeps_screen_on, power_of
from idle_sense.platform.windows_processes import Program, Scans, busy_and_all_s, is_child
from idle_sense.platform.windows_screen import Foremost, WindowsScreen, fills, is_fullscreen
from idle_sense.platform.windows_sound import PAUSE_S, Loud, SoundSession, WindowsMedia, programs
from idle_sense.platform.windows_structures import MIB_IF_ROW2, STRUCTURES, text
from idle_sense.platform.windows_thermal import WindowsThermal, hottest
from idle_sense.probes.guests import ProcessInfo

ON, OFF, UNKNOWN = 1, 0, 255
NO_BATTERY = 128


@pytest.mark.parametrize(
    ("line", "flag", "power"),
    [
        (ON, NO_BATTERY, Power(battery=False, on_mains=True)),
        (UNKNOWN, NO_BATTERY, Power(battery=False, on_mains=None)),
        (OFF, 1, Power(battery=True, on_mains=False)),
        (ON, 8 | 1, Power(battery=True, on_mains=True)),
        (OFF, 0, Power(battery=True, on_mains=False)),  # between low and high
        (UNKNOWN, 2, Power(battery=True, on_mains=None)),
        (UNKNOWN, UNKNOWN, Power(battery=True, on_mains=None)),
        (OFF, UNKNOWN, Power(battery=True, on_mains=False)),
        (ON, UNKNOWN, Power(battery=False, on_mains=True)),
    ],
)
def test_power_is_what_its_two_bytes_mean(line: int, flag: int, power: Power) -> None:
    assert power_of(line, flag) == power
    assert WindowsPower(lambda: (line, flag)).read(0.0).value == power


def test_power_that_cannot_be_asked_is_missing() -> None:
    def refused() -> tuple[int, int]:
        raise OSError("the handle is invalid")

    reading = WindowsPower(refused).read(0.0)
    assert reading.value is None
    assert reading.tells
    assert reading.advice


def test_only_a_program_that_keeps_the_screen_on_is_watched() -> None:
    assert keeps_screen_on(0x80000003)
    assert not keeps_screen_on(0x80000001)  # a download


WHOLE = (0, 0, 1920, 1080)
GAME = Foremost("UnityWndClass", WHOLE, WHOLE)
SMALL = Foremost("Notepad", (10, 10, 400, 300), WHOLE)
SECOND = Foremost("Film", (1920, 0, 3840, 1080), (1920, 0, 3840, 1080))
MAXIMIZED = Foremost("Chrome_WidgetWin_1", (-8, -8, 1928, 1048), WHOLE)
DESKTOP = Foremost("WorkerW", WHOLE, WHOLE)


@pytest.mark.parametrize(
    ("foremost", "filled"),
    [(GAME, True), (SMALL, False), (SECOND, True), (MAXIMIZED, False), (DESKTOP, False), (None, False)],
)
def test_a_window_fills_its_screen_or_not(foremost: Foremost | None, filled: bool) -> None:
    assert fills(foremost) is filled


@pytest.mark.parametrize(
    ("state", "foremost", "fullscreen"),
    [
        (3, None, True),
        (4, None, True),
        (2, GAME, True),
        (2, SMALL, False),  # an overlay over everything says that it is busy
        (2, None, False),
        (5, GAME, False),
        (1, GAME, False),
        (6, None, False),
        (7, None, False),
    ],
)
def test_what_windows_says_of_notifications_is_a_vote_with_its_known_lies(
    state, foremost, fullscreen
) -> None:
    assert is_fullscreen(state, foremost) is fullscreen
    probe = WindowsScreen(seat="session 1", state=lambda: state, foremost=lambda: foremost)
    assert (probe.read(0.0).value.fullscreen == ("session 1",)) is fullscreen


BOOTED = 1000


def use(
    program: str = "C:#a#Teams.exe", *, packaged: bool = False, started: int = 2000, stopped: int = 0
) -> Use:
    return Use(program, packaged, started, stopped)


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        (use(), ("Teams.exe",)),
        (use(stopped=3000), ()),
        (use(started=500), ()),  # left behind when the machine lost its power
        (use("C:#a#Gone.exe"), ()),  # left behind when the program crashed
        (use(started=-1, stopped=-1), ()),  # permission alone, never used
        (use(started=0, stopped=0), ()),
        (use("Microsoft.WindowsCamera_8wekyb3d8bbwe", packaged=True), ("Microsoft.WindowsCamera",)),
    ],
)
def test_a_device_is_in_use_by_a_program_that_runs_and_began_since_the_start(entry: Use, names) -> None:
    assert in_use([entry], BOOTED, lambda: {"teams.exe", "explorer.exe"}) == names


def test_processes_are_looked_at_only_where_somebody_seems_to_use_a_device() -> None:
    def never() -> set[str]:
        raise AssertionError("a scan for nothing")

    assert in_use([use(stopped=5), use(started=10)], BOOTED, never) == ()


def calls(uses, recording=None) -> WindowsCalls:
    return WindowsCalls(
        uses=uses, booted=lambda: BOOTED, running=lambda: {"teams.exe"}, recording=lambda: recording
    )


def test_calls_are_told_by_the_store_and_by_recording_sessions() -> None:
    probe = calls(lambda device: [use()] if device == "webcam" else [], ("zoom.exe",))
    assert probe.read(0.0).value == Calls(microphones=("zoom.exe",), cameras=("Teams.exe",))


def test_calls_are_untold_where_there_never_was_a_way_and_missing_where_it_broke() -> None:
    told: list[list[Use] | None] = [None]
    probe = calls(lambda _device: told[0])
    assert not probe.read(0.0).tells
    told[0] = []
    assert probe.read(1.0).value == Calls()
    told[0] = None
    broken = probe.read(2.0)
    assert broken.value is None
    assert broken.tells


def names(pid: int) -> str:
    return {10: "vlc.exe", 11: "audiodg.exe", 12: ""}.get(pid, "other.exe")


def test_programs_that_sound_are_named_but_guests_and_the_system() -> None:
    sessions = [
        SoundSession(10, False, 0.3),
        SoundSession(11, False, 0.3),
        SoundSession(12, False, 0.3),
        SoundSession(13, False, 0.3),
        SoundSession(14, True, 0.3),
        SoundSession(0, False, 0.3),
    ]
    told = programs(sessions, is_guest=lambda pid: pid == 13, name_of=names)
    assert told == ("process 12", "several programs", "vlc.exe")


def test_silence_between_two_words_is_no_end_and_an_open_silent_stream_no_film() -> None:
    loud = Loud()
    film, silent, untold = (
        SoundSession(1, False, 0.4),
        SoundSession(2, False, 0.0),
        SoundSession(3, False, None),
    )
    assert loud.among([film, silent, untold], 100.0) == [film, untold]
    pause = film._replace(loudest=0.0)
    assert loud.among([pause, silent], 100.0 + PAUSE_S - 1) == [pause]
    assert loud.among([pause, silent], 100.0 + PAUSE_S + 1) == []
    assert loud.among([film], 200.0) == [film]
    assert loud.among([], 201.0) == []
    assert loud.among([pause], 202.0) == []  # a new stream of the same number


def test_media_is_what_plays_and_what_keeps_the_screen_on() -> None:
    both = WindowsMedia(playing=lambda _now_s: ("vlc.exe",), screen_kept_on=lambda: True).read(0.0).value
    assert both == Media(playing=("vlc.exe",), inhibitors=("a program that keeps the screen on",))
    assert WindowsMedia(playing=lambda _now_s: None, screen_kept_on=lambda: False).read(0.0).value == Media()
    assert not WindowsMedia(playing=lambda _now_s: None, screen_kept_on=lambda: None).read(0.0).tells


LUID = "0x00000000_0x0000d3c5"
DEVICE = f"adapter {LUID} part 0"


def engine(pid: int, number: int, kind: str) -> str:
    return f"pid_{pid}_luid_{LUID}_phys_0_eng_{number}_engtype_{kind}"


def test_names_of_engines_are_taken_apart() -> None:
    told = instance_of("pid_4242_luid_0x00000000_0x0000D3C5_phys_0_eng_3_engtype_3D")
    assert told == (DEVICE, 4242, "3: 3D")
    assert instance_of(f"pid_7_luid_{LUID}_phys_0") == (DEVICE, 7, "")
    assert instance_of(f"luid_{LUID}_phys_1") == (f"adapter {LUID} part 1", 0, "")
    assert instance_of(engine(1, 5, "Video Decode")) == (DEVICE, 1, "5: Video Decode")


@given(st.text(max_size=80))
def test_other_names_are_no_engines_and_no_error(name: str) -> None:
    told = instance_of(name)
    assert told is None or "luid" in name.lower()


def test_what_guests_do_on_a_graphics_processor_is_not_others() -> None:
    engines = [(engine(10, 0, "3D"), 30.0), (engine(20, 0, "3D"), 60.0), (engine(10, 1, "Copy"), 5.0)]
    memory = [(f"pid_10_luid_{LUID}_phys_0", 2e9), (f"pid_20_luid_{LUID}_phys_0", 5e9)]
    (sample,) = samples_of(engines, memory, [(f"luid_{LUID}_phys_0", 8e9)], 1.0)
    assert sample.busy_ratio == pytest.approx(0.9)
    mine = use_between(None, sample, lambda pid: pid == 20)
    assert (mine.name, mine.others_ratio) == (DEVICE, pytest.approx(0.3))
    assert mine.others_bytes == 3_000_000_000
    assert use_between(None, sample, lambda _pid: False).others_ratio == pytest.approx(0.9)


def test_counters_that_say_more_than_all_are_all() -> None:
    (sample,) = samples_of([(engine(1, 0, "3D"), 180.0)], None, None, 1.0)
    assert sample.busy_ratio == 1.0
    assert sample.programs[0].ratios == {"0: 3D": 1.0}


def test_the_first_look_has_nothing_to_compare_with() -> None:
    (sample,) = samples_of(None, None, [(f"luid_{LUID}_phys_0", 1e9)], 1.0)
    assert sample.busy_ratio is None


def gpus(answers, known=(True, True, True)) -> WindowsGpus:
    return WindowsGpus(read=lambda: answers.pop(0), known=lambda: list(known), close=lambda: None)


def test_a_windows_without_these_counters_has_no_way_to_tell() -> None:
    (sample,) = gpus([], (False, False, False)).samples()
    assert not sample.tells


def test_counters_that_stop_answering_are_an_error_and_not_quiet() -> None:
    reader = gpus([[None, [], []], [[], [], []], [None, None, None]])
    assert reader.samples() == ()
    assert reader.samples() == ()
    with pytest.raises(GpuUnreadable):
        reader.samples()


def card(luid: int, moved: int, *, kind: int = 6, flags: int = 1) -> Card:
    return Card(luid, kind, flags, True, moved)


def test_traffic_is_counted_at_hardware_once() -> None:
    before = [
        card(1, 100),
        card(2, 100, kind=71),
        card(3, 0, flags=0),
        card(4, 0, flags=3),
        card(5, 0, kind=24),
    ]
    after = [card(one.luid, one.moved_bytes + 1000, kind=one.kind, flags=one.flags) for one in before]
    assert moved_between(before, after) == 2000
    assert moved_between(before, [*after, card(9, 5000)]) == 2000  # plugged in meanwhile
    assert moved_between(after, before) == 0  # counts that began anew


def test_cards_are_read_from_windows_rows() -> None:
    row = MIB_IF_ROW2(
        InterfaceLuid=7, Type=6, InterfaceAndOperStatusFlags=5, OperStatus=1, InOctets=3, OutOctets=4
    )
    assert card_of(row) == Card(7, 6, 5, True, 7)


def test_traffic_is_told_while_no_guest_runs() -> None:
    moved, sent, guests = [0], [0.0], [0]
    probe = WindowsTraffic(
        cards=lambda: [card(1, moved[0])],
        disk_bytes_per_s=lambda: 50.0,
        guests=lambda: guests[0],
        sent_bytes=lambda: sent[0],
        close=lambda: None,
    )
    assert probe.read(0.0).value.network_bytes_per_s is None
    moved[0], sent[0] = 1000, 400.0
    told = probe.read(2.0).value
    assert (told.disk_bytes_per_s, told.network_bytes_per_s) == (50.0, 300.0)
    guests[0] = 1
    moved[0] = 9000
    told = probe.read(4.0).value
    assert (told.disk_bytes_per_s, told.network_bytes_per_s) == (None, None)


@pytest.mark.parametrize(
    ("cost", "metered"), [(0, False), (1, False), (2, True), (4, True), (0x40001, True), (0x80001, False)]
)
def test_a_network_that_costs_is_metered(cost: int, metered: bool) -> None:
    assert WindowsNetwork(lambda: cost).read(0.0).value.metered is metered


def test_a_network_without_a_cost_manager_is_untold() -> None:
    assert not WindowsNetwork(lambda: None).read(0.0).tells


def test_heat_is_the_hottest_plausible_zone() -> None:
    heat = hottest([("TZ00", 301.0), ("TZ01", 338.15), ("TZ02", 0.0), ("TZ03", 273.15), ("TZ04", 473.0)])
    assert (heat.hottest_c, heat.sensor) == (65.0, "TZ01")
    assert hottest([]) is None
    assert hottest([("broken", math.nan)]) is None


def test_heat_that_was_told_and_is_no_more_is_missing() -> None:
    told = [[("TZ01", 320.0)]]
    probe = WindowsThermal(lambda: told[0], lambda: None)
    assert probe.read(0.0).value.hottest_c == 46.9
    told[0] = None
    assert probe.read(1.0).tells
    assert not WindowsThermal(lambda: None, lambda: None).read(0.0).tells


def test_kernel_time_of_windows_includes_idle_time() -> None:
    assert busy_and_all_s(idle=60 * 10**7, kernel=80 * 10**7, user=20 * 10**7) == (40.0, 100.0)


def info(pid: int, started: float, parent: int = 0) -> ProcessInfo:
    return ProcessInfo(pid, parent, 0, 0, started, 1, 0.0)


def test_a_process_with_the_number_of_anothers_parent_is_not_its_parent() -> None:
    assert is_child(info(2, 5.0), info(1, 4.0))
    assert not is_child(info(2, 3.0), info(1, 4.0))
    assert not is_child(None, info(1, 4.0))


def test_one_scan_serves_all_questions_for_a_while() -> None:
    now_s = [0.0]
    scans: list[float] = []

    def scan() -> list[Program]:
        scans.append(now_s[0])
        return [Program(2, 1, "a.exe"), Program(3, 1, "b.exe"), Program(4, 2, "c.exe")]

    table = Scans(scan, lambda: now_s[0])
    assert (table.children(1), table.children(2), table.children(9)) == ([2, 3], [4], [])
    now_s[0] = 4.0
    table.programs()
    assert scans == [0.0]
    now_s[0] = 6.0
    table.children(1)
    assert scans == [0.0, 6.0]


def test_texts_of_windows_end_at_their_zero() -> None:
    assert text((ctypes.c_uint16 * 6)(0x41, 0x00E4, 0, 0x42)) == "Aä"
    assert text((ctypes.c_uint16 * 2)(0xD83D, 0xDE00)) == "😀"


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="sizes of 64-bit Windows")
def test_structures_have_the_sizes_that_the_headers_give_them() -> None:
    """As bench/windows_headers.py found them equal to mingw-w64's for x86_64 and arm64."""
    assert {name: ctypes.sizeof(structure) for name, structure in STRUCTURES.items()} == {
        "LASTINPUTINFO": 8,
        "RAWINPUTDEVICE": 16,
        "RAWINPUTHEADER": 24,
        "RAWHID": 12,
        "RID_DEVICE_INFO_HID": 16,
        "RID_DEVICE_INFO": 32,
        "WNDCLASSEXW": 80,
        "POINT": 8,
        "RECT": 16,
        "MSG": 48,
        "MONITORINFO": 40,
        "WTS_SESSION_INFOW": 24,
        "WTSINFOEX_LEVEL1_W": 224,
        "WTSINFOEXW": 232,
        "RTL_OSVERSIONINFOW": 276,
        "SYSTEM_POWER_STATUS": 12,
        "MEMORYSTATUSEX": 64,
        "PROCESS_BASIC_INFORMATION": 48,
        "PROCESSENTRY32W": 568,
        "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION": 48,
        "JOBOBJECT_BASIC_PROCESS_ID_LIST": 16,
        "PDH_FMT_COUNTERVALUE": 16,
        "PDH_FMT_COUNTERVALUE_ITEM_W": 24,
        "GUID": 16,
        "MIB_IF_ROW2": 1352,
    }
