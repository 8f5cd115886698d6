"""Windows: its libraries, each loaded when it is first needed."""

import ctypes
import sys
from ctypes import c_size_t, c_ssize_t, c_uint32, c_void_p
from functools import cache

from idle_sense.platform.windows_functions import FUNCTIONS

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

WindowProcedure = ctypes.WINFUNCTYPE(c_ssize_t, c_void_p, c_uint32, c_size_t, c_ssize_t)
"""<winuser.h>, WNDPROC: window, message, wParam, lParam."""


def checked(result: int | None) -> int:
    """The result of a call that answers 0 for a failure. Raises OSError."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


@cache
def _library(name: str) -> ctypes.WinDLL:
    """Raises OSError, and AttributeError where Windows is too old to have one of the functions."""
    # Handles are pointers: without types, ctypes would cut them to 32 bits.
    library = ctypes.WinDLL(name, use_last_error=True)
    for function_name, (result, arguments) in FUNCTIONS[name].items():
        function = getattr(library, function_name)
        function.restype = result
        function.argtypes = arguments
    return library


def user32() -> ctypes.WinDLL:
    return _library("user32")


def kernel32() -> ctypes.WinDLL:
    return _library("kernel32")


def ntdll() -> ctypes.WinDLL:
    return _library("ntdll")


def wtsapi32() -> ctypes.WinDLL:
    return _library("wtsapi32")


def shell32() -> ctypes.WinDLL:
    return _library("shell32")


def advapi32() -> ctypes.WinDLL:
    return _library("advapi32")


def hid() -> ctypes.WinDLL:
    return _library("hid")


def powrprof() -> ctypes.WinDLL:
    return _library("powrprof")


def pdh() -> ctypes.WinDLL:
    return _library("pdh")


def iphlpapi() -> ctypes.WinDLL:
    return _library("iphlpapi")


def ole32() -> ctypes.WinDLL:
    return _library("ole32")
