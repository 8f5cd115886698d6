"""``python -m idle_accelerator.web --port 8501``: becomes the page. ``idlectl web`` starts it so.

The scheduler's URL and key come by IDLE_SCHEDULER and IDLE_KEY, never as arguments: other users of a machine can read those.
"""

import argparse
import os
import signal
import subprocess
import sys

from idle_accelerator.errors import IdleError
from idle_accelerator.web import command


def main() -> int:
    """The exit status; where the system can exec, there is none but the page's own."""
    parser = argparse.ArgumentParser(prog="python -m idle_accelerator.web", description="Serve the web page.")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--address", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)")
    asked = parser.parse_args()
    try:
        argv = command(port=asked.port, address=asked.address)
    except IdleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if sys.platform != "win32":
        # Signals then reach the page itself, and nothing stands between it and whoever started it.
        os.execv(argv[0], argv)  # noqa: S606  # no shell is wanted
    return _run(argv)


def _run(argv: list[str]) -> int:
    """For systems that cannot exec: as its parent, which passes on the wish to stop (signature-only)."""
    process = subprocess.Popen(argv)

    def stop(*_: object) -> None:
        process.terminate()

    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, stop)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
