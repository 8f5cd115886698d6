"""The agent's side of the watch (see ``watch``): a process that freezes all guests at the first input, on its own."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from idle_accelerator.agent.sandbox import group_home

_log = logging.getLogger(__name__)
PROGRAM: Final = Path(__file__).with_name("watch.py")
LINGER_S: Final = 60.0
"""The process ends when no guest has run for so long: an agent at rest has none."""
RETRY_AFTER_S: Final = 60.0
SLACK_S: Final = 0.5
"""An input so long before it was armed counts: the agent may have been busy between its last look and this."""
_SAME_INPUT_S: Final = 0.05
"""Two looks at one input differ by less."""
_PIECE_BYTES: Final = 65536


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What the watch has done."""

    groups: Mapping[str, float]
    """When each group stood still, on the monotonic clock, by its folder."""
    input_at_s: float | None
    """The input that it did that for; None: it follows up on an earlier one."""


class Watcher:
    """Starts the process with the first guest, tells it what to do, hears what it did. For the event loop's thread."""

    def __init__(self, *, input_idle_s: float, on_stopped: Callable[[Stopped], None]) -> None:
        """``input_idle_s``: without input for so long the machine counts as idle."""
        self._slack_s = min(SLACK_S, input_idle_s / 2)
        self._on_stopped = on_stopped
        self._home = group_home()
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before_s = 0.0
        self._told: tuple[bool, frozenset[str]] = (False, frozenset())
        self._settled_until_s = float("-inf")
        """Input up to then has had its answer."""
        self._heard = b""
        self._end: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def serves(self) -> bool:
        """Whether there is a way: control groups of guests' own, and a system whose events it can wait for."""
        return self._home is not None

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return None if self._process is None else self._process.pid

    def arm(self, spared: frozenset[str]) -> None:
        """Guests run: from now on the first input stops all of them but those of these brands."""
        self._stay()
        if (True, spared) != self._told and self._is_up():
            self._tell(armed=True, spared=spared)

    def disarm(self) -> None:
        """Input changes nothing now; guests run or stand still."""
        self._stay()
        if self._told[0]:
            self._tell(armed=False, spared=frozenset())

    def rest(self) -> None:
        """No guest runs: it may end, if that lasts. Until then it is left as it was told last."""
        if self._process is not None and self._end is None:
            self._end = asyncio.get_running_loop().call_later(LINGER_S, self._stop)

    def _stay(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def acknowledge(self, stopped: Stopped) -> None:
        """The agent knows of this and has taken over: no more of it, until it is armed again."""
        if stopped.input_at_s is not None:
            self._settled_until_s = max(self._settled_until_s, stopped.input_at_s)
        self._tell(armed=False, spared=frozenset())

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._stop()

    def _is_up(self) -> bool:
        if self._process is not None:
            return True
        now_s = time.monotonic()
        if self._home is None or self._closed or now_s < self._not_before_s:
            return False
        self._not_before_s = now_s + RETRY_AFTER_S
        weights = [] if self._home.weights is None else [self._home.weights]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM), self._home.folder, str(self._home.version), *weights],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
                cwd="/",
            )
        except OSError as error:
            _log.warning("no watch of its own, guests are frozen by the agent alone: %s", error)
            return False
        self._heard = b""
        self._told = (False, frozenset())
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and sys.platform != "win32":
                os.set_blocking(pipe.fileno(), False)
        if self._process.stdout is not None:
            asyncio.get_running_loop().add_reader(self._process.stdout.fileno(), self._hear)
        return True

    def _tell(self, *, armed: bool, spared: frozenset[str]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        self._told = (armed, spared)
        command = {
            "armed": armed,
            "since_s": max(time.monotonic() - self._slack_s, self._settled_until_s + _SAME_INPUT_S),
            "spared": sorted(spared),
        }
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
        except OSError as error:
            _log.warning("the watch does not hear: %s", error)
            self._stop()

    def _hear(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        try:
            piece = os.read(process.stdout.fileno(), _PIECE_BYTES)
        except BlockingIOError:
            return
        if not piece:
            _log.warning(
                "the watch has ended; guests are frozen by the agent alone for %.0f s", RETRY_AFTER_S
            )
            self._not_before_s = time.monotonic() + RETRY_AFTER_S
            self._stop()
            return
        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            report: dict[str, Any] = json.loads(line)
            if "frozen" not in report:
                continue
            self._told = (False, frozenset())
            if report["missed"]:
                _log.info("the watch did not see %d group(s) stand still", len(report["missed"]))
            missed = dict.fromkeys(report["missed"], time.monotonic())
            self._on_stopped(Stopped(groups={**missed, **report["frozen"]}, input_at_s=report["input_at_s"]))

    def _stop(self) -> None:
        self._stay()
        process, self._process = self._process, None
        self._told = (False, frozenset())
        if process is None:
            return
        if process.stdout is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(process.stdout.fileno())
        with process:  # closes the pipes, and waits
            process.kill()
