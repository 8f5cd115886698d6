"""What the history makes of verdicts, and what it keeps on disk."""

import base64
import json
import logging
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from idle_sense.errors import InvalidHistory
from idle_sense.habits import CELLS, Habits
from idle_sense.history import History, history_path, read_habits, state_folder
from idle_sense.history_file import decode, encode
from idle_sense.types import Reason, Severity, State, Verdict

START = datetime.fromisoformat("2026-11-02T12:00:10+01:00")
LOUD = Reason(code="input.recent", severity=Severity.HARD)
BLIND = Reason(code="probe.missing", severity=Severity.HARD)
WOKE = Reason(code="session.woke", severity=Severity.HARD)
QUIET = Reason(code="quiet.hours", severity=Severity.POLICY)
CALM = Reason(code="idle.input", severity=Severity.INFO)
WAITS = Reason(code="settling.grace", severity=Severity.INFO)


class Machine:
    """Feeds a history second by second, as a monitor would."""

    def __init__(self, path: Path) -> None:
        self.history = History(path)
        self.now_s = 1000.0
        self.local = START
        self._since_s = 1000.0
        self._state = State.BUSY

    def spend(self, seconds: float, state: State, *reasons: Reason, every_s: float = 60.0) -> None:
        if state is not self._state:
            self._state, self._since_s = state, self.now_s
        left_s = seconds
        while True:
            self.tell(state, *reasons)
            if left_s <= 0:
                return
            step_s = min(every_s, left_s)
            self.now_s += step_s
            self.local += timedelta(seconds=step_s)
            left_s -= step_s

    def tell(self, state: State, *reasons: Reason) -> None:
        verdict = Verdict(
            state=state, reasons=reasons, memory_short=False, since_s=self.now_s - self._since_s
        )
        self.history.observe(verdict, self.now_s, self.local)

    def idle(self, seconds: float, every_s: float = 60.0) -> None:
        self.spend(seconds, State.IDLE, CALM, every_s=every_s)

    def busy(self, seconds: float, *reasons: Reason) -> None:
        self.spend(seconds, State.BUSY, *(reasons or (LOUD,)))

    def learned(self) -> Habits:
        assert self.history.flush(30.0), self.history.problem
        return self.history.habits


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state" / "history-desktop.json")


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.005)


def test_an_idle_period_is_learned_when_the_owner_comes_back(machine: Machine) -> None:
    machine.busy(600)
    machine.idle(1500)
    machine.busy(60)
    habits = machine.learned()
    assert (habits.periods, sum(habits.ends)) == (1, pytest.approx(1.0, abs=1e-2))
    assert sum(habits.exposure_s) == pytest.approx(1500, rel=1e-2)
    assert sum(habits.young_ranks) == pytest.approx(2.0, abs=1e-2), (
        "forecasts at 0 and at 10 minutes came out"
    )
    assert habits.watched_s == pytest.approx(2160.0)


def test_it_is_the_same_with_changes_alone_as_with_every_sample(tmp_path: Path) -> None:
    """``on_change`` tells of changes only, hours apart."""
    told: list[Habits] = []
    for name, every_s in (("often", 1.0), ("seldom", 1e9)):
        machine = Machine(tmp_path / f"{name}.json")
        machine.busy(60)
        machine.idle(1500, every_s=every_s)
        machine.busy(60)
        machine.idle(7200, every_s=every_s)
        machine.busy(60)
        told.append(machine.learned())
    often, seldom = told
    assert often.exposure_s == pytest.approx(seldom.exposure_s, rel=2e-2, abs=5.0)
    assert often.periods == seldom.periods == 2


@pytest.mark.parametrize("reason", [BLIND, WOKE, QUIET])
def test_an_end_that_is_not_the_owners_is_no_return(machine: Machine, reason: Reason) -> None:
    """A probe that fails, or sleep: how long it would have lasted nobody knows."""
    machine.busy(60)
    machine.idle(1500)
    machine.busy(60, reason)
    habits = machine.learned()
    assert (habits.periods, sum(habits.ends)) == (0, 0.0)
    assert sum(habits.exposure_s) == pytest.approx(1500, rel=1e-2)


def test_an_owner_who_comes_back_while_a_probe_fails_came_back(machine: Machine) -> None:
    machine.busy(60)
    machine.idle(600)
    machine.busy(60, BLIND, LOUD)
    assert machine.learned().periods == 1


def test_an_idleness_that_only_has_to_settle_anew_is_no_return(machine: Machine) -> None:
    """After a clock jump, say."""
    machine.busy(60)
    machine.idle(600)
    machine.spend(30, State.SETTLING, WAITS)
    machine.idle(600)
    machine.busy(1)
    habits = machine.learned()
    assert habits.periods == 1
    assert sum(habits.exposure_s) == pytest.approx(1200, rel=1e-2)


