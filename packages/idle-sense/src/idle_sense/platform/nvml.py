"""NVIDIA's management library (NVML), as far as this library needs it, by ctypes.

A binding of our own: the calls are a dozen, the driver brings the library, and so a machine that lends its card needs no further
package (nvidia-ml-py is the whole of NVML in 8,000 lines, and binds one version of each call, where an older
driver may have only the one before). Names and layouts are those of nvml.h.

Every call may hang in the driver: only for threads that may be kept waiting.
"""

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
NOT_AVAILABLE = 0xFFFFFFFFFFFFFFFF
"""NVML_VALUE_NOT_AVAILABLE: the driver does not know how much memory a program uses."""
MIG_ENABLED = 1
FULL_RATIO = 100

_UNTOLD = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)


class NvmlError(Exception):
    """A call answered with an error (nvmlReturn_t)."""

    def __init__(self, call: str, code: int, words: str) -> None:
        super().__init__(f"{call}: {words} ({code})")
        self.code = code


class Utilization(ctypes.Structure):
    """nvmlUtilization_t: percent of the last sample period, a sixth of a second to one second."""

    _fields_ = (("gpu", ctypes.c_uint32), ("memory", ctypes.c_uint32))


class MemoryInfo(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64))


class ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_t of the second and third version of the calls."""

    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("used_bytes", ctypes.c_uint64),
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
    )


class ProcessInfoV1(ctypes.Structure):
    """nvmlProcessInfo_v1_t."""

    _fields_ = (("pid", ctypes.c_uint32), ("used_bytes", ctypes.c_uint64))


class ProcessSample(ctypes.Structure):
    """nvmlProcessUtilizationSample_t: percent; the time is in microseconds of the wall clock."""

    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("timestamp", ctypes.c_uint64),
        ("sm", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("encoder", ctypes.c_uint32),
        ("decoder", ctypes.c_uint32),
    )


class Work(NamedTuple):
    """Of one program, each 0 to 1."""

    sm: float
    encoder: float
    decoder: float


def library_names() -> Sequence[str]:
    """Where drivers put the library; the first that loads serves."""
    if sys.platform == "win32":
        system = os.environ.get("SYSTEMROOT", r"C:\Windows")
        programs = os.environ.get("PROGRAMFILES", r"C:\Program Files")
        return (rf"{system}\System32\nvml.dll", rf"{programs}\NVIDIA Corporation\NVSMI\nvml.dll")
    return ("libnvidia-ml.so.1", "/run/opengl-driver/lib/libnvidia-ml.so.1")


class Nvml:
    """The library, loaded. Between ``open`` and ``close`` it holds the devices that were asked for."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Raises OSError when it is not installed."""
        self._library = _load(library_names() if names is None else names)
        self._error_words = self._function("nvmlErrorString")
        if self._error_words is not None:
            self._error_words.restype = ctypes.c_char_p

    def open(self) -> None:
        """nvmlInit_v2: starts no device yet. Raises NvmlError, as every call here does."""
        self._call("nvmlInit_v2")

    def close(self) -> None:
        """nvmlShutdown: lets go of all devices, so that they may sleep."""
        self._call("nvmlShutdown")

    def driver(self) -> str:
        version = ctypes.create_string_buffer(80)
        self._call("nvmlSystemGetDriverVersion", version, ctypes.c_uint32(len(version)))
        return version.value.decode("ascii", "replace")

    def device(self, address: str) -> ctypes.c_void_p:
        """By its address on the PCI bus, which starts that device alone, where counting through all would start all."""
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByPciBusId_v2", address.encode("ascii"), ctypes.byref(handle))
        return handle

    def busy_ratio(self, device: ctypes.c_void_p) -> float | None:
        """The busiest of its parts: the processors, the encoder, the decoder. None: this card does not tell, as in MIG mode."""
        rates = Utilization()
        if not self._told("nvmlDeviceGetUtilizationRates", device, ctypes.byref(rates)):
            return None
        found = [rates.gpu]
        for call in ("nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetDecoderUtilization"):
            share, period_us = ctypes.c_uint32(), ctypes.c_uint32()
            if self._told(call, device, ctypes.byref(share), ctypes.byref(period_us)):
                found.append(share.value)
        return min(FULL_RATIO, max(found)) / FULL_RATIO

    def used_bytes(self, device: ctypes.c_void_p) -> int | None:
        info = MemoryInfo()
        return info.used if self._told("nvmlDeviceGetMemoryInfo", device, ctypes.byref(info)) else None

    def has_mig(self, device: ctypes.c_void_p) -> bool:
        """Whether the card is split into instances."""
        current, pending = ctypes.c_uint32(), ctypes.c_uint32()
        return (
            self._told("nvmlDeviceGetMigMode", device, ctypes.byref(current), ctypes.byref(pending))
            and current.value == MIG_ENABLED
        )

    def instances(self, device: ctypes.c_void_p) -> list[ctypes.c_void_p]:
        """The MIG instances of a card."""
        count = ctypes.c_uint32()
        self._call("nvmlDeviceGetMaxMigDeviceCount", device, ctypes.byref(count))
        found: list[ctypes.c_void_p] = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            try:
                self._call(
                    "nvmlDeviceGetMigDeviceHandleByIndex",
                    device,
                    ctypes.c_uint32(index),
                    ctypes.byref(handle),
                )
            except NvmlError as error:
                if error.code == NOT_FOUND:
                    continue
                raise
            found.append(handle)
        return found

    def programs(self, device: ctypes.c_void_p) -> dict[int, int | None] | None:
        """Processes that hold the device, for computing or for pictures, with the bytes they use there (None: not told).
        None: the driver keeps no list."""
        found: dict[int, int | None] = {}
        told = False
        for call in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            entries = self._running(call, device)
            told = told or entries is not None
            for entry in entries or ():
                size = None if entry.used_bytes == NOT_AVAILABLE else int(entry.used_bytes)
                known = found.get(entry.pid)
                # A program that does both is in both lists, with the same number.
                found[entry.pid] = size if known is None else max(known, size or 0)
        return found if told else None

    def work(self, device: ctypes.c_void_p, since_us: int) -> Mapping[int, Work] | None:
        """What each program did since then (microseconds of the wall clock); those that did nothing may be missing. None: the
        driver does not tell by program, or answered with numbers that cannot be."""
        count = ctypes.c_uint32()
        since = ctypes.c_uint64(since_us)
        call = "nvmlDeviceGetProcessUtilization"
        try:
            self._call(call, device, None, ctypes.byref(count), since)
        except NvmlError as error:
            if error.code == NOT_FOUND:
                return {}
            if error.code in _UNTOLD:
                return None
            if error.code != INSUFFICIENT_SIZE:
                raise
        if not count.value:
            return {}
        samples = (ProcessSample * count.value)()
        try:
            self._call(call, device, samples, ctypes.byref(count), since)
        except NvmlError as error:
            if error.code == NOT_FOUND:
                return {}
            # More programs than a moment ago: not told this time.
            if error.code in (*_UNTOLD, INSUFFICIENT_SIZE):
                return None
            raise
        found: dict[int, Work] = {}
        for sample in samples[: count.value]:
            if sample.pid == 0 or sample.timestamp == 0:
                continue
            shares = (sample.sm, sample.encoder, sample.decoder)
            if max(shares) > FULL_RATIO:
                # Some drivers leave what was in the memory before.
                return None
            before = found.get(sample.pid, Work(0.0, 0.0, 0.0))
            found[sample.pid] = Work(
                *(max(old, share / FULL_RATIO) for old, share in zip(before, shares, strict=True))
            )
        return found

    def _running(
        self, call: str, device: ctypes.c_void_p
    ) -> Sequence[ProcessInfo] | Sequence[ProcessInfoV1] | None:
        """The newest version of the call that the driver has: the third came with 510, the second with 450."""
        for version, layout in (("_v3", ProcessInfo), ("_v2", ProcessInfo), ("", ProcessInfoV1)):
            if self._function(call + version) is not None:
                return self._list(call + version, device, layout)
        return None

    def _list(
        self, call: str, device: ctypes.c_void_p, layout: type[ProcessInfo] | type[ProcessInfoV1]
    ) -> list[Any] | None:
        count = ctypes.c_uint32(0)
        # It may grow between two calls: room to spare, and another try.
        for _ in range(3):
            room = count.value + 16
            entries = (layout * room)()
            count.value = room
            try:
                self._call(call, device, ctypes.byref(count), entries)
            except NvmlError as error:
                if error.code in _UNTOLD:
                    return None
                if error.code == INSUFFICIENT_SIZE:
                    continue
                raise
            return list(entries[: min(count.value, room)])
        raise NvmlError(call, INSUFFICIENT_SIZE, "the list of programs grows faster than it is read")

    def _told(self, call: str, *arguments: object) -> bool:
        """False: this device has no such thing."""
        try:
            self._call(call, *arguments)
        except NvmlError as error:
            if error.code in _UNTOLD:
                return False
            raise
        return True

    def _call(self, call: str, *arguments: object) -> None:
        function = self._function(call)
        code = FUNCTION_NOT_FOUND if function is None else function(*arguments)
        if code != 0:
            raise NvmlError(call, code, self._words(code))

    def _function(self, call: str) -> Any:
        """None: the driver's library is too old, or too new, to have it."""
        return getattr(self._library, call, None)

    def _words(self, code: int) -> str:
        words: bytes | None = self._error_words(code) if self._error_words is not None else None
        return (words or b"error").decode("ascii", "replace")


def _load(names: Sequence[str]) -> ctypes.CDLL:
    problem = OSError("no library named")
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problem = error
    raise problem
