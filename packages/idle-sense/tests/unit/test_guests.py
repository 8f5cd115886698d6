"""Whose processor time is whose, on scripted processes."""

import os

import pytest

from idle_sense import GuestLedger
from idle_sense.probes.guests import ProcessInfo


class FakeProcesses:
    """A table of processes that tests write."""

    def __init__(self) -> None:
        self.table: dict[int, ProcessInfo] = {}

    def put(
        self,
        pid: int,
        *,
        parent: int,
        cpu_s: float,
        started: float = 1.0,
        terminal: int = 0,
        session: int = 0,
    ) -> None:
        self.table[pid] = ProcessInfo(
            pid=pid,
            parent=parent,
            session=session,
            terminal=terminal,
            started=started,
            threads=1,
            cpu_s=cpu_s,
        )

    def process(self, pid: int) -> ProcessInfo | None:
        return self.table.get(pid)

    def children(self, process: ProcessInfo) -> list[int]:
        return [info.pid for info in self.table.values() if info.parent == process.pid]


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that this process, and the children it waited for, have taken: a list of one."""
    spent = [0.0]
    monkeypatch.setattr(os, "times", lambda: os.times_result((0.0, 0.0, spent[0], 0.0, 0.0)))
    return spent


@pytest.fixture
def processes() -> FakeProcesses:
    return FakeProcesses()


def test_a_guest_and_its_children_count(processes: FakeProcesses, own_time: list[float]) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=1.0)
    before_s = ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=1.5)
    processes.put(11, parent=10, cpu_s=2.0)
    assert ledger.spent_s(processes) - before_s == pytest.approx(2.5)


def test_a_strangers_process_does_not_count(processes: FakeProcesses, own_time: list[float]) -> None:
    ledger = GuestLedger()
    processes.put(10, parent=1, cpu_s=1.0)
    before_s = ledger.spent_s(processes)
    processes.put(10, parent=1, cpu_s=100.0)
    assert ledger.spent_s(processes) == before_s


def test_nothing_is_counted_twice_when_a_child_hands_its_time_up(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(11, parent=10, cpu_s=5.0)
    ledger.spent_s(processes)
    del processes.table[11]
    processes.put(10, parent=os.getpid(), cpu_s=5.1)
    assert ledger.spent_s(processes) - start_s == pytest.approx(5.1)
    del processes.table[10]
    own_time[0] += 5.2
    ledger.discard(10)
    assert ledger.spent_s(processes) - start_s == pytest.approx(5.2)


def test_guests_that_live_shorter_than_a_look_count_as_well(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    start_s = ledger.spent_s(processes)
    for pid in range(100, 110):
        ledger.add(pid)
        own_time[0] += 0.4
        ledger.discard(pid)
    assert ledger.spent_s(processes) - start_s == pytest.approx(4.0)


def test_an_orphan_that_was_seen_stays_a_guest(processes: FakeProcesses, own_time: list[float]) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    processes.put(12, parent=11, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    del processes.table[11]
    processes.put(12, parent=1, cpu_s=3.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.0)
    assert ledger.contains(12, processes)


def test_the_past_of_a_process_that_is_added_late_does_not_count(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    processes.put(50, parent=1, cpu_s=1000.0)
    processes.put(51, parent=50, cpu_s=500.0)
    start_s = ledger.spent_s(processes)
    ledger.add(50)
    assert ledger.spent_s(processes) == start_s
    processes.put(50, parent=1, cpu_s=1001.0)
    processes.put(51, parent=50, cpu_s=502.0)
    processes.put(52, parent=51, cpu_s=0.5)
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.5)


def test_a_foreign_process_that_ends_takes_nothing_away(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(50)
    ledger.add(10)
    processes.put(50, parent=1, cpu_s=100.0)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    del processes.table[50]
    processes.put(10, parent=os.getpid(), cpu_s=1.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(1.0)


def test_a_pid_that_was_given_to_another_process_is_no_guest(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0, started=1.0)
    start_s = ledger.spent_s(processes)
    processes.put(10, parent=1, cpu_s=50.0, started=2.0)
    assert ledger.spent_s(processes) == start_s


def test_a_guest_that_is_added_anew_with_an_old_pid_is_one(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0, started=1.0)
    start_s = ledger.spent_s(processes)
    ledger.discard(10)
    processes.put(10, parent=os.getpid(), cpu_s=2.0, started=2.0)
    ledger.add(10)
    assert ledger.spent_s(processes) - start_s == pytest.approx(2.0)


def test_a_terminal_is_a_guests_only_where_a_guest_leads_its_session(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0, terminal=7, session=3)
    processes.put(11, parent=10, cpu_s=0.0, terminal=8, session=11)
    assert ledger.terminals(processes, afresh=True) == {8}


def test_a_display_server_started_by_a_guest_is_found_by_its_ancestors(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    processes.put(12, parent=11, cpu_s=0.0)
    processes.put(20, parent=1, cpu_s=0.0)
    assert ledger.contains(12, processes)
    assert not ledger.contains(20, processes)
