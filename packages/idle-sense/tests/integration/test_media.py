"""Players and inhibitors: a real bus, with players and desktops on it that do as they are told."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are Linux's desktops", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, Service, until
from jeepney import HeaderFields

from idle_sense.platform.desktops import Desktops
from idle_sense.platform.mpris import REFRESH_S
from idle_sense.platform.sound import Places, Sound
from idle_sense.probes.media import MediaProbe

PLAYER = "org.mpris.MediaPlayer2.Player"
INHIBITOR = "WHAT={what}\nMODE=block\nUID=1000\nPID={pid}\nWHO={who}\nWHY=film\n"


class Player(Service):
    def __init__(self, address: str, name: str, status: str = "Playing") -> None:
        self.status: str | None = status
        super().__init__(address, f"org.mpris.MediaPlayer2.{name}", {"Get": self._get})

    def _get(self, message):
        assert message.body == (PLAYER, "PlaybackStatus")
        return None if self.status is None else ("v", (("s", self.status),))

    def turn(self, status: str) -> None:
        self.status = status
        self.emit(
            "/org/mpris/MediaPlayer2",
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            "sa{sv}as",
            (PLAYER, {"PlaybackStatus": ("s", status)}, []),
        )


class Bench:
    def __init__(self, folder: Path, address: str | None) -> None:
        self.now_s = 1000.0
        self.inhibit = folder / "inhibit"
        self.inhibit.mkdir(exist_ok=True)
        self.guests: set[int] = set()
        nowhere = str(folder / "nowhere")
        places = Places(asound=nowhere, runtimes=nowhere, system_server=nowhere)
        environ = {"DBUS_SESSION_BUS_ADDRESS": address or f"unix:path={nowhere}"}
        self.probe = MediaProbe(
            Sound(environ={}, places=places, now=self.clock),
            Desktops(environ=environ, runtimes=nowhere, now=self.clock),
            is_guest=lambda pid: pid in self.guests,
            inhibit=str(self.inhibit),
            now=self.clock,
        )

    def clock(self) -> float:
        return self.now_s + time.monotonic()

    def read(self):
        return self.probe.read(self.clock())

    def playing(self) -> tuple[str, ...] | None:
        value = self.read().value
        return None if value is None else value.playing

    def inhibitors(self) -> tuple[str, ...] | None:
        value = self.read().value
        return None if value is None else value.inhibitors


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def bench(tmp_path: Path, daemon: Daemon) -> Iterator[Bench]:
    made = Bench(tmp_path, daemon.address)
    yield made
    made.probe.close()


@pytest.fixture
def start(daemon: Daemon) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def make(kind: Callable[..., Service], *arguments: object) -> Service:
        started.append(kind(daemon.address, *arguments))
        return started[-1]

    yield make
    for one in started:
        one.close()


def test_a_player_counts_while_it_plays(bench: Bench, start: Callable) -> None:
    vlc = start(Player, "vlc.instance7389")
    start(Player, "spotify", "Paused")
    start(Player, "old", "Stopped")
    until(lambda: bench.playing() == ("vlc",))
    vlc.turn("Paused")
    assert select.select(list(bench.probe.filenos()), [], [], 30)[0], "it is heard of at once"
    until(lambda: bench.playing() == ())
    vlc.turn("Playing")
    until(lambda: bench.playing() == ("vlc",))
    vlc.close()
    until(lambda: bench.playing() == ())


def test_a_player_that_comes_later_is_found(bench: Bench, start: Callable) -> None:
    until(lambda: bench.playing() == ())
    start(Player, "mpv")
    assert select.select(list(bench.probe.filenos()), [], [], 30)[0]
    until(lambda: bench.playing() == ("mpv",))


def test_nobody_is_asked_while_nothing_changes(bench: Bench, start: Callable) -> None:
    player = start(Player, "mpv", "Paused")
    until(lambda: bench.playing() == () and player.asked)
    asked = len(player.asked)
    for _ in range(50):
        bench.read()
    assert len(player.asked) == asked
    bench.now_s += REFRESH_S + 1
    bench.read()
    until(lambda: bench.read() and len(player.asked) > asked)


def test_a_player_that_hangs_grows_old(bench: Bench, start: Callable) -> None:
    player = start(Player, "mpv", "Paused")
    until(lambda: bench.playing() == () and player.asked)
    player.status = None
    bench.now_s += REFRESH_S + 1
    bench.read()
    bench.now_s += 60
    reading = bench.read()
    assert reading.age_s > 60
    player.close()
    until(lambda: bench.read().age_s < 30)


def test_a_player_that_never_answered_is_not_taken_for_silent(bench: Bench, start: Callable) -> None:
    until(lambda: bench.playing() == ())
    player = start(Player, "mpv")
    player.status = None
    until(lambda: bench.read() and player.asked)
    bench.now_s += 30
    until(lambda: bench.read().age_s > 25)


class Gnome(Service):
    def __init__(self, address: str) -> None:
        self.apps: list[str] = []
        super().__init__(
            address,
            "org.gnome.SessionManager",
            {
                "IsInhibited": lambda message: ("b", (bool(self.apps) and message.body == (8,),)),
                "GetInhibitors": lambda _m: (
                    "ao",
                    ([f"/org/gnome/SessionManager/Inhibitor{n}" for n in range(len(self.apps))],),
                ),
                "GetAppId": lambda message: (
                    "s",
                    (self.apps[int(message.header.fields[HeaderFields.path][-1])],),
                ),
            },
        )

    def inhibit(self, *apps: str) -> None:
        self.apps = list(apps)
        member = "InhibitorAdded" if apps else "InhibitorRemoved"
        path = "/org/gnome/SessionManager"
        self.emit(path, "org.gnome.SessionManager", member, "o", (f"{path}/Inhibitor0",))


def test_gnomes_inhibitors_are_named_and_go(bench: Bench, start: Callable) -> None:
    gnome = start(Gnome)
    until(lambda: bench.inhibitors() == ())
    gnome.inhibit("firefox", "org.videolan.VLC")
    assert select.select(list(bench.probe.filenos()), [], [], 30)[0]
    until(lambda: bench.inhibitors() == ("firefox", "org.videolan.VLC"))
    gnome.inhibit()
    until(lambda: bench.inhibitors() == ())


class Kde(Service):
    NAME = "org.kde.Solid.PowerManagement.PolicyAgent"

    def __init__(self, address: str) -> None:
        self.apps: list[tuple[str, str]] = []
        super().__init__(
            address,
            self.NAME,
            {
                "HasInhibition": lambda message: ("b", (bool(self.apps) and message.body == (4,),)),
                "ListInhibitions": lambda _m: ("a(ss)", (self.apps,)),
            },
        )

    def inhibit(self, *apps: tuple[str, str]) -> None:
        self.apps = list(apps)
        path = "/org/kde/Solid/PowerManagement/PolicyAgent"
        self.emit(path, self.NAME, "InhibitionsChanged", "a(ss)as", (self.apps, []))


def test_kdes_inhibitors_are_named_and_go(bench: Bench, start: Callable) -> None:
    kde = start(Kde)
    until(lambda: bench.inhibitors() == ())
    kde.inhibit(("Haruna", "Playing video"))
    until(lambda: bench.inhibitors() == ("Haruna",))
    kde.inhibit()
    until(lambda: bench.inhibitors() == ())


def test_xfces_inhibitors_count_unless_kde_knows_better(bench: Bench, start: Callable) -> None:
    replies = {"HasInhibit": lambda _m: ("b", (True,)), "GetInhibitors": lambda _m: ("as", (["parole"],))}
    start(Service, "org.freedesktop.PowerManagement", replies)
    until(lambda: bench.inhibitors() == ("parole",))
    start(Kde)
    until(lambda: bench.inhibitors() == ())


def test_a_desktop_that_cannot_name_them_still_tells_that_there_are_some(
    bench: Bench, start: Callable
) -> None:
    start(Service, "org.gnome.SessionManager", {"IsInhibited": lambda _m: ("b", (True,))})
    until(lambda: bench.inhibitors() == ("org.gnome.SessionManager",))


def test_a_desktop_that_answers_nonsense_is_asked_and_inhibits_nothing(bench: Bench, start: Callable) -> None:
    gnome = start(Service, "org.gnome.SessionManager", {"IsInhibited": lambda _m: ("s", ("yes",))})
    until(lambda: bench.inhibitors() == () and gnome.asked)
    assert bench.read().age_s < 5


def test_logind_tells_of_everybodys_inhibitors_but_our_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, None)
    bench.guests = {77}
    for number, (who, what, pid) in enumerate(
        (("mpv", "idle", 5), ("agent", "sleep:idle", 77), ("apt", "shutdown", 6))
    ):
        (bench.inhibit / str(number)).write_text(INHIBITOR.format(who=who, what=what, pid=pid))
    assert bench.inhibitors() == ("mpv",)
    bench.probe.close()


def test_a_headless_machine_has_neither_and_no_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, None)
    for _ in range(3):
        reading = bench.read()
        assert reading.value is not None
        assert (reading.value.playing, reading.value.inhibitors) == ((), ())
        assert reading.age_s == 0
    assert not bench.probe.filenos()
    assert bench.probe.capability().serves
    bench.probe.close()
    bench.probe.close()


def test_a_stopped_bus_never_blocks_and_grows_old(bench: Bench, start: Callable, daemon: Daemon) -> None:
    assert daemon.process is not None
    start(Player, "mpv", "Paused")
    until(lambda: bench.playing() == ())
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        bench.now_s += 30
        bench.read()
        assert bench.read().age_s > 29
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    bench.now_s += 11
    until(lambda: bench.read().age_s < 10)


def test_a_bus_that_ends_grows_old_and_one_that_comes_back_is_asked(
    bench: Bench, start: Callable, daemon: Daemon
) -> None:
    start(Player, "mpv")
    until(lambda: bench.playing() == ("mpv",))
    daemon.stop()
    bench.now_s += 30
    until(lambda: bench.read().age_s > 29)
    daemon.start()
    again = Player(daemon.address, "vlc")
    until(lambda: bench.playing() == ("vlc",) and bench.read().age_s < 20)
    again.close()


@pytest.mark.parametrize(
    "serve", [lambda _c: None, lambda c: c.sendall(os.urandom(4000)), lambda c: c.close()]
)
def test_a_bus_that_never_served_is_missing_and_costs_no_wait(tmp_path: Path, serve: Callable) -> None:
    strange = Misbehaving(tmp_path / "strange", serve)
    bench = Bench(tmp_path, f"unix:path={strange.path}")
    for _ in range(5):
        reading = bench.read()
        assert reading.value is None
        assert reading.advice
    began_s = time.process_time()
    for _ in range(20):
        bench.read()
    assert time.process_time() - began_s < 5.0
    bench.probe.close()
    strange.close()
