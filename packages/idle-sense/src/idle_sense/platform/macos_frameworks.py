"""The functions of macOS that this library calls, as C declares them: one table for each framework.

The declarations are the headers' own, without names of parameters; ctypes' types follow from them, and
``bench/macos_headers.py`` compiles the same lines against Apple's headers. A framework is loaded by its full path when
one of its functions is first called: since macOS 11 the files themselves are gone from the disk (the loader finds them in
its cache), so that looking for them by name is of no use.
"""

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LIB_SYSTEM = "/usr/lib/libSystem.B.dylib"
_FRAMEWORK = "/System/Library/Frameworks/{0}.framework/{0}"

REFERENCES = (
    "CFAllocatorRef",
    "CFArrayRef",
    "CFBooleanRef",
    "CFDataRef",
    "CFDictionaryRef",
    "CFMutableDictionaryRef",
    "CFNumberRef",
    "CFStringRef",
    "CFTypeRef",
    "dispatch_queue_t",
    "nw_path_monitor_t",
    "nw_path_monitor_update_handler_t",
    "nw_path_t",
)
"""Names of pointer types."""

TYPES: Mapping[str, type[Any] | None] = {
    "void": None,
    "bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "int": ctypes.c_int,
    "u_int": ctypes.c_uint,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "intptr_t": ctypes.c_ssize_t,
    "uintptr_t": ctypes.c_size_t,
    "double": ctypes.c_double,
    "pid_t": ctypes.c_int32,
    # <mach/…>
    "kern_return_t": ctypes.c_int32,
    "mach_port_t": ctypes.c_uint32,
    "host_t": ctypes.c_uint32,
    "host_flavor_t": ctypes.c_int32,
    "host_info_t": ctypes.c_void_p,
    "host_info64_t": ctypes.c_void_p,
    "mach_timebase_info_t": ctypes.c_void_p,
    "mach_msg_type_number_t": ctypes.c_uint32,
    # <CoreFoundation/…>
    "Boolean": ctypes.c_uint8,
    "CFIndex": ctypes.c_long,
    "CFNumberType": ctypes.c_long,
    "CFStringEncoding": ctypes.c_uint32,
    "CFTimeInterval": ctypes.c_double,
    "CFTypeID": ctypes.c_ulong,
    "UInt8": ctypes.c_uint8,
    # <IOKit/…>
    "IOOptionBits": ctypes.c_uint32,
    "IOReturn": ctypes.c_int32,
    "io_iterator_t": ctypes.c_uint32,
    "io_object_t": ctypes.c_uint32,
    "io_registry_entry_t": ctypes.c_uint32,
    "io_service_t": ctypes.c_uint32,
    # <CoreGraphics/…>
    "CGDirectDisplayID": ctypes.c_uint32,
    "CGError": ctypes.c_int32,
    "CGEventSourceStateID": ctypes.c_int32,
    "CGEventType": ctypes.c_uint32,
    "CGWindowID": ctypes.c_uint32,
    "CGWindowListOption": ctypes.c_uint32,
    # <CoreAudio/…>, <CoreMediaIO/…>
    "AudioObjectID": ctypes.c_uint32,
    "CMIOObjectID": ctypes.c_uint32,
    "OSStatus": ctypes.c_int32,
    "UInt32": ctypes.c_uint32,
    **dict.fromkeys(REFERENCES, ctypes.c_void_p),
}
"""The ctypes type of each type that is no pointer to another one."""


class Rect(ctypes.Structure):
    """CGGeometry.h, CGRect: in points, from the upper left corner of the main display."""

    _fields_ = (
        ("x", ctypes.c_double),
        ("y", ctypes.c_double),
        ("width", ctypes.c_double),
        ("height", ctypes.c_double),
    )


class Prototype(NamedTuple):
    name: str
    result: str
    arguments: tuple[str, ...]


def prototypes(declarations: str) -> tuple[Prototype, ...]:
    """One declaration a line: ``result name(type, type)``. Raises ValueError for a line that is none."""
    found: list[Prototype] = []
    for line in declarations.strip().splitlines():
        match = re.fullmatch(r"\s*(.+?)\s*(\w+)\((.*)\)", line)
        if match is None:
            raise ValueError(f"no declaration: {line!r}")
        result, name, arguments = match.groups()
        types = () if arguments == "void" else tuple(part.strip() for part in arguments.split(","))
        found.append(Prototype(name, result, types))
    return tuple(found)


