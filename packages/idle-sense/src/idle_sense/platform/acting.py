"""A moment as another user, for root: session buses let in none but the user whose they are, not even root.

setresuid(2) as the kernel has it changes the calling thread alone; the C library's wrapper, which Python's ``os`` uses,
changes all threads, and so cannot be borrowed for a moment. A Unix socket keeps who one was when it connected (unix(7)).
"""

import contextlib
import os
import platform
import sys
from collections.abc import Generator

_SETRESUID = {"x86_64": 117, "aarch64": 147, "riscv64": 147, "ppc64le": 164, "s390x": 208}
"""Number of the call by processor (the kernel's unistd tables)."""


def may_act_as(uid: int) -> bool:
    """Whether ``acting_as`` can: it needs root, and a processor whose call number is known."""
    assert sys.platform != "win32"  # noqa: S101 - tells type checkers what there is
    return os.geteuid() in (0, uid) and (uid == os.geteuid() or platform.machine() in _SETRESUID)


@contextlib.contextmanager
def acting_as(uid: int | None) -> Generator[None]:
    """Within, this thread's effective user is ``uid``; None, or the user one is already: nothing changes.

    Raises PermissionError where that is not allowed.
    """
    assert sys.platform != "win32"  # noqa: S101 - tells type checkers what there is
    own = os.geteuid()
    if uid is None or uid == own:
        yield
        return
    if not may_act_as(uid):
        raise PermissionError(f"only root may act as user {uid}")
    _become(uid)
    try:
        yield
    finally:
        _become(own)


def _become(uid: int) -> None:
    import ctypes  # noqa: PLC0415 - of all users root alone needs it

    call = ctypes.CDLL(None, use_errno=True).syscall
    keep = ctypes.c_long(-1)
    if call(ctypes.c_long(_SETRESUID[platform.machine()]), keep, ctypes.c_long(uid), keep) != 0:
        error = ctypes.get_errno()
        raise PermissionError(error, os.strerror(error))
