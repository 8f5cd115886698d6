"""The rules of Windows' and macOS's files that need neither system, and what Linux keeps in files."""

import ctypes
import os
import struct
import time
from pathlib import Path

import pytest

from idle_sense.platform import logind, x11
from idle_sense.platform.macos import MacSeats
from idle_sense.platform.windows import (
    LastInputInfo,
    SessionInfo,
    SessionTimes,
    WindowsSeats,
    idle_of_times,
    idle_since,
)


@pytest.mark.parametrize(
    ("last", "now", "idle_s"),
    [
        (1_000, 5_000, 4.0),
        (0xFFFFFC18, 1_000, 2.0),  # the count began again in between
        (5_001, 5_000, 0.0),  # stamped after the count was read
        (0, 0x7FFFFFFF, 2147483.647),
    ],
)
def test_windows_ticks_survive_their_wrap_after_49_days(last: int, now: int, idle_s: float) -> None:
    assert idle_since(last, now) == pytest.approx(idle_s)


def test_windows_says_nothing_for_a_session_without_a_time_of_last_input() -> None:
    assert idle_of_times(0, 10**17) is None
    assert idle_of_times(10**17 - 5 * 10**7, 10**17) == pytest.approx(5.0)
    assert idle_of_times(10**17 + 1, 10**17) is None


def test_windows_structures_have_the_sizes_of_its_headers() -> None:
    """64-bit: winuser.h and wtsapi32.h; the union of LARGE_INTEGERs begins on 8 bytes."""
    assert ctypes.sizeof(LastInputInfo) == 8
    assert ctypes.sizeof(SessionInfo) == (24 if struct.calcsize("P") == 8 else 12)
    assert SessionTimes.last_input.offset == 192
    assert ctypes.sizeof(SessionTimes) == 216


def windows(own: int, others: dict[int, float | None]) -> WindowsSeats:
    return WindowsSeats(
        own_session=lambda: own,
        own_idle_s=lambda: 42.0,
        active_sessions=lambda: [0, own, *others],
        session_idle_s=lambda session: others[session],
    )


def test_a_windows_service_says_that_it_cannot_see_the_keyboard() -> None:
    (seat,) = windows(0, {}).read(0.0).value or ()
    assert seat.idle_s.value is None
    assert "not as a service" in seat.idle_s.advice


def test_another_windows_user_at_work_counts() -> None:
    own, told, silent = windows(1, {2: 7.0, 3: None}).read(0.0).value or ()
    assert own.idle_s.value == 42.0
    assert told.idle_s.value == 7.0
    assert silent.idle_s.value is None


def test_windows_calls_that_fail_are_a_missing_reading() -> None:
    def refused() -> int:
        raise OSError("access is denied")

    seats = WindowsSeats(
        own_session=refused,
        own_idle_s=lambda: 0.0,
        active_sessions=list,
        session_idle_s=lambda _session: None,
    )
    assert seats.read(0.0).value is None


@pytest.mark.parametrize(
    ("registry_s", "event_s", "idle_s"),
    [(10.0, 3.0, 3.0), (3.0, 10.0, 3.0), (3.0, -1.0, 3.0), (3.0, float("inf"), 3.0), (None, 500.0, None)],
)
def test_a_mac_takes_the_smaller_of_two_and_trusts_no_nonsense(
    registry_s: float | None, event_s: float, idle_s: float | None
) -> None:
    seats = MacSeats(registry_idle_s=lambda: registry_s, event_idle_s=lambda: event_s)
    (seat,) = seats.read(0.0).value or ()
    assert seat.idle_s.value == idle_s


def write_session(folder: Path, name: str, **values: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(
        "# This is private data. Do not parse.\n" + "".join(f"{k}={v}\n" for k, v in values.items())
    )


def test_logind_sessions_are_read_from_their_files(tmp_path: Path) -> None:
    write_session(
        tmp_path, "c1", UID="120", USER="gdm", ACTIVE="1", STATE="active", CLASS="greeter", TYPE="wayland"
    )
    write_session(
        tmp_path, "3", USER="ada", ACTIVE="1", STATE="active", CLASS="user", TYPE="x11", DISPLAY=":0"
    )
    write_session(tmp_path, "4", USER="ada", STATE="closing", CLASS="user", TYPE="tty")
    (tmp_path / "3.ref").write_text("TYPE=wayland\n")
    greeter, desktop = sorted(logind.sessions(str(tmp_path)), key=lambda session: session.role)
    assert (greeter.role, greeter.kind, greeter.graphical) == ("greeter", "wayland", True)
    assert (desktop.user, desktop.display, desktop.active, desktop.remote) == ("ada", ":0", True, False)


def test_a_machine_without_logind_has_no_sessions(tmp_path: Path) -> None:
    assert logind.sessions(str(tmp_path / "nothing")) == ()


def authority_entry(family: int, host: bytes, number: bytes, data: bytes) -> bytes:
    fields = (host, number, x11.COOKIE_NAME, data)
    return struct.pack(">H", family) + b"".join(struct.pack(">H", len(field)) + field for field in fields)


def test_cookies_are_those_of_the_display_with_this_hosts_first(tmp_path: Path) -> None:
    import socket

    file = tmp_path / "authority"
    file.write_bytes(
        authority_entry(256, b"an old name of this host", b"0", b"old")
        + authority_entry(256, os.fsencode(socket.gethostname()), b"1", b"other display")
        + authority_entry(256, os.fsencode(socket.gethostname()), b"0", b"here")
        + authority_entry(0xFFFF, b"", b"", b"wild")[:-2]  # cut off in the middle
    )
    cookies = x11.cookies_in(str(file), 0)
    assert cookies[0] == b"here"
    assert b"old" in cookies
    assert b"other display" not in cookies


def test_an_authority_file_of_noise_gives_no_cookie_and_no_error(tmp_path: Path) -> None:
    file = tmp_path / "authority"
    file.write_bytes(os.urandom(4096))
    assert x11.cookies_in(str(file), 0) == []
    assert x11.cookies_in(str(tmp_path / "none"), 0) == []


def test_sleep_is_told_apart_from_waking_time() -> None:
    from idle_sense import platform

    system = platform.current()
    before_s, clock_s = system.suspended_s(), time.monotonic()
    assert before_s >= 0
    assert abs(system.suspended_s() - before_s) <= time.monotonic() - clock_s + 0.01
