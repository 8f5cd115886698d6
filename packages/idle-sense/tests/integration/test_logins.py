"""Sessions and locks: logind's files as it writes them, a real bus with a logind that does as it is told."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("logind is Linux's", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, Service, until

from idle_sense.platform import logind
from idle_sense.platform.logins import LOCKS_EVERY_S, Logins

LOGIN = "org.freedesktop.login1"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    started.stop()


class FakeLogind(Service):
    """Locks by object path; ``silent`` lets it answer nothing."""

    def __init__(self, address: str) -> None:
        self.locked: dict[str, bool] = {}
        self.silent = False
        super().__init__(address, LOGIN, {"Get": self._get})

    def _get(self, message):
        from jeepney import HeaderFields

        assert message.body == ("org.freedesktop.login1.Session", "LockedHint")
        if self.silent:
            return None
        return "v", (("b", self.locked.get(message.header.fields[HeaderFields.path], False)),)

    def lock(self, path: str, locked: bool) -> None:
        self.locked[path] = locked
        self.emit(
            path,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            "sa{sv}as",
            ("org.freedesktop.login1.Session", {"LockedHint": ("b", locked)}, []),
        )


class Bench:
    def __init__(self, folder: Path, address: str = "unix:path=/nowhere/bus") -> None:
        self.files = folder / "sessions"
        self.files.mkdir()
        self.now_s = 1000.0
        self.logins = Logins(
            environ={"DBUS_SYSTEM_BUS_ADDRESS": address},
            folder=str(self.files),
            utmp_path=str(folder / "utmp"),
            now=lambda: self.now_s + time.monotonic(),
        )

    def write(self, name: str, **values: str) -> None:
        """As logind does: another file, moved into place."""
        values = {"UID": "1000", "USER": "ada", "ACTIVE": "1", "STATE": "active", "CLASS": "user"} | values
        temporary = self.files / f".#{name}abc"
        temporary.write_text("# This is private data.\n" + "".join(f"{k}={v}\n" for k, v in values.items()))
        temporary.rename(self.files / name)

    def read(self):
        return self.logins.read(self.now_s + time.monotonic())

    def locks(self) -> dict[str, bool | None]:
        return {one.name: one.locked for one in self.read().value or ()}


@pytest.fixture
def bench(tmp_path: Path, daemon: Daemon) -> Iterator[Bench]:
    made = Bench(tmp_path, daemon.address)
    yield made
    made.logins.close()


@pytest.fixture
def service(daemon: Daemon) -> Iterator[FakeLogind]:
    made = FakeLogind(daemon.address)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("session", "path"),
    [("3", "_33"), ("c1", "c1"), ("12", "_312"), ("a-b", "a_2db"), ("_x", "_5fx"), ("", "_")],
)
def test_a_sessions_object_is_named_as_systemd_names_it(session: str, path: str) -> None:
    assert logind.object_path(session) == f"/org/freedesktop/login1/session/{path}"


def test_desktops_tell_their_locks_and_others_have_none(bench: Bench, service: FakeLogind) -> None:
    bench.write("3", TYPE="wayland", SEAT="seat0")
    bench.write("7", TYPE="tty", REMOTE="1", REMOTE_HOST="10.0.0.5", TTY="pts/2")
    bench.write("c1", TYPE="wayland", CLASS="greeter", USER="gdm")
    bench.write("1", TYPE="unspecified", CLASS="manager", USER="ada")
    service.locked[logind.object_path("3")] = True
    until(lambda: bench.locks() == {"3 of ada on seat0": True, "7 of ada from 10.0.0.5": None})
    remote = next(one for one in bench.read().value or () if one.remote)
    assert (remote.user, remote.active) == ("ada", True)


def test_the_first_reading_knows_the_lock_already(bench: Bench, service: FakeLogind) -> None:
    bench.write("3", TYPE="x11", SEAT="seat0")
    service.locked[logind.object_path("3")] = True
    until(lambda: bench.read().value is not None)
    assert bench.locks() == {"3 of ada on seat0": True}


def test_locking_and_unlocking_are_heard_of_at_once(bench: Bench, service: FakeLogind) -> None:
    import select

    bench.write("3", TYPE="wayland")
    until(lambda: bench.locks() == {"3 of ada": False})
    asked = len(service.asked)
    for locked in (True, False):
        service.lock(logind.object_path("3"), locked)
        assert select.select(bench.logins.filenos(), [], [], 30)[0]
        until(lambda locked=locked: bench.locks() == {"3 of ada": locked})
    # The signals said so; no regular question was due in that time.
    assert len(service.asked) <= asked + 4


def test_a_login_and_a_logout_make_a_descriptor_readable(bench: Bench) -> None:
    import select

    assert bench.read().value == ()
    bench.write("9", TYPE="tty", REMOTE="1", REMOTE_HOST="far.example")
    assert select.select(bench.logins.filenos(), [], [], 30)[0]
    assert bench.locks() == {"9 of ada from far.example": None}
    assert not select.select(bench.logins.filenos(), [], [], 0)[0], "what has arrived is taken"
    (bench.files / "9").unlink()
    assert select.select(bench.logins.filenos(), [], [], 30)[0]
    assert bench.read().value == ()


def test_a_logind_that_stops_answering_grows_old(bench: Bench, service: FakeLogind) -> None:
    bench.write("3", TYPE="wayland")
    until(lambda: bench.locks() == {"3 of ada": False})
    service.silent = True
    bench.now_s += LOCKS_EVERY_S + 1
    bench.read()
    bench.now_s += 60
    began_s = time.monotonic()
    reading = bench.read()
    assert time.monotonic() - began_s < 5.0
    assert reading.age_s > 60
    service.silent = False
    # The question that was left without an answer is given up, and the next one is answered.
    bench.now_s += 11
    until(lambda: bench.read().age_s < 30)


def test_a_logind_that_never_answered_is_missing(bench: Bench, service: FakeLogind) -> None:
    service.silent = True
    bench.write("3", TYPE="wayland")
    until(lambda: bench.read().problem != "")
    reading = bench.read()
    assert reading.value is None
    assert reading.tells
    assert reading.advice


def test_a_stopped_bus_never_blocks(bench: Bench, service: FakeLogind, daemon: Daemon) -> None:
    assert daemon.process is not None
    bench.write("3", TYPE="wayland")
    until(lambda: bench.locks() == {"3 of ada": False})
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        bench.now_s += LOCKS_EVERY_S + 1
        bench.read()
        bench.now_s += 30
        assert bench.read().age_s > 30
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    until(lambda: bench.read().age_s < 20)


def test_a_logind_that_ends_and_comes_back_is_asked_again(
    bench: Bench, service: FakeLogind, daemon: Daemon
) -> None:
    bench.write("3", TYPE="wayland")
    until(lambda: bench.locks() == {"3 of ada": False})
    service.close()
    bench.now_s += 60
    bench.read()
    until(lambda: bench.read().age_s > 50)
    again = FakeLogind(daemon.address)
    again.locked[logind.object_path("3")] = True
    bench.now_s += LOCKS_EVERY_S + 1
    until(lambda: bench.locks() == {"3 of ada": True} and bench.read().age_s < 20)
    again.close()


def test_without_any_bus_locks_are_unknown_and_sessions_are_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("3", TYPE="wayland")
    for _ in range(3):
        reading = bench.read()
        assert bench.locks() == {"3 of ada": None}
        assert reading.age_s == 0
    assert "locks" in bench.logins.capability().back_end
    assert bench.logins.capability().advice
    bench.logins.close()


def test_a_machine_without_a_desktop_never_dials_the_bus(bench: Bench, daemon: Daemon) -> None:
    bench.write("7", TYPE="tty", REMOTE="1")
    bench.read()
    assert len(bench.logins.filenos()) == 1, "inotify alone"


def test_garbage_instead_of_a_bus_is_missing_and_harmless(tmp_path: Path) -> None:
    strange = Misbehaving(tmp_path / "strange", lambda connection: connection.sendall(os.urandom(5000)))
    bench = Bench(tmp_path, f"unix:path={strange.path}")
    bench.write("3", TYPE="wayland")
    until(lambda: bench.read().value is None)
    bench.logins.close()
    strange.close()


def test_files_of_noise_are_no_sessions_that_break_anything(bench: Bench) -> None:
    (bench.files / "5").write_bytes(os.urandom(4096))
    (bench.files / "6.ref").write_text("TYPE=wayland\n")
    (bench.files / ".#8xyz").write_text("USER=half\n")
    reading = bench.read()
    assert reading.value is not None
    assert [one.name.split()[0] for one in reading.value] == ["5"]


def test_a_machine_without_logind_and_utmp_has_nobody_and_no_failure(tmp_path: Path) -> None:
    logins = Logins(environ={}, folder=str(tmp_path / "none"), utmp_path=str(tmp_path / "neither"))
    reading = logins.read(time.monotonic())
    assert reading.value == ()
    assert reading.tells
    assert logins.filenos() == ()
    logins.close()
    logins.close()


def test_logind_that_starts_later_is_noticed(tmp_path: Path) -> None:
    logins = Logins(environ={}, folder=str(tmp_path / "late"), utmp_path=str(tmp_path / "utmp"))
    assert logins.read(1.0).value == ()
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "4").write_text("USER=ada\nTYPE=tty\nTTY=tty2\n")
    (one,) = logins.read(2.0).value or ()
    assert one.name == "4 of ada on tty2"
    logins.close()
