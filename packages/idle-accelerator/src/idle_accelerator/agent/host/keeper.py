"""The keeper: a small process that outlives the agent by as long as it takes to kill its guests.

Linux offers PR_SET_PDEATHSIG for this, but it reaches the main process only, not its children, is set in
the child between fork and exec, which costs Python the cheap vfork, and macOS has nothing like it. The keeper reads
the agent's guests from a pipe; when the agent is gone, however it went, the pipe ends and whole trees die.
Windows needs none: the kernel kills a job object's processes when its last handle closes.

Run as a script it imports nothing but the standard library until there is something to kill, so
that it stays at a few megabytes.
"""

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

if sys.platform == "win32":
    raise ImportError("This file is for Linux and macOS.")

if TYPE_CHECKING:
    from idle_accelerator.agent.host.types import GuestRecord


class Keeper:
    """The agent's side. The process starts with the first guest, and anew should somebody have killed it."""

    def __init__(self) -> None:
        self._records: dict[int, GuestRecord] = {}
        self._pid: int | None = None
        self._pipe: int | None = None

    @property
    def pid(self) -> int | None:
        """The keeper's process; None before the first guest."""
        return self._pid

    def add(self, record: "GuestRecord") -> None:
        """Have this guest killed when the agent ends without doing so itself."""
        self._records[record.pid] = record
        self._send(_line(record, keep=True))

    def drop(self, record: "GuestRecord") -> None:
        """This guest has ended."""
        if self._records.pop(record.pid, None) is not None:
            self._send(_line(record, keep=False))

    def _send(self, line: bytes) -> None:
        if self._pipe is not None:
            # BrokenPipeError: it was killed. BlockingIOError: it was stopped, and 64 KiB wait for it.
            with contextlib.suppress(OSError):
                os.write(self._pipe, line)
                return
        self._restart()

    def _restart(self) -> None:
        if self._pipe is not None and self._pid is not None:
            os.close(self._pipe)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        read_end, self._pipe = os.pipe()
        self._pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", __file__],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0)],
        )
        os.close(read_end)
        for record in self._records.values():
            os.write(self._pipe, _line(record, keep=True))
        os.set_blocking(self._pipe, False)


KEEPER: Final = Keeper()
"""One for the whole program, as its guests are."""


def _line(record: "GuestRecord", *, keep: bool) -> bytes:
    values = {
        "keep": keep,
        "pid": record.pid,
        "started": record.started,
        "brand": record.brand,
        "group": record.group,
    }
    return json.dumps(values).encode() + b"\n"


def _keep() -> None:
    """The keeper's whole life."""
    os.setsid()
    os.chdir("/")
    # Ctrl-C and a service manager's stop are meant for the agent; the keeper's end is that of the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    kept: dict[int, dict[str, str | int]] = {}
    for line in sys.stdin.buffer:
        values = json.loads(line)
        if values.pop("keep"):
            kept[values["pid"]] = values
        else:
            kept.pop(values["pid"], None)
    if kept:
        from idle_accelerator.agent import host  # noqa: PLC0415  # see the module's docstring

        host.kill_leftovers(host.GuestRecord(**values) for values in kept.values())  # type: ignore[arg-type]


if __name__ == "__main__":
    _keep()
