"""From the first input after quiet to the callback of `Monitor.on_change`, with all of this machine's probes: X11, Mutter, sway,
a fake compositor, as installed; the machine quiet, or all its cores busy with guests at the lowest priority.

    .venv/bin/python bench/idle_callback.py [--rounds 200] [--hogs] [--json] [X11 RealMutter RealSway FakeWayland …]

The monitor is at rest (a look a second), so that nearly all of it is the event's way. Servers and inputs are those of
bench/idle_input.py. The goal: median at most 1 ms, 99 in 100 at most 20 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from idle_input import input_of, settled
from measure import percentile
from seat_servers import KINDS, Server, running

from idle_sense import GuestLedger, Monitor, Policy, State, Verdict
from idle_sense.platform.facade import SeatReader
from idle_sense.probes.bundle import native_probes
from idle_sense.probes.input import InputProbe

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE_S = 3.2
"""Some looks longer than back ends take to stand watch again."""
POLICY = dataclasses.replace(
    Policy.desktop(),
    input_idle_s=IDLE_S,
    grace_s=0.0,
    pace_s=0.0,
    false_start_s=0.0,
    cpu_busy_ratio=1.0,
    cpu_free_ratio=1.0,
    watch_media=False,
    watch_fullscreen=False,
)
"""Quiet for a moment is idle; what else goes on at the machine is not asked for."""


class OneServer:
    """A system whose only seats are those of the server under test."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def seats(self, _guests: GuestLedger) -> SeatReader:
        return self._server.displays


@contextlib.contextmanager
def hogs() -> Iterator[None]:
    """Each core busy twice over, at the lowest priority, as guests are."""
    program = (
        "import os\nos.nice(19)\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(server: Server, rounds: int) -> list[float]:
    """Milliseconds from input to callback, sorted."""
    settled(server)
    use = input_of(server)
    use()  # the first may have to connect
    probes = native_probes()
    probes = dataclasses.replace(probes, seats=InputProbe(OneServer(server), probes.guests))  # type: ignore[arg-type]
    heard = threading.Event()
    idle = threading.Event()
    at_s = [0.0]

    def told(verdict: Verdict) -> None:
        if verdict.state is State.IDLE:
            idle.set()
        elif verdict.state is State.BUSY and "input.recent" in verdict.codes and idle.is_set():
            at_s[0] = time.perf_counter()
            idle.clear()
            heard.set()

    found: list[float] = []
    with Monitor(POLICY, probes=probes) as monitor:
        monitor.on_change(told)
        for _ in range(rounds):
            if not idle.wait(60):
                sys.exit(f"not idle: {[reason.sentence for reason in monitor.check().reasons]}")
            heard.clear()
            # Not always at the same distance from the regular look.
            time.sleep(0.05 + 0.9 * len(found) / rounds)
            if not idle.is_set():
                continue
            began_s = time.perf_counter()
            use()
            if not heard.wait(30):
                sys.exit("the input was never told")
            found.append((at_s[0] - began_s) * 1e3)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--hogs", action="store_true", help="with all cores busy at the lowest priority")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("kinds", nargs="*", default=["X11", "RealMutter", "RealSway", "FakeWayland"])
    options = parser.parse_args()
    for kind in KINDS:
        if kind.__name__ not in options.kinds:
            continue
        busy = hogs() if options.hogs else contextlib.nullcontext()
        with tempfile.TemporaryDirectory() as folder, running(kind, Path(folder)) as server, busy:
            found = measured(server, options.rounds)
        told = {
            "server": kind.__name__,
            "hogs": options.hogs,
            "rounds": len(found),
            "p50_ms": round(percentile(found, 0.5), 3),
            "p99_ms": round(percentile(found, 0.99), 3),
            "worst_ms": round(found[-1], 3),
        }
        print(
            json.dumps(told) if options.json else "  ".join(f"{name} {value}" for name, value in told.items())
        )


if __name__ == "__main__":
    main()
