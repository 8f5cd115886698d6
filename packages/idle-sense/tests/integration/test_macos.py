"""macOS's back end on a stand-in for its frameworks: real calls through ctypes, with every reference counted."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_macos import Stage, compiled

from idle_sense.facts import Calls, Media, Network, Power, Screen, Thermal
from idle_sense.platform.macos_gpus import MacGpus
from idle_sense.platform.macos_registry import Registry
from idle_sense.platform.macos_structures import IfData64, IfMsghdr2
from idle_sense.platform.macos_values import Values
from idle_sense.probes.aside import Aside
from idle_sense.probes.gpu import GpuProbe
from idle_sense.probes.guests import GuestLedger

MEBIBYTE = 1 << 20


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("macos"))


@pytest.fixture
def stage(library: Path, tmp_path: Path):
    return Stage(library, tmp_path)


def look_twice(stage, probe, now_s: float = 0.0):
    """The first look keeps names of properties and handles for good; the second keeps nothing more."""
    probe.read(now_s)
    with stage.balanced():
        return probe.read(now_s + 1.0)


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_values_of_core_foundation_are_those_of_python(stage) -> None:
    values = Values(stage.frameworks)
    told = {
        "text": "grüße ✓",
        "empty": "",
        "number": -5,
        "big": 1 << 62,
        "real": 0.25,
        "yes": True,
        "no": False,
        "data": b"\0\1",
        "nothing": b"",
        "list": [1, "two", [3.5, {"deep": True}]],
        7: "a process",
    }
    made = stage.build(told)
    values.plain(made.value)
    with stage.balanced():
        assert values.plain(made.value) == told
    opaque = stage.fake.fake_opaque()
    assert values.plain(opaque) is None
    assert values.plain(None) is None


def test_values_below_the_deepest_are_left_out_and_end(stage) -> None:
    nested: list[object] = ["bottom"]
    for _ in range(50):
        nested = [nested]
    found = Values(stage.frameworks).plain(stage.build(nested).value)
    depth = 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (found, depth) == (None, 8)


def seat(stage):
    (one,) = stage.seats.read(0.0).value
    return one.idle_s


@pytest.fixture
def seated(stage):
    stage.hid = stage.entry("IOHIDSystem", {"HIDIdleTime": 5_000_000_000})
    stage.fake.fake_events(ctypes.c_double(2.5))
    stage.fake.fake_session(stage.build({"kCGSSessionIDKey": 257}))
    stage.seats = stage.system.seats(GuestLedger())
    yield stage
    stage.fake.fake_hang(0)
    stage.seats.close()


def test_the_seat_is_the_smaller_of_registry_and_events(seated) -> None:
    assert (seat(seated).value, seat(seated).source) == (2.5, "CGEventSource")
    seated.change(seated.hid, {"HIDIdleTime": 30_000_000})
    with seated.balanced():
        assert (seat(seated).value, seat(seated).source) == (0.03, "HIDIdleTime")
    assert seated.seats.describe() == ()


def test_the_time_is_read_where_the_registry_keeps_it_as_bytes(seated) -> None:
    seated.change(seated.hid, {"HIDIdleTime": (1_500_000_000).to_bytes(8, "little")})
    assert seat(seated).value == 1.5


def test_a_daemon_asks_no_window_server_and_says_what_it_misses(stage) -> None:
    stage.entry("IOHIDSystem", {"HIDIdleTime": 5_000_000_000})
    stage.fake.fake_events(ctypes.c_double(0.0))
    stage.fake.fake_session(None)
    stage.seats = stage.system.seats(GuestLedger())
    assert (seat(stage).value, seat(stage).source) == (5.0, "HIDIdleTime")
    assert any("daemon" in sentence for sentence in stage.seats.describe())
    assert "launch agent" in stage.seats.advice
    stage.seats.close()


def test_a_mac_without_the_registrys_time_counts_as_busy_until_it_is_back(seated) -> None:
    seated.fake.fake_entry_gone(seated.hid)
    assert seat(seated).value is None
    assert seat(seated).advice
    seated.entry("IOHIDSystem", {"HIDIdleTime": 7_000_000_000})
    seated.fake.fake_events(ctypes.c_double(9.0))
    assert seat(seated).value == 7.0


def test_a_window_server_that_hangs_keeps_nobody_waiting_and_the_answer_grows_old(seated) -> None:
    assert seat(seated).value == 2.5
    seated.fake.fake_hang(1)
    answers = [seat(seated)]
    begun_s = time.monotonic()
    answers += [seat(seated) for _ in range(500)]
    took_s = time.monotonic() - begun_s
    # The hung question is waited for once: 500 looks more would else take 10 s at least.
    assert took_s < 5.0
    assert {answer.value for answer in answers} == {2.5}
    assert answers[-1].age_s >= took_s
    seated.fake.fake_hang(0)
    seated.fake.fake_events(ctypes.c_double(0.1))
    wait_until(lambda: seat(seated).value == 0.1)


def test_a_window_server_that_hangs_from_the_start_is_no_idle_machine(seated) -> None:
    seated.fake.fake_hang(1)
    assert seat(seated).value is None
    assert "not answered" in seat(seated).problem


USERS = [
    {
        "kCGSSessionIDKey": 257,
        "kCGSSessionUserNameKey": "anna",
        "kCGSSessionOnConsoleKey": True,
        "kCGSessionLoginDoneKey": True,
    },
    {
        "kCGSSessionIDKey": 300,
        "kCGSSessionUserNameKey": "ben",
        "kCGSSessionOnConsoleKey": False,
        "kCGSessionLoginDoneKey": True,
        "CGSSessionScreenIsLocked": True,
    },
]


def test_sessions_of_the_screen_and_of_ssh_are_told(stage) -> None:
    stage.entry("Root", {"IOConsoleUsers": USERS})
    stage.fake.fake_session(stage.build({"kCGSSessionIDKey": 257, "CGSSessionScreenIsLocked": True}))
    stage.login("anna", "console", "", 100)
    stage.login("cleo", "ttys001", "192.0.2.7", 200)
    stage.login("gone", "ttys002", "192.0.2.8", 201)
    stage.login("anna", "ttys003", "", 202)
    stage.login("old", "ttys004", "192.0.2.9", 200, kind=8)
    stage.process(200, 1, visible=False)
    anna, ben, cleo = look_twice(stage, stage.system.sessions(GuestLedger())).value
    assert (anna.name, anna.active, anna.locked, anna.remote) == ("257 of anna", True, True, False)
    assert (ben.user, ben.active, ben.locked) == ("ben", False, True)
    assert (cleo.name, cleo.remote, cleo.active) == ("ttys001 of cleo from 192.0.2.7", True, True)


def test_a_mac_that_nobody_is_logged_in_at_has_no_sessions(stage) -> None:
    stage.entry("Root", {})
    assert look_twice(stage, stage.system.sessions(GuestLedger())).value == ()


def test_a_registry_that_hides_who_is_logged_in_is_missing(stage) -> None:
    stage.entry("Root", {})
    stage.login("anna", "console", "", 100)
    reading = stage.system.sessions(GuestLedger()).read(0.0)
    assert reading.value is None
    assert reading.tells


def test_a_registry_without_a_root_is_missing(stage) -> None:
    reading = stage.system.sessions(GuestLedger()).read(0.0)
    assert "no root" in reading.problem


def audio_device(stage, number: int, name: str, *, inputs: int, outputs: int, running: bool) -> None:
    stage.sound(number, "lnam", name)
    stage.sound(number, "gone", int(running))
    stage.sound(number, "stm#", list(range(1, inputs + 1)), scope="inpt")
    stage.sound(number, "stm#", list(range(1, outputs + 1)), scope="outp")


def audio_program(stage, number: int, pid: int, bundle: str, *, records: bool, plays: bool) -> None:
    stage.sound(number, "ppid", pid)
    stage.sound(number, "pbid", bundle)
    stage.sound(number, "piri", int(records))
    stage.sound(number, "piro", int(plays))


@pytest.fixture
def quiet(stage):
    """A Mac with a microphone, loudspeakers and a camera, none in use."""
    stage.sound(1, "dev#", [50, 60])
    audio_device(stage, 50, "MacBook Microphone", inputs=1, outputs=0, running=False)
    audio_device(stage, 60, "MacBook Speakers", inputs=0, outputs=1, running=False)
    stage.sound(1, "dev#", [70], media=1)
    stage.sound(70, "lnam", "FaceTime HD Camera", media=1)
    stage.sound(70, "gone", 0, media=1)
    stage.guests = GuestLedger()
    return stage


def test_nobody_calls_and_nothing_plays_on_a_quiet_mac(quiet) -> None:
    assert look_twice(quiet, quiet.system.calls(quiet.guests)).value == Calls()
    assert look_twice(quiet, quiet.system.media(quiet.guests)).value == Media()


def test_a_call_is_told_by_program_and_camera(quiet) -> None:
    quiet.sound(50, "gone", 1)
    quiet.sound(1, "prs#", [90, 91])
    audio_program(quiet, 90, 900, "org.example.Call", records=True, plays=True)
    audio_program(quiet, 91, 901, "com.apple.Music", records=False, plays=True)
    quiet.process(900, 1, name="Call")
    quiet.sound(70, "gone", 1, media=1)
    reading = look_twice(quiet, quiet.system.calls(quiet.guests))
    assert reading.value == Calls(microphones=("Call",), cameras=("FaceTime HD Camera",))


def test_before_macos_14_the_devices_are_told(quiet) -> None:
    quiet.sound(50, "gone", 1)
    quiet.sound(60, "gone", 1)
    assert look_twice(quiet, quiet.system.calls(quiet.guests)).value == Calls(
        microphones=("MacBook Microphone",)
    )
    assert look_twice(quiet, quiet.system.media(quiet.guests)).value == Media(playing=("MacBook Speakers",))


def test_who_waits_for_its_name_to_be_called_holds_no_call(quiet) -> None:
    quiet.sound(50, "gone", 1)
    quiet.sound(1, "prs#", [90])
    audio_program(quiet, 90, 900, "com.apple.corespeechd", records=True, plays=False)
    assert look_twice(quiet, quiet.system.calls(quiet.guests)).value == Calls()


def test_sound_and_screen_keepers_of_guests_are_nobodys(quiet) -> None:
    quiet.sound(60, "gone", 1)
    quiet.sound(1, "prs#", [90, 91])
    audio_program(quiet, 90, 900, "", records=False, plays=True)
    audio_program(quiet, 91, 901, "com.apple.Music", records=False, plays=True)
    quiet.process(800, os.getpid())
    quiet.process(900, 800)
    quiet.process(901, 1, name="Music")
    quiet.process(902, 1, name="Browser")
    display = "PreventUserIdleDisplaySleep"
    quiet.fake.fake_assertions(
        quiet.build(
            {
                900: [{"AssertType": display, "AssertLevel": 255, "Process Name": "caffeinate"}],
                77: [
                    {"AssertType": display, "AssertLevel": 255, "AssertionOnBehalfOfPID": 902},
                    {"AssertType": display, "AssertLevel": 255, "AssertionOnBehalfOfPID": 900},
                ],
                78: [
                    {"AssertType": "PreventUserIdleSystemSleep", "AssertLevel": 255, "Process Name": "backup"}
                ],
                79: [{"AssertType": "NoDisplaySleepAssertion", "AssertLevel": 0, "Process Name": "off"}],
                80: [{"AssertionTrueType": display, "AssertLevel": 255, "Process Name": "Film"}],
            }
        ),
        0,
    )
    quiet.guests.add(800)
    reading = look_twice(quiet, quiet.system.media(quiet.guests))
    assert reading.value == Media(playing=("Music",), inhibitors=("Browser", "Film"))


def test_a_power_daemon_that_refuses_is_missing_and_leaks_nothing(quiet) -> None:
    quiet.fake.fake_assertions(quiet.build({}), -536870174)
    reading = look_twice(quiet, quiet.system.media(quiet.guests))
    assert reading.value is None
    assert "0xe00002e2" in reading.problem


def test_sound_that_coreaudio_refuses_to_tell_is_missing(stage) -> None:
    # No list of devices at all is a Mac without sound; a list that cannot be read is none.
    stage.sound(1, "dev#", [], media=1)
    assert stage.system.calls(GuestLedger()).read(0.0).value == Calls()


def test_cameras_that_are_not_told_are_missing(stage) -> None:
    reading = stage.system.calls(GuestLedger()).read(0.0)
    assert reading.value is None
    assert "CoreMediaIO" in reading.problem


def test_a_laptop_on_battery_is_told(stage) -> None:
    battery = {"Type": "InternalBattery", "Is Present": True, "Power Source State": "Battery Power"}
    stage.fake.fake_sources(stage.build([battery]), stage.build("Battery Power"))
    probe = stage.system.power()
    assert look_twice(stage, probe).value == Power(battery=True, on_mains=False)
    stage.fake.fake_sources(stage.build([battery]), stage.build("AC Power"))
    assert look_twice(stage, probe).value == Power(battery=True, on_mains=True)


def test_a_desktop_has_no_battery(stage) -> None:
    stage.fake.fake_sources(stage.build([]), stage.build("AC Power"))
    assert look_twice(stage, stage.system.power()).value == Power(battery=False, on_mains=None)


def test_power_that_is_not_told_is_missing(stage) -> None:
    assert stage.system.power().read(0.0).value is None


def test_heat_is_told_as_pressure(stage) -> None:
    stage.fake.fake_heat(ctypes.c_uint64(2), 0)
    probe = stage.system.thermal()
    reading = look_twice(stage, probe)
    assert reading.value == Thermal(hottest_c=None, sensor="thermal pressure", pressure="heavy")
    stage.fake.fake_heat(ctypes.c_uint64(0), 0)
    stage.fake.fake_cpu_power(stage.build({"CPU_Speed_Limit": 60}))
    assert look_twice(stage, probe).value.pressure == "heavy"
    probe.close()
    assert stage.fake.fake_tokens() == 0


def test_a_notifyd_that_was_restarted_is_asked_anew(stage) -> None:
    probe = stage.system.thermal()
    assert probe.read(0.0).value.pressure == "nominal"
    stage.fake.fake_heat(ctypes.c_uint64(1), 6)
    assert probe.read(1.0).value is None
    stage.fake.fake_heat(ctypes.c_uint64(1), 0)
    assert probe.read(2.0).value.pressure == "moderate"
    probe.close()
    assert stage.fake.fake_tokens() == 0


def window(owner: str, layer: int, x: float, y: float, width: float, height: float) -> dict[str, object]:
    return {
        "kCGWindowOwnerName": owner,
        "kCGWindowLayer": layer,
        "kCGWindowAlpha": 1.0,
        "kCGWindowBounds": {"X": x, "Y": y, "Width": width, "Height": height},
    }


def test_a_film_on_the_second_display_is_told(stage) -> None:
    double = ctypes.c_double
    stage.fake.fake_display(1, double(0), double(0), double(1440), double(900))
    stage.fake.fake_display(5, double(1440), double(0), double(1920), double(1080))
    stage.fake.fake_windows(
        stage.build(
            [
                window("Window Server", 24, 0, 0, 1440, 24),
                window("Film", 0, 1440, 0, 1920, 1080),
                window("Editor", 0, 0, 24, 1440, 876),
                window("Dock", 20, 0, 0, 1440, 900),
            ]
        )
    )
    reading = look_twice(stage, stage.system.screen(GuestLedger()))
    assert reading.value == Screen(fullscreen=("display 5",))


def test_a_daemon_is_told_of_no_windows(stage) -> None:
    reading = stage.system.screen(GuestLedger()).read(0.0)
    assert (reading.value, reading.tells) == (None, False)


def test_processes_are_told_in_seconds_whatever_a_tick_is(stage) -> None:
    # 125 / 3 ns, as on Apple's processors.
    ticks = 24_000_000
    stage.process(
        40, 1, terminal=0x10000003, ri_user_time=ticks, ri_system_time=ticks, ri_child_user_time=2 * ticks
    )
    stage.process(41, 40)
    stage.process(42, 40)
    info = stage.system.process(40)
    assert info is not None
    assert (info.parent, info.session, info.terminal) == (1, 40, 0x10000003)
    assert info.cpu_s == pytest.approx(4.0)
    assert info.inherited_s == pytest.approx(2.0)
    assert sorted(stage.system.children(info)) == [41, 42]
    assert stage.system.process(99) is None


def test_of_another_users_process_the_parent_is_told(stage) -> None:
    stage.process(50, 49, visible=False)
    info = stage.system.process(50)
    assert info is not None
    assert (info.parent, info.cpu_s) == (49, 0.0)


def test_work_of_guests_with_short_lived_children_is_theirs(stage) -> None:
    second = 24_000_000
    guests = GuestLedger()
    stage.process(40, os.getpid())
    guests.add(40)
    before_s = guests.spent_s(stage.system)
    stage.process(40, os.getpid(), ri_user_time=second, ri_child_user_time=9 * second)
    assert guests.spent_s(stage.system) - before_s == pytest.approx(10.0, abs=1.0)


def test_processor_times_survive_the_wrap_of_their_counts(stage) -> None:
    top = 0xFFFFFFFF
    stage.fake.fake_ticks(*(ctypes.c_uint32(count) for count in (top, 100, 200, 0)))
    assert stage.system.cpu_times_s() == (0.0, 0.0)
    stage.fake.fake_ticks(*(ctypes.c_uint32(count) for count in (99, 150, 1000, 50)))
    busy_s, all_s = stage.system.cpu_times_s()
    assert busy_s == pytest.approx(2.0)
    assert all_s == pytest.approx(10.0)
    assert stage.fake.fake_mistakes() == 0  # the host's port was asked for once


def test_memory_is_what_can_be_had_without_swapping(stage) -> None:
    stage.setting("hw.memsize", 16 << 30, 8)
    stage.setting("kern.memorystatus_vm_pressure_level", 1, 4)
    stage.pages(
        free_count=100,
        active_count=400,
        inactive_count=300,
        wire_count=150,
        compressor_page_count=50,
        internal_page_count=400,
        purgeable_count=100,
    )
    use = stage.system.memory()
    assert (use.total_bytes, use.short) == (16 << 30, False)
    assert use.available_bytes == pytest.approx((16 << 30) * 0.5)
    stage.setting("kern.memorystatus_vm_pressure_level", 2, 4)
    assert stage.system.memory().short is True


def card(number: int, kind: int, received: int, sent: int) -> IfMsghdr2:
    size = ctypes.sizeof(IfMsghdr2)
    data = IfData64(ifi_type=kind, ifi_ibytes=received, ifi_obytes=sent)
    return IfMsghdr2(ifm_msglen=size, ifm_version=5, ifm_type=0x12, ifm_index=number, ifm_data=data)


def test_traffic_is_that_of_others(stage) -> None:
    disk = {"Statistics": {"Bytes (Read)": 100 * MEBIBYTE, "Bytes (Write)": 0}}
    entry = stage.entry("IOBlockStorageDriver", disk)
    address = b"\x14\x00\x05\x0c" + bytes(16)
    stage.interfaces(card(1, 0x18, 7, 7), address, card(4, 6, 1000, 0))
    guests = GuestLedger()
    stage.process(os.getpid(), 1, name="self")
    probe = stage.system.traffic(guests)
    first = probe.read(0.0).value
    assert (first.disk_bytes_per_s, first.network_bytes_per_s) == (None, None)
    disk = {"Statistics": {"Bytes (Read)": 130 * MEBIBYTE, "Bytes (Write)": 10 * MEBIBYTE}}
    stage.change(entry, disk)
    stage.process(os.getpid(), 1, name="self", ri_diskio_bytesread=20 * MEBIBYTE)
    stage.interfaces(card(1, 0x18, 99, 99), address, card(4, 6, 3000, 500))
    with stage.balanced():
        second = probe.read(2.0).value
    assert second.disk_bytes_per_s == pytest.approx(10 * MEBIBYTE)
    assert second.network_bytes_per_s == pytest.approx(1250)
    guests.add(40)
    assert probe.read(3.0).value.network_bytes_per_s is None
    probe.close()
    assert stage.fake.fake_handles() == 0


def test_what_guests_wrote_and_the_disk_shows_a_look_later_is_theirs(stage) -> None:
    def shows(mebibytes: int) -> None:
        counts = {"Bytes (Read)": 0, "Bytes (Write)": mebibytes * MEBIBYTE}
        stage.change(entry, {"Statistics": counts})

    def wrote(mebibytes: int) -> None:
        stage.process(os.getpid(), 1, name="self", ri_diskio_byteswritten=mebibytes * MEBIBYTE)

    entry = stage.entry("IOBlockStorageDriver", {})
    shows(0)
    wrote(0)
    probe = stage.system.traffic(GuestLedger())
    probe.read(0.0)
    wrote(100)
    shows(40)
    assert probe.read(2.0).value.disk_bytes_per_s == 0.0
    shows(100)
    assert probe.read(4.0).value.disk_bytes_per_s == 0.0
    # Not for ever: by now it is somebody else's.
    wrote(130)
    assert probe.read(6.0).value.disk_bytes_per_s == 0.0
    assert probe.read(8.0).value.disk_bytes_per_s == 0.0
    shows(140)
    assert probe.read(10.0).value.disk_bytes_per_s == 20 * MEBIBYTE
    probe.close()


def test_a_driver_that_told_once_and_tells_no_more_is_missing_and_one_that_never_did_decides_nothing(
    stage,
) -> None:
    entry = stage.entry(
        "IOAccelerator", {"model": "M3", "PerformanceStatistics": {"Device Utilization %": 40}}
    )
    gpus = MacGpus(Registry(stage.frameworks, Values(stage.frameworks)))
    probe = GpuProbe(gpus, GuestLedger(), stage.system, wait=lambda _: None)
    assert probe.read(0.0).value[0].others_ratio == 0.4
    stage.change(entry, {"model": "M3", "PerformanceStatistics": {}})
    reading = probe.read(1.0)
    assert reading.value is None
    assert reading.tells
    assert "does not tell any more" in reading.problem
    probe.close()
    silent = GpuProbe(
        MacGpus(Registry(stage.frameworks, Values(stage.frameworks))),
        GuestLedger(),
        stage.system,
        wait=lambda _: None,
    )
    assert silent.read(0.0).value[0].others_ratio is None
    assert not silent.capability().tells
    silent.close()


def test_graphics_processors_are_told_with_their_programs(stage) -> None:
    statistics = {"Device Utilization %": 40, "In use system memory": 5 * MEBIBYTE}
    entry = stage.entry("IOAccelerator", {"model": "Apple M3", "PerformanceStatistics": statistics})
    stage.entry("Client", {"IOUserClientCreator": "pid 412, WindowServer", "AppUsage": []}, below=entry)
    stage.entry(
        "Client",
        {
            "IOUserClientCreator": "pid 900, python",
            "AppUsage": [{"API": "Metal", "accumulatedGPUTime": 1_500_000_000}, {"accumulatedGPUTime": 5}],
        },
        below=entry,
    )
    stage.entry("Driver", {"IOClass": "no client"}, below=entry)
    values = Values(stage.frameworks)
    gpus = MacGpus(Registry(stage.frameworks, values), now=lambda: 7.0)
    gpus.programs(gpus.samples())
    with stage.balanced():
        (sample,) = gpus.programs(gpus.samples())
    assert (sample.name, sample.busy_ratio, sample.used_bytes) == ("0: Apple M3", 0.4, 5 * MEBIBYTE)
    assert sample.complete
    server, guest = sample.programs
    assert (server.pid, server.times, server.timed) == (412, {}, True)
    (spent,) = guest.times.values()
    assert (guest.pid, spent.busy, spent.whole) == (900, pytest.approx(1.500000005), 7.0)
    gpus.close()
    assert stage.fake.fake_handles() == 0


def test_the_graphics_work_of_guests_is_nobodys(stage) -> None:
    statistics = {"PerformanceStatistics": {"Device Utilization %": 90}}
    entry = stage.entry("IOAccelerator", statistics)
    second = 1_000_000_000
    used = {412: 5 * second, 900: 7 * second}
    clients = {
        pid: stage.entry(
            "Client",
            {"IOUserClientCreator": f"pid {pid}, x", "AppUsage": [{"accumulatedGPUTime": spent}]},
            below=entry,
        )
        for pid, spent in used.items()
    }
    stage.process(412, 1)
    stage.process(900, os.getpid())
    guests = GuestLedger()
    guests.add(900)
    clock = [100.0]
    values = Values(stage.frameworks)
    reader = MacGpus(Registry(stage.frameworks, values), now=lambda: clock[0])

    def work(passed_s: float) -> None:
        clock[0] += 2.0
        for pid, share in ((412, 0.1), (900, 0.8)):
            used[pid] += int(2.0 * share * second)
            usage = [{"accumulatedGPUTime": used[pid]}]
            stage.change(clients[pid], {"IOUserClientCreator": f"pid {pid}, x", "AppUsage": usage})

    probe = GpuProbe(reader, guests, stage.system, now_s=lambda: clock[0], wait=work)
    probe.read(0.0)
    work(2.0)
    (use,) = probe.read(0.0).value
    assert use.others_ratio == pytest.approx(0.1, abs=0.01)
    guests.discard(900)
    work(2.0)
    (use,) = probe.read(0.0).value
    assert use.others_ratio == pytest.approx(0.9, abs=0.01)
    probe.close()
    assert stage.fake.fake_handles() == 0


def test_a_phones_hotspot_is_metered_and_the_way_may_change(stage) -> None:
    stage.fake.fake_path(1, 0)
    probe = stage.system.network()
    assert probe.read(0.0).value == Network(metered=True)
    # Told from a thread of the system's own.
    teller = threading.Thread(target=stage.fake.fake_path, args=(0, 0))
    teller.start()
    teller.join()
    assert probe.read(1.0).value == Network(metered=False)
    stage.fake.fake_path(0, 1)
    assert probe.read(2.0).value == Network(metered=True)
    probe.close()
    probe.close()
    assert (stage.fake.fake_monitors(), stage.fake.fake_live()) == (0, 0)
    assert stage.fake.fake_mistakes() == 0


FACTS = ("sessions", "traffic", "gpus", "calls", "media", "screen", "power", "thermal", "network")


@pytest.mark.parametrize("fact", FACTS)
def test_every_probe_is_asked_aside_and_says_how_far_it_was_tried(stage, fact: str) -> None:
    make = getattr(stage.system, fact)
    probe = make() if fact in ("power", "thermal", "network") else make(GuestLedger())
    assert probe.slow
    assert probe.every_s >= 1.0
    assert all(sentence.endswith(".") for sentence in probe.describe())
    assert probe.capability().verified == "signature-only"
    assert probe.capability().probe == fact
    reading = probe.read(0.0)
    assert reading.source
    if reading.value is None:
        assert reading.problem
        assert reading.advice
    probe.close()
    probe.close()


def test_a_framework_that_hangs_makes_its_fact_old_and_not_calm(quiet) -> None:
    probe = Aside(quiet.system.calls(quiet.guests), every_s=0.0)
    wait_until(lambda: probe.read(0.0).value is not None)
    quiet.sound(50, "gone", 1)
    quiet.fake.fake_hang(1)
    wait_until(lambda: probe.read(0.0).age_s > 0.3)
    assert probe.read(0.0).value == Calls()
    quiet.fake.fake_hang(0)
    wait_until(lambda: probe.read(0.0).value == Calls(microphones=("MacBook Microphone",)))
    probe.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has them")
def test_a_system_without_the_frameworks_is_missing_and_not_idle() -> None:
    from idle_sense.platform.macos import MacOS

    system, guests = MacOS(), GuestLedger()
    probes = (
        system.sessions(guests),
        system.calls(guests),
        system.media(guests),
        system.power(),
        system.thermal(),
        system.network(),
    )
    for probe in probes:
        reading = probe.read(0.0)
        assert reading.value is None
        assert reading.tells
        assert reading.problem
        assert reading.advice
        assert not probe.capability().serves
        probe.close()
    (one,) = system.seats(guests).read(0.0).value or ()
    assert one.idle_s.value is None
