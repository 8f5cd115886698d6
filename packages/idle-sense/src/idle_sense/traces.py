"""Recorded snapshots: what the probes saw, second by second, to be judged again under any policy.

A trace is a text file, one JSON value a line. The first is the header: format, version, the system, the policy that was in force.
Each further line is one snapshot, of which only what changed since the line before is written. A recorder that is killed leaves
at most a cut last line. ``decide`` is pure, so a replay under the same policy gives the verdicts that were given.

A trace holds no names of people, of programs or of other machines: they are numbered (``user 1``, ``program 2``), the same name
always alike. Programs that the policy names itself, in ``ignore_programs``, keep theirs. Names of devices and displays stay.

For a command line::

    with Recorder.create(path, monitor.policy) as recorder:
        record(monitor, recorder, seconds=600)

    trace = Trace.open(path)
    for snapshot, verdict in replay(trace, policy):  # policy None: the one of the header
        ...
    if trace.cut: ...
"""

import dataclasses
import io
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, cast

from idle_sense.decision import Memory, decide
from idle_sense.errors import InvalidPolicy, InvalidTrace
from idle_sense.policy import Policy
from idle_sense.trace_codec import MisfitError, Unchanged, changed, changes, from_plain, to_plain
from idle_sense.trace_names import Names
from idle_sense.types import Snapshot, Verdict

FORMAT = "idle-sense trace"
VERSION = 1
DIGITS = 4
"""Decimals that numbers are rounded to: a tenth of a millisecond."""
LONGEST_LINE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    policy: Policy
    """In force when it was recorded."""
    system: str = ""
    idle_sense: str = ""
    """The version that recorded it."""


class Watches(Protocol):
    """What ``record`` needs of a ``Monitor``."""

    def check(self) -> Verdict: ...

    @property
    def snapshot(self) -> Snapshot | None: ...


class Recorder:
    """Writes snapshots to a text stream, each line at once. One thread at a time. OSError where the disk is full."""

    def __init__(
        self,
        stream: TextIO,
        policy: Policy,
        *,
        names: Names | None = None,
        digits: int | None = DIGITS,
    ) -> None:
        """``names``: who is hidden behind numbers; this user and everybody that the snapshots name, if not given."""
        self._stream = stream
        self._names = names or Names.native(policy)
        self._digits = digits
        self._before: object = None
        header = Header(
            policy=policy,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            idle_sense=metadata.version("idle-sense"),
        )
        self._line({"format": FORMAT, "version": VERSION, **to_plain(header, whole=True)})

    @classmethod
    def create(cls, path: Path, policy: Policy) -> "Recorder":
        """A new file that only this user may read. Raises FileExistsError rather than to replace one."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        stream = io.TextIOWrapper(
            io.FileIO(descriptor, "w"), encoding="ascii", newline="\n", write_through=True
        )
        return cls(stream, policy)

    def write(self, snapshot: Snapshot) -> None:
        plain = to_plain(self._names.hidden(snapshot), self._digits)
        change = plain if self._before is None else changes(self._before, plain)
        self._before = plain
        self._line({} if isinstance(change, Unchanged) else change)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self, value: object) -> None:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        self._stream.write(text + "\n")
        self._stream.flush()


def record(
    monitor: Watches,
    recorder: Recorder,
    *,
    seconds: float,
    every_s: float = 1.0,
    clock_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Looks every ``every_s`` for so many ``seconds`` (``inf``: until interrupted), and writes down what is seen. Returns how
    many snapshots were written."""
    began_s = clock_s()
    count = 0
    while True:
        monitor.check()
        if monitor.snapshot is not None:
            recorder.write(monitor.snapshot)
            count += 1
        left_s = began_s + seconds - clock_s()
        if left_s <= 0:
            return count
        wait(min(every_s, left_s))


class Trace:
    """Snapshots, read as they are iterated over, once. Strict: what no recorder writes raises InvalidTrace."""

    def __init__(self, lines: Iterable[str]) -> None:
        """``lines``: with their line ends. Reads the header. Raises InvalidTrace."""
        self._lines = enumerate(lines, start=1)
        self.cut = False
        """After the last snapshot: the recorder was stopped in the middle of a line, which is left out."""
        self.header = self._read_header()

    @classmethod
    def open(cls, path: Path) -> "Trace":
        """Raises InvalidTrace, OSError."""
        return cls(_lines_of(path))

    def __iter__(self) -> Iterator[Snapshot]:
        before: Any = {}
        for number, line in self._lines:
            change = self._object(number, line)
            if change is None:
                return
            try:
                before = changed(before, change)
                yield from_plain(Snapshot, before)
            except MisfitError as error:
                raise InvalidTrace(str(error), line=number) from error

    def _read_header(self) -> Header:
        number, line = next(self._lines, (1, ""))
        given = self._object(number, line) if line else None
        if given is None or given.pop("format", None) != FORMAT:
            raise InvalidTrace("this is no trace of idle-sense", line=number)
        version = given.pop("version", None)
        if version != VERSION:
            raise InvalidTrace(f"version {version!r}; this program knows {VERSION}", line=number)
        try:
            return from_plain(Header, given)
        except (MisfitError, InvalidPolicy) as error:
            raise InvalidTrace(str(error), line=number) from error

    def _object(self, number: int, line: str) -> dict[str, Any] | None:
        """None: cut off, and the end."""
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n") and len(line) < LONGEST_LINE:
                self.cut = True
                return None
            raise InvalidTrace(f"no JSON ({error})", line=number) from error
        if not isinstance(value, dict):
            raise InvalidTrace("no object", line=number)
        return cast("dict[str, Any]", value)


def replay(trace: Trace, policy: Policy | None = None) -> Iterator[tuple[Snapshot, Verdict]]:
    """Each snapshot with the verdict that ``policy`` (None: the one in force then) comes to. Raises InvalidTrace."""
    policy = policy or trace.header.policy
    memory = Memory()
    for snapshot in trace:
        verdict, memory = decide(snapshot, policy, memory)
        yield snapshot, verdict


def _lines_of(path: Path) -> Iterator[str]:
    """Bounded, so that a file without line ends does not fill the memory."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        while line := file.readline(LONGEST_LINE):
            yield line
