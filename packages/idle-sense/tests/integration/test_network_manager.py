"""Metered networks, asked of services on a real bus that answer as NetworkManager does, or do not."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("NetworkManager is Linux's", allow_module_level=True)

from fake_bus import Daemon, Misbehaving, Service, until

from idle_sense.facts import Network, Reading
from idle_sense.probes import network
from idle_sense.probes.network import NAME, PATH, PROPERTIES, NetworkManagerProbe


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    yield started
    started.stop()


class Manager:
    def __init__(self, address: str) -> None:
        self.metered: tuple[str, object] | None = ("u", 4)
        """As a variant; None: it never answers."""
        self.unanswered = 0
        self.service = Service(address, NAME, {"Get": lambda _message: self._get()})

    def change(self, value: int) -> None:
        self.metered = ("u", value)
        changed = (NAME, {"Metered": ("u", value)}, [])
        self.service.emit(PATH, PROPERTIES, "PropertiesChanged", "sa{sv}as", changed)

    def _get(self) -> tuple[str, tuple[object, ...]] | None:
        if self.metered is None:
            self.unanswered += 1
            return None
        return "v", (self.metered,)


@pytest.fixture
def manage(daemon: Daemon) -> Iterator[Callable[[], Manager]]:
    started: list[Manager] = []

    def start() -> Manager:
        started.append(Manager(daemon.address))
        return started[-1]

    yield start
    for one in started:
        one.service.close()


def probe_at(address: str, tmp_path: Path) -> NetworkManagerProbe:
    return NetworkManagerProbe(address=address, runtime=str(tmp_path))


def eventually(probe: NetworkManagerProbe, wanted: Callable[[Reading[Network]], bool]) -> Reading[Network]:
    last: list[Reading[Network]] = []

    def look() -> bool:
        last.append(probe.read(time.monotonic()))
        return wanted(last[-1])

    until(look)
    return last[-1]


@pytest.mark.parametrize(("number", "metered"), [(1, True), (2, False), (3, True), (4, False)])
def test_what_networkmanager_says_or_guesses_is_told(
    daemon: Daemon, manage: Callable[[], Manager], tmp_path: Path, number: int, metered: bool
) -> None:
    manage().metered = ("u", number)
    probe = probe_at(daemon.address, tmp_path)
    assert eventually(probe, lambda reading: reading.value is not None).value == Network(metered=metered)
    assert probe.capability().serves
    probe.close()


@pytest.mark.parametrize(
    ("answer", "tells"), [(("u", 0), False), (("u", 99), True), (("s", "yes"), True), (("b", True), True)]
)
def test_what_it_does_not_know_is_untold_and_nonsense_is_missing(
    daemon: Daemon, manage: Callable[[], Manager], tmp_path: Path, answer: tuple[str, object], tells: bool
) -> None:
    manage().metered = answer
    probe = probe_at(daemon.address, tmp_path)
    waiting = "its first answer has not come yet"
    reading = eventually(
        probe, lambda one: one.tells is tells and one.problem != waiting and bool(one.problem)
    )
    assert reading.value is None
    probe.close()


def test_a_phone_that_is_tethered_is_known_as_soon_as_it_is_said(
    daemon: Daemon, manage: Callable[[], Manager], tmp_path: Path
) -> None:
    """Not by the question each 30 s: the signal makes it ask, and its word alone is not believed."""
    manager = manage()
    probe = probe_at(daemon.address, tmp_path)
    eventually(probe, lambda reading: reading.value == Network(metered=False))
    assert list(probe.filenos())
    manager.change(3)
    began_s = time.monotonic()
    eventually(probe, lambda reading: reading.value == Network(metered=True))
    assert time.monotonic() - began_s < network.ASK_EVERY_S
    probe.close()


def test_nobody_is_asked_where_networkmanager_never_ran(tmp_path: Path) -> None:
    probe = NetworkManagerProbe(address="unix:path=/nonexistent", runtime=str(tmp_path / "none"))
    reading = probe.read(0.0)
    assert reading.value is None
    assert not reading.tells
    assert not list(probe.filenos())
    assert not probe.capability().serves
    probe.close()


def test_a_bus_without_networkmanager_and_no_bus_at_all_tell_nothing(daemon: Daemon, tmp_path: Path) -> None:
    probe = probe_at(daemon.address, tmp_path)
    reading = eventually(probe, lambda one: not one.tells)
    assert "not on the system bus" in reading.problem
    probe.close()
    probe = probe_at(f"unix:path={tmp_path}/nobody", tmp_path)
    assert not eventually(probe, lambda one: not one.tells).tells


def test_a_networkmanager_that_ended_is_a_failure_and_serves_again_when_it_is_back(
    daemon: Daemon, manage: Callable[[], Manager], tmp_path: Path
) -> None:
    manager = manage()
    manager.metered = ("u", 1)
    probe = probe_at(daemon.address, tmp_path)
    eventually(probe, lambda reading: reading.value is not None)
    manager.service.close()
    reading = eventually(probe, lambda one: one.value is None)
    assert reading.tells
    assert "start NetworkManager" in reading.advice
    manage().metered = ("u", 2)
    eventually(probe, lambda one: one.value == Network(metered=False))
    probe.close()


def test_a_networkmanager_that_never_answers_blocks_nobody_and_grows_old(
    daemon: Daemon, manage: Callable[[], Manager], tmp_path: Path
) -> None:
    manager = manage()
    probe = probe_at(daemon.address, tmp_path)
    eventually(probe, lambda reading: reading.value is not None)
    manager.metered = None
    now_s = time.monotonic()

    def asked_in_vain() -> bool:
        # An answer that was under way when it fell silent is taken first.
        probe.read(now_s + 40)
        return manager.unanswered > 0

    until(asked_in_vain)
    cpu_began_s = time.thread_time()
    for later_s in range(50, 150, 10):
        reading = probe.read(now_s + later_s)
    assert reading.age_s > 90
    assert time.thread_time() - cpu_began_s < 1.0
    probe.close()


def test_a_bus_that_accepts_and_never_answers_blocks_nobody(tmp_path: Path) -> None:
    silent = Misbehaving(tmp_path / "silent")
    probe = probe_at(f"unix:path={silent.path}", tmp_path)
    cpu_began_s = time.thread_time()
    for _ in range(50):
        reading = probe.read(time.monotonic())
        assert reading.value is None
        assert reading.tells
    assert time.thread_time() - cpu_began_s < 1.0, "it waits for nobody and computes nothing"
    probe.close()
    silent.close()
