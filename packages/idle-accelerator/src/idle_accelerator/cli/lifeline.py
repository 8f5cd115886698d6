"""Children of ``idlectl up`` end with it, also when it is killed without a word.

Linux sends the signal itself (prctl(2), PR_SET_PDEATHSIG), and keeps the wish over an exec. Elsewhere the child reads a pipe
whose other end only its parent holds: the end of that file is the end of the parent (signature-only).
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

VARIABLE = "IDLE_UP_PID"
_PR_SET_PDEATHSIG = 1


def given_to_child() -> Mapping[str, str]:
    """What the parent adds to a child's environment."""
    return {VARIABLE: str(os.getpid())}


def child_stdin() -> int:
    """What the parent gives a child as stdin. It keeps the writing end of a pipe for as long as it lives."""
    return subprocess.DEVNULL if sys.platform == "linux" else subprocess.PIPE


def hold(*, kill: bool = False) -> int | None:
    """Ties this process to ``idlectl up``, if that started it: to be asked to stop at its end, or with ``kill`` to end at once.

    Returns the process id of that ``up``.
    """
    parent = os.environ.pop(VARIABLE, "")
    if not parent.isdigit():
        return None
    if sys.platform == "linux":
        _ask_the_kernel(int(parent), signal.SIGKILL if kill else signal.SIGTERM)
    else:
        threading.Thread(target=_watch_stdin, daemon=True, name="lifeline").start()
    return int(parent)


def _ask_the_kernel(parent: int, wanted: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, wanted, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel had been asked
        os.kill(os.getpid(), wanted)


def _watch_stdin() -> None:
    while sys.stdin.buffer.read(1):
        pass
    signal.raise_signal(signal.SIGTERM)
