"""Windows: performance counters (pdh.h), under their English names, which hold in every language of Windows."""

import ctypes
import sys
from ctypes import byref, c_uint32, c_void_p
from typing import Final

from idle_sense.platform import windows_libraries as libraries
from idle_sense.platform.windows_numbers import (
    PDH_CSTATUS_NEW_DATA,
    PDH_CSTATUS_VALID_DATA,
    PDH_FMT_DOUBLE,
    PDH_FMT_NOCAP100,
    PDH_MORE_DATA,
)
from idle_sense.platform.windows_structures import PDH_FMT_COUNTERVALUE_ITEM_W

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

_TRIES: Final = 4
"""Instances come between the question for their number and the one for their values."""


class Counters:
    """Several counters, collected together. What counts by time is told from the second look on."""

    def __init__(self, *paths: str) -> None:
        """``paths``: such as ``\\GPU Engine(*)\\Utilization Percentage``."""
        self._paths = paths
        self._query: c_void_p | None = None
        self._counters: list[c_void_p | None] = []
        self._collected = False

    def read(self) -> list[list[tuple[str, float]] | None]:
        """For each path its instances and values; None: there is no such counter, or nothing to tell yet. Raises OSError."""
        if self._query is None:
            self._open()
        status = libraries.pdh().PdhCollectQueryData(self._query)
        # A query all of whose counters have no instance has no data, which is no failure.
        self._collected = status == 0
        return [None if counter is None else self._values(counter) for counter in self._counters]

    @property
    def known(self) -> list[bool]:
        """For each path whether this Windows has such a counter. Raises OSError."""
        if self._query is None:
            self._open()
        return [counter is not None for counter in self._counters]

    def close(self) -> None:
        if self._query is not None:
            libraries.pdh().PdhCloseQuery(self._query)
            self._query = None
            self._counters = []

    def _open(self) -> None:
        query = c_void_p()
        status = libraries.pdh().PdhOpenQueryW(None, 0, byref(query))
        if status != 0:
            raise OSError(f"PdhOpenQuery failed (0x{status & 0xFFFFFFFF:08x})")
        self._query = query
        self._counters = [self._added(path) for path in self._paths]

    def _added(self, path: str) -> c_void_p | None:
        counter = c_void_p()
        status = libraries.pdh().PdhAddEnglishCounterW(self._query, path, 0, byref(counter))
        return counter if status == 0 else None

    def _values(self, counter: c_void_p) -> list[tuple[str, float]] | None:
        if not self._collected:
            return None
        size, count = c_uint32(0), c_uint32(0)
        room: ctypes.Array[ctypes.c_char] | None = None
        for _ in range(_TRIES):
            status = libraries.pdh().PdhGetFormattedCounterArrayW(
                counter, PDH_FMT_DOUBLE | PDH_FMT_NOCAP100, byref(size), byref(count), room
            )
            if status & 0xFFFFFFFF != PDH_MORE_DATA:
                break
            room = ctypes.create_string_buffer(size.value)
        else:
            return None
        if status != 0:
            return None
        if room is None:
            return []
        return [
            (ctypes.wstring_at(item.szName), item.FmtValue.doubleValue)
            for item in (PDH_FMT_COUNTERVALUE_ITEM_W * count.value).from_buffer(room)
            if item.szName and item.FmtValue.CStatus in (PDH_CSTATUS_VALID_DATA, PDH_CSTATUS_NEW_DATA)
        ]
