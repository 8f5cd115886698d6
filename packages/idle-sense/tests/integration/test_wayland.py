"""What is Wayland's own: versions, inhibitors, seats that come and go, compositors that tell nothing or talk nonsense."""

import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are the desktops of a Linux machine", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, until
from fake_compositor import Compositor, message, text, words
from fake_mutter import NAME, PATH, Mutter

from idle_sense.facts import Seat
from idle_sense.platform.dbus import Bus
from idle_sense.platform.display_client import GIVE_UP_S
from idle_sense.platform.displays import Displays, Places
from idle_sense.platform.mutter import MutterIdle
from idle_sense.platform.wayland import IdleClient


@pytest.fixture
def compositor(tmp_path: Path) -> Iterator[Callable[..., Compositor]]:
    started: list[Compositor] = []

    def start(name: str = "wayland-0", **how) -> Compositor:
        folder = tmp_path / "1000"
        folder.mkdir(exist_ok=True)
        started.append(Compositor(folder / name, **how))
        return started[-1]

    yield start
    for one in started:
        one.stop()
        assert one.violations == []


def looking(folder: Path, environ: dict[str, str] | None = None, **more: str) -> Displays:
    places = Places(
        sockets="/nonexistent", sessions="/nonexistent", runtimes=str(folder), classes="/nonexistent"
    )
    return Displays(environ=environ or {}, places=places._replace(**more))


def session(folder: Path, **facts: object) -> str:
    (folder / "sessions").mkdir(exist_ok=True)
    facts = {"USER": "ada", "UID": 1000, "CLASS": "user", "TYPE": "wayland", "ACTIVE": 1} | facts
    (folder / "sessions" / "3").write_text("".join(f"{key}={value}\n" for key, value in facts.items()))
    return str(folder / "sessions")


def seats_of(displays: Displays) -> tuple[Seat, ...]:
    seats = displays.read(time.monotonic()).value
    assert seats is not None
    return seats


def idle_s(client: IdleClient) -> float:
    client.poll(0.05)
    return -1.0 if client.answer is None else client.answer.idle_s


def test_version_2_counts_input_alone_while_a_program_keeps_the_screen_on(compositor: Callable) -> None:
    server = compositor()
    client = IdleClient(str(server.path))
    server.inhibit(inhibited=True)
    until(lambda: idle_s(client) > 1.5)
    assert client.input_alone
    assert client.protocol == "ext_idle_notifier_v1 2"
    server.use()
    until(lambda: 0 <= idle_s(client) < 1.0)
    client.close()


@pytest.mark.parametrize("protocol", ["ext_idle_notifier_v1", "org_kde_kwin_idle"])
def test_with_version_1_a_program_that_keeps_the_screen_on_counts_as_somebody_and_is_said(
    compositor: Callable, tmp_path: Path, protocol: str
) -> None:
    """The protocol cannot tell the two apart: what is not known is busy."""
    server = compositor(protocol=protocol, version=1)
    displays = looking(tmp_path)

    def value() -> float | None:
        (seat,) = seats_of(displays)
        return seat.idle_s.value

    until(lambda: (value() or 0) > 1.5)
    server.inhibit(inhibited=True)
    until(lambda: value() == 0.0)
    end_s = time.monotonic() + 1.5
    while time.monotonic() < end_s:
        assert value() == 0.0
        time.sleep(0.05)
    (seat,) = seats_of(displays)
    assert "keeps the screen on" in seat.idle_s.problem
    assert "version 2" in seat.idle_s.advice
    server.inhibit(inhibited=False)
    until(lambda: (value() or 0) > 1.0)
    displays.close()


def test_what_was_before_the_connection_is_not_claimed(compositor: Callable) -> None:
    """The compositor has been idle for long; a new client may only count from its own start."""
    server = compositor()
    time.sleep(0.5)
    client = IdleClient(str(server.path))
    began_s = time.monotonic()
    while time.monotonic() - began_s < 2.0:
        assert idle_s(client) <= time.monotonic() - began_s + 0.1
        time.sleep(0.05)
    assert idle_s(client) > 1.0
    client.close()


