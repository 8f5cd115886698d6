"""Windows: job objects, and the calls of kernel32 and ntdll that the standard library does not wrap."""

import ctypes
import subprocess
import sys
from ctypes import Structure, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p, c_wchar_p
from functools import cache
from typing import Any, Final

from idle_accelerator.agent.host import windows_calls as calls

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

KILLED_CODE: Final = 0xE0000009
"""The exit code of what ``terminate`` ends; told apart from a program's own."""
_TICKS_PER_S: Final = 10_000_000
_JOB_ACCESS: Final = 0x4 | 0x8
"""JOB_OBJECT_QUERY and JOB_OBJECT_TERMINATE."""
_ERROR_MORE_DATA: Final = 234
_BASIC_ACCOUNTING: Final = 1
_PROCESS_ID_LIST: Final = 3
_UI_RESTRICTIONS: Final = 4
_EXTENDED_LIMITS: Final = 9
_LIMIT_PRIORITY_CLASS: Final = 0x20
_LIMIT_DIE_ON_UNHANDLED_EXCEPTION: Final = 0x400
_POWER_THROTTLING: Final = 4
"""Of PROCESS_INFORMATION_CLASS."""
_EXECUTION_SPEED: Final = 1
_LIMIT_KILL_ON_CLOSE: Final = 0x2000


class _BasicLimits(Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", c_int64),
        ("PerJobUserTimeLimit", c_int64),
        ("LimitFlags", c_uint32),
        ("MinimumWorkingSetSize", c_size_t),
        ("MaximumWorkingSetSize", c_size_t),
        ("ActiveProcessLimit", c_uint32),
        ("Affinity", c_size_t),
        ("PriorityClass", c_uint32),
        ("SchedulingClass", c_uint32),
    )


class _ExtendedLimits(Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", c_uint64 * 6),
        ("ProcessMemoryLimit", c_size_t),
        ("JobMemoryLimit", c_size_t),
        ("PeakProcessMemoryUsed", c_size_t),
        ("PeakJobMemoryUsed", c_size_t),
    )


class _Accounting(Structure):
    _fields_ = (
        ("TotalUserTime", c_int64),
        ("TotalKernelTime", c_int64),
        ("ThisPeriodTotalUserTime", c_int64),
        ("ThisPeriodTotalKernelTime", c_int64),
        ("TotalPageFaultCount", c_uint32),
        ("TotalProcesses", c_uint32),
        ("ActiveProcesses", c_uint32),
        ("TotalTerminatedProcesses", c_uint32),
    )


