"""Job objects of Windows: what the processes in one have spent, the ended with the living, and which processes those are.

jobapi.h, jobapi2.h, winnt.h. Windows hands nothing of what a process spent to its parent, so the job is what knows of
short-lived children. What processes in a job start is in it too, unless the job allows them to break away.
"""

import ctypes
import sys
import weakref
from ctypes import c_size_t, c_uint8
from typing import Protocol

from idle_sense.errors import SenseError
from idle_sense.platform.windows_numbers import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_MORE_DATA,
    ERROR_SUCCESS,
    JOB_OBJECT_QUERY,
    JobObjectBasicAccountingInformation,
    JobObjectBasicProcessIdList,
)
from idle_sense.platform.windows_structures import (
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
    JOBOBJECT_BASIC_PROCESS_ID_LIST,
)
from idle_sense.probes.groups import Group, Whereabouts

TICKS_PER_S = 10_000_000
FIRST_ROOM = 64
"""Processes that the first question has room for."""
MOST_ROOM = 1 << 20
"""Windows is not asked for more."""

_LIST_AT = JOBOBJECT_BASIC_PROCESS_ID_LIST.ProcessIdList.offset


class JobCalls(Protocol):
    """What Windows is asked. Jobs are handles."""

    def open(self, name: str) -> int:
        """Raises OSError, with ``winerror``."""
        ...

    def query(self, job: int, what: int, into: "ctypes.Array[c_uint8] | ctypes.Structure") -> int:
        """QueryInformationJobObject: fills ``into``. 0, or the error's number."""
        ...

    def close(self, job: int) -> None: ...


class WindowsJob:
    """One job object, with those nested in it: a ``groups.Group``. It lives for as long as this does, also without processes."""

    is_inherited = False

    def __init__(self, name: str, handle: int, calls: JobCalls) -> None:
        self.name = name
        self._handle = handle
        self._calls = calls
        self._spent_s = 0.0
        weakref.finalize(self, calls.close, handle)

    def cpu_s(self) -> float | None:
        """User and kernel time. Never falls: it is one and the same job until the end."""
        counted = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION()
        if self._calls.query(self._handle, JobObjectBasicAccountingInformation, counted) != ERROR_SUCCESS:
            return None
        self._spent_s = max(self._spent_s, (counted.TotalUserTime + counted.TotalKernelTime) / TICKS_PER_S)
        return self._spent_s

    def disk_bytes(self) -> None:
        """A job counts all that its processes read and write, pipes and networks with the disks."""
        return

    def pids(self) -> set[int]:
        """Also of nested jobs (JOBOBJECT_BASIC_PROCESS_ID_LIST's documentation)."""
        room = FIRST_ROOM
        while room <= MOST_ROOM:
            answer = (c_uint8 * (_LIST_AT + room * ctypes.sizeof(c_size_t)))()
            error = self._calls.query(self._handle, JobObjectBasicProcessIdList, answer)
            if error == ERROR_SUCCESS:
                return pids_in(answer)
            if error != ERROR_MORE_DATA:
                break
            room *= 4
        return set()

    def contains(self, process: Whereabouts) -> bool:
        """By the job's list: IsProcessInJob would need a handle of the process, which may be refused."""
        return process.pid in self.pids()

    def is_below(self, other: Group) -> bool:
        """Windows does not tell which job is nested in which."""
        del other
        return False


def pids_in(answer: "ctypes.Array[c_uint8]") -> set[int]:
    """Of a JOBOBJECT_BASIC_PROCESS_ID_LIST; never more than there is room for."""
    head = JOBOBJECT_BASIC_PROCESS_ID_LIST.from_buffer(answer)
    room = (ctypes.sizeof(answer) - _LIST_AT) // ctypes.sizeof(c_size_t)
    count = min(head.NumberOfProcessIdsInList, room)
    return set((c_size_t * count).from_buffer(answer, _LIST_AT)) - {0}


def job_named(name: str) -> WindowsJob:
    """The job object of that name. Raises SenseError where there is none, where it may not be asked, and on other systems."""
    calls = system_calls()
    try:
        handle = calls.open(name)
    except OSError as error:
        raise _refusal(name, error) from error
    job = WindowsJob(name, handle, calls)
    if job.cpu_s() is None:
        raise SenseError(
            f"The job object {name!r} does not tell processor time.",
            hint="Add the process that was started instead; what its short-lived children spend then counts as the owner's.",
        )
    return job


def _refusal(name: str, error: OSError) -> SenseError:
    reason = getattr(error, "winerror", None)
    if reason == ERROR_FILE_NOT_FOUND:
        return SenseError(
            f"There is no job object {name!r}.",
            hint="Add it while its maker keeps it open; from another session it needs a name that begins with Global\\.",
        )
    if reason == ERROR_ACCESS_DENIED:
        return SenseError(
            f"The job object {name!r} may not be asked.",
            hint="Run idle-sense as the user who made it, or grant that user JOB_OBJECT_QUERY.",
        )
    return SenseError(
        f"The job object {name!r} cannot be opened: {error.strerror or error}.",
        hint="Give the name that CreateJobObjectW was given.",
    )


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    class _Kernel:
        def open(self, name: str) -> int:
            return libraries.checked(libraries.kernel32().OpenJobObjectW(JOB_OBJECT_QUERY, False, name))

        def query(self, job: int, what: int, into: "ctypes.Array[c_uint8] | ctypes.Structure") -> int:
            told = libraries.kernel32().QueryInformationJobObject(
                job, what, ctypes.byref(into), ctypes.sizeof(into), None
            )
            # A failure is never taken for an answer, whatever number it leaves.
            return ERROR_SUCCESS if told else ctypes.get_last_error() or ERROR_ACCESS_DENIED

        def close(self, job: int) -> None:
            libraries.kernel32().CloseHandle(job)

    def system_calls() -> JobCalls:
        return _Kernel()

else:

    def system_calls() -> JobCalls:
        """Raises SenseError."""
        raise SenseError(
            "Only Windows has job objects.", hint="Add the process itself, or on Linux its control group."
        )
