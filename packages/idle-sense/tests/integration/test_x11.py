"""The X11 back end against a real X server, and against servers that misbehave."""

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from idle_sense import Seat
from idle_sense.platform.displays import Displays, Places
from idle_sense.platform.x11 import GIVE_UP_S, IdleClient

if sys.platform != "linux":
    pytest.skip("these are the displays of a Linux machine", allow_module_level=True)


def only(displays: Displays, name: str) -> Seat | None:
    """The seat of that name: others that this machine may have are not the test's affair."""
    seats = displays.read(time.monotonic()).value
    assert seats is not None
    return next((seat for seat in seats if seat.name == name), None)


def looking(environ: dict[str, str], **more: str) -> Displays:
    """No logind sessions and no Wayland folders but those of the test."""
    places = Places(sessions="/nonexistent", runtimes="/nonexistent")._replace(**more)
    return Displays(environ=environ, places=places)


def test_a_key_and_a_movement_of_the_mouse_start_the_idle_time_anew(
    start_x: Callable, eventually: Callable
) -> None:
    server = start_x()
    displays = looking({"DISPLAY": server.name})

    def idle_s() -> float:
        seat = only(displays, server.name)
        assert seat is not None
        return -1.0 if seat.idle_s.value is None else seat.idle_s.value

    for action in (["key", "a"], ["mousemove", "7", "8"], ["click", "1"]):
        eventually(lambda: idle_s() > 0.5)
        server.press(*action)
        eventually(lambda: 0 <= idle_s() < 0.5)
    displays.close()


def test_an_idle_display_grows_older_by_the_time_that_passes(start_x: Callable, eventually: Callable) -> None:
    server = start_x()
    displays = looking({"DISPLAY": server.name})
    eventually(lambda: only(displays, server.name).idle_s.value is not None)  # type: ignore[union-attr]
    first = only(displays, server.name)
    began_s = time.monotonic()
    time.sleep(0.5)
    second = only(displays, server.name)
    passed_s = time.monotonic() - began_s
    assert first is not None
    assert second is not None
    assert first.idle_s.value is not None
    assert second.idle_s.value is not None
    grown_s = second.idle_s.value - first.idle_s.value
    assert 0.4 < grown_s < passed_s + 1.0


def test_a_display_is_found_by_its_socket_though_nobody_names_it(
    start_x: Callable, eventually: Callable
) -> None:
    server = start_x()
    displays = looking({})
    eventually(lambda: getattr(only(displays, server.name), "idle_s", None) is not None)
    eventually(lambda: only(displays, server.name).idle_s.value is not None)  # type: ignore[union-attr]


def test_a_display_server_that_ends_is_no_seat_any_more(start_x: Callable, eventually: Callable) -> None:
    server = start_x()
    displays = looking({})
    eventually(lambda: only(displays, server.name) is not None)
    server.process.terminate()
    server.process.wait(timeout=30)
    eventually(lambda: only(displays, server.name) is None)


def test_a_display_that_the_environment_names_and_nobody_serves_counts_as_busy(tmp_path: Path) -> None:
    displays = looking({"DISPLAY": ":4711"}, sockets=str(tmp_path))
    seat = only(displays, ":4711")
    assert seat is not None
    assert seat.idle_s.value is None
    assert "unset DISPLAY" in seat.idle_s.advice


def test_a_display_forwarded_over_ssh_is_no_seat_of_this_machine(tmp_path: Path) -> None:
    displays = looking({"DISPLAY": "localhost:10.0"}, sockets=str(tmp_path))
    assert displays.read(0.0).value == ()


def test_a_display_that_a_guest_opened_is_no_seat(start_x: Callable) -> None:
    server = start_x()
    displays = Displays(
        is_guest=lambda pid: pid == server.process.pid,
        environ={},
        places=Places(sessions="/nonexistent", runtimes="/nonexistent"),
    )
    assert only(displays, server.name) is None


def authority(path: Path, cookie: bytes) -> None:
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", cookie)
    path.write_bytes(struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(f)) + f for f in fields))


