"""``idlectl web``."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from idle_accelerator.cli import daemons, lifeline
from idle_accelerator.cli.connect import KeyFlag, SchedulerFlag
from idle_accelerator.cli.terminal import say

HOST = "127.0.0.1"


def web(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of 127.0.0.1 to listen on.")
    ] = 8501,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Serve the web page, in front, until Ctrl-C."""
    from idle_accelerator import settings  # noqa: PLC0415  # imported when needed

    lifeline.hold(kill=True)  # the page holds nothing that a kill could harm
    daemons.check_extra("streamlit", extra="web")
    daemons.check_port(HOST, port, flag="--port", hint=f"Choose another: idlectl web --port {port + 1}")
    place = settings.connection(scheduler, key)
    say(f"Web page on http://{HOST}:{port}, for the scheduler {place.url}.")
    # By its module's name, as the page is no part of this program; the key by environment, which no other user can read.
    command = [sys.executable, "-m", "idle_accelerator.web", "--port", str(port), "--address", HOST]
    environment = {**os.environ, "IDLE_SCHEDULER": place.url, "IDLE_KEY": place.key or ""}
    if sys.platform != "win32":
        os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted
    return subprocess.run(command, env=environment, check=False).returncode
