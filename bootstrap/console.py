"""What the person at the keyboard sees: progress, problems, the next step."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bootstrap.places import ROOT

TAIL_LINES = 12
CAUSE_LINES = 4


class ProblemError(Exception):
    """What went wrong, in one sentence, and what the person at the keyboard can do next."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.next_step = next_step


def say(text: str, *, end: str = "\n") -> None:
    """Progress goes to stderr, so that `bench --json` and `idlectl --json` keep stdout for themselves."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


def tool_environment() -> dict[str, str]:
    """For uv, pip and apt-get: never another Python, never a question, never the caller's own packages."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    return inherited | {
        "UV_PYTHON_DOWNLOADS": "never",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_USER": "0",
        "DEBIAN_FRONTEND": "noninteractive",
    }


def telling_lines(lines: Sequence[str]) -> list[str]:
    """The end of an installer's output, and the first errors before it: the cause is in one or the other."""
    causes = [line for line in lines[:-TAIL_LINES] if "error" in line.lower()]
    return [*causes[:CAUSE_LINES], *lines[-TAIL_LINES:]]


def run_quietly(title: str, command: Sequence[str | Path]) -> None:
    """Run an installer behind one line that counts its seconds; what it wrote is shown only when it fails.

    Raises ProblemError when it cannot be started or ends with another status than 0.
    """
    live = sys.stderr.isatty()
    started = time.monotonic()

    def show(text: str, *, end: str = "\n") -> None:
        say(f"\r  {title} ... {text}" if live else f" {text}", end=end)

    say(f"  {title} ...", end="")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=tool_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1 if live else None)
                    break
                show(f"{time.monotonic() - started:.0f} s", end="")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode == 0:
            show(f"{time.monotonic() - started:.1f} s")
            return
        show("failed")
        output.seek(0)
        lines = telling_lines(output.read().decode(errors="replace").splitlines())
    raise ProblemError(
        f"{Path(command[0]).name} ended with status {process.returncode}:\n"
        + "\n".join(f"    {x}" for x in lines),
        "check network, proxy (HTTPS_PROXY) and disk space, then give the same command again",
    )
