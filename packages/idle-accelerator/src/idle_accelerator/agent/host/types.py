"""What the floor under the agent speaks in: one launch, one running guest, its end."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol

from idle_accelerator.errors import IdleError

Stdin = Literal["null", "pipe"]
Output = Literal["null", "pipe"]
Verified = Literal["native", "emulated", "signature-only"]
"""How far an operating system's file was tried: on that system, on an emulation of it, or by type checks alone."""


Purpose = Literal["freeze", "kill", "cpu", "share", "disk", "memory", "processes"]
"""What is done to guests: stop and kill the whole tree; let it have processors, and disks, when nobody else wants them; let all guests
together have so many processors and no more; limit memory and processes."""


@dataclass(frozen=True, kw_only=True)
class GroupHome:
    """Where the control groups of all guests stand: one folder for each, named after its brand."""

    folder: str
    version: int
    """Of control groups: 1 has ``freezer.state`` in each folder, 2 ``cgroup.freeze`` and ``cgroup.events``."""
    weights: str | None
    """In version 1, the folder in which all guests have the least weight; None: each guest's own folder has it, or none has."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """How this machine does one thing to guests, found by trying."""

    purpose: Purpose
    how: str
    """The kernel's name for it; empty where there is no way."""
    lacking: str = ""
    """Why there is no better one, as sentences; empty where it is the best that there is."""

    @property
    def sentence(self) -> str:
        text = f"{self.purpose}: {self.how or 'no limit'}"
        return f"{text}. {self.lacking}" if self.lacking else f"{text}."


FIRST_INPUT_LIMIT_BYTES: Final = 4096
"""Any pipe of any system takes so much before somebody reads."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One program to start. ``env`` is complete: nothing is inherited from the agent."""

    argv: tuple[str, ...]
    """Program and arguments. A bare program name is looked up in ``env``'s PATH, one with a slash from ``cwd``."""
    cwd: Path
    env: Mapping[str, str]
    stdin: Stdin = "null"
    stdout: Output = "pipe"
    stderr: Output = "pipe"
    nice: bool = True
    """Run at the lowest priority for CPU and disk that needs no privilege."""
    first_input: bytes = b""
    """What stands in its standard input (``pipe``) from the start, at most FIRST_INPUT_LIMIT_BYTES."""
    memory_bytes: int | None = None
    """Its tree may have no more; one that wants more is killed whole, where the system can do that (see ``Mechanism``). None: no limit."""
    processes: int | None = None
    """Its tree may have no more processes and threads at a time, where the system can do that. None: no limit."""
    descriptors: tuple[int, ...] = ()
    """Open files of the agent that it gets under the same numbers, beside its three streams. Not on Windows."""
    contained: bool = False
    """Nothing of it can leave the control group that it is started in: where it has one, that is asked for its processes, not
    the whole machine. On Linux."""
    heir: Callable[[], int | None] | None = None
    """Tells, once it is known, the pid of a process of a contained guest which this program inherits when the main process ends
    before it: it is collected, and what it used is counted."""


@dataclass(frozen=True, kw_only=True)
class GuestExit:
    """How the main process of a guest ended. One of ``exit_code`` and ``signal`` is set; neither, where
    another part of the program took the exit status first."""

    exit_code: int | None
    signal: int | None
    cpu_s: float | None
    """User and system time of the main process, of every descendant that was waited for, and of
    leftovers that this agent reaped. None where the system does not tell."""
    max_rss_bytes: int | None
    """Peak resident memory of the largest single process of the tree. On Linux never less than the agent's own for
    what it started itself, since the moment before the program was loaded counts too; on Windows memory committed."""
    out_of_memory: bool = False
    """The kernel has killed something of it for want of memory, mostly as it wanted more than ``Launch.memory_bytes``. Known where it had
    a control group with that limit."""


@dataclass(frozen=True, kw_only=True)
class GuestUsage:
    """What a guest's tree uses at this moment."""

    cpu_s: float
    """Since its start, with descendants that have already ended and been waited for."""
    rss_bytes: int
    """Sum over live processes; pages that they share are counted once for each."""
    processes: int


