"""Whose processor time is whose, on scripted processes."""

import os

import pytest

from idle_sense import GuestLedger
from idle_sense.platform import cgroups
from idle_sense.platform.cgroups import Cgroup, Mount
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
    processes.put(10, parent=1, cpu_s=60.0, started=2.0)
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


def test_a_child_that_ends_between_the_look_at_its_parent_and_at_itself_is_counted_once(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(11, parent=10, cpu_s=5.0)
    ledger.spent_s(processes)

    def read_then_end(pid: int) -> ProcessInfo | None:
        info = processes.table.get(pid)
        if pid == 10 and processes.table.pop(11, None) is not None:
            processes.put(10, parent=os.getpid(), cpu_s=6.0)
        return info

    class EndsInBetween(FakeProcesses):
        process = staticmethod(read_then_end)
        children = staticmethod(processes.children)

    assert ledger.spent_s(EndsInBetween()) - start_s == pytest.approx(5.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(6.0)


def test_a_guest_that_is_let_go_of_before_it_was_waited_for_is_not_counted_again(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=1.0)
    processes.put(11, parent=10, cpu_s=100.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(101.0)
    ledger.discard(10)
    assert ledger.spent_s(processes) - start_s == pytest.approx(101.0)
    processes.table.clear()
    own_time[0] += 101.5
    assert ledger.spent_s(processes) - start_s == pytest.approx(101.5)


def test_a_tree_that_ends_between_two_looks_and_is_let_go_of_is_counted_once(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(11, parent=10, cpu_s=100.0)
    ledger.spent_s(processes)
    processes.table.clear()
    own_time[0] += 100.25
    ledger.discard(10)
    assert ledger.spent_s(processes) - start_s == pytest.approx(100.25)


def test_children_of_a_parent_that_ignores_their_ends_take_nothing_from_others(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    """Their time goes nowhere (wait(2), SIGCHLD set to SIG_IGN), and what was seen of it stays seen."""
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(11, parent=10, cpu_s=50.0)
    ledger.spent_s(processes)
    del processes.table[11]
    assert ledger.spent_s(processes) - start_s == pytest.approx(50.0)
    ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=3.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(53.0)


def test_a_stranger_with_the_pid_of_a_guest_that_ended_is_not_contained(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0, started=1.0)
    ledger.spent_s(processes)
    assert ledger.contains(10, processes)
    processes.put(10, parent=1, cpu_s=0.0, started=2.0)
    assert not ledger.contains(10, processes)


def test_a_stranger_is_asked_about_once_until_somebody_else_is_added(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    processes.put(20, parent=19, cpu_s=0.0)
    processes.put(19, parent=18, cpu_s=0.0)
    processes.put(18, parent=1, cpu_s=0.0)
    assert not ledger.contains(20, processes)
    assert not ledger.contains(20, processes)
    ledger.add(18)
    assert ledger.contains(20, processes)


class FakeGroup(Cgroup):
    def __init__(self, path: str, mount: Mount) -> None:
        super().__init__(path, mount)
        self.spent_s: float | None = 0.0
        self.inside: set[int] = set()

    def cpu_s(self) -> float | None:
        return self.spent_s

    def pids(self) -> set[int]:
        return self.inside


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeGroup]:
    """Groups of version 2 by their path, made when they are added; processes are where ``inside`` says."""
    made: dict[str, FakeGroup] = {}

    def make(path: str) -> FakeGroup:
        return made.setdefault(path, FakeGroup(path, Mount("/cg", "/", 2, frozenset())))

    def membership(pid: int) -> bytes:
        paths = [path for path, group in made.items() if pid in group.inside]
        return f"0::{max(paths, key=len, default='/cg/').removeprefix('/cg')}\n".encode()

    monkeypatch.setattr(cgroups, "cgroup_at", make)
    monkeypatch.setattr(cgroups, "membership_of", membership)
    return made


def test_a_group_is_counted_exactly_from_when_it_was_added(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    cgroups.cgroup_at("/cg/a").spent_s = 1000.0
    start_s = ledger.spent_s(processes)
    ledger.add_cgroup("/cg/a")
    groups["/cg/a"].spent_s = 1002.5
    assert ledger.spent_s(processes) - start_s == pytest.approx(2.5)
    assert len(ledger) == 1


def test_a_guest_that_is_in_a_group_and_in_a_tree_is_counted_once(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    ledger.add_cgroup("/cg/a")
    ledger.add(10)
    groups["/cg/a"].inside = {10, 11}
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=1.0)
    processes.put(11, parent=10, cpu_s=2.0)
    groups["/cg/a"].spent_s = 3.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.0)
    processes.table.clear()
    own_time[0] += 3.25
    groups["/cg/a"].spent_s = 3.25
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.25)
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.25)


def test_a_group_below_another_one_is_counted_by_the_upper_one(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    ledger.add_cgroup("/cg/a/b")
    ledger.add_cgroup("/cg/ab")
    start_s = ledger.spent_s(processes)
    groups["/cg/a/b"].spent_s = 1.0
    groups["/cg/ab"].spent_s = 10.0
    cgroups.cgroup_at("/cg/a").spent_s = 1.0
    ledger.add_cgroup("/cg/a")
    groups["/cg/a"].spent_s = 3.0
    groups["/cg/a/b"].spent_s = 3.0
    groups["/cg/ab"].spent_s = 20.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(23.0)
    ledger.discard_cgroup("/cg/a")
    groups["/cg/a"].spent_s = groups["/cg/a/b"].spent_s = 4.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(24.0)


def test_a_group_below_another_one_is_found_whatever_stands_between_their_names(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    """In the order of characters - and . stand between a name and its slash."""
    ledger = GuestLedger()
    for path in ("/cg/pool", "/cg/pool-x", "/cg/pool.scope", "/cg/pool/a"):
        ledger.add_cgroup(path)
    start_s = ledger.spent_s(processes)
    groups["/cg/pool"].spent_s = groups["/cg/pool/a"].spent_s = 5.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(5.0)


def test_a_tree_whose_group_is_let_go_of_has_a_past_that_was_counted(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    ledger.add_cgroup("/cg/a")
    ledger.add(10)
    groups["/cg/a"].inside = {10, 11}
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    processes.put(11, parent=10, cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(11, parent=10, cpu_s=100.0)
    groups["/cg/a"].spent_s = 100.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(100.0)
    ledger.discard_cgroup("/cg/a")
    assert ledger.spent_s(processes) - start_s == pytest.approx(100.0)
    processes.put(11, parent=10, cpu_s=101.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(101.0)


def test_what_a_group_spent_until_it_is_let_go_of_is_counted_and_a_removed_one_takes_nothing_back(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    ledger.add_cgroup("/cg/a")
    start_s = ledger.spent_s(processes)
    groups["/cg/a"].spent_s = 4.0
    ledger.discard_cgroup("/cg/a")
    groups["/cg/a"].spent_s = None
    assert ledger.spent_s(processes) - start_s == pytest.approx(4.0)
    ledger.discard_cgroup("/cg/a")
    ledger.discard_cgroup("/cg/never")
    ledger.add_cgroup("/cg/b")
    groups["/cg/b"].spent_s = 2.0
    ledger.spent_s(processes)
    groups["/cg/b"].spent_s = None
    assert ledger.spent_s(processes) - start_s == pytest.approx(6.0)
    groups["/cg/b"].spent_s = 0.5
    assert ledger.spent_s(processes) - start_s == pytest.approx(6.5), "made anew under the same name"


def test_a_process_belongs_to_a_guest_by_its_group_alone(
    processes: FakeProcesses, own_time: list[float], groups: dict[str, FakeGroup]
) -> None:
    ledger = GuestLedger()
    processes.put(30, parent=1, cpu_s=0.0, terminal=9, session=30)
    assert not ledger.contains(30, processes)
    ledger.add_cgroup("/cg/a")
    groups["/cg/a"].inside = {30}
    assert ledger.contains(30, processes)
    assert ledger.terminals(processes, afresh=True) == {9}
    assert ledger.pids() == {30}


def test_what_was_sent_only_grows() -> None:
    ledger = GuestLedger()
    ledger.sent(5)
    ledger.sent(-3)
    assert ledger.sent_bytes == 5


def test_a_guest_that_is_let_go_of_and_added_again_is_not_counted_from_its_start_again(
    processes: FakeProcesses, own_time: list[float]
) -> None:
    ledger = GuestLedger()
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    start_s = ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=100.0)
    ledger.spent_s(processes)
    ledger.discard(10)
    ledger.spent_s(processes)
    ledger.add(10)
    processes.put(10, parent=os.getpid(), cpu_s=101.0)
    assert ledger.spent_s(processes) - start_s == pytest.approx(101.0)