def test_the_seat_that_was_used_last_counts_also_when_one_comes_and_goes(compositor: Callable) -> None:
    server = compositor(seats=2)
    client = IdleClient(str(server.path))
    until(lambda: idle_s(client) > 1.2)
    server.add_global(12, "wl_seat", 7)
    # A new one has not been watched for long.
    until(lambda: 0 <= idle_s(client) < 1.0 and len(client._notifications) == 3)
    until(lambda: idle_s(client) > 1.2)
    for name in (10, 12):
        server.remove_global(name)
    until(lambda: idle_s(client) > 1.2 and len(client._notifications) == 1)
    server.remove_global(11)
    until(lambda: idle_s(client) == -1.0)
    assert "no seat" in client.problem
    client.close()


def test_ids_are_used_again_however_long_it_runs(compositor: Callable) -> None:
    server = compositor()
    client = IdleClient(str(server.path))
    until(lambda: idle_s(client) >= 0)
    for _ in range(300):
        client.poll(0.05)
    assert client._next_id < 20
    client.close()


def test_a_compositor_that_tells_no_idleness_counts_as_busy_and_says_what_to_do(
    compositor: Callable, tmp_path: Path
) -> None:
    server = compositor(protocol="")
    displays = looking(tmp_path)

    def lacking() -> bool:
        (seat,) = seats_of(displays)
        return "no protocol" in seat.idle_s.problem

    until(lacking)
    (seat,) = seats_of(displays)
    assert seat.idle_s.value is None
    assert "ext-idle-notify" in seat.idle_s.advice
    until(lambda: server.clients == 0), "it is not held open for nothing"
    displays.close()


def test_a_notifier_that_goes_away_is_missed(compositor: Callable) -> None:
    server = compositor()
    client = IdleClient(str(server.path))
    until(lambda: idle_s(client) >= 0)
    server.remove_global(3)
    until(lambda: idle_s(client) == -1.0)
    assert "no more" in client.problem
    client.close()


def test_a_socket_that_nobody_serves_is_no_desktop(tmp_path: Path) -> None:
    """As one that a compositor left when it crashed."""
    (tmp_path / "1000").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "1000" / "wayland-0"))
    displays = looking(tmp_path)
    assert seats_of(displays) == ()
    displays.close()


def test_a_desktop_whose_socket_cannot_be_seen_counts_as_busy(tmp_path: Path) -> None:
    displays = looking(tmp_path, sessions=session(tmp_path))
    (seat,) = seats_of(displays)
    assert seat.name == "Wayland session 3 of ada"
    assert "cannot be seen from here" in seat.idle_s.problem
    assert "own session" in seat.idle_s.advice
    displays.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("closed", ["folder", "socket"])
def test_a_desktop_of_another_user_counts_as_busy_and_says_how_to_see_it(
    compositor: Callable, closed: str
) -> None:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "1000").mkdir()
    server = Compositor(folder / "1000" / "wayland-0")
    (folder / "1000").chmod(0o700 if closed == "folder" else 0o755)
    server.path.chmod(0o700)
    displays = looking(folder, sessions=session(folder))
    os.seteuid(65534)
    try:
        until(lambda: seats_of(displays)[0].idle_s.problem)
        (seat,) = seats_of(displays)
    finally:
        os.seteuid(0)
    assert seat.idle_s.value is None
    assert "own user (ada), or as root" in seat.idle_s.advice
    until(lambda: (seats_of(displays)[0].idle_s.value or 0) > 1.0)
    displays.close()
    server.stop()
    shutil.rmtree(folder)


def test_a_compositor_that_a_guest_started_is_no_seat(compositor: Callable, tmp_path: Path) -> None:
    compositor()
    places = Places(
        sockets="/nonexistent", sessions="/nonexistent", runtimes=str(tmp_path), classes="/nonexistent"
    )
    displays = Displays(is_guest=lambda pid: pid == os.getpid(), environ={}, places=places)
    assert seats_of(displays) == ()
    displays.close()


def test_a_compositor_inside_a_desktop_does_not_hide_who_sits_at_the_desktop(
    compositor: Callable, tmp_path: Path
) -> None:
    outer, inner = compositor(), compositor("wayland-1")
    displays = looking(tmp_path, sessions=session(tmp_path))

    def value() -> float:
        (seat,) = seats_of(displays)
        return -1.0 if seat.idle_s.value is None else seat.idle_s.value

    for used in (outer, inner):
        until(lambda: value() > 1.2)
        used.use()
        until(lambda: 0 <= value() < 1.0)
    displays.close()


