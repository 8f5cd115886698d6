"""Windows: as much of COM as a few questions need (combaseapi.h): objects, calls by their place in the table, release."""

import contextlib
import ctypes
import sys
import uuid
from collections.abc import Generator
from typing import Any, Final, Self

from idle_sense.platform import windows_libraries as libraries
from idle_sense.platform.windows_interfaces import CLASSES, IDENTITIES, PLACES
from idle_sense.platform.windows_numbers import CLSCTX_ALL, COINIT_MULTITHREADED

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

NOT_IMPLEMENTED: Final = 0x80004001
"""E_NOTIMPL: of a method that is there in name alone, as some of Wine's."""
_CHANGED_MODE: Final = 0x80010106
"""RPC_E_CHANGED_MODE: the thread has an apartment of another kind already, which serves as well."""


class ComError(OSError):
    """A call that answered with a failure."""

    def __init__(self, what: str, result: int) -> None:
        super().__init__(f"{what} failed (0x{result & 0xFFFFFFFF:08x})")
        self.result = result & 0xFFFFFFFF


class Interface:
    """A pointer to an interface; released at the end of ``with``. Methods are named as in ``windows_interfaces.PLACES``."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.raw("IUnknown.Release")

    def raw(self, method: str, *arguments: Any) -> int:
        """The method's result. Numbers are passed as 32 bits, all else as pointers."""
        table = ctypes.cast(self._pointer, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))
        address = table[0][PLACES[method]]
        kinds = [ctypes.c_uint32 if isinstance(one, int) else ctypes.c_void_p for one in arguments]
        function = ctypes.WINFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *kinds)(address)
        return int(function(self._pointer, *arguments))

    def call(self, method: str, *arguments: Any) -> int:
        """The same. Raises ComError for a failure."""
        result = self.raw(method, *arguments)
        if result < 0:
            raise ComError(method, result)
        return result

    def get(self, method: str, *arguments: Any) -> "Interface":
        """A method whose last argument, left out here, receives an interface. Raises ComError."""
        found = ctypes.c_void_p()
        self.call(method, *arguments, ctypes.byref(found))
        if not found.value:
            raise ComError(method, -1)
        return Interface(found.value)

    def number(self, method: str) -> int:
        """A method that gives a 32-bit number. Raises ComError."""
        value = ctypes.c_uint32()
        self.call(method, ctypes.byref(value))
        return value.value

    def ask(self, interface: str) -> "Interface":
        """QueryInterface. Raises ComError."""
        return self.get("IUnknown.QueryInterface", identity(interface))


def identity(interface: str) -> bytes:
    """Of one of ``windows_interfaces.IDENTITIES``."""
    return uuid.UUID(IDENTITIES[interface]).bytes_le


@contextlib.contextmanager
def apartment() -> Generator[None]:
    """Within, this thread may use COM. Raises ComError."""
    result = libraries.ole32().CoInitializeEx(None, COINIT_MULTITHREADED)
    if result < 0 and result & 0xFFFFFFFF != _CHANGED_MODE:
        raise ComError("CoInitializeEx", result)
    try:
        yield
    finally:
        if result >= 0:
            libraries.ole32().CoUninitialize()


def create(class_name: str, interface: str) -> Interface:
    """A new object of one of ``windows_interfaces.CLASSES``. Raises ComError."""
    found = ctypes.c_void_p()
    result = libraries.ole32().CoCreateInstance(
        uuid.UUID(CLASSES[class_name]).bytes_le, None, CLSCTX_ALL, identity(interface), ctypes.byref(found)
    )
    if result < 0 or not found.value:
        raise ComError("CoCreateInstance", result)
    return Interface(found.value)