def test_a_period_that_goes_on_is_on_disk_but_for_its_last_minutes(machine: Machine) -> None:
    machine.busy(60)
    machine.idle(3 * 3600.0)
    eventually(machine.history.path.exists)
    eventually(lambda: sum(read_habits(machine.history.path).exposure_s) >= 3 * 3600.0 - 660.0)
    assert read_habits(machine.history.path).periods == 0


def test_the_next_process_goes_on_where_the_last_one_ended(machine: Machine, tmp_path: Path) -> None:
    machine.busy(60)
    machine.idle(1500)
    machine.busy(60)
    assert machine.history.close()
    again = Machine(machine.history.path)
    assert again.history.habits.periods == 1
    again.busy(60)
    again.idle(1500)
    again.busy(60)
    assert again.learned().periods == 2
    assert list(tmp_path.rglob("*.new")) == []


def test_the_forecast_knows_how_old_the_idle_period_is(machine: Machine) -> None:
    machine.busy(60)
    told = machine.history.forecast(machine.now_s, machine.local)
    assert (told.idle, told.age_s, told.basis) == (False, 0.0, "prior")
    machine.idle(1200)
    told = machine.history.forecast(
        machine.now_s + 5, machine.local + timedelta(seconds=5), horizons_s=(600.0,), confidences=(0.8,)
    )
    assert (told.idle, told.age_s) == (True, pytest.approx(1205.0))
    assert told.stays[0][0] == 600.0
    assert told.p10_s < told.lasts_s(0.8) < told.p50_s


def test_what_was_learned_changes_the_forecast(machine: Machine) -> None:
    before = machine.history.forecast(machine.now_s, machine.local).p50_s
    for _ in range(40):
        machine.busy(600)
        machine.idle(240)
    machine.busy(1)
    machine.learned()
    told = machine.history.forecast(machine.now_s, machine.local)
    assert (told.basis, told.periods) == ("history", 40)
    assert told.p50_s < 600.0 < before


def test_a_monotonic_clock_that_runs_backwards_starts_anew(machine: Machine) -> None:
    machine.busy(60)
    machine.idle(600)
    machine.now_s = 5.0
    machine.tell(State.IDLE, CALM)
    machine.tell(State.BUSY, LOUD)
    assert sum(machine.learned().exposure_s) <= 660.0


@pytest.mark.parametrize("now_s", [math.nan, math.inf, -math.inf])
def test_garbage_from_a_clock_is_passed_over(machine: Machine, now_s: float) -> None:
    machine.busy(60)
    machine.idle(300)
    machine.history.observe(
        Verdict(state=State.BUSY, reasons=(LOUD,), memory_short=False, since_s=math.nan), now_s, machine.local
    )
    machine.idle(300)
    machine.busy(1)
    assert machine.learned().periods == 1


def test_a_wall_clock_set_to_another_year_harms_nothing(machine: Machine) -> None:
    machine.busy(60)
    machine.idle(600)
    machine.local = datetime.min.replace(tzinfo=UTC)
    machine.idle(600)
    machine.busy(60)
    machine.local = datetime.max.replace(tzinfo=UTC)
    machine.tell(State.IDLE, CALM)
    machine.tell(State.BUSY, LOUD)
    habits = machine.learned()
    assert sum(habits.exposure_s) == pytest.approx(1200, rel=1e-2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4096,
        b"{",
        b"[]",
        b"null",
        b'{"format": "idle-sense history", "version": 1}',
        b"[" * 100_000,
        b"9" * 5000,
        encode(Habits())[:-40],
        encode(Habits()).replace(b'"crc32": ', b'"crc32": 1'),
        encode(Habits()).replace(b'"periods": 0', b'"periods": -1'),
        encode(Habits()).replace(b'"periods": 0', b'"periods": 1' + b"0" * 400),
        encode(Habits()).replace(b'"weight": 0.0', b'"weight": NaN'),
        encode(Habits()).replace(b'"weight": 0.0', b'"weight": true'),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_corrupt_file_is_set_aside_with_a_message_and_history_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "history-desktop.json"
    path.write_bytes(content)
    with pytest.raises(InvalidHistory):
        read_habits(path)
    with caplog.at_level(logging.WARNING, "idle_sense"):
        machine = Machine(path)
    assert "forecasts start anew" in machine.history.problem
    assert machine.history.problem in caplog.text
    assert (tmp_path / "history-desktop.json.aside").read_bytes() == content
    machine.busy(60)
    machine.idle(600)
    machine.busy(60)
    assert machine.learned().periods == 1
    assert read_habits(path).periods == 1


def test_a_file_of_a_newer_version_is_set_aside_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "history-desktop.json"
    newer = encode(Habits()).replace(b'"version": 1', b'"version": 2')
    path.write_bytes(newer)
    assert "version 2" in History(path).problem
    assert (tmp_path / "history-desktop.json.aside").read_bytes() == newer


def table(numbers: list[float]) -> bytes:
    packed = zlib.compress(struct.pack(f"<{len(numbers)}f", *numbers))
    document = json.loads(encode(Habits()))
    document |= {"table": base64.b64encode(packed).decode(), "crc32": zlib.crc32(packed)}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "numbers", [[0.0], [0.0] * (2 * CELLS + 41), [math.nan] * (2 * CELLS + 40), [-1.0] * (2 * CELLS + 40)]
)
def test_a_table_that_checks_out_and_makes_no_sense_is_refused(numbers: list[float]) -> None:
    with pytest.raises(InvalidHistory):
        decode(table(numbers))


