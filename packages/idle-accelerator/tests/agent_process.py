"""A real agent in a process of its own, for tests that need one; it lends by its owner's word unless told otherwise."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from idle_accelerator.agent import control

T = TypeVar("T")
_DEADLINE_S = 60.0


def until(look: Callable[[], T], *, what: str, timeout_s: float = _DEADLINE_S) -> T:
    """The first true value of ``look``; asserts that it comes. The deadline is generous: it is there for hangs only."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline, f"did not happen within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)


class AgentProcess:
    """As ``idlectl agent`` starts it. ``state_dir`` keeps this test's agents apart from those of the machine."""

    def __init__(self, url: str, data_dir: Path, *options: str, state_dir: Path) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._command = [
            sys.executable,
            "-m",
            "idle_accelerator.cli",
            "agent",
            *("--scheduler", url, "--data-dir", str(data_dir), "--name", data_dir.name),
            *(options or ("--policy", "server", "--lend-for", "1h", "--cpus", "2")),
        ]
        self._env = {**os.environ, "XDG_STATE_HOME": str(state_dir)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the scheduler has answered it."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._is_connected, what=f"the agent connects; {self.log_path}")

    def _is_connected(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the agent ended at its start:\n{self.log()}"
        status = control.read_status(self.data_dir)
        return status is not None and status.pid == self._process.pid and status.connected

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def guests(self) -> list[psutil.Process]:
        """All processes of commands below the agent. Functions are not among them: they are forked from a helper, and look like it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
            return [child for child in children if not _is_helper(child)]
        return []

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=_DEADLINE_S)

    def suspend(self) -> None:
        """It does nothing more, so that a test can look at what it has done so far before it is killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> int:
        """Asks it to stop, as Ctrl-C does; returns its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        return self._process.wait(timeout=_DEADLINE_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill9()


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it only waits for somebody to read its exit status, here for the tests' own process."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_helper(process: psutil.Process) -> bool:
    try:
        return any(part.endswith(("keeper.py", "template.py", "watch.py")) for part in process.cmdline())
    except psutil.Error:
        return True
