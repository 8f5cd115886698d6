"""openat2(2) of Linux 5.6 and later, which the C library does not wrap: the kernel itself keeps a path below a folder."""

import ctypes
import errno
import os
import platform
import sys
from functools import cache
from typing import Final

_SYS_OPENAT2: Final = 437
_MACHINES: Final = frozenset(
    {"x86_64", "i686", "aarch64", "armv7l", "armv6l", "riscv64", "loongarch64", "ppc64le", "ppc64", "s390x"}
)
"""Where the call has that number."""
_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE: Final = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
_TRIES: Final = 100
"""EAGAIN: something was renamed or mounted meanwhile, and the kernel could not vouch for the path."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of what stands at ``path`` below the folder. Raises OSError."""
    how = _OpenHow(flags, mode, _RESOLVE)
    call = _syscall()
    raw = os.fsencode(path)
    for _ in range(_TRIES):
        descriptor = call(_SYS_OPENAT2, folder, raw, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return int(descriptor)
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


@cache
def is_available() -> bool:
    """Tried, not guessed: an old kernel lacks it, and the filters of some containers forbid what they do not know."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_beneath(root, ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


@cache
def _syscall() -> "ctypes._NamedFuncPointer":  # pyright: ignore[reportPrivateUsage]  # it has no public name
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return call
