"""Windows: the structures, numbers and functions of app containers, as the headers have them.

Declarations alone, which any system can read: `bench/windows_container_headers.py` holds them against mingw-w64's headers.
Where each stands: userenv.h, aclapi.h, accctrl.h, winnt.h, processthreadsapi.h, securitybaseapi.h.
"""

import ctypes
from collections.abc import Mapping
from ctypes import Structure, c_int32, c_size_t, c_uint16, c_uint32, c_void_p, c_wchar_p
from typing import Any, ClassVar, Final

PROC_THREAD_ATTRIBUTE_HANDLE_LIST: Final = 0x20002
PROC_THREAD_ATTRIBUTE_SECURITY_CAPABILITIES: Final = 0x20009
PROC_THREAD_ATTRIBUTE_ALL_APPLICATION_PACKAGES_POLICY: Final = 0x2000F
PROCESS_CREATION_ALL_APPLICATION_PACKAGES_OPT_OUT: Final = 1
CREATE_SUSPENDED: Final = 0x4
DETACHED_PROCESS: Final = 0x8
CREATE_NEW_PROCESS_GROUP: Final = 0x200
CREATE_UNICODE_ENVIRONMENT: Final = 0x400
EXTENDED_STARTUPINFO_PRESENT: Final = 0x80000
STARTF_USESTDHANDLES: Final = 0x100
SE_GROUP_ENABLED: Final = 0x4
SE_FILE_OBJECT: Final = 1
DACL_SECURITY_INFORMATION: Final = 0x4
GRANT_ACCESS: Final = 1
REVOKE_ACCESS: Final = 4
SUB_CONTAINERS_AND_OBJECTS_INHERIT: Final = 3
TRUSTEE_IS_SID: Final = 0
TRUSTEE_IS_UNKNOWN: Final = 0
FILE_GENERIC_READ: Final = 0x120089
FILE_GENERIC_WRITE: Final = 0x120116
FILE_GENERIC_EXECUTE: Final = 0x1200A0
DELETE: Final = 0x10000
FILE_DELETE_CHILD: Final = 0x40
JOB_OBJECT_LIMIT_JOB_MEMORY: Final = 0x200
JOB_OBJECT_LIMIT_ACTIVE_PROCESS: Final = 0x8
JOB_OBJECT_UILIMIT_ALL: Final = 0xFF


class SID_AND_ATTRIBUTES(Structure):  # noqa: N801  # the headers' name
    _fields_: ClassVar = [("Sid", c_void_p), ("Attributes", c_uint32)]


class SECURITY_CAPABILITIES(Structure):  # noqa: N801  # as above
    _fields_: ClassVar = [
        ("AppContainerSid", c_void_p),
        ("Capabilities", c_void_p),
        ("CapabilityCount", c_uint32),
        ("Reserved", c_uint32),
    ]


class STARTUPINFOW(Structure):
    _fields_: ClassVar = [
        ("cb", c_uint32),
        ("lpReserved", c_wchar_p),
        ("lpDesktop", c_wchar_p),
        ("lpTitle", c_wchar_p),
        ("dwX", c_uint32),
        ("dwY", c_uint32),
        ("dwXSize", c_uint32),
        ("dwYSize", c_uint32),
        ("dwXCountChars", c_uint32),
        ("dwYCountChars", c_uint32),
        ("dwFillAttribute", c_uint32),
        ("dwFlags", c_uint32),
        ("wShowWindow", c_uint16),
        ("cbReserved2", c_uint16),
        ("lpReserved2", c_void_p),
        ("hStdInput", c_void_p),
        ("hStdOutput", c_void_p),
        ("hStdError", c_void_p),
    ]


class STARTUPINFOEXW(Structure):
    _fields_: ClassVar = [("StartupInfo", STARTUPINFOW), ("lpAttributeList", c_void_p)]


class PROCESS_INFORMATION(Structure):  # noqa: N801  # as above
    _fields_: ClassVar = [
        ("hProcess", c_void_p),
        ("hThread", c_void_p),
        ("dwProcessId", c_uint32),
        ("dwThreadId", c_uint32),
    ]