@dataclass(frozen=True, kw_only=True)
class GuestRecord:
    """Enough to find a guest's processes after a crash of the agent. Plain values: ``asdict`` is JSON,
    ``GuestRecord(**values)`` reads it back."""

    pid: int
    started: str
    """When the process began, in the system's own exact terms; tells it from a later process with the same pid."""
    brand: str = ""
    """A mark that its descendants inherit. Empty where the system offers none."""
    group: str = ""
    """Folder of the control group that its tree lives in, on Linux. Empty where it has none."""


class SpawnFailed(IdleError):
    """The program could not be started; nothing of it runs."""

    code: ClassVar[str] = "spawn_failed"

    def __init__(
        self, message: str, *, hint: str, missing_program: str | None = None, field: str | None = "command"
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.missing_program = missing_program
        """The program's name, when the reason is that no such file exists; else None."""


class FreezeFailed(IdleError):
    """A tree that forks faster than it can be stopped. Some of it still runs: kill it."""

    code: ClassVar[str] = "freeze_failed"

    def __init__(self, *, pid: int, waited_s: float) -> None:
        super().__init__(
            f"The tree of process {pid} went on making new processes for {waited_s:.1f} s while it was stopped.",
            hint="Kill it: it does not let itself be frozen.",
        )
        self.pid = pid


class KillFailed(IdleError):
    """Processes that did not die of SIGKILL in time: the kernel holds them, mostly for a dead disk or network mount."""

    code: ClassVar[str] = "kill_failed"

    def __init__(self, *, pids: tuple[int, ...], waited_s: float) -> None:
        listed = ", ".join(map(str, pids[:10]))
        super().__init__(
            f"{len(pids)} processes still live {waited_s:.0f} s after they were killed: {listed}.",
            hint="They are stuck inside the kernel; see what they wait for with `ps -o pid,state,wchan,args`.",
        )
        self.pids = pids


class Guest(Protocol):
    """A running guest: its main process and everything that descends from it.

    All calls are made from the thread that runs the event loop in which the guest was started.
    """

    @property
    def pid(self) -> int: ...
    @property
    def record(self) -> GuestRecord: ...
    @property
    def job(self) -> str | None:
        """Name of the job object that all of it is in, on Windows; None elsewhere."""
        ...

    @property
    def cgroup(self) -> str | None:
        """Folder of the control group in which all guests of this program are, on Linux, where processor time is counted for them;
        None where there is none."""
        ...

    @property
    def stdin(self) -> asyncio.StreamWriter | None: ...
    @property
    def stdout(self) -> asyncio.StreamReader | None: ...
    @property
    def stderr(self) -> asyncio.StreamReader | None: ...

    def begin_freeze(self) -> None:
        """To be called on each of several guests before ``freeze`` is: they stop at the same time, instead of one while the others
        keep the processors busy. Where the system cannot do that, nothing happens."""
        ...

    def freeze(self) -> None:
        """Stop the whole tree in memory, also what left its group or session. On return no process of
        it executes another instruction. Idempotent; nothing happens after the guest's end. Raises FreezeFailed
        for a tree that outruns it."""
        ...

    def thaw(self) -> None:
        """Continue the whole tree. Idempotent."""
        ...

    def notify_vacate(self) -> None:
        """Ask it to save and leave: SIGTERM to its group, CTRL_BREAK on Windows. A frozen guest hears it
        when thawed. Nothing happens after its end."""
        ...

    async def kill(self) -> None:
        """Kill the whole tree, frozen or not, also what left its group or session. Returns when none of it
        lives. Idempotent. Raises KillFailed when the kernel does not let go of a process."""
        ...

    async def wait(self) -> GuestExit:
        """The end of the main process. What is left of the tree then is killed before this returns, so that
        nothing outlives an attempt. May be awaited by several, and again after the end. Raises KillFailed."""
        ...

    def usage(self) -> GuestUsage:
        """CPU and memory of the live tree; zeros after its end."""
        ...


class Forker(Protocol):
    """Starts guests from processes that were made beforehand."""

    async def start(self, launch: Launch) -> Guest:
        """As a plain start, of any program. It is in its control group before its first instruction. Raises SpawnFailed."""
        ...

    async def spawn(self, launch: Launch) -> Guest:
        """A quicker start for guests that all run the same Python program; plain for any other launch than
        ``(sys.executable, "-I", FILE)``. Raises SpawnFailed."""
        ...

    async def close(self) -> None:
        """End its helper processes. Guests live on."""
        ...
