"""The I/O registry: the tree of drivers and devices that the kernel keeps (IOKitLib.h). Handles are released."""

import ctypes
from types import TracebackType
from typing import Self

from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_values import Plain, Values

MAIN_PORT = 0
"""kIOMainPortDefault."""
SERVICE_PLANE = b"IOService"
"""IOKitKeys.h, kIOServicePlane."""
MOST = 1024
"""Of one iterator: an end, should the tree change under it for ever."""


class Entry:
    """One entry that we hold; a context manager, or kept until ``close``."""

    def __init__(self, registry: "Registry", handle: int) -> None:
        self._registry = registry
        self.handle = handle

    def read(self, name: str) -> Plain:
        """A property of its own; None where it has none of that name."""
        return self._registry.read(self.handle, name)

    def identity(self) -> int | None:
        """A number that no other entry has until the next start of the machine; None: it is gone."""
        return self._registry.identity(self.handle)

    def children(self) -> "Entries":
        return self._registry.children(self.handle)

    def close(self) -> None:
        handle, self.handle = self.handle, 0
        if handle:
            self._registry.release(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Entries(tuple[Entry, ...]):
    """Several; a context manager that closes all."""

    __slots__ = ()

    def close(self) -> None:
        for entry in self:
            entry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Registry:
    def __init__(self, frameworks: Frameworks, values: Values) -> None:
        self._io = frameworks.io_kit
        self._values = values

    def service(self, class_name: str) -> Entry | None:
        """The first of a class or a subclass; None where there is none. Raises OSError."""
        handle = self._io.IOServiceGetMatchingService(MAIN_PORT, self._matching(class_name))
        return Entry(self, handle) if handle else None

    def services(self, class_name: str) -> Entries:
        """All of a class or a subclass. Raises OSError."""
        iterator = ctypes.c_uint32()
        status = self._io.IOServiceGetMatchingServices(
            MAIN_PORT, self._matching(class_name), ctypes.byref(iterator)
        )
        return self._all(status, iterator.value, class_name)

    def root(self) -> Entry:
        """Raises OSError."""
        handle = self._io.IORegistryGetRootEntry(MAIN_PORT)
        if not handle:
            raise OSError("the I/O registry has no root")
        return Entry(self, handle)

    def children(self, handle: int) -> Entries:
        """Of the plane of services, where also the clients of a driver are. Raises OSError."""
        iterator = ctypes.c_uint32()
        status = self._io.IORegistryEntryGetChildIterator(handle, SERVICE_PLANE, ctypes.byref(iterator))
        return self._all(status, iterator.value, "children")

    def read(self, handle: int, name: str) -> Plain:
        reference = self._io.IORegistryEntryCreateCFProperty(handle, self._values.key(name), None, 0)
        with self._values.owned(reference) as value:
            return self._values.plain(value)

    def identity(self, handle: int) -> int | None:
        """None: it is gone."""
        found = ctypes.c_uint64()
        status = self._io.IORegistryEntryGetRegistryEntryID(handle, ctypes.byref(found))
        return found.value if status == 0 else None

    def release(self, handle: int) -> None:
        self._io.IOObjectRelease(handle)

    def _matching(self, class_name: str) -> int:
        """A dictionary that the call it is handed to uses up."""
        found = self._io.IOServiceMatching(class_name.encode())
        if not found:
            raise OSError(f"IOKit makes no search for {class_name}")
        return found

    def _all(self, status: int, iterator: int, what: str) -> Entries:
        if status != 0:
            raise OSError(f"IOKit refuses to list {what} (0x{status & 0xFFFFFFFF:x})")
        found: list[Entry] = []
        try:
            while iterator and len(found) < MOST:
                handle = self._io.IOIteratorNext(iterator)
                if not handle:
                    break
                found.append(Entry(self, handle))
        finally:
            if iterator:
                self.release(iterator)
        return Entries(found)