def c_type(name: str) -> type[Any] | None:
    """ctypes' type for a declared one. Raises KeyError for one that is not in ``TYPES``."""
    if name == "CGRect":
        return Rect
    if name == "const char *":
        return ctypes.c_char_p
    if name.endswith("*"):
        return ctypes.c_void_p
    return TYPES[name]


class Framework:
    """One library: its declared functions are its attributes. Calling raises OSError where this macOS lacks the library
    or the function."""

    def __init__(self, path: str, declarations: str) -> None:
        self.path = path
        self.declarations = declarations
        self._prototypes: dict[str, Prototype] | None = None
        self._library: ctypes.CDLL | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._prototypes is None:
            self._prototypes = {item.name: item for item in prototypes(self.declarations)}
        if name not in self._prototypes:
            raise AttributeError(name)
        prototype = self._prototypes[name]
        try:
            function = getattr(self.library(), name)
        except AttributeError as error:
            raise OSError(f"{self.path} has no {name}") from error
        function.restype = c_type(prototype.result)
        function.argtypes = [c_type(argument) for argument in prototype.arguments]
        # The next use finds it without asking here.
        setattr(self, name, function)
        return function

    def library(self) -> ctypes.CDLL:
        """Raises OSError where it cannot be loaded."""
        if self._library is None:
            self._library = ctypes.CDLL(self.path)
        return self._library

    def address(self, symbol: str) -> int:
        """Where a variable of the library lies. Raises OSError where there is none of that name."""
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self.library(), symbol))
        except ValueError as error:
            raise OSError(f"{self.path} has no {symbol}") from error


SYSTEM = """
int proc_listpids(uint32_t, uint32_t, void *, int)
int proc_pidinfo(int, int, uint64_t, void *, int)
int proc_pid_rusage(int, int, rusage_info_t *)
int proc_name(int, void *, uint32_t)
pid_t getsid(pid_t)
mach_port_t mach_host_self(void)
kern_return_t mach_timebase_info(mach_timebase_info_t)
kern_return_t host_statistics(host_t, host_flavor_t, host_info_t, mach_msg_type_number_t *)
kern_return_t host_statistics64(host_t, host_flavor_t, host_info64_t, mach_msg_type_number_t *)
int sysctl(int *, u_int, void *, size_t *, void *, size_t)
int sysctlbyname(const char *, void *, size_t *, void *, size_t)
struct utmpx * getutxent(void)
void setutxent(void)
void endutxent(void)
uint32_t notify_register_check(const char *, int *)
uint32_t notify_get_state(int, uint64_t *)
uint32_t notify_cancel(int)
dispatch_queue_t dispatch_get_global_queue(intptr_t, uintptr_t)
"""
"""<libproc.h>, <unistd.h>, <mach/mach.h>, <mach/mach_time.h>, <sys/sysctl.h>, <utmpx.h>, <notify.h>, <dispatch/dispatch.h>"""

CORE_FOUNDATION = """
void CFRelease(CFTypeRef)
CFTypeID CFGetTypeID(CFTypeRef)
CFTypeID CFStringGetTypeID(void)
CFTypeID CFNumberGetTypeID(void)
CFTypeID CFBooleanGetTypeID(void)
CFTypeID CFDataGetTypeID(void)
CFTypeID CFArrayGetTypeID(void)
CFTypeID CFDictionaryGetTypeID(void)
CFStringRef CFStringCreateWithCString(CFAllocatorRef, const char *, CFStringEncoding)
CFIndex CFStringGetLength(CFStringRef)
CFIndex CFStringGetMaximumSizeForEncoding(CFIndex, CFStringEncoding)
Boolean CFStringGetCString(CFStringRef, char *, CFIndex, CFStringEncoding)
Boolean CFNumberIsFloatType(CFNumberRef)
Boolean CFNumberGetValue(CFNumberRef, CFNumberType, void *)
Boolean CFBooleanGetValue(CFBooleanRef)
CFIndex CFDataGetLength(CFDataRef)
const UInt8 * CFDataGetBytePtr(CFDataRef)
CFIndex CFArrayGetCount(CFArrayRef)
const void * CFArrayGetValueAtIndex(CFArrayRef, CFIndex)
CFIndex CFDictionaryGetCount(CFDictionaryRef)
const void * CFDictionaryGetValue(CFDictionaryRef, const void *)
void CFDictionaryGetKeysAndValues(CFDictionaryRef, const void * *, const void * *)
"""
"""<CoreFoundation/CoreFoundation.h>"""

