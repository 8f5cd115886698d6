"""The functions of Windows that the standard library does not wrap, with their types, by library.

Types are as wide as the headers', and pointers are pointers whatever they point to. They are compared with the headers.
"""

from collections.abc import Mapping
from ctypes import c_int32, c_size_t, c_ssize_t, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

_WORD = c_uint32
_BOOL = c_int32
_STATUS = c_int32
_HANDLE = c_void_p
_REPORT: list[Any] = [c_void_p, c_void_p, c_uint32]
"""A device's description, a report, and the report's length (hidpi.h)."""

Signature = tuple[Any, list[Any]]
"""Result and arguments."""

FUNCTIONS: Mapping[str, Mapping[str, Signature]] = {
    "user32": {
        "GetLastInputInfo": (_BOOL, [c_void_p]),
        "RegisterClassExW": (c_uint16, [c_void_p]),
        "UnregisterClassW": (_BOOL, [c_wchar_p, _HANDLE]),
        "CreateWindowExW": (
            _HANDLE,
            [
                _WORD,
                c_wchar_p,
                c_wchar_p,
                _WORD,
                c_int32,
                c_int32,
                c_int32,
                c_int32,
                _HANDLE,
                _HANDLE,
                _HANDLE,
                c_void_p,
            ],
        ),
        "DestroyWindow": (_BOOL, [_HANDLE]),
        "DefWindowProcW": (c_ssize_t, [_HANDLE, _WORD, c_size_t, c_ssize_t]),
        "PeekMessageW": (_BOOL, [c_void_p, _HANDLE, _WORD, _WORD, _WORD]),
        "DispatchMessageW": (c_ssize_t, [c_void_p]),
        "MsgWaitForMultipleObjectsEx": (_WORD, [_WORD, c_void_p, _WORD, _WORD, _WORD]),
        "RegisterRawInputDevices": (_BOOL, [c_void_p, _WORD, _WORD]),
        "GetRegisteredRawInputDevices": (_WORD, [c_void_p, c_void_p, _WORD]),
        "GetRawInputData": (_WORD, [_HANDLE, _WORD, c_void_p, c_void_p, _WORD]),
        "GetRawInputDeviceInfoW": (_WORD, [_HANDLE, _WORD, c_void_p, c_void_p]),
        "GetForegroundWindow": (_HANDLE, []),
        "GetDesktopWindow": (_HANDLE, []),
        "GetShellWindow": (_HANDLE, []),
        "GetClassNameW": (c_int32, [_HANDLE, c_void_p, c_int32]),
        "GetWindowRect": (_BOOL, [_HANDLE, c_void_p]),
        "MonitorFromWindow": (_HANDLE, [_HANDLE, _WORD]),
        "GetMonitorInfoW": (_BOOL, [_HANDLE, c_void_p]),
    },
    "kernel32": {
        "GetModuleHandleW": (_HANDLE, [c_wchar_p]),
        "GetTickCount": (_WORD, []),
        "GetTickCount64": (c_uint64, []),
        "QueryUnbiasedInterruptTime": (_BOOL, [c_void_p]),
        "GetCurrentProcessId": (_WORD, []),
        "ProcessIdToSessionId": (_BOOL, [_WORD, c_void_p]),
        "OpenProcess": (_HANDLE, [_WORD, _BOOL, _WORD]),
        "CloseHandle": (_BOOL, [_HANDLE]),
        "WaitForSingleObject": (_WORD, [_HANDLE, _WORD]),
        "GetProcessTimes": (_BOOL, [_HANDLE, c_void_p, c_void_p, c_void_p, c_void_p]),
        "GetSystemTimes": (_BOOL, [c_void_p, c_void_p, c_void_p]),
        "GlobalMemoryStatusEx": (_BOOL, [c_void_p]),
        "CreateMemoryResourceNotification": (_HANDLE, [c_int32]),
        "QueryMemoryResourceNotification": (_BOOL, [_HANDLE, c_void_p]),
        "CreateToolhelp32Snapshot": (_HANDLE, [_WORD, _WORD]),
        "Process32FirstW": (_BOOL, [_HANDLE, c_void_p]),
        "Process32NextW": (_BOOL, [_HANDLE, c_void_p]),
        "QueryFullProcessImageNameW": (_BOOL, [_HANDLE, _WORD, c_void_p, c_void_p]),
        "OpenJobObjectW": (_HANDLE, [_WORD, _BOOL, c_wchar_p]),
        "QueryInformationJobObject": (_BOOL, [_HANDLE, c_int32, c_void_p, _WORD, c_void_p]),
        "GetSystemPowerStatus": (_BOOL, [c_void_p]),
        "CreateEventW": (_HANDLE, [c_void_p, _BOOL, _BOOL, c_wchar_p]),
        "SetEvent": (_BOOL, [_HANDLE]),
    },
    "ntdll": {
        "NtQueryInformationProcess": (c_int32, [_HANDLE, c_int32, c_void_p, _WORD, c_void_p]),
        "RtlGetVersion": (c_int32, [c_void_p]),
    },
    "wtsapi32": {
        "WTSEnumerateSessionsW": (_BOOL, [_HANDLE, _WORD, _WORD, c_void_p, c_void_p]),
        "WTSQuerySessionInformationW": (_BOOL, [_HANDLE, _WORD, c_int32, c_void_p, c_void_p]),
        "WTSFreeMemory": (None, [c_void_p]),
        "WTSRegisterSessionNotification": (_BOOL, [_HANDLE, _WORD]),
        "WTSUnRegisterSessionNotification": (_BOOL, [_HANDLE]),
    },
    "shell32": {"SHQueryUserNotificationState": (c_int32, [c_void_p])},
    "advapi32": {"RegNotifyChangeKeyValue": (c_int32, [_HANDLE, _BOOL, _WORD, _HANDLE, _BOOL])},
    "hid": {
        "HidP_MaxUsageListLength": (_WORD, [c_int32, c_uint16, c_void_p]),
        "HidP_GetUsages": (c_int32, [c_int32, c_uint16, c_uint16, c_void_p, c_void_p, *_REPORT]),
        "HidP_GetUsageValue": (c_int32, [c_int32, c_uint16, c_uint16, c_uint16, c_void_p, *_REPORT]),
    },
    "powrprof": {"CallNtPowerInformation": (c_int32, [c_int32, c_void_p, _WORD, c_void_p, _WORD])},
    "pdh": {
        "PdhOpenQueryW": (_STATUS, [c_wchar_p, c_size_t, c_void_p]),
        "PdhAddEnglishCounterW": (_STATUS, [_HANDLE, c_wchar_p, c_size_t, c_void_p]),
        "PdhCollectQueryData": (_STATUS, [_HANDLE]),
        "PdhGetFormattedCounterArrayW": (_STATUS, [_HANDLE, _WORD, c_void_p, c_void_p, c_void_p]),
        "PdhCloseQuery": (_STATUS, [_HANDLE]),
    },
    "iphlpapi": {"GetIfTable2": (_WORD, [c_void_p]), "FreeMibTable": (None, [c_void_p])},
    "ole32": {
        "CoInitializeEx": (c_int32, [c_void_p, _WORD]),
        "CoUninitialize": (None, []),
        "CoCreateInstance": (c_int32, [c_void_p, c_void_p, _WORD, c_void_p, c_void_p]),
    },
}
