"""The owner comes back to a real machine: an agent, a scheduler, an X server with a mouse, real guests in control groups."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from agent_process import until
from conftest import SchedulerProcess

if sys.platform != "linux":
    pytest.skip("the watch needs Linux's control groups", allow_module_level=True)

from idle_accelerator.agent import control
from idle_accelerator.agent.host import cgroups, probing
from idle_accelerator.sdk.client import Client

QUIET = Path(__file__).parents[1] / "quiet_agent.py"
BUSY = "import os\nif os.fork() == 0: pass\nwhile True: pass"


class Desk:
    """A machine with a mouse, whose agent takes nothing but that for use."""

    def __init__(self, url: str, folder: Path, display: str, *options: str) -> None:
        self.data_dir = folder / "desk"
        self._display = display
        env = {**os.environ, "DISPLAY": display, "XDG_STATE_HOME": str(folder / "state")}
        with (folder / "desk.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(QUIET), url, str(self.data_dir), *options],
                env=env,
                stdout=log,
                stderr=log,
            )

    @property
    def status(self) -> control.AgentStatus | None:
        status = control.read_status(self.data_dir)
        return status if status is not None and status.pid == self.process.pid else None

    def counts(self, *, running: int, frozen: int) -> bool:
        status = self.status
        return status is not None and (status.running, status.frozen) == (running, frozen)

    def move(self) -> None:
        place = str(int(time.monotonic() * 1000) % 300)
        env = {**os.environ, "DISPLAY": self._display}
        subprocess.run(["xdotool", "mousemove", place, place[:2]], env=env, check=True, timeout=60)

    def groups(self) -> dict[str, bool]:
        """Whether each guest's group is frozen, as the kernel says; reserves are not guests."""
        tree = probing.found().places.tree
        assert tree is not None
        found: dict[str, bool] = {}
        for folder in Path(tree).parent.glob(f"{cgroups.HOME_PREFIX}*-{self.process.pid}-*/*/"):
            group = cgroups.Group.found(str(folder))
            if any(_is_busy(pid) for pid in group.pids()):
                found[folder.name] = group.is_frozen()
        return found

    def watch(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                if any(part.endswith("watch.py") for part in child.cmdline()):
                    return child
        return None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def _is_busy(pid: int) -> bool:
    try:
        return BUSY in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


@pytest.fixture
def display() -> Iterator[str]:
    for program in ("Xvfb", "xdotool"):
        if not any(Path(folder, program).exists() for folder in os.environ["PATH"].split(os.pathsep)):
            pytest.skip(f"needs {program}")
    read_end, write_end = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "320x200x24", "-nolisten", "tcp"],
        pass_fds=[write_end],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    with os.fdopen(read_end) as told:
        yield f":{int(told.readline())}"
    server.terminate()
    server.wait(60)


@pytest.fixture
def sit_down(
    scheduler_process: SchedulerProcess, display: str, tmp_path: Path
) -> Iterator[Callable[..., Desk]]:
    if probing.found().places.tree is None:
        pytest.skip("needs control groups that this user may make")
    desks: list[Desk] = []

    def sit(*options: str, terms: str = "") -> Desk:
        (tmp_path / "desk").mkdir()
        (tmp_path / "desk/owner.toml").write_text(terms, encoding="utf-8")
        desk = Desk(scheduler_process.url, tmp_path, display, *options)
        desks.append(desk)
        until(lambda: desk.status is not None and desk.status.connected, what="the agent connects")
        return desk

    yield sit
    for desk in desks:
        desk.close()


def submit(url: str, tasks: int) -> None:
    with Client(url) as client:
        client.submit([sys.executable, "-ISc", BUSY], array=tasks, cpus=1)


def test_the_first_movement_freezes_every_guest_though_the_agent_is_busy_and_the_agent_takes_it_over(
    scheduler_process: SchedulerProcess, sit_down: Callable[..., Desk]
) -> None:
    desk = sit_down("pieces")
    submit(scheduler_process.url, 2)
    until(lambda: list(desk.groups().values()) == [False, False], what="two guests run")
    until(lambda: desk.watch() is not None, what="the watch is there while guests run")
    time.sleep(1.0)
    desk.move()
    until(lambda: list(desk.groups().values()) == [True, True], what="the kernel says that both stand still")
    until(lambda: desk.counts(running=2, frozen=2), what="the agent's books say so")
    until(lambda: list(desk.groups().values()) == [False, False], what="they go on when nobody is there")
    until(lambda: desk.counts(running=2, frozen=0), what="the agent's books say so again")


def test_a_watch_that_was_killed_leaves_the_agent_to_do_it_alone(
    scheduler_process: SchedulerProcess, sit_down: Callable[..., Desk]
) -> None:
    desk = sit_down()
    submit(scheduler_process.url, 1)
    until(lambda: desk.watch() is not None, what="the watch is there while guests run")
    watch = desk.watch()
    assert watch is not None
    watch.kill()
    until(lambda: desk.watch() is None, what="it is gone")
    until(lambda: list(desk.groups().values()) == [False], what="the guest runs")
    desk.move()
    until(lambda: list(desk.groups().values()) == [True], what="the agent alone freezes it")


def test_a_share_runs_on_and_the_newest_stands_still_and_the_terms_change_without_a_restart(
    scheduler_process: SchedulerProcess, sit_down: Callable[..., Desk]
) -> None:
    desk = sit_down(terms="[share.present]\ncpus = 1\n")
    submit(scheduler_process.url, 2)
    until(lambda: list(desk.groups().values()) == [False, False], what="two guests run")
    time.sleep(1.0)

    def keep_moving(look: Callable[[], bool]) -> bool:
        desk.move()
        time.sleep(0.3)
        return look()

    until(lambda: keep_moving(lambda: desk.counts(running=2, frozen=1)), what="one stands still")
    assert sorted(desk.groups().values()) == [False, True]
    status = desk.status
    assert status is not None
    assert (status.lending, status.sentences[0]) == ("lent", "in use; lends 1 of 8 cores meanwhile")
    (desk.data_dir / "owner.toml").write_text("[share.present]\ncpus = 2\n", encoding="utf-8")
    until(lambda: keep_moving(lambda: desk.counts(running=2, frozen=0)), what="the larger share thaws it")
    (desk.data_dir / "owner.toml").write_text("[share.present]\ncpus = 2 # and\ncpu = 3\n", encoding="utf-8")
    until(
        lambda: any("owner's file does not hold" in line for line in (desk.status or status).sentences),
        what="a broken file is told",
    )
    assert keep_moving(lambda: desk.counts(running=2, frozen=0)), "the last good terms hold"
    (desk.data_dir / "owner.toml").write_text("", encoding="utf-8")
    until(lambda: keep_moving(lambda: desk.counts(running=2, frozen=2)), what="without a share all stop")


def test_warm_processes_keep_to_the_share_too(
    scheduler_process: SchedulerProcess, sit_down: Callable[..., Desk]
) -> None:
    desk = sit_down(terms="[share.present]\ncpus = 1\n")

    def spin(number: int) -> int:
        while number >= 0:
            pass
        return number

    with Client(scheduler_process.url) as client:
        client.map(spin, range(3))
        until(lambda: desk.counts(running=3, frozen=0), what="three calls run")
        time.sleep(1.0)
        until(lambda: (desk.move(), desk.counts(running=3, frozen=2))[1], what="two stand still")
        until(lambda: desk.counts(running=3, frozen=0), what="they go on when nobody is there")