IO_KIT = """
CFMutableDictionaryRef IOServiceMatching(const char *)
io_service_t IOServiceGetMatchingService(mach_port_t, CFDictionaryRef)
kern_return_t IOServiceGetMatchingServices(mach_port_t, CFDictionaryRef, io_iterator_t *)
io_object_t IOIteratorNext(io_iterator_t)
kern_return_t IOObjectRelease(io_object_t)
kern_return_t IORegistryEntryGetChildIterator(io_registry_entry_t, const char *, io_iterator_t *)
kern_return_t IORegistryEntryGetRegistryEntryID(io_registry_entry_t, uint64_t *)
io_registry_entry_t IORegistryGetRootEntry(mach_port_t)
CFTypeRef IORegistryEntryCreateCFProperty(io_registry_entry_t, CFStringRef, CFAllocatorRef, IOOptionBits)
IOReturn IOPMCopyAssertionsByProcess(CFDictionaryRef *)
IOReturn IOPMCopyCPUPowerStatus(CFDictionaryRef *)
CFTypeRef IOPSCopyPowerSourcesInfo(void)
CFArrayRef IOPSCopyPowerSourcesList(CFTypeRef)
CFDictionaryRef IOPSGetPowerSourceDescription(CFTypeRef, CFTypeRef)
CFStringRef IOPSGetProvidingPowerSourceType(CFTypeRef)
"""
"""<IOKit/IOKitLib.h>, <IOKit/pwr_mgt/IOPMLib.h>, <IOKit/ps/IOPowerSources.h>"""

CORE_GRAPHICS = """
CFTimeInterval CGEventSourceSecondsSinceLastEventType(CGEventSourceStateID, CGEventType)
CFDictionaryRef CGSessionCopyCurrentDictionary(void)
CFArrayRef CGWindowListCopyWindowInfo(CGWindowListOption, CGWindowID)
CGError CGGetActiveDisplayList(uint32_t, CGDirectDisplayID *, uint32_t *)
CGRect CGDisplayBounds(CGDirectDisplayID)
"""
"""<CoreGraphics/CoreGraphics.h>"""

CORE_AUDIO = """
Boolean AudioObjectHasProperty(AudioObjectID, const AudioObjectPropertyAddress *)
OSStatus AudioObjectGetPropertyDataSize(AudioObjectID, const AudioObjectPropertyAddress *, UInt32, const void *, UInt32 *)
OSStatus AudioObjectGetPropertyData(AudioObjectID, const AudioObjectPropertyAddress *, UInt32, const void *, UInt32 *, void *)
"""
"""<CoreAudio/AudioHardware.h>"""

CORE_MEDIA_IO = """
OSStatus CMIOObjectGetPropertyDataSize(CMIOObjectID, const CMIOObjectPropertyAddress *, UInt32, const void *, UInt32 *)
OSStatus CMIOObjectGetPropertyData(CMIOObjectID, const CMIOObjectPropertyAddress *, UInt32, const void *, UInt32, UInt32 *, void *)
"""
"""<CoreMediaIO/CMIOHardware.h>"""

NETWORK = """
nw_path_monitor_t nw_path_monitor_create(void)
void nw_path_monitor_set_queue(nw_path_monitor_t, dispatch_queue_t)
void nw_path_monitor_set_update_handler(nw_path_monitor_t, nw_path_monitor_update_handler_t)
void nw_path_monitor_start(nw_path_monitor_t)
void nw_path_monitor_cancel(nw_path_monitor_t)
bool nw_path_is_expensive(nw_path_t)
bool nw_path_is_constrained(nw_path_t)
void nw_release(void *)
"""
"""<Network/Network.h>"""


class Frameworks:
    """All of them; nothing is loaded before it is used."""

    def __init__(self, library: str | None = None) -> None:
        """``library``: one that holds all the functions, in place of the system's own."""

        def framework(path: str, declarations: str) -> Framework:
            return Framework(library or path, declarations)

        self.system = framework(LIB_SYSTEM, SYSTEM)
        self.core_foundation = framework(_FRAMEWORK.format("CoreFoundation"), CORE_FOUNDATION)
        self.io_kit = framework(_FRAMEWORK.format("IOKit"), IO_KIT)
        self.core_graphics = framework(_FRAMEWORK.format("CoreGraphics"), CORE_GRAPHICS)
        self.core_audio = framework(_FRAMEWORK.format("CoreAudio"), CORE_AUDIO)
        self.core_media_io = framework(_FRAMEWORK.format("CoreMediaIO"), CORE_MEDIA_IO)
        self.network = framework(_FRAMEWORK.format("Network"), NETWORK)
