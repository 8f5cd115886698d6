"""A terminal is in use when a program reads from it what somebody typed, and not when one prints on it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from idle_sense import GuestLedger
from idle_sense.platform.owners import Owner
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.guests import ProcessInfo

if sys.platform == "win32":
    pytest.skip("Windows has no terminals of this kind", allow_module_level=True)

WALL_S = 1_700_000_000.0


class OneGuest:
    """A guest, process 10, that leads a session on terminal device ``device``."""

    def __init__(self, device: int) -> None:
        self.device = device

    def process(self, pid: int) -> ProcessInfo | None:
        if pid != 10:
            return None
        return ProcessInfo(
            pid=10, parent=os.getpid(), session=10, terminal=self.device, started=1.0, threads=1, cpu_s=0.0
        )

    def children(self, process: ProcessInfo) -> list[int]:
        return []


class Bench:
    """A folder of files with times, in place of /dev/pts."""

    def __init__(
        self,
        folder: Path,
        processes: OneGuest | None = None,
        owner: Callable[[str, int], Owner] = lambda _line, _uid: Owner(),
    ) -> None:
        self.folder = folder
        self.wall_s = WALL_S
        self.now_s = 100.0
        self.guests = GuestLedger()
        self.terminals = Terminals(
            processes or OneGuest(device=0),
            name="terminals",
            verified="native",
            folder=str(folder),
            pattern=r"\d+",
            owner=owner,
            wall_s=lambda: self.wall_s,
        )

    def touch(self, name: str, *, typed_s: float, printed_s: float = 0.0) -> None:
        path = self.folder / name
        path.touch()
        os.utime(path, (self.wall_s - typed_s, self.wall_s - printed_s))

    def look(self, passed_s: float = 0.0) -> dict[str, float]:
        self.wall_s += passed_s
        self.now_s += passed_s
        found = self.terminals.read(self.now_s, self.guests).value
        assert found is not None
        return {Path(terminal.name).name: terminal.idle_s for terminal in found}


def test_what_is_typed_counts_and_what_is_printed_does_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.touch("0", typed_s=600.0, printed_s=0.0)
    bench.touch("1", typed_s=3.0, printed_s=600.0)
    (tmp_path / "ptmx").touch()
    assert bench.look() == pytest.approx({"0": 600.0, "1": 3.0}, abs=0.01)


def test_idle_time_grows_until_the_next_key(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.touch("0", typed_s=600.0)
    bench.look()
    assert bench.look(50.0)["0"] == pytest.approx(650.0, abs=0.01)
    bench.touch("0", typed_s=0.0)
    assert bench.look(1.0)["0"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("by_s", [-86400.0, 86400.0])
def test_setting_the_wall_clock_hides_no_key(tmp_path: Path, by_s: float) -> None:
    bench = Bench(tmp_path)
    bench.touch("0", typed_s=600.0)
    bench.look()
    bench.wall_s += by_s
    assert bench.look(1.0)["0"] == pytest.approx(601.0, abs=0.01)
    bench.touch("0", typed_s=0.5)
    assert bench.look(1.0)["0"] <= 1.6
    bench.touch("0", typed_s=-by_s)
    assert bench.look(1.0)["0"] <= 1.01, "the access time moved since the last look, wherever to"


def test_a_terminal_that_is_closed_is_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.touch("0", typed_s=1.0)
    bench.look()
    (tmp_path / "0").unlink()
    assert bench.look(1.0) == {}


def test_a_machine_without_terminals_has_none(tmp_path: Path) -> None:
    assert Bench(tmp_path / "nothing").look() == {}


def test_a_guests_own_terminal_does_not_count(tmp_path: Path) -> None:
    # A plain file's device number is 0, which is what the scripted guest leads a session on.
    bench = Bench(tmp_path, OneGuest(device=1))
    bench.guests.add(10)
    bench.look()
    bench.touch("0", typed_s=0.0)
    assert bench.look(0.1) == {}, "too new to tell whose it is"
    assert bench.look(1.0)["0"] == pytest.approx(1.1, abs=0.01), "not led by a guest: it counts, with its age"


def test_a_terminal_led_by_a_guest_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, OneGuest(device=77))
    bench.guests.add(10)
    bench.look()
    bench.touch("0", typed_s=0.0)
    stat = os.stat
    facts = stat(tmp_path / "0")

    class OnDevice77:
        st_atime = facts.st_atime
        st_ctime = facts.st_ctime
        st_uid = facts.st_uid
        st_rdev = 77

    monkeypatch.setattr(
        os, "stat", lambda path, **more: OnDevice77() if str(path).endswith("/0") else stat(path, **more)
    )
    assert [bench.look(0.5) for _ in range(6)] == [{}] * 6


def test_whose_a_terminal_is_is_asked_once_at_first_and_once_when_a_login_had_time_to_say(
    tmp_path: Path,
) -> None:
    asked: list[tuple[str, int]] = []

    def owner(line: str, uid: int) -> Owner:
        asked.append((line, uid))
        return Owner("ada", "" if len(asked) == 1 else "far.example")

    bench = Bench(tmp_path, owner=owner)
    bench.touch("0", typed_s=600.0)
    for _ in range(20):
        bench.look(1.0)
    assert asked == [(str(tmp_path / "0"), os.geteuid())] * 2
    (terminal,) = bench.terminals.read(bench.now_s, bench.guests).value or ()
    assert (terminal.user, terminal.host) == ("ada", "far.example")


def test_a_terminal_of_the_same_name_that_was_opened_anew_counts_from_then(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.touch("0", typed_s=600.0)
    bench.look()
    bench.look(1.0)
    (tmp_path / "0").unlink()
    bench.touch("0", typed_s=900.0)
    assert bench.look(1.0)["0"] <= 1.01