class TRUSTEE_W(Structure):  # noqa: N801  # as above
    _fields_: ClassVar = [
        ("pMultipleTrustee", c_void_p),
        ("MultipleTrusteeOperation", c_uint32),
        ("TrusteeForm", c_uint32),
        ("TrusteeType", c_uint32),
        ("ptstrName", c_void_p),
    ]


class EXPLICIT_ACCESS_W(Structure):  # noqa: N801  # as above
    _fields_: ClassVar = [
        ("grfAccessPermissions", c_uint32),
        ("grfAccessMode", c_uint32),
        ("grfInheritance", c_uint32),
        ("Trustee", TRUSTEE_W),
    ]


class JOBOBJECT_BASIC_UI_RESTRICTIONS(Structure):  # noqa: N801  # as above
    _fields_: ClassVar = [("UIRestrictionsClass", c_uint32)]


STRUCTURES: Final[Mapping[str, type[Structure]]] = {
    kind.__name__: kind
    for kind in (
        SID_AND_ATTRIBUTES,
        SECURITY_CAPABILITIES,
        STARTUPINFOW,
        STARTUPINFOEXW,
        PROCESS_INFORMATION,
        TRUSTEE_W,
        EXPLICIT_ACCESS_W,
        JOBOBJECT_BASIC_UI_RESTRICTIONS,
    )
}

Signature = tuple[Any, tuple[Any, ...]]
"""(type of the result, types of the arguments)."""
FUNCTIONS: Final[Mapping[str, Mapping[str, Signature]]] = {
    "userenv": {
        "CreateAppContainerProfile": (
            c_int32,
            (c_wchar_p, c_wchar_p, c_wchar_p, c_void_p, c_uint32, c_void_p),
        ),
        "DeleteAppContainerProfile": (c_int32, (c_wchar_p,)),
        "DeriveAppContainerSidFromAppContainerName": (c_int32, (c_wchar_p, c_void_p)),
    },
    "kernelbase": {
        "DeriveCapabilitySidsFromName": (
            c_int32,
            (c_wchar_p, c_void_p, c_void_p, c_void_p, c_void_p),
        ),
    },
    "advapi32": {
        "FreeSid": (c_void_p, (c_void_p,)),
        "GetNamedSecurityInfoW": (
            c_uint32,
            (c_wchar_p, c_int32, c_uint32, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
        ),
        "SetNamedSecurityInfoW": (
            c_uint32,
            (c_wchar_p, c_int32, c_uint32, c_void_p, c_void_p, c_void_p, c_void_p),
        ),
        "SetEntriesInAclW": (c_uint32, (c_uint32, c_void_p, c_void_p, c_void_p)),
    },
    "kernel32": {
        "InitializeProcThreadAttributeList": (c_int32, (c_void_p, c_uint32, c_uint32, c_void_p)),
        "UpdateProcThreadAttribute": (
            c_int32,
            (c_void_p, c_uint32, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p),
        ),
        "DeleteProcThreadAttributeList": (None, (c_void_p,)),
        "CreateProcessW": (
            c_int32,
            (
                c_wchar_p,
                c_wchar_p,
                c_void_p,
                c_void_p,
                c_int32,
                c_uint32,
                c_void_p,
                c_wchar_p,
                c_void_p,
                c_void_p,
            ),
        ),
        "LocalFree": (c_void_p, (c_void_p,)),
        "CloseHandle": (c_int32, (c_void_p,)),
        "TerminateProcess": (c_int32, (c_void_p, c_uint32)),
        "WaitForSingleObject": (c_uint32, (c_void_p, c_uint32)),
        "GetExitCodeProcess": (c_int32, (c_void_p, c_void_p)),
    },
}
"""By library: what is called, and how."""


def environment_block(env: Mapping[str, str]) -> "ctypes.Array[ctypes.c_wchar]":
    """What CreateProcess takes with CREATE_UNICODE_ENVIRONMENT: each ``NAME=VALUE`` ended by a NUL, and one more at the end.

    Raises ValueError for a name or value that would end before its end, or a name that would become another.
    """
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{name!r} is no variable of an environment")
    listed = sorted(env.items(), key=lambda item: item[0].upper())
    text = "".join(f"{name}={value}\0" for name, value in listed) or "\0"
    return ctypes.create_unicode_buffer(text)