def test_a_packed_bomb_is_not_unpacked() -> None:
    packed = zlib.compress(b"\x00" * 200_000_000, 9)
    document = json.loads(encode(Habits()))
    document |= {"table": base64.b64encode(packed).decode(), "crc32": zlib.crc32(packed)}
    with pytest.raises(InvalidHistory):
        decode(json.dumps(document).encode())


def test_a_folder_that_cannot_be_written_is_said_and_forecasts_go_on(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("a file, where a folder should be")
    machine = Machine(tmp_path / "in the way" / "history-desktop.json")
    machine.busy(60)
    machine.idle(600)
    machine.busy(60)
    assert not machine.history.flush(30.0)
    assert "cannot be" in machine.history.problem
    assert machine.history.habits.periods == 1
    assert machine.history.forecast(machine.now_s, machine.local).stays


def test_a_file_that_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history-desktop.json"
    path.mkdir()
    machine = Machine(path)
    assert "cannot be read" in machine.history.problem
    machine.busy(60)
    machine.idle(600)
    machine.busy(60)
    assert not machine.history.flush(30.0)
    assert path.is_dir()


def test_a_disk_that_hangs_keeps_neither_observe_nor_close_waiting(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def hang(descriptor: int) -> None:
        stuck.set()
        assert go_on.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    machine.busy(60)
    machine.idle(600)
    machine.busy(60)
    assert stuck.wait(20)
    machine.idle(600)
    machine.busy(60)
    assert machine.history.forecast(machine.now_s, machine.local).stays
    assert not machine.history.close(0.05), "it is not on disk, and says so"
    go_on.set()
    eventually(lambda: machine.history.path.exists() and read_habits(machine.history.path).periods == 2)


def test_after_the_end_nothing_is_learned(machine: Machine) -> None:
    machine.busy(60)
    assert machine.history.close()
    assert machine.history.close()
    machine.idle(600)
    machine.busy(60)
    assert machine.history.habits.periods == 0


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_only_the_user_may_read_it(machine: Machine) -> None:
    machine.busy(60)
    machine.learned()
    assert machine.history.path.stat().st_mode & 0o077 == 0
    assert machine.history.path.parent.stat().st_mode & 0o077 == 0


def test_the_file_names_nobody_and_no_day(machine: Machine) -> None:
    machine.busy(60)
    machine.idle(600)
    machine.busy(60)
    machine.learned()
    document = json.loads(machine.history.path.read_bytes())
    assert document.keys() == {
        "format",
        "version",
        "periods",
        "weight",
        "watched_s",
        "evidence",
        "rest_days",
        "crc32",
        "table",
    }


def test_each_system_has_its_place() -> None:
    home = Path("/home/anna")
    assert state_folder("linux", {}, home) == home / ".local/state/idle-sense"
    assert state_folder("linux", {"XDG_STATE_HOME": "/var/x"}, home) == Path("/var/x/idle-sense")
    assert state_folder("linux", {"XDG_STATE_HOME": "x"}, home) == home / ".local/state/idle-sense"
    assert state_folder("darwin", {}, home) == home / "Library/Application Support/idle-sense"
    assert state_folder("win32", {"LOCALAPPDATA": "/c/Local"}, home) == Path("/c/Local/idle-sense")
    assert state_folder("win32", {}, home) == home / "AppData/Local/idle-sense"


def test_a_policys_name_cannot_lead_out_of_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    inside = history_path("lab").parent
    assert history_path("../../etc/passwd").parent == inside
    assert history_path("").name == "history-policy.json"
    assert history_path("学生机房").name == "history-学生机房.json"
