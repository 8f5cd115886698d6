"""macOS: idle time of keyboard and mouse, by ctypes. Signature-only: written from the headers, not run on macOS.

The smaller of two: HIDIdleTime of the I/O registry (nanoseconds, IOHIDSystem), which needs no window server, and
CGEventSourceSecondsSinceLastEventType, which also sees input that reaches the window server by other ways.
"""

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterable

from idle_sense.platform import portable
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.guests import GuestLedger, ProcessInfo
from idle_sense.types import MemoryUse, Reading, Seat, Verified

IOKIT = "/System/Library/Frameworks/IOKit.framework/IOKit"
CORE_FOUNDATION = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
CORE_GRAPHICS = "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics"

CF_NUMBER_SINT64 = 4
"""CFNumber.h, kCFNumberSInt64Type."""
CF_STRING_UTF8 = 0x08000100
"""CFString.h, kCFStringEncodingUTF8."""
HID_SYSTEM_STATE = 1
"""CGEventTypes.h, kCGEventSourceStateHIDSystemState."""
ANY_INPUT = 0xFFFFFFFF
"""CGEventTypes.h, kCGAnyInputEventType."""

if sys.platform == "darwin":

    class Frameworks:
        """The functions, with their types. Raises OSError where a framework cannot be loaded."""

        def __init__(self) -> None:
            self._io = ctypes.CDLL(IOKIT)
            self._cf = ctypes.CDLL(CORE_FOUNDATION)
            self._cg = ctypes.CDLL(CORE_GRAPHICS)
            self._io.IOServiceMatching.argtypes = [ctypes.c_char_p]
            self._io.IOServiceMatching.restype = ctypes.c_void_p
            self._io.IOServiceGetMatchingService.argtypes = [ctypes.c_uint32, ctypes.c_void_p]
            self._io.IOServiceGetMatchingService.restype = ctypes.c_uint32
            self._io.IORegistryEntryCreateCFProperty.argtypes = [
                ctypes.c_uint32,
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_uint32,
            ]
            self._io.IORegistryEntryCreateCFProperty.restype = ctypes.c_void_p
            self._cf.CFStringCreateWithCString.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
            self._cf.CFStringCreateWithCString.restype = ctypes.c_void_p
            self._cf.CFNumberGetValue.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p]
            self._cf.CFNumberGetValue.restype = ctypes.c_bool
            self._cf.CFRelease.argtypes = [ctypes.c_void_p]
            self._cf.CFRelease.restype = None
            self._cg.CGEventSourceSecondsSinceLastEventType.argtypes = [ctypes.c_int32, ctypes.c_uint32]
            self._cg.CGEventSourceSecondsSinceLastEventType.restype = ctypes.c_double
            # Port 0 is kIOMainPortDefault; the call uses up the dictionary. The service and the key are kept for good.
            self._service = self._io.IOServiceGetMatchingService(
                0, self._io.IOServiceMatching(b"IOHIDSystem")
            )
            self._key = self._cf.CFStringCreateWithCString(None, b"HIDIdleTime", CF_STRING_UTF8)

        def registry_idle_s(self) -> float | None:
            """None where the registry has no such entry."""
            if not self._service or not self._key:
                return None
            number = self._io.IORegistryEntryCreateCFProperty(self._service, self._key, None, 0)
            if not number:
                return None
            try:
                idle_ns = ctypes.c_int64()
                told = self._cf.CFNumberGetValue(number, CF_NUMBER_SINT64, ctypes.byref(idle_ns))
                return idle_ns.value / 1e9 if told else None
            finally:
                self._cf.CFRelease(number)

        def event_idle_s(self) -> float:
            return float(self._cg.CGEventSourceSecondsSinceLastEventType(HID_SYSTEM_STATE, ANY_INPUT))

    class MacOS:
        name = "macos"
        verified: Verified = "signature-only"

        def __init__(self) -> None:
            self._scanned_at_s = -60.0
            self._parents: dict[int, int] = {}

        def suspended_s(self) -> float:
            """clock_gettime(3): CLOCK_MONOTONIC runs on in sleep, CLOCK_UPTIME_RAW does not."""
            return max(
                0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
            )

        def cpu_times_s(self) -> tuple[float, float]:
            return portable.cpu_times_s()

        def memory(self) -> MemoryUse:
            return portable.memory()

        def process(self, pid: int) -> ProcessInfo | None:
            return portable.process(pid)

        def children(self, process: ProcessInfo) -> Iterable[int]:
            """One scan of all processes in 5 s serves all questions."""
            if time.monotonic() - self._scanned_at_s >= 5.0:
                self._parents = portable.parents()
                self._scanned_at_s = time.monotonic()
            return [pid for pid, parent in self._parents.items() if parent == process.pid]

        def seats(self, guests: GuestLedger) -> "MacSeats":
            del guests  # a guest opens no session
            frameworks = Frameworks()
            return MacSeats(registry_idle_s=frameworks.registry_idle_s, event_idle_s=frameworks.event_idle_s)

        def terminals(self) -> Terminals:
            return Terminals.macos(self)


class MacSeats:
    """The one seat of a Mac. The system's calls are handed in, so that the rules run anywhere."""

    name = "console"
    verified: Verified = "signature-only"

    def __init__(
        self, *, registry_idle_s: Callable[[], float | None], event_idle_s: Callable[[], float]
    ) -> None:
        self._registry_idle_s = registry_idle_s
        self._event_idle_s = event_idle_s

    def read(self, now_s: float) -> Reading[tuple[Seat, ...]]:
        del now_s
        told = {"HIDIdleTime": self._registry_idle_s(), "CGEventSource": self._event_idle_s()}
        good = {
            source: idle_s
            for source, idle_s in told.items()
            if idle_s is not None and math.isfinite(idle_s) and idle_s >= 0
        }
        if "HIDIdleTime" not in good:
            # Outside a log-in session the window server's answer alone means nothing.
            reading = Reading[float].missing(
                "HIDIdleTime",
                "the I/O registry does not tell when a key was pressed",
                "start this program as a launch agent of the logged-in user",
            )
        else:
            source = min(good, key=lambda name: good[name])
            reading = Reading(value=good[source], source=source)
        return Reading(value=(Seat(name="console", idle_s=reading),), source=self.name)

    def describe(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Holds nothing."""
