"""Structures and numbers of Windows' headers, under the names that the headers give them. 64-bit and 32-bit alike.

Widths are fixed ones, never those of ``wintypes``: there a DWORD is as wide as the C compiler's long, so that nothing of this
could be tried on other systems. ``STRUCTURES`` are compared with the headers themselves.
"""

import ctypes
from collections.abc import Mapping
from ctypes import c_int32, c_int64, c_size_t, c_ssize_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p


class LASTINPUTINFO(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (("cbSize", c_uint32), ("dwTime", c_uint32))


class RAWINPUTDEVICE(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (
        ("usUsagePage", c_uint16),
        ("usUsage", c_uint16),
        ("dwFlags", c_uint32),
        ("hwndTarget", c_void_p),
    )


class RAWINPUTHEADER(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (("dwType", c_uint32), ("dwSize", c_uint32), ("hDevice", c_void_p), ("wParam", c_size_t))


class RAWHID(ctypes.Structure):
    """<winuser.h>: ``dwCount`` reports of ``dwSizeHid`` bytes each."""

    _fields_ = (("dwSizeHid", c_uint32), ("dwCount", c_uint32), ("bRawData", c_uint8 * 1))


class RID_DEVICE_INFO_HID(ctypes.Structure):  # noqa: N801 - the header's name, as all here
    """<winuser.h>"""

    _fields_ = (
        ("dwVendorId", c_uint32),
        ("dwProductId", c_uint32),
        ("dwVersionNumber", c_uint32),
        ("usUsagePage", c_uint16),
        ("usUsage", c_uint16),
    )


class RID_DEVICE_INFO(ctypes.Structure):  # noqa: N801
    """<winuser.h>; of its union only the part for devices that are neither mouse nor keyboard, and room for the rest."""

    _fields_ = (
        ("cbSize", c_uint32),
        ("dwType", c_uint32),
        ("hid", RID_DEVICE_INFO_HID),
        ("_room", c_uint32 * 2),
    )


class WNDCLASSEXW(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (
        ("cbSize", c_uint32),
        ("style", c_uint32),
        ("lpfnWndProc", c_void_p),
        ("cbClsExtra", c_int32),
        ("cbWndExtra", c_int32),
        ("hInstance", c_void_p),
        ("hIcon", c_void_p),
        ("hCursor", c_void_p),
        ("hbrBackground", c_void_p),
        ("lpszMenuName", c_void_p),
        ("lpszClassName", c_void_p),
        ("hIconSm", c_void_p),
    )


class POINT(ctypes.Structure):
    """<windef.h>"""

    _fields_ = (("x", c_int32), ("y", c_int32))


class RECT(ctypes.Structure):
    """<windef.h>"""

    _fields_ = (("left", c_int32), ("top", c_int32), ("right", c_int32), ("bottom", c_int32))


class MSG(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (
        ("hwnd", c_void_p),
        ("message", c_uint32),
        ("wParam", c_size_t),
        ("lParam", c_ssize_t),
        ("time", c_uint32),
        ("pt", POINT),
    )


class MONITORINFO(ctypes.Structure):
    """<winuser.h>"""

    _fields_ = (("cbSize", c_uint32), ("rcMonitor", RECT), ("rcWork", RECT), ("dwFlags", c_uint32))


class WTS_SESSION_INFOW(ctypes.Structure):  # noqa: N801
    """<wtsapi32.h>"""

    _fields_ = (("SessionId", c_uint32), ("pWinStationName", c_void_p), ("State", c_int32))


class WTSINFOEX_LEVEL1_W(ctypes.Structure):  # noqa: N801
    """<wtsapi32.h>; times are FILETIMEs."""

    _fields_ = (
        ("SessionId", c_uint32),
        ("SessionState", c_int32),
        ("SessionFlags", c_int32),
        ("WinStationName", c_uint16 * 33),
        ("UserName", c_uint16 * 21),
        ("DomainName", c_uint16 * 18),
        ("LogonTime", c_int64),
        ("ConnectTime", c_int64),
        ("DisconnectTime", c_int64),
        ("LastInputTime", c_int64),
        ("CurrentTime", c_int64),
        ("IncomingBytes", c_uint32),
        ("OutgoingBytes", c_uint32),
        ("IncomingFrames", c_uint32),
        ("OutgoingFrames", c_uint32),
        ("IncomingCompressedBytes", c_uint32),
        ("OutgoingCompressedBytes", c_uint32),
    )


class WTSINFOEXW(ctypes.Structure):
    """<wtsapi32.h>; ``Data`` is a union of one."""

    _fields_ = (("Level", c_uint32), ("Data", WTSINFOEX_LEVEL1_W))


class RTL_OSVERSIONINFOW(ctypes.Structure):  # noqa: N801
    """<winnt.h>"""

    _fields_ = (
        ("dwOSVersionInfoSize", c_uint32),
        ("dwMajorVersion", c_uint32),
        ("dwMinorVersion", c_uint32),
        ("dwBuildNumber", c_uint32),
        ("dwPlatformId", c_uint32),
        ("szCSDVersion", c_uint16 * 128),
    )


class SYSTEM_POWER_STATUS(ctypes.Structure):  # noqa: N801
    """<winbase.h>"""

    _fields_ = (
        ("ACLineStatus", c_uint8),
        ("BatteryFlag", c_uint8),
        ("BatteryLifePercent", c_uint8),
        ("SystemStatusFlag", c_uint8),
        ("BatteryLifeTime", c_uint32),
        ("BatteryFullLifeTime", c_uint32),
    )


class MEMORYSTATUSEX(ctypes.Structure):
    """<sysinfoapi.h>"""

    _fields_ = (
        ("dwLength", c_uint32),
        ("dwMemoryLoad", c_uint32),
        ("ullTotalPhys", c_uint64),
        ("ullAvailPhys", c_uint64),
        ("ullTotalPageFile", c_uint64),
        ("ullAvailPageFile", c_uint64),
        ("ullTotalVirtual", c_uint64),
        ("ullAvailVirtual", c_uint64),
        ("ullAvailExtendedVirtual", c_uint64),
    )


class PROCESS_BASIC_INFORMATION(ctypes.Structure):  # noqa: N801
    """<winternl.h>"""

    _fields_ = (
        ("ExitStatus", c_int32),
        ("PebBaseAddress", c_void_p),
        ("AffinityMask", c_size_t),
        ("BasePriority", c_int32),
        ("UniqueProcessId", c_size_t),
        ("InheritedFromUniqueProcessId", c_size_t),
    )


class PROCESSENTRY32W(ctypes.Structure):
    """<tlhelp32.h>"""

    _fields_ = (
        ("dwSize", c_uint32),
        ("cntUsage", c_uint32),
        ("th32ProcessID", c_uint32),
        ("th32DefaultHeapID", c_size_t),
        ("th32ModuleID", c_uint32),
        ("cntThreads", c_uint32),
        ("th32ParentProcessID", c_uint32),
        ("pcPriClassBase", c_int32),
        ("dwFlags", c_uint32),
        ("szExeFile", c_uint16 * 260),
    )


class JOBOBJECT_BASIC_ACCOUNTING_INFORMATION(ctypes.Structure):  # noqa: N801
    """<winnt.h>; times in 100 ns, of processes that are in the job and of those that have ended."""

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


class JOBOBJECT_BASIC_PROCESS_ID_LIST(ctypes.Structure):  # noqa: N801
    """<winnt.h>; ``NumberOfProcessIdsInList`` of them follow one another."""

    _fields_ = (
        ("NumberOfAssignedProcesses", c_uint32),
        ("NumberOfProcessIdsInList", c_uint32),
        ("ProcessIdList", c_size_t * 1),
    )


class PDH_FMT_COUNTERVALUE(ctypes.Structure):  # noqa: N801
    """<pdh.h>; of its union the part for PDH_FMT_DOUBLE."""

    _fields_ = (("CStatus", c_uint32), ("doubleValue", ctypes.c_double))


class PDH_FMT_COUNTERVALUE_ITEM_W(ctypes.Structure):  # noqa: N801
    """<pdh.h>"""

    _fields_ = (("szName", c_void_p), ("FmtValue", PDH_FMT_COUNTERVALUE))


class GUID(ctypes.Structure):
    """<guiddef.h>"""

    _fields_ = (("Data1", c_uint32), ("Data2", c_uint16), ("Data3", c_uint16), ("Data4", c_uint8 * 8))


class MIB_IF_ROW2(ctypes.Structure):  # noqa: N801
    """<netioapi.h>; its structure of bits is one byte here."""

    _fields_ = (
        ("InterfaceLuid", c_uint64),
        ("InterfaceIndex", c_uint32),
        ("InterfaceGuid", GUID),
        ("Alias", c_uint16 * 257),
        ("Description", c_uint16 * 257),
        ("PhysicalAddressLength", c_uint32),
        ("PhysicalAddress", c_uint8 * 32),
        ("PermanentPhysicalAddress", c_uint8 * 32),
        ("Mtu", c_uint32),
        ("Type", c_uint32),
        ("TunnelType", c_uint32),
        ("MediaType", c_uint32),
        ("PhysicalMediumType", c_uint32),
        ("AccessType", c_uint32),
        ("DirectionType", c_uint32),
        ("InterfaceAndOperStatusFlags", c_uint8),
        ("OperStatus", c_uint32),
        ("AdminStatus", c_uint32),
        ("MediaConnectState", c_uint32),
        ("NetworkGuid", GUID),
        ("ConnectionType", c_uint32),
        *(
            (name, c_uint64)
            for name in (
                "TransmitLinkSpeed",
                "ReceiveLinkSpeed",
                "InOctets",
                "InUcastPkts",
                "InNUcastPkts",
                "InDiscards",
                "InErrors",
                "InUnknownProtos",
                "InUcastOctets",
                "InMulticastOctets",
                "InBroadcastOctets",
                "OutOctets",
                "OutUcastPkts",
                "OutNUcastPkts",
                "OutDiscards",
                "OutErrors",
                "OutUcastOctets",
                "OutMulticastOctets",
                "OutBroadcastOctets",
                "OutQLen",
            )
        ),
    )


STRUCTURES: Mapping[str, type[ctypes.Structure]] = {
    structure.__name__: structure
    for structure in (
        LASTINPUTINFO,
        RAWINPUTDEVICE,
        RAWINPUTHEADER,
        RAWHID,
        RID_DEVICE_INFO_HID,
        RID_DEVICE_INFO,
        WNDCLASSEXW,
        POINT,
        RECT,
        MSG,
        MONITORINFO,
        WTS_SESSION_INFOW,
        WTSINFOEX_LEVEL1_W,
        WTSINFOEXW,
        RTL_OSVERSIONINFOW,
        SYSTEM_POWER_STATUS,
        MEMORYSTATUSEX,
        PROCESS_BASIC_INFORMATION,
        PROCESSENTRY32W,
        JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
        JOBOBJECT_BASIC_PROCESS_ID_LIST,
        PDH_FMT_COUNTERVALUE,
        PDH_FMT_COUNTERVALUE_ITEM_W,
        GUID,
        MIB_IF_ROW2,
    )
}


def text(characters: "ctypes.Array[c_uint16]") -> str:
    """What stands before the first zero."""
    return bytes(characters).decode("utf-16-le", "replace").partition("\0")[0]