def test_the_socket_that_the_environment_names_is_asked(compositor: Callable, tmp_path: Path) -> None:
    server = compositor("my-own-name")
    runtime = str(server.path.parent)
    environ = {"XDG_RUNTIME_DIR": runtime, "WAYLAND_DISPLAY": "my-own-name"}
    displays = looking(tmp_path, environ, sessions=session(tmp_path, UID=os.getuid()))
    until(lambda: (seats_of(displays)[0].idle_s.value or 0) > 1.0)
    displays.close()


@pytest.mark.parametrize(
    "said",
    [
        *(random.Random(seed).randbytes(3000) for seed in range(6)),
        message(1, 0, words(1, 3) + text("no such object")),
        message(1, 0, words(1, 3, 4000)),
        message(2, 0, words(9, 0xFFFFFFF0, 1)),
        message(2, 0, words(9)),
        words(2, 4 << 16),
        words(2, 9 << 16) + b"123",
        b"",
    ],
)
def test_what_a_strange_compositor_says_is_a_problem_and_no_crash(tmp_path: Path, said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    server = Misbehaving(tmp_path / "wayland-0", serve)
    client = IdleClient(server.path)
    until(lambda: client.poll(0.05) or client.problem not in ("", "it does not answer"))
    assert client.answer is None
    assert list(client.filenos()) == []
    client.close()
    server.close()


def test_a_compositor_that_accepts_and_never_answers_is_tried_anew_in_the_end(tmp_path: Path) -> None:
    server = Misbehaving(tmp_path / "wayland-0")
    skew_s = [0.0]
    client = IdleClient(server.path, now=lambda: time.monotonic() + skew_s[0])
    began_s = time.monotonic()
    for _ in range(50):
        client.poll(0.02)
    assert time.monotonic() - began_s < 2.0, "only the first polls wait"
    assert client.problem == "it does not answer"
    skew_s[0] = GIVE_UP_S + 1
    client.poll(0.0)
    assert "no answer for" in client.problem
    skew_s[0] += 5
    client.poll(0.0)
    until(lambda: len(server.held) == 2)
    client.close()
    server.close()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    started.stop()


def test_a_watch_that_somebody_else_set_wakes_and_changes_nothing(bus: Daemon) -> None:
    """Signals can be forged, and be meant for others."""
    mutter = Mutter(bus.address)
    client = MutterIdle(Bus(bus.address))
    until(lambda: client.poll(0.05) or (client._watch is not None and client._watch.done))
    assert client.answer is not None
    mutter.service.emit(PATH, NAME, "WatchFired", "u", (4711,))  # type: ignore[union-attr]
    until(lambda: client.poll(0.05) or not client._fired.heard)
    until(lambda: client.poll(0.05) or client.age_s(client.answer) < 0.5)
    assert client.answer.idle_s > 0.9
    client.close()
    mutter.stop()


def test_a_mutter_that_answers_with_nonsense_tells_nothing(bus: Daemon) -> None:
    mutter = Mutter(bus.address)
    client = MutterIdle(Bus(bus.address))
    for reply in (lambda _m: ("s", ("soon",)), lambda _m: ("", ()), lambda _m: ("x", (-1,))):
        mutter.service.replies["GetIdletime"] = reply  # type: ignore[union-attr]
        until(lambda: client.poll(0.05) or "does not tell" in client.problem)
        client.problem = ""
    assert client.answer is None
    client.close()
    mutter.stop()


def test_a_bus_without_mutter_is_told_apart_from_one_that_is_silent(bus: Daemon) -> None:
    client = MutterIdle(Bus(bus.address))
    until(lambda: client.poll(0.05) or client.absent)
    nowhere = MutterIdle(Bus(f"unix:path={bus.path}-none"))
    nowhere.poll(0.05)
    assert nowhere.absent
    silent = Misbehaving(bus.path.parent / "silent")
    waiting = MutterIdle(Bus(f"unix:path={silent.path}"))
    until(lambda: waiting.poll(0.05) or waiting.problem)
    assert not waiting.absent
    for one in (client, nowhere, waiting, silent):
        one.close()
