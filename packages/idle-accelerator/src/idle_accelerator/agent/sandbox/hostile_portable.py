"""A hostile guest for systems that are not Linux: it tries to reach what is the owner's, and tells as JSON what came of it.

A script of the standard library alone: ``python -I hostile_portable.py PLAN``, with the plan as JSON (see ``portable.bait``). Its attempts
have the names of those of ``hostile`` where they are the same. It also does what any task may do, which has to work.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CONNECT_S: Final = 1.0
_METADATA: Final = ("169.254.169.254", 80)
_NAME_SERVER: Final = ("192.0.2.53", 53)
_KERN_PROCARGS2: Final = (1, 49)
_ARGUMENTS_BYTES: Final = 1 << 20
_PROCESS_READ: Final = 0x0410
"""PROCESS_VM_READ and PROCESS_QUERY_INFORMATION."""
_PROCESS_TERMINATE: Final = 0x1
_STILL_ACTIVE: Final = 259


class ImpossibleError(Exception):
    """There is nothing here to try it with."""


class RefusedError(Exception):
    """It did not work, though no call failed."""


def read_home(plan: dict[str, Any]) -> str:
    """Read something of the owner's home directory."""
    if not plan["home"]:
        raise ImpossibleError("there is nothing in it")
    for name in plan["home"]:
        with contextlib.suppress(OSError):
            path = Path(name)
            if path.is_dir():
                list(path.iterdir())
            else:
                with path.open("rb") as file:
                    file.read(1)
            return name
    raise RefusedError("none of its entries can be read")


def read_agent_data(plan: dict[str, Any]) -> str:
    """Read a file beside the agent's token, in its data directory."""
    return Path(plan["secret_file"]).read_text(encoding="utf-8")[:4]


def write_agent_data(plan: dict[str, Any]) -> str:
    """Make a file there."""
    path = Path(plan["secret_file"] + ".made")
    path.write_bytes(b"")
    path.unlink()
    return str(path)


def write_home(plan: dict[str, Any]) -> str:
    """Make a file in the owner's home directory."""
    path = Path(plan["home_folder"]) / f".idle-{plan['marker'][:16]}"
    path.write_bytes(b"")
    path.unlink()
    return str(path)


def write_temporary(plan: dict[str, Any]) -> str:
    """Make a file in the folder for temporary files that the owner's programs share."""
    path = Path(plan["temporary_folder"]) / f"idle-{plan['marker'][:16]}"
    path.write_bytes(b"")
    path.unlink()
    return str(path)


def loopback(plan: dict[str, Any]) -> str:
    """Connect to a port on which a program of this machine listens."""
    with socket.create_connection(("127.0.0.1", plan["port"]), timeout=_CONNECT_S):
        return f"port {plan['port']}"


def listen(_plan: dict[str, Any]) -> str:
    """Wait for connections from other machines."""
    with socket.create_server(("0.0.0.0", 0)) as waiting:  # noqa: S104  # what is tried
        return f"port {waiting.getsockname()[1]}"


def metadata(_plan: dict[str, Any]) -> str:
    """Connect to the address at which clouds keep a machine's secrets."""
    with socket.create_connection(_METADATA, timeout=_CONNECT_S):
        return _METADATA[0]


def internet(_plan: dict[str, Any]) -> str:
    """Send a packet to a name server. (It has a way, which is asked; nothing is sent.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.connect(_NAME_SERVER)
        return f"from {line.getsockname()[0]}"


def unix_socket(plan: dict[str, Any]) -> str:
    """Connect to a Unix socket of the owner's."""
    family = getattr(socket, "AF_UNIX", None)
    if not plan["socket"] or family is None:
        raise ImpossibleError("this system has none")
    with socket.socket(family) as line:
        line.settimeout(_CONNECT_S)
        line.connect(plan["socket"])
        return "connected"


def read_environments(plan: dict[str, Any]) -> str:
    """Find a secret of the owner's in another process's environment, or get at its memory."""
    if sys.platform == "win32":
        _open_process(_PROCESS_READ, plan["pid"])
        return f"the memory of process {plan['pid']}"
    if sys.platform == "darwin":
        text = _procargs(plan["pid"])
    else:
        text = Path(f"/proc/{plan['pid']}/environ").read_bytes()
    if plan["marker"].encode() in text:
        return f"that of process {plan['pid']}"
    raise RefusedError("it is not in it")


def send_signal(plan: dict[str, Any]) -> str:
    """Kill a process of the owner's."""
    if sys.platform == "win32":
        handle = _open_process(_PROCESS_TERMINATE, plan["pid"])
        if not ctypes.WinDLL("kernel32").TerminateProcess(ctypes.c_void_p(handle), 9):
            raise RefusedError("it was not ended")
    else:
        os.kill(plan["pid"], signal.SIGKILL)
    return f"process {plan['pid']}"


def _procargs(pid: int) -> bytes:
    """Arguments and environment of a process, on macOS."""
    name = (ctypes.c_int * 3)(*_KERN_PROCARGS2, pid)
    raw = ctypes.create_string_buffer(_ARGUMENTS_BYTES)
    size = ctypes.c_size_t(len(raw))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sysctl(name, 3, raw, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return raw.raw[: size.value]


def _open_process(access: int, pid: int) -> int:
    """A handle of a process, on Windows. Raises OSError."""
    if sys.platform != "win32":
        raise ImpossibleError("this is for Windows")
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.OpenProcess.argtypes = [ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint32]
    handle = kernel32.OpenProcess(access, 0, pid)
    if not handle:
        raise ctypes.WinError(ctypes.get_last_error())
    return int(handle)


# What has to work.


def own_files(_plan: dict[str, Any]) -> str:
    """Write and read in the workspace and in its folder for temporary files."""
    path = Path("own.txt")
    path.write_text("mine", encoding="utf-8")
    with tempfile.TemporaryFile() as file:
        file.write(path.read_bytes())
    path.unlink()
    return str(Path.cwd())


def own_processes(_plan: dict[str, Any]) -> str:
    """Start a program, and wait for it."""
    command = ["cmd.exe", "/c", "exit 7"] if sys.platform == "win32" else ["/bin/sh", "-c", "exit 7"]
    status = subprocess.run(command, check=False).returncode
    if status != 7:  # the number above
        raise RefusedError(f"it ended with status {status}")
    return command[0]


def own_libraries(_plan: dict[str, Any]) -> str:
    """Load what most programs load: hashes, a database, certificates' code."""
    import hashlib  # noqa: PLC0415  # what is tried
    import sqlite3  # noqa: PLC0415  # as above
    import ssl  # noqa: PLC0415  # as above

    sqlite3.connect(":memory:").close()
    return f"{hashlib.sha256(b'x').hexdigest()[:4]}, {ssl.OPENSSL_VERSION}"


ATTEMPTS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    attempt.__name__: attempt
    for attempt in (
        read_home,
        read_agent_data,
        write_agent_data,
        write_home,
        write_temporary,
        loopback,
        listen,
        metadata,
        internet,
        unix_socket,
        read_environments,
        send_signal,
        own_files,
        own_processes,
        own_libraries,
    )
}


def main() -> int:
    plan = json.loads(sys.argv[1])
    seen: dict[str, tuple[str, str]] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            seen[name] = ("works", attempt(plan))
        except ImpossibleError as error:
            seen[name] = ("impossible", str(error))
        except RefusedError as error:
            seen[name] = ("refused", str(error))
        except (OSError, ImportError) as error:
            code = getattr(error, "errno", None)
            seen[name] = ("refused", errno.errorcode.get(code or 0, "") or str(error))
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
