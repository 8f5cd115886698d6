"""Job objects of Windows as groups of guests, on answers laid out as Windows lays them out."""

import ctypes
import gc
import os
import sys

import pytest

from idle_sense import GuestLedger, SenseError
from idle_sense.platform import windows_jobs
from idle_sense.platform.windows_jobs import FIRST_ROOM, TICKS_PER_S, WindowsJob, job_named
from idle_sense.platform.windows_numbers import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_MORE_DATA,
    ERROR_SUCCESS,
    JobObjectBasicAccountingInformation,
    JobObjectBasicProcessIdList,
)
from idle_sense.platform.windows_structures import (
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
    JOBOBJECT_BASIC_PROCESS_ID_LIST,
)
from idle_sense.probes.groups import Whereabouts
from idle_sense.probes.guests import ProcessInfo


class FakeJob:
    """What the system knows of one job."""

    def __init__(self) -> None:
        self.user_s = 0.0
        self.kernel_s = 0.0
        self.inside: list[int] = []
        self.error = ERROR_SUCCESS
        self.handles = 0


class FakeWindows:
    """Jobs by name; a handle is their place in ``opened``. One that is closed cannot be used."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.opened: list[FakeJob | None] = []
        self.refusal = ERROR_FILE_NOT_FOUND

    def open(self, name: str) -> int:
        job = self.jobs.get(name)
        if job is None:
            error = OSError("refused")
            error.winerror = self.refusal  # type: ignore[attr-defined]
            raise error
        job.handles += 1
        self.opened.append(job)
        return len(self.opened)

    def query(self, job: int, what: int, into: "ctypes.Array[ctypes.c_uint8] | ctypes.Structure") -> int:
        asked = self._job(job)
        if asked.error != ERROR_SUCCESS:
            return asked.error
        if what == JobObjectBasicAccountingInformation:
            assert isinstance(into, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION)
            into.TotalUserTime = int(asked.user_s * TICKS_PER_S)
            into.TotalKernelTime = int(asked.kernel_s * TICKS_PER_S)
            return ERROR_SUCCESS
        assert what == JobObjectBasicProcessIdList
        start = JOBOBJECT_BASIC_PROCESS_ID_LIST.ProcessIdList.offset
        width = ctypes.sizeof(ctypes.c_size_t)
        told = asked.inside[: (ctypes.sizeof(into) - start) // width]
        ctypes.memmove(
            ctypes.addressof(into) + start, (ctypes.c_size_t * len(told))(*told), width * len(told)
        )
        head = JOBOBJECT_BASIC_PROCESS_ID_LIST.from_buffer(into)
        head.NumberOfAssignedProcesses, head.NumberOfProcessIdsInList = len(asked.inside), len(told)
        return ERROR_SUCCESS if len(told) == len(asked.inside) else ERROR_MORE_DATA

    def close(self, job: int) -> None:
        self._job(job).handles -= 1
        self.opened[job - 1] = None

    def _job(self, handle: int) -> FakeJob:
        job = self.opened[handle - 1]
        assert job is not None, "a handle was used after it was closed"
        return job


class FakeProcesses:
    """Windows tells nothing of what the dead have spent."""

    def __init__(self) -> None:
        self.table: dict[int, ProcessInfo] = {}
        self.scans = 0

    def put(self, pid: int, *, parent: int, cpu_s: float) -> None:
        self.table[pid] = ProcessInfo(pid, parent, 0, 0, 1.0, 1, cpu_s, 0.0)

    def process(self, pid: int) -> ProcessInfo | None:
        return self.table.get(pid)

    def children(self, process: ProcessInfo) -> list[int]:
        self.scans += 1
        return [info.pid for info in self.table.values() if info.parent == process.pid]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> FakeWindows:
    system = FakeWindows()
    system.jobs["guest"] = FakeJob()
    monkeypatch.setattr(windows_jobs, "system_calls", lambda: system)
    monkeypatch.setattr(os, "times", lambda: os.times_result((0.0, 0.0, 0.0, 0.0, 0.0)))
    return system


def test_a_jobs_time_is_user_and_kernel_time_and_never_falls(windows: FakeWindows) -> None:
    job, told = job_named("guest"), windows.jobs["guest"]
    told.user_s, told.kernel_s = 3.0, 0.5
    assert job.cpu_s() == pytest.approx(3.5)
    told.user_s = 1.0
    assert job.cpu_s() == pytest.approx(3.5)
    told.error = ERROR_ACCESS_DENIED
    assert job.cpu_s() is None


@pytest.mark.parametrize("count", [0, 1, FIRST_ROOM, FIRST_ROOM + 1, 5000])
def test_all_processes_of_a_job_are_listed_however_many(windows: FakeWindows, count: int) -> None:
    windows.jobs["guest"].inside = list(range(4, 4 + count))
    assert job_named("guest").pids() == set(range(4, 4 + count))


def test_a_job_whose_processes_are_not_told_has_none(windows: FakeWindows) -> None:
    windows.jobs["guest"].inside = [8]
    job = job_named("guest")
    for error in (ERROR_ACCESS_DENIED, ERROR_MORE_DATA):
        windows.jobs["guest"].error = error
        assert job.pids() == set()


def test_a_list_that_claims_more_than_there_is_room_for_is_cut() -> None:
    answer = (ctypes.c_uint8 * 24)()
    JOBOBJECT_BASIC_PROCESS_ID_LIST.from_buffer(answer).NumberOfProcessIdsInList = 1000
    (ctypes.c_size_t * 2).from_buffer(answer, 8)[:] = [12, 16]
    assert windows_jobs.pids_in(answer) == {12, 16}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (ERROR_FILE_NOT_FOUND, r"no job object 'other'.*Global"),
        (ERROR_ACCESS_DENIED, r"may not be asked.*JOB_OBJECT_QUERY"),
        (6, r"cannot be opened.*CreateJobObjectW"),
    ],
)
def test_a_job_that_cannot_be_opened_is_refused_with_a_way_out(
    windows: FakeWindows, refusal: int, words: str
) -> None:
    windows.refusal = refusal
    ledger = GuestLedger()
    with pytest.raises(SenseError, match=words):
        ledger.add_job("other")
    assert len(ledger) == 0


def test_a_job_that_tells_nothing_is_refused_and_its_handle_closed(windows: FakeWindows) -> None:
    windows.jobs["guest"].error = ERROR_ACCESS_DENIED
    with pytest.raises(SenseError, match="does not tell processor time") as refused:
        job_named("guest")
    del refused
    gc.collect()
    assert windows.jobs["guest"].handles == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are job objects")
def test_elsewhere_there_are_no_job_objects() -> None:
    with pytest.raises(SenseError, match=r"Only Windows has job objects.*control group"):
        GuestLedger().add_job("guest")
    GuestLedger().discard_job("guest")


def test_children_that_lived_between_two_looks_are_the_guests(windows: FakeWindows) -> None:
    """On Windows no process hands down what it spent: without the job all of this would be the owner's."""
    ledger, processes, job = GuestLedger(), FakeProcesses(), windows.jobs["guest"]
    processes.put(os.getpid(), parent=1, cpu_s=0.0)
    processes.put(10, parent=os.getpid(), cpu_s=0.0)
    job.inside, job.user_s = [10], 2.0
    ledger.add_job("guest")
    ledger.add(10)
    start_s = ledger.spent_s(processes)
    processes.put(10, parent=os.getpid(), cpu_s=0.5)
    job.user_s += 4.5
    job.kernel_s += 0.25
    assert ledger.spent_s(processes) - start_s == pytest.approx(4.75)
    assert processes.scans == 0, "who is in jobs need not be looked for"


