"""A monitor on a real X server: what wakes it, and what it says when the server crashes or hangs.

Its clock is scripted and stands still, so that only an event can bring a look.
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from idle_sense import GuestLedger, Monitor, Policy, State, Verdict
from idle_sense.platform.displays import Displays, Places
from idle_sense.probes.input import InputProbe
from idle_sense.testing import ScriptedClock, ScriptedProbes

if sys.platform != "linux":
    pytest.skip("these are the displays of a Linux machine", allow_module_level=True)


class Desk:
    """A monitor of one X display; all else is scripted and calm."""

    def __init__(self, server: object, folder: Path) -> None:
        self.server = server
        socket = f"X{server.number}"  # type: ignore[attr-defined]
        # Displays that others start meanwhile are not this desk's affair.
        (folder / socket).symlink_to(f"/tmp/.X11-unix/{socket}")
        nowhere = "/nonexistent"
        places = Places(sockets=str(folder), sessions=nowhere, runtimes=nowhere)._replace(devices=nowhere)
        self.displays = Displays(environ={"DISPLAY": server.name}, places=places)  # type: ignore[attr-defined]
        self.clock = ScriptedClock()
        probes = dataclasses.replace(ScriptedProbes().probes, seats=InputProbe(self, GuestLedger()))  # type: ignore[arg-type]
        policy = dataclasses.replace(Policy.desktop(), input_idle_s=1.0, grace_s=0.0, pace_s=0.0)
        self.monitor = Monitor(policy, clock=self.clock, probes=probes)
        self.heard: list[Verdict] = []
        self.monitor.on_change(self.heard.append)

    def seats(self, _guests: GuestLedger) -> Displays:
        return self.displays

    @property
    def state(self) -> State | None:
        return self.heard[-1].state if self.heard else None


@pytest.fixture
def desk(start_x: Callable, eventually: Callable, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(start_x(), tmp_path)
    with made.monitor:

        def idle() -> bool:
            made.clock.advance(1.0)
            return made.state is State.IDLE

        eventually(idle)
        yield made


def test_a_key_is_told_though_no_time_passes(desk: Desk, eventually: Callable) -> None:
    desk.server.press("key", "a")  # type: ignore[attr-defined]
    eventually(lambda: desk.state is State.BUSY)
    assert desk.heard[-1].codes == ("input.recent",)


def test_a_movement_is_told_though_no_time_passes(desk: Desk, eventually: Callable) -> None:
    desk.server.press("mousemove", "9", "11")  # type: ignore[attr-defined]
    eventually(lambda: desk.state is State.BUSY)


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["crashes", "hangs"])
def test_a_server_that_crashes_or_hangs_is_busy_when_its_last_answer_is_too_old(
    desk: Desk, eventually: Callable, harm: signal.Signals
) -> None:
    process = desk.server.process  # type: ignore[attr-defined]
    os.kill(process.pid, harm)
    try:

        def busy() -> bool:
            desk.clock.advance(1.0)
            time.sleep(0.1)
            return desk.state is State.BUSY

        eventually(busy)
        assert set(desk.heard[-1].codes) <= {"probe.stale", "probe.missing"}
    finally:
        if harm is signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
