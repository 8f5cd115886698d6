"""CoreFoundation's objects: turned into plain Python values, and released.

Functions with Create or Copy in their names hand out a reference that the caller releases; those with Get lend one
(Memory Management Programming Guide for Core Foundation, "The Create Rule", "The Get Rule").
"""

import ctypes
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeAlias

from idle_sense.platform.macos_frameworks import Frameworks

UTF8 = 0x08000100
"""CFString.h, kCFStringEncodingUTF8."""
SINT64 = 4
FLOAT64 = 6
"""CFNumber.h, kCFNumberSInt64Type and kCFNumberFloat64Type."""
DEEPEST = 8
"""Containers in containers; what the system hands out has four."""

Plain: TypeAlias = "bool | int | float | str | bytes | Sequence[Plain] | Mapping[str | int, Plain] | None"
"""What property lists are made of. Keys are strings, or process ids."""


class Owned:
    """A reference that was handed out to us; released at the end of the block. May be null."""

    def __init__(self, values: "Values", reference: int | None) -> None:
        self._values = values
        self.reference = reference

    def __enter__(self) -> int | None:
        return self.reference

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reference, self.reference = self.reference, None
        if reference:
            self._values.release(reference)


class Values:
    """Reads CoreFoundation's objects. May be used from several threads: it only reads what is immutable or ours."""

    def __init__(self, frameworks: Frameworks) -> None:
        self._cf = frameworks.core_foundation
        self._keys: dict[str, int] = {}
        self._kinds: dict[int, str] | None = None

    def owned(self, reference: int | None) -> Owned:
        """For what a function with Create or Copy in its name returned."""
        return Owned(self, reference)

    def release(self, reference: int) -> None:
        self._cf.CFRelease(reference)

    def key(self, text: str) -> int:
        """A string object that is kept for good: for names of properties, of which there are few. Raises OSError."""
        known = self._keys.get(text)
        if known is None:
            known = self._cf.CFStringCreateWithCString(None, text.encode(), UTF8)
            if not known:
                raise OSError(f"CoreFoundation makes no string of {text!r}")
            self._keys[text] = known
        return known

    def get(self, dictionary: int, name: str) -> int | None:
        """Lends the value of a string key."""
        return self._cf.CFDictionaryGetValue(dictionary, self.key(name))

    def items(self, array: int) -> list[int]:
        """Lends the elements of an array."""
        return [
            self._cf.CFArrayGetValueAtIndex(array, index) for index in range(self._cf.CFArrayGetCount(array))
        ]

    def plain(self, reference: int | None, depth: int = 0) -> Plain:
        """The object as a Python value; None for null, for kinds that are no property list, and below ``DEEPEST``."""
        if not reference:
            return None
        kind = self._kind(reference)
        if kind == "string":
            return self._text(reference)
        if kind == "number":
            return self._number(reference)
        if kind == "boolean":
            return bool(self._cf.CFBooleanGetValue(reference))
        if kind == "data":
            length = self._cf.CFDataGetLength(reference)
            return ctypes.string_at(self._cf.CFDataGetBytePtr(reference), length) if length else b""
        if depth >= DEEPEST:
            return None
        if kind == "array":
            return [self.plain(item, depth + 1) for item in self.items(reference)]
        if kind == "dictionary":
            return self._mapping(reference, depth)
        return None

    def _kind(self, reference: int) -> str:
        if self._kinds is None:
            cf = self._cf
            self._kinds = {
                cf.CFStringGetTypeID(): "string",
                cf.CFNumberGetTypeID(): "number",
                cf.CFBooleanGetTypeID(): "boolean",
                cf.CFDataGetTypeID(): "data",
                cf.CFArrayGetTypeID(): "array",
                cf.CFDictionaryGetTypeID(): "dictionary",
            }
        return self._kinds.get(self._cf.CFGetTypeID(reference), "")

    def _text(self, reference: int) -> str:
        length = self._cf.CFStringGetMaximumSizeForEncoding(self._cf.CFStringGetLength(reference), UTF8) + 1
        buffer = ctypes.create_string_buffer(length)
        told = self._cf.CFStringGetCString(reference, buffer, length, UTF8)
        return buffer.value.decode("utf-8", "replace") if told else ""

    def _number(self, reference: int) -> int | float:
        if self._cf.CFNumberIsFloatType(reference):
            real = ctypes.c_double()
            self._cf.CFNumberGetValue(reference, FLOAT64, ctypes.byref(real))
            return real.value
        # A number that does not fit is cut off, which the result says; there are none of 128 bits here.
        whole = ctypes.c_int64()
        self._cf.CFNumberGetValue(reference, SINT64, ctypes.byref(whole))
        return whole.value

    def _mapping(self, reference: int, depth: int) -> Mapping[str | int, Plain]:
        count = self._cf.CFDictionaryGetCount(reference)
        keys, items = (ctypes.c_void_p * count)(), (ctypes.c_void_p * count)()
        self._cf.CFDictionaryGetKeysAndValues(reference, keys, items)
        found: dict[str | int, Plain] = {}
        for key, item in zip(keys, items, strict=True):
            name = self.plain(key, DEEPEST)
            if isinstance(name, str | int):
                found[name] = self.plain(item, depth + 1)
        return found


def mapping(value: Plain) -> Mapping[str, Plain]:
    """The string keys of a dictionary; empty for anything else."""
    if not isinstance(value, Mapping):
        return {}
    return {key: item for key, item in value.items() if isinstance(key, str)}


def sequence(value: Plain) -> Sequence[Plain]:
    """An array; empty for anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def text(value: Plain) -> str:
    """A string; empty for anything else."""
    return value if isinstance(value, str) else ""


def number(value: Plain) -> float | None:
    """A number, or what the registry keeps as 8 bytes, least first; None for anything else. Booleans are none."""
    if isinstance(value, bytes) and len(value) in (4, 8):
        return int.from_bytes(value, "little")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: Plain) -> int | None:
    """As ``number``, cut to a whole one."""
    found = number(value)
    return None if found is None else int(found)


def truth(value: Plain) -> bool | None:
    """A boolean, or a number that stands for one; None for anything else."""
    if isinstance(value, bool):
        return value
    found = number(value)
    return None if found is None else found != 0
