"""The part of ``windows_wine.py`` that runs on Windows: each check prints a line. On a Windows of one's own: start it as it is;
keys and movements are then injected by SendInput alone."""

import contextlib
import ctypes
import dataclasses
import os
import subprocess
import sys
import threading
import time
import traceback
import winreg
from collections.abc import Callable
from pathlib import Path

if sys.platform != "win32":
    raise SystemExit("this is for Windows, or for Wine: see windows_wine.py")

from idle_sense import GuestLedger, Monitor, Policy, SenseError, State
from idle_sense.platform import (
    windows_consent,
    windows_events,
    windows_jobs,
    windows_network,
    windows_power,
    windows_processes,
    windows_screen,
    windows_seats,
    windows_sessions,
    windows_sound,
    windows_window,
)
from idle_sense.platform import windows_libraries as libraries
from idle_sense.platform.windows import Windows
from idle_sense.platform.windows_events import Topic
from idle_sense.platform.windows_structures import RAWINPUTDEVICE
from idle_sense.probes.bundle import native_probes
from idle_sense.probes.groups import Whereabouts
from idle_sense.testing import ScriptedProbes

REQUESTS = os.environ.get("IDLE_SENSE_REQUESTS")
SAMPLES = 200
user = libraries.user32()


class _Key(ctypes.Structure):
    """INPUT with its KEYBDINPUT, 64-bit."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("_pad", ctypes.c_uint32),
        ("code", ctypes.c_uint16),
        ("scan", ctypes.c_uint16),
        ("flags", ctypes.c_uint32),
        ("time", ctypes.c_uint32),
        ("extra", ctypes.c_size_t),
        ("_rest", ctypes.c_uint64),
    )


def inject() -> None:
    """Shift, down and up, as a program for remote support would."""
    user.SendInput.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int32]
    for flags in (0, 2):
        key = _Key(type=1, code=0x10, scan=0x2A, flags=flags)
        if user.SendInput(1, ctypes.byref(key), ctypes.sizeof(key)) != 1:
            raise ctypes.WinError(ctypes.get_last_error())


def use(what: str) -> None:
    """A key or the mouse, from outside of Windows where there is an outside."""
    if REQUESTS:
        written = Path(f"Z:{REQUESTS}.new")
        written.write_text(what)
        written.replace(f"Z:{REQUESTS}")
    else:
        inject()


def wait_for(condition: Callable[[], bool], limit_s: float = 10.0) -> float:
    """Seconds until it held. Raises AssertionError where it did not."""
    began_s = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began_s < limit_s, "it did not come"
        time.sleep(0.002)
    return time.perf_counter() - began_s


@contextlib.contextmanager
def listening(topic: Topic):
    heard: list[float] = []
    events = windows_window.events(windows_consent.WATCHED)

    def hear() -> None:
        heard.append(time.perf_counter())

    events.subscribe(topic, hear)
    try:
        wait_for(lambda: topic in events.hears)
        yield events, heard
    finally:
        events.unsubscribe(topic, hear)


def last_input() -> str:
    assert windows_seats.own_session() != 0
    time.sleep(0.5)
    before_s = windows_seats.own_idle_s()
    use("key")
    wait_for(lambda: windows_seats.own_idle_s() < min(before_s, 0.2))
    return f"idle {before_s:.2f} s -> {windows_seats.own_idle_s():.2f} s after a key"


def raw_input() -> str:
    with listening(Topic.INPUT) as (_events, heard):
        for what in ("key", "mouse", "key", "mouse"):
            count = len(heard)
            use(what)
            wait_for(lambda count=count: len(heard) > count)
            time.sleep(windows_events.DESK_REST_S + 0.2)
    return f"{len(heard)} events for 4 keys and movements"


def raw_input_latency() -> str:
    rest_s, windows_events.DESK_REST_S = windows_events.DESK_REST_S, 0.01
    took_ms: list[float] = []
    try:
        with listening(Topic.INPUT) as (_events, heard):
            for _ in range(SAMPLES):
                heard.clear()
                began_s = time.perf_counter()
                inject()
                wait_for(lambda: bool(heard))
                took_ms.append((heard[0] - began_s) * 1000)
                time.sleep(0.1)
    finally:
        windows_events.DESK_REST_S = rest_s
    took_ms.sort()
    return f"SendInput -> callback: p50 {took_ms[SAMPLES // 2]:.2f} ms, p99 {took_ms[int(SAMPLES * 0.99)]:.2f} ms"


def a_burst_is_few_events() -> str:
    with listening(Topic.INPUT) as (_events, heard):
        began_s = time.perf_counter()
        for _ in range(100):
            inject()
            time.sleep(0.002)
        took_s = time.perf_counter() - began_s
        assert 1 <= len(heard) <= took_s / windows_events.DESK_REST_S + 3, f"{len(heard)} in {took_s:.1f} s"
    return f"{len(heard)} callbacks for 200 key events in {took_s:.1f} s"


def the_program_keeps_its_raw_input() -> str:
    window = user.CreateWindowExW(0, "STATIC", "own", 0, 0, 0, 1, 1, None, None, None, None)
    for usage in (2, 6):
        device = RAWINPUTDEVICE(1, usage, 0x100, window)
        assert user.RegisterRawInputDevices(ctypes.byref(device), 1, ctypes.sizeof(device))
    events = windows_window.events(())
    events.subscribe(Topic.POWER, print)
    try:
        wait_for(lambda: Topic.POWER in events.hears)
        assert Topic.INPUT not in events.hears
        count = ctypes.c_uint32(8)
        devices = (RAWINPUTDEVICE * 8)()
        got = user.GetRegisteredRawInputDevices(devices, ctypes.byref(count), ctypes.sizeof(RAWINPUTDEVICE))
        owners = {device.usUsage: device.hwndTarget for device in devices[:got]}
        assert owners[2] == owners[6] == window, owners
    finally:
        events.unsubscribe(Topic.POWER, print)
        for usage in (2, 6):
            device = RAWINPUTDEVICE(1, usage, 1, None)
            user.RegisterRawInputDevices(ctypes.byref(device), 1, ctypes.sizeof(device))
        user.DestroyWindow(window)
    return events.problem


def messages_of_windows() -> str:
    """WM_WTSSESSION_CHANGE (unlock) and WM_POWERBROADCAST (resumed), sent to the window as Windows does."""
    user.FindWindowExW.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_wchar_p]
    user.FindWindowExW.restype = ctypes.c_void_p
    told: list[str] = []
    for topic, message, first in ((Topic.SESSIONS, 0x02B1, 8), (Topic.POWER, 0x0218, 0x12)):
        with listening(topic) as (_events, heard):
            window = user.FindWindowExW(None, None, None, "idle-sense")
            assert window, "no window"
            user.PostMessageW(ctypes.c_void_p(window), message, first, 1)
            wait_for(lambda heard=heard: bool(heard))
            told.append(str(topic))
    return " and ".join(told) + " were heard of"


def consent_store() -> str:
    path = windows_consent.STORE + r"\microphone\NonPackaged\C:#tools#python.exe"
    now = int((time.time() + windows_consent.EPOCH_S) * 10_000_000)
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, windows_consent.STORE + r"\microphone"):
        pass
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, path) as key:
        winreg.SetValueEx(key, "LastUsedTimeStart", 0, winreg.REG_QWORD, now)
        winreg.SetValueEx(key, "LastUsedTimeStop", 0, winreg.REG_QWORD, 0)
    names = lambda: windows_consent.in_use(  # noqa: E731
        windows_consent.uses_of("microphone") or (),
        windows_consent.booted(),
        lambda: {one.name.lower() for one in windows_processes.scan()},
    )
    assert names() == ("python.exe",), names()
    heard: list[float] = []
    watched = ((winreg.HKEY_CURRENT_USER, windows_consent.STORE + r"\microphone"),)
    events = windows_window.events(watched)

    def hear() -> None:
        heard.append(time.perf_counter())

    events.subscribe(Topic.REGISTRY, hear)
    try:
        wait_for(lambda: Topic.REGISTRY in events.hears)
        with winreg.CreateKey(winreg.HKEY_CURRENT_USER, path) as key:
            began_s = time.perf_counter()
            winreg.SetValueEx(key, "LastUsedTimeStop", 0, winreg.REG_QWORD, now + 1)
        wait_for(lambda: bool(heard))
    finally:
        events.unsubscribe(Topic.REGISTRY, hear)
    assert names() == ()
    return f"in use, then not; the change was heard of after {(heard[0] - began_s) * 1000:.1f} ms"


def processes() -> str:
    system = Windows()
    own = system.process(os.getpid())
    assert own is not None
    busy_s, all_s = system.cpu_times_s()
    assert 0 < busy_s <= all_s
    ledger = GuestLedger()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        ledger.add(child.pid)
        before_s = ledger.spent_s(system)
        time.sleep(3.0)
        spent_s = ledger.spent_s(system) - before_s
        told = system.process(child.pid)
        assert told is not None
        assert told.parent == os.getpid()
        assert told.started >= own.started
        assert child.pid in system.children(own)
        mine = system.process(os.getpid())
        # Wine tells a process's own times whichever it is asked for.
        own_times = mine is not None and abs(mine.cpu_s - told.cpu_s) < 0.05
        assert spent_s > 1.0 or own_times, spent_s
    finally:
        child.kill()
        child.wait()
    assert system.process(child.pid) is None
    times = "its times are not told (Wine)" if own_times else f"it spent {spent_s:.2f} s of 3 s"
    return f"parent, start and children of a child are right; {times}; when dead it is gone"


SHORT_LIVED = """
import subprocess, sys
for _ in range(4):
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"], check=True)
print("done", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def job_object(name: str):
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    kernel.CreateJobObjectW.argtypes = [ctypes.c_void_p, ctypes.c_wchar_p]
    kernel.AssignProcessToJobObject.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    kernel.CloseHandle.argtypes = [ctypes.c_void_p]
    job = libraries.checked(kernel.CreateJobObjectW(None, name))
    try:
        yield lambda process: libraries.checked(
            kernel.AssignProcessToJobObject(job, int(process._handle))  # noqa: SLF001 - has no other name
        )
    finally:
        kernel.CloseHandle(job)


def is_there(name: str) -> bool:
    try:
        windows_jobs.job_named(name)
    except SenseError as error:
        if "There is no job object" not in error.message:
            raise
        return False
    return True


def job_objects() -> str:
    """Children that live 0.3 s each: Windows tells their time of the job alone."""
    system, ledger, name = Windows(), GuestLedger(), f"idle-sense-{os.getpid()}"
    assert not is_there(name)
    with job_object(name) as take:
        ledger.add_job(name)
        before_s = ledger.spent_s(system)
        piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        guest = subprocess.Popen([sys.executable, "-c", "input()\n" + SHORT_LIVED], **piped)
        stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        take(guest)
        guest.stdin.write(b"go\n")
        guest.stdin.flush()
        assert guest.stdout.readline().strip() == b"done"
        held = ledger.pids()
        assert held == {guest.pid}, held
        assert ledger.contains(guest.pid, system)
        # Asked of the job: to the ledger any child of this program is a guest.
        assert windows_jobs.job_named(name).contains(Whereabouts(guest.pid))
        assert not windows_jobs.job_named(name).contains(Whereabouts(stranger.pid))
        spent_s = ledger.spent_s(system) - before_s
        guest.communicate()
        stranger.communicate(b"go\n")
        wait_for(lambda: not windows_jobs.job_named(name).pids())
        # To Wine a job is there for as long as a process that was in it, which is for as long as its handles.
        del guest
    # The ledger's own handle keeps it, and what was spent.
    assert is_there(name)
    assert ledger.spent_s(system) - before_s >= spent_s
    ledger.discard_job(name)
    wait_for(lambda: not is_there(name))
    # Wine counts no time of jobs.
    on_wine = hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
    assert spent_s >= 1.0 or on_wine, spent_s
    times = f"{spent_s:.2f} s of 4 children that took 1.20 s" + (", as Wine counts none" if on_wine else "")
    return f"processes of a job are told, and who is in it; {times}; it ends with the ledger's handle"


def memory() -> str:
    use_of_memory = Windows().memory()
    assert 0 < use_of_memory.available_bytes <= use_of_memory.total_bytes
    return f"{use_of_memory.available_bytes >> 20} of {use_of_memory.total_bytes >> 20} MiB free, short: {use_of_memory.short}"


def power() -> str:
    line, flag = windows_power.power_status()
    return f"ACLineStatus {line}, BatteryFlag {flag}: {windows_power.power_of(line, flag)}"


def execution_state() -> str:
    state = windows_power.execution_state()
    assert state is not None
    return f"0x{state:08x}"


def screen() -> str:
    """The last one: Wine tells no raw input any more once the foremost window was of a thread without a message loop."""
    state = windows_screen.notification_state()
    assert 1 <= state <= 7
    small = user.CreateWindowExW(0, "STATIC", "w", 0x90000000, 10, 10, 50, 50, None, None, None, None)
    user.SetForegroundWindow(ctypes.c_void_p(small))
    assert not windows_screen.fills(windows_screen.foremost())
    user.DestroyWindow(small)
    width, height = user.GetSystemMetrics(0), user.GetSystemMetrics(1)
    big = user.CreateWindowExW(0, "STATIC", "w", 0x90000000, 0, 0, width, height, None, None, None, None)
    user.SetForegroundWindow(ctypes.c_void_p(big))
    found = windows_screen.foremost()
    user.DestroyWindow(big)
    assert windows_screen.fills(found), found
    return f"notification state {state}; a window over all of {width}x{height} fills the screen, a small one does not"


def sound() -> str:
    sessions = windows_sound.active_sessions(playing=True)
    if sessions is None:
        return "the device is there, its sessions are not listed (Wine 8 lacks IAudioSessionManager2::GetSessionEnumerator)"
    return f"{len(sessions)} active sessions"


def network() -> str:
    cost = windows_network.cost()
    cards = windows_network.cards()
    return f"cost {cost}; {len(cards)} cards"


def sessions() -> str:
    return f"Windows {windows_sessions.version()}: {windows_sessions.log_ons()}"


def every_probe_answers() -> str:
    probes = native_probes()
    try:
        for _ in range(3):
            for probe in probes:
                probe.read(time.monotonic())
            time.sleep(1.0)
        lines: list[str] = []
        for probe in probes:
            began_s = time.perf_counter()
            for _ in range(100):
                reading = probe.read(time.monotonic())
            cost_us = (time.perf_counter() - began_s) * 1e4
            told = "" if reading.value is not None else f" ({reading.problem})"
            lines.append(f"{probe.capability().probe} {cost_us:.0f} us{told}")
    finally:
        probes.close()
    return ", ".join(lines)


def whole_watch() -> str:
    policy = Policy(
        input_idle_s=1.5, grace_s=0.2, calm_s=0.5, false_start_s=0.1, cpu_busy_ratio=1.0, cpu_free_ratio=0.99
    )
    took_ms: list[float] = []
    for _ in range(10):
        # Not a matter of load here: whoever else works on this machine.
        probes = dataclasses.replace(native_probes(), load=ScriptedProbes().probes.load)
        told: list[tuple[State, float]] = []
        with Monitor(policy, probes=probes) as monitor:
            monitor.on_change(lambda verdict, told=told: told.append((verdict.state, time.perf_counter())))
            wait_for(lambda told=told: bool(told) and told[-1][0] is State.IDLE, 60.0)
            time.sleep(0.3)
            began_s = time.perf_counter()
            inject()
            wait_for(lambda told=told: told[-1][0] is State.BUSY)
            took_ms.append((told[-1][1] - began_s) * 1000)
    took_ms.sort()
    assert took_ms[5] < 100, f"{took_ms}: polled, not told"
    return "idle -> SendInput -> busy: " + ", ".join(f"{took:.1f}" for took in took_ms) + " ms"


def rest() -> str:
    with Monitor():
        time.sleep(3.0)
        before = os.times()
        time.sleep(60.0)
        after = os.times()
    spent_s = after.user + after.system - before.user - before.system
    return f"{spent_s:.2f} CPU s in a minute of rest, {threading.active_count()} threads afterwards"


CHECKS = (
    last_input,
    raw_input,
    raw_input_latency,
    a_burst_is_few_events,
    the_program_keeps_its_raw_input,
    messages_of_windows,
    consent_store,
    processes,
    job_objects,
    memory,
    power,
    execution_state,
    sound,
    network,
    sessions,
    every_probe_answers,
    whole_watch,
    rest,
    screen,
)


def main() -> int:
    failed = 0
    wanted = sys.argv[1:]
    for check in CHECKS:
        if wanted and check.__name__ not in wanted:
            continue
        try:
            print(f"ok      {check.__name__.replace('_', ' ')}: {check()}", flush=True)
        except Exception as error:
            failed += 1
            line = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"FAILED  {check.__name__.replace('_', ' ')}: {error!r} (line {line.lineno} of {Path(line.filename).name})",
                flush=True,
            )
    print("all checks ran, " + (f"{failed} failed" if failed else "none failed"), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
