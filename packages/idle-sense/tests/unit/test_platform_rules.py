"""The rules of macOS's seats, which need no Mac, and what Linux keeps in files."""

import os
import struct
import time
from pathlib import Path

import pytest

from idle_sense.platform import logind, x11
from idle_sense.platform.macos import MacSeats


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
