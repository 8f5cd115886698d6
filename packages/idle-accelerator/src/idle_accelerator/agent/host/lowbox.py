"""Windows: app containers. A process in one has the rights of its container alone, not those of the user who started it.

A container is made for each guest and deleted after it. It is a less privileged one (LPAC): rights that the system grants to all app containers do
not count, and it has no capability for the network. What it may read and write is granted by access entries for it: the workspace, and
by a capability of this project's own, the Python that the agent runs on. Never run by who wrote this: see ``windows.VERIFIED``.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from ctypes import byref, c_uint32, c_void_p, sizeof
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from idle_accelerator.agent.host import windows_calls as calls
from idle_accelerator.agent.host.types import Launch

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

PREFIX: Final = "idle-accelerator.guest."
CAPABILITY: Final = "idleAcceleratorPython"
"""Of this project's own: whoever has it may read and run the agent's Python."""
SYSTEM_CAPABILITIES: Final = ("registryRead",)
"""What programs need to start: the settings of the machine, not those of the user."""
READ: Final = calls.FILE_GENERIC_READ | calls.FILE_GENERIC_EXECUTE
CHANGE: Final = READ | calls.FILE_GENERIC_WRITE | calls.DELETE | calls.FILE_DELETE_CHILD
_INFINITE: Final = 0xFFFFFFFF
_ALREADY_EXISTS: Final = 0x800700B7


class Container:
    """One app container, which exists until ``delete``."""

    def __init__(self, name: str) -> None:
        """Make it. Raises OSError."""
        self.name: Final = name
        self.sid: Final = c_void_p()
        made = _userenv().CreateAppContainerProfile(name, name, name, None, 0, byref(self.sid))
        if made & 0xFFFFFFFF == _ALREADY_EXISTS:
            made = _userenv().DeriveAppContainerSidFromAppContainerName(name, byref(self.sid))
        if made < 0:
            _fail(f"the app container {name} cannot be made", made)

    def delete(self) -> None:
        """Raises OSError."""
        if self.sid:
            _advapi32().FreeSid(self.sid)
            self.sid.value = None
        delete(self.name)


def delete(name: str) -> None:
    """The container of that name, if there is one. Raises OSError."""
    deleted = _userenv().DeleteAppContainerProfile(name)
    if deleted < 0:
        _fail(f"the app container {name} cannot be deleted", deleted)


def grant(path: Path, sid: c_void_p, rights: int) -> None:
    """Let a container or a capability use a folder and all that is in it. Raises OSError."""
    entry = calls.EXPLICIT_ACCESS_W()
    entry.grfAccessPermissions = rights
    entry.grfAccessMode = calls.GRANT_ACCESS
    entry.grfInheritance = calls.SUB_CONTAINERS_AND_OBJECTS_INHERIT
    entry.Trustee.TrusteeForm = calls.TRUSTEE_IS_SID
    entry.Trustee.TrusteeType = calls.TRUSTEE_IS_UNKNOWN
    entry.Trustee.ptstrName = sid.value
    before, after, described = c_void_p(), c_void_p(), c_void_p()
    advapi32 = _advapi32()
    try:
        _no_error(
            advapi32.GetNamedSecurityInfoW(
                str(path),
                calls.SE_FILE_OBJECT,
                calls.DACL_SECURITY_INFORMATION,
                None,
                None,
                byref(before),
                None,
                byref(described),
            ),
            path,
        )
        _no_error(advapi32.SetEntriesInAclW(1, byref(entry), before, byref(after)), path)
        _no_error(
            advapi32.SetNamedSecurityInfoW(
                str(path),
                calls.SE_FILE_OBJECT,
                calls.DACL_SECURITY_INFORMATION,
                None,
                None,
                after,
                None,
            ),
            path,
        )
    finally:
        for taken in (after, described):
            if taken:
                _kernel32().LocalFree(taken)


@cache
def capability(name: str) -> c_void_p:
    """The identity of a capability, which follows from its name; kept for as long as this program lives. Raises OSError."""
    groups, sids = c_void_p(), c_void_p()
    group_count, sid_count = c_uint32(), c_uint32()
    derived = _kernelbase().DeriveCapabilitySidsFromName(
        name, byref(groups), byref(group_count), byref(sids), byref(sid_count)
    )
    if not derived or not sid_count.value:
        raise ctypes.WinError(ctypes.get_last_error())
    first = ctypes.cast(sids, ctypes.POINTER(c_void_p))[0]
    return c_void_p(first)


class Started:
    """A process in a container that does not run yet, as ``subprocess.Popen`` would show it."""

    def __init__(self, information: calls.PROCESS_INFORMATION, pipes: Mapping[str, Any]) -> None:
        self.pid: Final = int(information.dwProcessId)
        self.stdin: Final = pipes.get("stdin")
        self.stdout: Final = pipes.get("stdout")
        self.stderr: Final = pipes.get("stderr")
        self._handle = information.hProcess
        _kernel32().CloseHandle(information.hThread)

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        code = c_uint32()
        _kernel32().WaitForSingleObject(self._handle, _INFINITE)
        _kernel32().GetExitCodeProcess(self._handle, byref(code))
        if self._handle is not None:
            _kernel32().CloseHandle(self._handle)
            self._handle = None
        return code.value

    def kill(self) -> None:
        _kernel32().TerminateProcess(self._handle, 1)


def starter(container: Container, capabilities: Iterable[str]) -> Callable[[Launch, Path], Started]:
    """How ``windows.spawn`` starts a program in this container, suspended."""
    names = tuple(capabilities)

    def start(launch: Launch, program: Path) -> Started:
        return _start(launch, program, container, names)

    return start


def _start(launch: Launch, program: Path, container: Container, names: tuple[str, ...]) -> Started:
    """Raises OSError, ValueError."""
    held = (calls.SID_AND_ATTRIBUTES * len(names))(
        *(calls.SID_AND_ATTRIBUTES(capability(name).value, calls.SE_GROUP_ENABLED) for name in names)
    )
    security = calls.SECURITY_CAPABILITIES(
        AppContainerSid=container.sid.value,
        Capabilities=ctypes.addressof(held),
        CapabilityCount=len(names),
    )
    less = c_uint32(calls.PROCESS_CREATION_ALL_APPLICATION_PACKAGES_OPT_OUT)
    env = calls.environment_block(launch.env)
    command = subprocess.list2cmdline([str(program), *launch.argv[1:]])
    with contextlib.ExitStack() as given:
        ours, theirs = _streams(launch, given)
        handles = (c_void_p * len(theirs))(*theirs)
        attributes = given.enter_context(
            _attributes(
                (calls.PROC_THREAD_ATTRIBUTE_SECURITY_CAPABILITIES, security),
                (calls.PROC_THREAD_ATTRIBUTE_ALL_APPLICATION_PACKAGES_POLICY, less),
                (calls.PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles),
            )
        )
        startup = calls.STARTUPINFOEXW(lpAttributeList=attributes)
        startup.StartupInfo.cb = sizeof(startup)
        startup.StartupInfo.dwFlags = calls.STARTF_USESTDHANDLES
        startup.StartupInfo.hStdInput, startup.StartupInfo.hStdOutput, startup.StartupInfo.hStdError = theirs
        information = calls.PROCESS_INFORMATION()
        flags = (
            calls.CREATE_SUSPENDED
            | calls.DETACHED_PROCESS
            | calls.CREATE_NEW_PROCESS_GROUP
            | calls.CREATE_UNICODE_ENVIRONMENT
            | calls.EXTENDED_STARTUPINFO_PRESENT
        )
        made = _kernel32().CreateProcessW(
            str(program),
            ctypes.create_unicode_buffer(command),
            None,
            None,
            True,
            flags,
            env,
            str(launch.cwd),
            byref(startup),
            byref(information),
        )
        if not made:
            for pipe in ours.values():
                pipe.close()
            raise ctypes.WinError(ctypes.get_last_error())
        return Started(information, ours)


def _streams(launch: Launch, given: contextlib.ExitStack) -> tuple[dict[str, Any], list[int]]:
    """This program's ends of the pipes, and the guest's three handles, which are closed with ``given``."""
    import _winapi  # noqa: PLC0415  # cannot be imported elsewhere
    import msvcrt  # noqa: PLC0415  # as above
    from asyncio import windows_utils  # noqa: PLC0415  # as above

    ours: dict[str, Any] = {}
    theirs: list[int] = []
    for name, wanted in (("stdin", launch.stdin), ("stdout", launch.stdout), ("stderr", launch.stderr)):
        if wanted == "null":
            descriptor = os.open(os.devnull, os.O_RDWR)
            given.callback(os.close, descriptor)
            handle = msvcrt.get_osfhandle(descriptor)
        elif name == "stdin":
            handle, own = windows_utils.pipe(overlapped=(False, True), duplex=True)
            given.callback(_winapi.CloseHandle, handle)
            ours[name] = windows_utils.PipeHandle(own)
        else:
            own, handle = windows_utils.pipe(overlapped=(True, False))
            given.callback(_winapi.CloseHandle, handle)
            ours[name] = windows_utils.PipeHandle(own)
        os.set_handle_inheritable(handle, True)
        theirs.append(handle)
    return ours, theirs


@contextlib.contextmanager
def _attributes(*wanted: tuple[int, Any]) -> Generator[int]:
    """The address of a list of process attributes. Raises OSError."""
    size = ctypes.c_size_t()
    _kernel32().InitializeProcThreadAttributeList(None, len(wanted), 0, byref(size))
    room = ctypes.create_string_buffer(size.value)
    if not _kernel32().InitializeProcThreadAttributeList(room, len(wanted), 0, byref(size)):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        for number, value in wanted:
            if not _kernel32().UpdateProcThreadAttribute(
                room, 0, number, byref(value), sizeof(value), None, None
            ):
                raise ctypes.WinError(ctypes.get_last_error())
        yield ctypes.addressof(room)
    finally:
        _kernel32().DeleteProcThreadAttributeList(room)


def _fail(what: str, result: int) -> NoReturn:
    """For an HRESULT."""
    code = result & 0xFFFF
    raise OSError(None, f"{what}: {ctypes.FormatError(code)} (0x{result & 0xFFFFFFFF:08x})", None, code)


def _no_error(code: int, path: Path) -> None:
    if code:
        raise OSError(
            None, f"the access to {path} cannot be set: {ctypes.FormatError(code)}", str(path), code
        )


def _library(name: str) -> ctypes.WinDLL:
    library = ctypes.WinDLL(name, use_last_error=True)
    for function, (result, arguments) in calls.FUNCTIONS[name].items():
        found = getattr(library, function)
        found.restype = result
        found.argtypes = list(arguments)
    return library


@cache
def _userenv() -> ctypes.WinDLL:
    return _library("userenv")


@cache
def _advapi32() -> ctypes.WinDLL:
    return _library("advapi32")


@cache
def _kernel32() -> ctypes.WinDLL:
    return _library("kernel32")


@cache
def _kernelbase() -> ctypes.WinDLL:
    return _library("kernelbase")