class Job:
    """A job object: the group of processes that nothing in it can leave."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def create(
        cls,
        name: str,
        *,
        nice: bool,
        memory_bytes: int | None = None,
        processes: int | None = None,
        locked: bool = False,
    ) -> "Job":
        """``memory_bytes``: all of it may commit no more, what wants more gets none. ``locked``: it reaches no window, no
        clipboard and no setting of the desktop. Raises OSError."""
        handle = checked(kernel32().CreateJobObjectW(None, name))
        limits = _ExtendedLimits()
        flags = _LIMIT_KILL_ON_CLOSE | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION
        if nice:
            flags |= _LIMIT_PRIORITY_CLASS
            limits.BasicLimitInformation.PriorityClass = subprocess.IDLE_PRIORITY_CLASS
        if memory_bytes is not None:
            flags |= calls.JOB_OBJECT_LIMIT_JOB_MEMORY
            limits.JobMemoryLimit = memory_bytes
        if processes is not None:
            flags |= calls.JOB_OBJECT_LIMIT_ACTIVE_PROCESS
            limits.BasicLimitInformation.ActiveProcessLimit = processes
        limits.BasicLimitInformation.LimitFlags = flags
        job = cls(handle)
        try:
            checked(
                kernel32().SetInformationJobObject(
                    handle, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
                )
            )
            if locked:
                shut = calls.JOBOBJECT_BASIC_UI_RESTRICTIONS(UIRestrictionsClass=calls.JOB_OBJECT_UILIMIT_ALL)
                checked(
                    kernel32().SetInformationJobObject(
                        handle, _UI_RESTRICTIONS, ctypes.byref(shut), ctypes.sizeof(shut)
                    )
                )
        except OSError:
            job.close()
            raise
        return job

    @classmethod
    def find(cls, name: str) -> "Job | None":
        """The job of that name, which lives while a process is in it."""
        handle = kernel32().OpenJobObjectW(_JOB_ACCESS, False, name)
        return cls(handle) if handle else None

    def take(self, process: int) -> None:
        checked(kernel32().AssignProcessToJobObject(self._handle, process))

    def pids(self) -> list[int]:
        room = 64
        while True:
            listing = (c_size_t * (room + 1))()  # two c_uint32, their counts, then the pids
            if self._query(_PROCESS_ID_LIST, listing):
                counts = (c_uint32 * 2).from_buffer(listing)
                offset = ctypes.sizeof(counts) // ctypes.sizeof(c_size_t)
                return [int(pid) for pid in listing[offset : offset + counts[1]]]
            if ctypes.get_last_error() != _ERROR_MORE_DATA:
                return []
            room *= 4

    @property
    def live(self) -> int:
        """How many processes are in it."""
        return int(self._accounting().ActiveProcesses)

    @property
    def cpu_s(self) -> float:
        """User and system time of all that are and were in it."""
        accounting = self._accounting()
        return (int(accounting.TotalUserTime) + int(accounting.TotalKernelTime)) / _TICKS_PER_S

    @property
    def peak_bytes(self) -> int:
        """The most memory that any one process of it has committed."""
        limits = _ExtendedLimits()
        self._query(_EXTENDED_LIMITS, limits)
        return int(limits.PeakProcessMemoryUsed)

    def terminate(self) -> None:
        kernel32().TerminateJobObject(self._handle, KILLED_CODE)

    def close(self) -> None:
        if self._handle is not None:
            kernel32().CloseHandle(self._handle)
            self._handle = None

    def _accounting(self) -> _Accounting:
        accounting = _Accounting()
        self._query(_BASIC_ACCOUNTING, accounting)
        return accounting

    def _query(self, what: int, into: "ctypes.Array[Any] | Structure") -> bool:
        return bool(
            kernel32().QueryInformationJobObject(
                self._handle, what, ctypes.byref(into), ctypes.sizeof(into), None
            )
        )


class _PowerThrottling(Structure):
    _fields_ = (("Version", c_uint32), ("ControlMask", c_uint32), ("StateMask", c_uint32))


def spare_power(process: int) -> bool:
    """EcoQoS (PROCESS_POWER_THROTTLING_STATE, since Windows 10 1709): slow cores and clocks for a process. False on older systems."""
    try:
        call = kernel32().SetProcessInformation
    except AttributeError:
        return False
    call.restype = c_int32
    call.argtypes = [c_void_p, c_int32, c_void_p, c_uint32]
    wanted = _PowerThrottling(1, _EXECUTION_SPEED, _EXECUTION_SPEED)
    return bool(call(process, _POWER_THROTTLING, ctypes.byref(wanted), ctypes.sizeof(wanted)))


def checked(result: int | None) -> int:
    """The result of a call that answers 0 for a failure. Raises OSError."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


@cache
def kernel32() -> ctypes.WinDLL:
    library = ctypes.WinDLL("kernel32", use_last_error=True)
    # Handles are pointers: without this, ctypes would cut them to 32 bits.
    for name, result, arguments in (
        ("CreateJobObjectW", c_void_p, [c_void_p, c_wchar_p]),
        ("OpenJobObjectW", c_void_p, [c_uint32, c_int32, c_wchar_p]),
        ("SetInformationJobObject", c_int32, [c_void_p, c_int32, c_void_p, c_uint32]),
        ("QueryInformationJobObject", c_int32, [c_void_p, c_int32, c_void_p, c_uint32, c_void_p]),
        ("AssignProcessToJobObject", c_int32, [c_void_p, c_void_p]),
        ("TerminateJobObject", c_int32, [c_void_p, c_uint32]),
        ("OpenProcess", c_void_p, [c_uint32, c_int32, c_uint32]),
        ("WaitForSingleObject", c_uint32, [c_void_p, c_uint32]),
        ("CloseHandle", c_int32, [c_void_p]),
        ("GetConsoleWindow", c_void_p, []),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


@cache
def ntdll() -> ctypes.WinDLL:
    library = ctypes.WinDLL("ntdll")
    for name, arguments in (
        ("NtSuspendProcess", [c_void_p]),
        ("NtResumeProcess", [c_void_p]),
        ("NtSetInformationProcess", [c_void_p, c_int32, c_void_p, c_uint32]),
    ):
        function = getattr(library, name)
        function.restype = c_int32
        function.argtypes = arguments
    return library
