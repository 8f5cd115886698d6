"""The processes that ``idlectl up`` starts: each with its log, its own group, and an end that cannot be missed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from idle_accelerator.cli import lifeline
from idle_accelerator.errors import Unavailable

_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 12
_POLL_S = 0.02
_HURRIED_S = 1.0
_KILLED_S = 10.0


class ChildEnded(Unavailable):
    """A process that ought to run has ended."""


@dataclass(kw_only=True)
class Child:
    """A process in a session of its own, so that Ctrl-C reaches only ``up``, which stops its children in order."""

    name: str
    log: Path
    patience_s: float
    process: subprocess.Popen[bytes]
    log_start: int
    """Where in the log this run began."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def tail(self) -> str:
        """The last lines that this run wrote to its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.log_start, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError as error:
            return f"(its log cannot be read: {error.strerror})"
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def ended_error(self) -> ChildEnded:
        """What to say once it has ended by itself."""
        status = self.process.poll()
        how = (
            f"was killed by signal {-status}"
            if status is not None and status < 0
            else f"ended with status {status}"
        )
        return ChildEnded(
            f"the {self.name} {how}. The end of its log:\n{self.tail() or '(it wrote nothing)'}",
            hint=f"Its whole log is {self.log}",
        )

    def stop(self, hurried: Callable[[], bool]) -> bool:
        """Asks it to stop, waits, kills what is left of its group. Whether it stopped by itself."""
        asked_at = time.monotonic()
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(
                    signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
                )
        while self.running:
            patience_s = min(self.patience_s, _HURRIED_S) if hurried() else self.patience_s
            if time.monotonic() - asked_at > patience_s:
                self._kill()
                return False
            time.sleep(_POLL_S)
        self._kill()
        return True

    def _kill(self) -> None:
        """Ends whatever still runs in its process group: with its main process, what that may have left behind."""
        if sys.platform == "win32":
            self.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_KILLED_S)


@dataclass(kw_only=True)
class Children:
    """In the order of their start; stopped in the opposite one."""

    logs: Path
    members: list[Child] = field(default_factory=list[Child])

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        patience_s: float,
        env: Mapping[str, str | None] | None = None,
    ) -> Child:
        """Starts ``idlectl`` with these arguments. ``env`` adds to the environment, or, with None, removes from it."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _LOG_LIMIT_BYTES:
                log.replace(log.with_suffix(".old.log"))
        environment = {**os.environ, **lifeline.given_to_child(), "PYTHONUNBUFFERED": "1"}
        for variable, value in (env or {}).items():
            environment.pop(variable, None)
            if value is not None:
                environment[variable] = value
        with log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "idle_accelerator.cli", *arguments],
                stdin=lifeline.child_stdin(),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=sys.platform != "win32",
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0,
            )
        child = Child(name=name, log=log, patience_s=patience_s, process=process, log_start=log_start)
        self.members.append(child)
        return child

    def check(self) -> None:
        """Raises ChildEnded when one of them runs no more."""
        for child in self.members:
            if not child.running:
                raise child.ended_error()

    def stop(self, hurried: Callable[[], bool]) -> list[str]:
        """Stops all, the last one first. Returns the names of those that had to be killed."""
        killed: list[str] = []
        while self.members:
            child = self.members[-1]
            if not child.stop(hurried):
                killed.append(child.name)
            self.members.pop()
        return killed