def test_a_display_with_a_cookie_opens_to_who_can_read_the_servers_own_file(
    start_x: Callable, eventually: Callable, tmp_path: Path
) -> None:
    authority(tmp_path / "right", os.urandom(16))
    server = start_x("-auth", str(tmp_path / "right"))
    authority(tmp_path / "wrong", os.urandom(16))
    displays = looking({"XAUTHORITY": str(tmp_path / "wrong")})
    eventually(lambda: getattr(only(displays, server.name), "idle_s", None) is not None)
    eventually(lambda: only(displays, server.name).idle_s.value is not None)  # type: ignore[union-attr]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_display_of_another_user_counts_as_busy_and_says_how_to_open_it(
    start_x: Callable, eventually: Callable, tmp_path: Path
) -> None:
    """As `nobody`, who may neither read the cookie nor is let in by name."""
    authority(tmp_path / "secret", os.urandom(16))
    (tmp_path / "secret").chmod(0o600)
    server = start_x("-auth", str(tmp_path / "secret"))
    client = IdleClient(f"/tmp/.X11-unix/X{server.number}", cookies=lambda _pid: [b"0123456789abcdef"])
    os.seteuid(65534)
    try:
        eventually(lambda: client.poll(0.05) or client.refused)
        displays = looking({"XAUTHORITY": "/nonexistent"})
        eventually(lambda: "does not let this user in" in only(displays, server.name).idle_s.problem)  # type: ignore[union-attr]
        seat = only(displays, server.name)
    finally:
        os.seteuid(0)
    assert seat is not None
    assert seat.idle_s.value is None
    assert "xhost" in seat.idle_s.advice


def write_session(folder: Path, name: str, **values: str) -> None:
    (folder / name).write_text("".join(f"{key}={value}\n" for key, value in values.items()))


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"CLASS": "user", "TYPE": "wayland", "ACTIVE": "1"}, True),
        ({"CLASS": "user", "TYPE": "wayland", "ACTIVE": "0"}, False),
        ({"CLASS": "user", "TYPE": "wayland", "ACTIVE": "0", "REMOTE": "1"}, True),
        ({"CLASS": "greeter", "TYPE": "wayland", "ACTIVE": "1"}, False),
        ({"CLASS": "user", "TYPE": "x11", "ACTIVE": "1", "DISPLAY": ":77"}, True),
        ({"CLASS": "greeter", "TYPE": "x11", "ACTIVE": "1", "DISPLAY": ":77"}, False),
        ({"CLASS": "user", "TYPE": "tty", "ACTIVE": "1"}, False),
    ],
)
def test_a_session_whose_input_cannot_be_read_counts_where_somebody_may_sit_at_it(
    tmp_path: Path, facts: dict[str, str], counts: bool
) -> None:
    (tmp_path / "sessions").mkdir()
    write_session(tmp_path / "sessions", "3", USER="ada", **facts)
    displays = looking({}, sessions=str(tmp_path / "sessions"), sockets=str(tmp_path / "none"))
    seats = displays.read(0.0).value
    assert seats is not None
    assert len(seats) == counts
    for seat in seats:
        assert seat.idle_s.value is None
        assert seat.idle_s.problem
        assert seat.idle_s.advice


def test_a_wayland_desktop_without_logind_is_found_by_its_socket(tmp_path: Path) -> None:
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000" / "wayland-0").touch()
    (tmp_path / "1000" / "wayland-0.lock").touch()
    displays = looking({}, runtimes=str(tmp_path), sockets=str(tmp_path / "none"))
    (seat,) = displays.read(0.0).value or ()
    assert "no back end for Wayland yet" in seat.idle_s.problem


def test_the_display_beside_a_wayland_desktop_is_not_even_asked(tmp_path: Path, start_x: Callable) -> None:
    """Asking would start the desktop's X server, and its answer would be wrong."""
    server = start_x()
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000" / "wayland-0").touch()
    displays = looking({}, runtimes=str(tmp_path))
    assert only(displays, server.name) is None
    assert displays._clients == {}