def test_a_job_is_counted_until_it_is_let_go_of_and_its_handle_is_then_closed(windows: FakeWindows) -> None:
    ledger, processes, job = GuestLedger(), FakeProcesses(), windows.jobs["guest"]
    ledger.add_job("guest")
    ledger.add_job("guest")
    assert job.handles == 1
    start_s = ledger.spent_s(processes)
    job.user_s = 7.0
    ledger.discard_job("guest")
    assert job.handles == 0
    assert ledger.spent_s(processes) - start_s == pytest.approx(7.0)
    ledger.discard_job("guest")
    assert len(ledger) == 0
    ledger.add_job("guest")
    job.user_s = 8.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(8.0), (
        "only what came since it was added again"
    )


def test_jobs_are_counted_each_whatever_their_names(windows: FakeWindows) -> None:
    windows.jobs["guest/2"] = FakeJob()
    ledger, processes = GuestLedger(), FakeProcesses()
    ledger.add_job("guest")
    ledger.add_job("guest/2")
    start_s = ledger.spent_s(processes)
    windows.jobs["guest"].user_s = 1.0
    windows.jobs["guest/2"].user_s = 2.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(3.0)


def test_who_is_in_a_job_is_a_guest(windows: FakeWindows) -> None:
    ledger, processes = GuestLedger(), FakeProcesses()
    processes.put(30, parent=1, cpu_s=0.0)
    processes.put(31, parent=1, cpu_s=0.0)
    windows.jobs["guest"].inside = [30]
    assert not ledger.contains(30, processes)
    ledger.add_job("guest")
    assert ledger.contains(30, processes)
    assert not ledger.contains(31, processes)
    assert ledger.pids() == {30}
    assert len(ledger) == 1


def test_this_program_in_an_added_job_is_counted_once(
    windows: FakeWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_s = [0.0]
    monkeypatch.setattr(os, "times", lambda: os.times_result((own_s[0], 0.0, 0.0, 0.0, 0.0)))
    ledger, processes = GuestLedger(), FakeProcesses()
    windows.jobs["guest"].inside = [os.getpid()]
    ledger.add_job("guest")
    start_s = ledger.spent_s(processes)
    own_s[0] = windows.jobs["guest"].user_s = 5.0
    assert ledger.spent_s(processes) - start_s == pytest.approx(5.0)


def test_jobs_have_no_disks_and_no_order(windows: FakeWindows) -> None:
    job = job_named("guest")
    assert job.disk_bytes() is None
    assert not job.is_below(WindowsJob("other", windows.open("guest"), windows))
    assert not job.contains(Whereabouts(99))
