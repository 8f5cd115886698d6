"""Real X servers for the tests of this folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import end


class XServer:
    """An Xvfb of its own, killed with the test."""

    def __init__(self, process: subprocess.Popen, number: int) -> None:
        self.process = process
        self.number = number
        self.name = f":{number}"

    def press(self, *action: str) -> None:
        subprocess.run(
            ["xdotool", *action],
            env=os.environ | {"DISPLAY": self.name},
            check=True,
            timeout=30,
            capture_output=True,
        )


@pytest.fixture
def start_x(tmp_path: Path) -> Iterator[Callable[..., XServer]]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed; `python3 run.py test` installs it (Debian: xvfb, xdotool)"
            )
    started: list[subprocess.Popen] = []

    def start(*arguments: str) -> XServer:
        read_end, write_end = os.pipe()
        process = subprocess.Popen(
            [
                "Xvfb",
                "-displayfd",
                str(write_end),
                "-screen",
                "0",
                "320x200x24",
                "-nolisten",
                "tcp",
                *arguments,
            ],
            pass_fds=[write_end],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write_end)
        started.append(process)
        with os.fdopen(read_end) as told:
            line = told.readline()
        assert line, "Xvfb ended before it served"
        return XServer(process, int(line))

    yield start
    for process in started:
        end(process)


@pytest.fixture
def eventually() -> Callable[..., None]:
    def wait(condition: Callable[[], bool], within_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, "it never came"
            time.sleep(0.02)

    return wait