class Misbehaving:
    """A server at a Unix socket that does with each connection what it is told."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._serve = serve
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._held.append(connection)
                self._serve(connection)

    def close(self) -> None:
        for one in (self._listener, *self._held):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(timeout=10)


@pytest.fixture
def misbehave(tmp_path: Path) -> Iterator[Callable[..., Misbehaving]]:
    started: list[Misbehaving] = []

    def start(serve: Callable[[socket.socket], None] = lambda _connection: None) -> Misbehaving:
        started.append(Misbehaving(tmp_path / "X9", serve))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_server_that_accepts_and_never_answers_blocks_nobody(misbehave: Callable, tmp_path: Path) -> None:
    misbehave()
    displays = looking({}, sockets=str(tmp_path))
    cpu_began_s, polls = time.thread_time(), 20
    worst_s = 0.0
    for _ in range(polls):
        began_s = time.monotonic()
        seat = only(displays, ":9")
        worst_s = max(worst_s, time.monotonic() - began_s)
        assert seat is not None
        assert seat.idle_s.value is None
    assert seat is not None
    assert "does not answer" in seat.idle_s.problem
    # The bound is 50 ms a look; the rest is leave for a machine that is busy with other tests.
    assert worst_s < 2.0
    assert (time.thread_time() - cpu_began_s) / polls < 0.02, "it waits without computing"


def test_a_server_that_owes_an_answer_for_long_is_tried_anew(tmp_path: Path, misbehave: Callable) -> None:
    accepted: list[socket.socket] = []
    server = misbehave(accepted.append)
    now = [100.0]
    client = IdleClient(server.path, now=lambda: now[0])
    client.poll(0.0)
    now[0] += GIVE_UP_S + 0.1
    client.poll(0.0)
    assert "no answer" in client.problem
    now[0] += 5.0
    client.poll(0.0)
    deadline_s = time.monotonic() + 30
    while len(accepted) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_server_that_hangs_after_it_served_grows_old(start_x: Callable, eventually: Callable) -> None:
    server = start_x()
    displays = looking({})
    eventually(lambda: getattr(only(displays, server.name), "idle_s", None) is not None)
    eventually(lambda: only(displays, server.name).idle_s.value is not None)  # type: ignore[union-attr]
    server.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: only(displays, server.name).idle_s.age_s > 3.0)  # type: ignore[union-attr]
        seat = only(displays, server.name)
        assert seat is not None
        assert "does not answer" in seat.idle_s.problem
    finally:
        server.process.send_signal(signal.SIGCONT)
    eventually(lambda: only(displays, server.name).idle_s.age_s < 1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
        b"\x01" + bytes(100),
        b"\x01\x00\x0b\x00\x00\x00\xff\xff" + bytes(100),
        b"\x00\x04\x0b\x00\x00\x00\x01\x00nope",
        *(bytes([first]) + random.Random(first).randbytes(2000) for first in (0, 1, 2, 35, 255)),
        b"\x01\x00\x0b\x00\x00\x00\x01\x00" + bytes(4),
        b"\x01\x00\x0b\x00\x00\x00\x09\x00" + bytes(16) + b"\xff\xff" + bytes(30),
    ],
)
def test_what_a_strange_server_says_is_a_problem_and_no_crash(misbehave: Callable, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    client = IdleClient(misbehave(serve).path)
    deadline_s = time.monotonic() + 30
    while not client.problem:
        assert time.monotonic() < deadline_s
        client.poll(0.05)
    assert client.answer is None
    client.close()


def test_a_whole_sample_is_cheap(start_x: Callable, eventually: Callable) -> None:
    """300 µs on a machine at rest; the quickest of many here, as other tests run beside it."""
    server = start_x()
    program = """
import time
from idle_sense import Monitor, Policy
monitor = Monitor(Policy.desktop())
best = 1.0
for _ in range(300):
    began = time.perf_counter()
    monitor.check()
    best = min(best, time.perf_counter() - began)
    time.sleep(0.001)
print(best)
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"DISPLAY": server.name},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert float(told.stdout) < 0.001
