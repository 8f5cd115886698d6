"""Who records and who plays: real sound servers, files of sound cards, and servers that misbehave."""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are Linux's sound servers", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, until
from fake_sound import RUNNING, PipeWire, PulseAudio, Server, card

from idle_sense.platform import pulse_wire as wire
from idle_sense.platform.pulse import REFRESH_S, SoundServer
from idle_sense.platform.sound import CARDS_EVERY_S, LOOK_AROUND_S, Places, Sound
from idle_sense.probes.bundle import Untold
from idle_sense.probes.calls import EVERY_S, SOON_S, CallsProbe


@pytest.fixture(params=["pulseaudio", "pipewire"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "pulseaudio":
        started: Server = PulseAudio(tmp_path)
        yield started
        started.stop()
        return
    daemon = Daemon(tmp_path)
    try:
        started = PipeWire(tmp_path, daemon.address)
        yield started
        started.stop()
    finally:
        daemon.stop()


class Bench:
    def __init__(self, folder: Path, server: Server | None = None) -> None:
        self.now_s = 1000.0
        self.guests: set[int] = set()
        self.asound = folder / "asound"
        self.runtimes = folder / "run" if server is None else server.runtimes
        self.proc = folder / "proc"
        self.sound = Sound(
            is_guest=lambda pid: pid in self.guests,
            environ={"HOME": str(folder)},
            places=Places(
                asound=str(self.asound),
                runtimes=str(self.runtimes),
                system_server=str(folder / "none"),
                proc="/proc" if server is not None else str(self.proc),
            ),
            now=self.clock,
        )

    def clock(self) -> float:
        return self.now_s + time.monotonic()

    def read(self):
        return self.sound.read(self.clock())

    def recording(self) -> tuple[str, ...] | None:
        value = self.read().value
        return None if value is None else value.recording

    def playing(self) -> tuple[str, ...] | None:
        value = self.read().value
        return None if value is None else value.playing

    def process(self, pid: int, name: str, uid: int = 1000) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(f"Name:\t{name}\nTgid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")


def test_a_program_that_records_is_named_at_once_and_gone_with_it(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    until(lambda: bench.recording() == ())
    call = server.record()
    assert select.select(list(bench.sound.filenos()), [], [], 30)[0], "the server tells of it"
    until(lambda: bench.recording() == ("parecord",))
    call.kill()
    until(lambda: bench.recording() == ())
    bench.sound.close()


def test_what_is_played_is_told_and_recording_it_is_no_call(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    film = server.play()
    until(lambda: bench.playing() == ("pacat",))
    server.record("out.monitor")
    time.sleep(0.5)
    until(lambda: bench.playing() == ("pacat",))
    assert bench.recording() == (), "it hears a film, and no microphone"
    film.kill()
    until(lambda: bench.playing() == ())
    bench.sound.close()


def test_paused_and_muted_programs_are_silent(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    server.play()
    until(lambda: bench.playing() == ("pacat",))
    told = subprocess.run(
        ["pactl", "list", "short", "sink-inputs"],
        env=server.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    index = told.stdout.split()[0]
    assert server.tell("set-sink-input-mute", index, "1")
    until(lambda: bench.playing() == ())
    assert server.tell("set-sink-input-mute", index, "0")
    until(lambda: bench.playing() == ("pacat",))
    bench.sound.close()


def test_our_guests_sound_is_nobodys(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    guest = server.record()
    bench.guests.add(guest.pid)
    server.play()
    until(lambda: bench.playing() == ("pacat",))
    until(lambda: bench.recording() == ())
    bench.guests.clear()
    until(lambda: bench.recording() == ("parecord",))
    bench.sound.close()


def test_a_process_id_of_a_guest_from_within_a_container_hides_nobody(server: Server, tmp_path: Path) -> None:
    """A program in a container says the number it has there, which may be a guest's outside."""
    bench = Bench(tmp_path, server)
    call = server.record()
    until(lambda: bench.recording() == ("parecord",))
    guest = subprocess.Popen(["sleep", "600"])
    try:
        (stream,) = next(iter(bench.sound._servers.values())).heard.recording
        assert stream.pid == call.pid
        bench.guests.add(guest.pid)
        assert not bench.sound._is_guests(stream._replace(pid=guest.pid))
        bench.guests.add(call.pid)
        assert bench.sound._is_guests(stream)
    finally:
        guest.kill()
        guest.wait(timeout=30)
    bench.sound.close()


def test_a_server_that_ends_plays_nothing_and_one_that_comes_back_is_asked(tmp_path: Path) -> None:
    server = PulseAudio(tmp_path)
    bench = Bench(tmp_path, server)
    server.play()
    until(lambda: bench.playing() == ("pacat",))
    server.stop()
    until(lambda: bench.playing() == ())
    server.start()
    server.play()
    bench.now_s += LOOK_AROUND_S + 1
    until(lambda: bench.playing() == ("pacat",))
    server.stop()
    bench.sound.close()


def test_a_stopped_server_never_blocks_and_grows_old(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    until(lambda: bench.recording() == ())
    for process in server.processes:
        process.send_signal(signal.SIGSTOP)
    try:
        bench.now_s += REFRESH_S + 1
        bench.read()
        bench.now_s += 60
        assert bench.read().age_s > 60
        for _ in range(3):
            bench.now_s += 12
            assert bench.read().age_s > 60
    finally:
        for process in server.processes:
            process.send_signal(signal.SIGCONT)
    bench.now_s += 12
    until(lambda: bench.read().age_s < 10)
    bench.sound.close()


def pretend(tmp_path: Path, serve: Callable) -> Misbehaving:
    """A server of that name which does as it is told, with the ``pid`` file of one that runs."""
    folder = tmp_path / "run" / str(os.geteuid()) / "pulse"
    folder.mkdir(parents=True)
    (folder / "pid").write_text("1\n")
    return Misbehaving(folder / "native", serve)


def frames(*messages: tuple[int, int, bytes]) -> bytes:
    return b"".join(
        struct.pack(">IIIII", len(body) + 10, 0xFFFFFFFF, 0, 0, 0)
        + b"L" + struct.pack(">I", command) + b"L" + struct.pack(">I", tag) + body
        for command, tag, body in messages
    )  # fmt: skip


@pytest.mark.parametrize(
    "serve",
    [
        lambda _c: None,
        lambda c: c.close(),
        lambda c: c.sendall(os.urandom(4000)),
        lambda c: c.sendall(struct.pack(">IIIII", 1 << 30, 0xFFFFFFFF, 0, 0, 0)),
        lambda c: c.sendall(frames((2, 1, b""), (2, 2, b""), (2, 3, b""), (2, 4, b"Q"), (2, 5, b""))),
        lambda c: c.sendall(frames((2, 1, b""), (2, 2, b""), (2, 3, b""), (2, 4, b"L\0\0\0\1"), (2, 5, b""))),
        lambda c: c.sendall(frames((2, 1, b"t" + b"never ends"))),
        lambda c: c.sendall(frames((2, 1, b"v\xff"))),
    ],
)
def test_a_server_that_never_made_sense_is_missing_and_costs_no_wait(tmp_path: Path, serve: Callable) -> None:
    strange = pretend(tmp_path, serve)
    bench = Bench(tmp_path)
    for _ in range(5):
        reading = bench.read()
        assert reading.value is None
        assert reading.tells
        assert reading.advice
    assert bench.sound.capability()[1]
    bench.sound.close()
    strange.close()


def test_a_server_that_lets_us_not_in_leaves_it_to_the_cards(tmp_path: Path) -> None:
    closed = pretend(tmp_path, lambda c: c.sendall(frames((0, 1, b"L\0\0\0\1"))))
    bench = Bench(tmp_path)
    card(bench.asound, "card0/pcm0c", RUNNING.format(pid=42))
    bench.process(42, "pipewire", uid=os.geteuid())
    until(lambda: bench.recording() == ("pipewire",))
    assert "does not let this user in" in bench.sound.capability()[1]
    bench.sound.close()
    closed.close()


def test_a_server_that_only_listens_for_systemd_is_not_started(tmp_path: Path) -> None:
    asked: list[object] = []
    socket = pretend(tmp_path, asked.append)
    (tmp_path / "run" / str(os.geteuid()) / "pulse" / "pid").unlink()
    bench = Bench(tmp_path)
    assert bench.recording() == ()
    assert asked == []
    socket.close()


def test_a_card_is_told_by_its_program_whoever_runs_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    microphone = card(bench.asound, "card0/pcm0c", RUNNING.format(pid=42))
    card(bench.asound, "card0/pcm0p", RUNNING.format(pid=43))
    card(bench.asound, "card1/pcm0c", RUNNING.format(pid=0))
    bench.process(42, "arecord")
    bench.process(43, "pulseaudio", uid=4242)
    until(lambda: bench.recording() == ("arecord", "card1 pcm0c"))
    assert bench.playing() == ("pulseaudio",), "a server that cannot be asked: somebody plays"
    bench.guests.add(42)
    until(lambda: bench.recording() == ("card1 pcm0c",))
    microphone.write_text("closed\n")
    bench.guests.clear()
    bench.now_s += CARDS_EVERY_S + 1
    until(lambda: bench.recording() == ("card1 pcm0c",))
    bench.sound.close()


def test_a_card_that_runs_for_a_server_that_answers_says_nothing_more(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path, server)
    pid = server.processes[0].pid
    card(bench.asound, "card0/pcm0c", RUNNING.format(pid=pid))
    until(lambda: bench.recording() == ())
    assert bench.playing() == ()
    bench.sound.close()


def test_a_driver_that_hangs_grows_old(tmp_path: Path) -> None:
    """A pipe that nobody writes to stands for the file of a driver that does not answer."""
    bench = Bench(tmp_path)
    file = card(bench.asound, "card0/pcm0c", "closed\n")
    until(lambda: bench.recording() == ())
    file.unlink()
    os.mkfifo(file)
    bench.now_s += CARDS_EVERY_S + 1
    bench.read()
    bench.now_s += 60
    assert bench.read().age_s > 60
    writer = os.open(file, os.O_WRONLY)
    file.unlink()
    file.write_text("closed\n")
    os.close(writer)
    until(lambda: bench.read().age_s < 30)
    bench.sound.close()


def test_a_change_that_comes_too_soon_is_asked_about_a_moment_later(tmp_path: Path) -> None:
    server = PulseAudio(tmp_path)
    bench = Bench(tmp_path, server)
    cameras: Untold[tuple[str, ...]] = Untold("cameras")
    calls = CallsProbe(bench.sound, cameras)
    until(lambda: calls.read(bench.clock()).value is not None)
    (one,) = bench.sound._servers.values()
    until(lambda: not one.restless)
    one._changed, one._round_at_s = True, bench.clock()
    calls.read(bench.clock())
    assert calls.every_s == SOON_S
    bench.now_s += 1
    until(lambda: calls.read(bench.clock()) and calls.every_s == EVERY_S)
    server.stop()
    bench.sound.close()


def test_a_server_of_a_user_without_systemd_is_found(tmp_path: Path) -> None:
    asked: list[object] = []
    folder = tmp_path / ".config" / "pulse" / "0123-runtime"
    folder.mkdir(parents=True)
    (folder / "pid").write_text("1\n")
    strange = Misbehaving(folder / "native", asked.append)
    bench = Bench(tmp_path)
    bench.read()
    until(lambda: asked)
    bench.sound.close()
    strange.close()


def test_a_machine_without_sound_has_none_and_no_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(3):
        reading = bench.read()
        assert reading.value == ((), ())
        assert reading.age_s == 0
    assert not bench.sound.filenos()
    calls = CallsProbe(bench.sound, Untold("cameras"))
    calls.close()
    calls.close()


def test_the_cookie_is_shown_to_a_server(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def serve(connection) -> None:
        seen.append(connection.recv(65536))

    strange = Misbehaving(tmp_path / "native", serve)
    cookie = os.urandom(256)
    server = SoundServer(str(tmp_path / "native"), uid=0, cookie=lambda: cookie)
    server.poll()
    until(lambda: seen)
    buffer = bytearray(seen[0])
    message = wire.take_message(buffer)
    assert message is not None
    assert (message.command, message.values) == (wire.AUTH, [wire.VERSION, cookie])
    server.close()
    strange.close()
