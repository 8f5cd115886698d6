"""Ends of processes that tests start."""

import signal
import subprocess
import sys


def end(process: subprocess.Popen) -> None:
    """Politely, so that a display server takes its socket and its lock away; a stopped or stubborn one less so."""
    if sys.platform != "win32":
        process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=30)
