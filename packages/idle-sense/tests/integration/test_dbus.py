"""The connection to a message bus: against a real bus, and against servers that only look like one."""

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("a Linux machine has a message bus", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, Service, until

from idle_sense.platform.dbus import GIVE_UP_S, Bus
from idle_sense.platform.dbus_address import session_address, system_address, unix_path
from idle_sense.platform.dbus_answers import LOST, SILENCE
from idle_sense.platform.dbus_wire import call_bytes, take_message
from idle_sense.platform.local_socket import ServerProblem

WHO = ("org.example.Echo", "/org/example/Echo", "org.example.Echo")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def serve(daemon: Daemon) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(**replies: Callable) -> Service:
        started.append(Service(daemon.address, WHO[0], replies))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def misbehave(tmp_path: Path) -> Iterator[Callable[..., Misbehaving]]:
    started: list[Misbehaving] = []

    def start(*serve: Callable[[socket.socket], None]) -> Misbehaving:
        started.append(Misbehaving(tmp_path / "strange", *serve))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_question_is_answered_in_a_later_poll(daemon: Daemon, serve: Callable) -> None:
    serve(Echo=lambda message: ("s", (message.body[0] + "!",)))
    bus = Bus(daemon.address)
    call = bus.call(*WHO, "Echo", "s", ("hello",))
    assert not call.done, "nothing waits but poll"
    until(lambda: bus.poll(0.05) or call.done)
    assert (call.body, call.error) == (("hello!",), "")
    assert bus.ready
    assert bus.unique_name.startswith(":")
    bus.close()


def test_an_error_and_a_missing_service_are_told_by_name(daemon: Daemon, serve: Callable) -> None:
    serve()
    bus = Bus(daemon.address)
    unknown = bus.call(*WHO, "Other")
    nobody = bus.call("org.example.Nobody", "/", "org.example.Nobody", "Any")
    until(lambda: bus.poll(0.05) or (unknown.done and nobody.done))
    assert unknown.error == "org.freedesktop.DBus.Error.UnknownMethod"
    assert nobody.error in (
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
    )
    bus.close()


def test_a_signal_makes_the_socket_readable_and_is_taken_once(daemon: Daemon, serve: Callable) -> None:
    service = serve()
    bus = Bus(daemon.address)
    heard = bus.subscribe(sender=WHO[0], interface=WHO[2], member="Rang")
    other = bus.subscribe(sender=WHO[0], interface=WHO[2], member="Fell")
    until(lambda: bus.poll(0.05) or (bus.ready and not bus._calls))
    import select

    assert not select.select(bus.filenos(), [], [], 0)[0]
    service.emit(WHO[1], WHO[2], "Rang", "u", (7,))
    assert select.select(bus.filenos(), [], [], 30)[0]
    bus.poll()
    (signal_,) = heard.taken()
    assert (signal_.member, signal_.body) == ("Rang", (7,))
    assert heard.taken() == ()
    assert other.taken() == ()
    bus.close()


def test_a_flood_of_signals_keeps_the_latest_and_costs_no_memory(daemon: Daemon, serve: Callable) -> None:
    service = serve()
    bus = Bus(daemon.address)
    heard = bus.subscribe(sender=WHO[0])
    until(lambda: bus.poll(0.05) or (bus.ready and not bus._calls))
    for number in range(1500):
        service.emit(WHO[1], WHO[2], "Rang", "u", (number,))
    until(lambda: bus.poll() or (heard.heard and heard.heard[-1].body == (1499,)))
    assert len(heard.taken()) == 1000
    bus.close()


def test_who_holds_a_name_is_followed_through_its_restart(daemon: Daemon, serve: Callable) -> None:
    bus = Bus(daemon.address)
    name = bus.name(WHO[0])
    until(lambda: bus.poll(0.05) or name.known)
    assert name.owner == ""
    service = serve()
    until(lambda: bus.poll(0.05) or name.owner)
    first = name.owner
    service.close()
    until(lambda: bus.poll(0.05) or not name.owner)
    serve()
    until(lambda: bus.poll(0.05) or name.owner)
    assert name.owner != first
    assert bus.name(WHO[0]) is name
    bus.close()


def test_a_bus_that_restarts_is_dialled_anew_and_subscriptions_are_kept(
    daemon: Daemon, serve: Callable
) -> None:
    bus = Bus(daemon.address)
    heard, name = bus.subscribe(interface=WHO[2]), bus.name(WHO[0])
    serve(Wait=lambda _message: None)
    until(lambda: bus.poll(0.05) or name.owner)
    outstanding = bus.call(*WHO, "Wait")
    assert bus.generation == 1
    daemon.stop()
    until(lambda: bus.poll(0.05) or bus.problem)
    assert not bus.ready
    assert not name.known
    assert outstanding.error == LOST
    assert bus.call(*WHO, "Echo").error == LOST, "nobody to ask is an answer at once"
    daemon.start()
    service = serve()
    until(lambda: bus.poll(0.05) or name.owner)
    assert bus.generation == 2
    assert bus.problem == ""
    service.emit(WHO[1], WHO[2], "Rang")
    until(lambda: bus.poll(0.05) or heard.taken())
    bus.close()


def test_a_service_that_never_answers_costs_one_short_wait_and_fails_in_the_end(
    daemon: Daemon, serve: Callable
) -> None:
    serve(Wait=lambda _message: None, Echo=lambda _message: ("", ()))
    skew_s = [0.0]
    bus = Bus(daemon.address, now=lambda: time.monotonic() + skew_s[0])
    until(lambda: bus.poll(0.05) or bus.ready)
    call = bus.call(*WHO, "Wait")
    time.sleep(0.06)
    began_s = time.monotonic()
    for _ in range(100):
        bus.poll(0.05)
    assert time.monotonic() - began_s < 2.0, "only the first polls wait for it"
    assert not call.done
    skew_s[0] = GIVE_UP_S + 1
    bus.poll()
    assert call.error == SILENCE
    assert bus.ready, "the bus itself is well"
    echo = bus.call(*WHO, "Echo")
    until(lambda: bus.poll(0.05) or echo.done)
    assert not echo.failed
    bus.close()


def test_a_bus_that_hangs_is_dropped_in_the_end_and_serves_when_it_is_back(daemon: Daemon) -> None:
    skew_s = [0.0]
    bus = Bus(daemon.address, now=lambda: time.monotonic() + skew_s[0])
    until(lambda: bus.poll(0.05) or bus.ready)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        call = bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
        bus.poll(0.05)
        assert not call.done
        skew_s[0] += GIVE_UP_S + 1
        bus.poll(0.05)
        assert call.error == LOST
        assert bus.problem == "it does not answer"
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    skew_s[0] += 2
    until(lambda: bus.poll(0.05) or bus.ready)
    bus.close()


def test_a_server_that_accepts_and_never_answers_blocks_nobody(misbehave: Callable) -> None:
    server = misbehave()
    skew_s = [0.0]
    bus = Bus(f"unix:path={server.path}", now=lambda: time.monotonic() + skew_s[0])
    call = bus.call(*WHO, "Echo")
    began_s, cpu_s = time.monotonic(), time.thread_time()
    for _ in range(200):
        bus.poll(0.02)
    assert time.monotonic() - began_s < 2.0
    assert time.thread_time() - cpu_s < 1.0
    assert bus.problem == "it does not answer"
    skew_s[0] = GIVE_UP_S + 1
    bus.poll()
    assert call.error == LOST
    assert bus.filenos() == ()
    skew_s[0] += 2
    bus.poll()
    until(lambda: len(server.held) == 2)
    bus.close()


def test_a_server_whose_queue_of_connections_is_full_blocks_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.setblocking(False)
            first.connect(str(tmp_path / "full"))
            bus = Bus(f"unix:path={tmp_path}/full")
            bus.poll(0.05)
            assert bus.problem in ("it does not accept connections", "it does not answer", "")
            second = Bus(f"unix:path={tmp_path}/full")
            second.poll(0.05)
            assert second.problem == "it does not accept connections"
            bus.close()
            second.close()


GREETING = call_bytes(1, "org.example.Echo", "/a", "org.example.Echo", "Any", "s", ("x",), answered=True)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"REJECTED EXTERNAL\r\n",
        b"OK \r\nmore than was asked",
        b"x" * 10_000,
        b"",
        *(random.Random(seed).randbytes(3000) for seed in range(4)),
    ],
)
def test_a_server_that_greets_strangely_is_a_problem_and_no_crash(misbehave: Callable, said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    bus = Bus(f"unix:path={misbehave(serve).path}")
    until(lambda: bus.poll(0.05) or (bus.problem and not bus.filenos()))
    assert not bus.ready
    assert bus.refused == said.startswith(b"REJECTED")
    bus.close()


def header(kind: int, fields: bytes, body: bytes = b"", order: bytes = b"l") -> bytes:
    length = struct.pack("<I", len(fields))
    return (
        order
        + bytes([kind, 0, 1])
        + struct.pack("<II", len(body), 1)
        + length
        + fields
        + bytes(-len(fields) % 8)
        + body
    )


@pytest.mark.parametrize(
    "said",
    [
        *(random.Random(seed).randbytes(3000) for seed in range(4)),
        *(b"l\x02\x00\x01" + random.Random(seed).randbytes(3000) for seed in range(4)),
        header(2, b"\x05\x01u\x00\x01\x00\x00\x00") * 3,
        header(2, b"\x05\x01u\x00\x01\x00\x00\x00\x08\x01g\x00\x01s\x00", b"\xff\xff\xff\x7f"),
        header(3, b"\x08\x01g\x00\x03((("),
        header(4, b"\x09\x01u\x00\x01\x00\x00\x00"),
        b"l\x04\x00\x01" + b"\xff\xff\xff\x0f" * 3,
        GREETING[:20],
        GREETING,
    ],
)
def test_a_server_that_talks_nonsense_after_the_greeting_is_a_problem_and_no_crash(
    misbehave: Callable, said: bytes
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"OK 0123\r\n")
        connection.recv(4096)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    bus = Bus(f"unix:path={misbehave(serve).path}")
    call = bus.call(*WHO, "Echo")
    until(lambda: bus.poll(0.05) or (bus.problem and not bus.filenos()))
    assert not bus.ready
    assert call.done
    bus.close()


def test_a_connection_that_closes_midway_is_noticed_and_dialled_again(misbehave: Callable) -> None:
    server = misbehave(lambda connection: connection.shutdown(socket.SHUT_RDWR))
    skew_s = [0.0]
    bus = Bus(f"unix:path={server.path}", now=lambda: time.monotonic() + skew_s[0])
    for attempt in range(1, 4):
        until(lambda: bus.poll(0.05) or bus.problem)
        until(lambda count=attempt: len(server.held) == count)
        skew_s[0] += 2
        bus.problem = ""
    bus.close()


def test_nobody_at_the_address_is_absent_and_asked_seldom(tmp_path: Path) -> None:
    bus = Bus(f"unix:path={tmp_path}/none")
    bus.poll(0.05)
    assert bus.absent
    assert bus.problem == "nobody listens there"
    assert Bus("tcp:host=localhost").call(*WHO, "Echo").error == LOST


def test_closed_twice_and_used_again(daemon: Daemon) -> None:
    bus = Bus(daemon.address)
    until(lambda: bus.poll(0.05) or bus.ready)
    bus.close()
    bus.close()
    assert bus.filenos() == ()
    until(lambda: bus.poll(0.05) or bus.ready)
    bus.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
def test_root_is_let_in_to_a_users_bus_as_that_user() -> None:
    import tempfile
    import threading

    # Not below pytest's own folder, which is closed to other users.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    os.chown(folder, 65534, 65534)
    process = subprocess.Popen(
        [
            "dbus-daemon",
            "--session",
            "--nofork",
            "--nopidfile",
            f"--address=unix:path={folder}/bus",
            "--print-address",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        as_root, as_them = Bus(f"unix:path={folder}/bus"), Bus(f"unix:path={folder}/bus", as_user=65534)
        until(lambda: as_them.poll(0.05) or as_them.ready)
        until(lambda: as_root.poll(0.05) or as_root.ready or as_root.refused)
        assert as_root.refused
        seen: list[int] = []
        threading.Thread(target=lambda: seen.append(os.geteuid())).start()
        until(lambda: seen)
        assert (os.geteuid(), seen) == (0, [0])
        as_root.close()
        as_them.close()
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stdout.close()
        shutil.rmtree(folder)


def test_addresses_are_read_as_the_specification_writes_them() -> None:
    assert unix_path("unix:path=/run/user/1000/bus,guid=0123") == "/run/user/1000/bus"
    assert unix_path("tcp:host=a,port=1;unix:abstract=/tmp/a%2cb") == "\0/tmp/a,b"
    assert unix_path("unix:tmpdir=/tmp") is None
    assert unix_path("") is None
    assert unix_path("unix:path=/a%zz") == "/a%zz"
    assert session_address({}, 1000) == "unix:path=/run/user/1000/bus"
    assert session_address({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/b"}, 1000) == "unix:path=/b"
    assert system_address({}).startswith("unix:path=/")


def test_messages_cut_anywhere_are_waited_for_and_taken_whole() -> None:
    for cut in range(len(GREETING)):
        buffer = bytearray(GREETING[:cut])
        assert take_message(buffer) is None
        buffer += GREETING[cut:] + GREETING[:3]
        message = take_message(buffer)
        assert message is not None
        assert (message.kind, message.member, message.body) == ("method_call", "Any", ("x",))
        assert bytes(buffer) == GREETING[:3]


def test_bytes_changed_anywhere_are_a_message_or_a_problem() -> None:
    source = random.Random(5)
    problems = 0
    for _ in range(3000):
        data = bytearray(GREETING)
        for _ in range(source.randrange(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            take_message(data)
        except ServerProblem:
            problems += 1
    assert problems > 100
