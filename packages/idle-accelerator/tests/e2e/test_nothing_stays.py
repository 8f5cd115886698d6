"""Drills: an agent killed in any moment of a task's life, and a thousand tasks in a row. Nothing of guests stays, and every attempt is accounted for."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from agent_process import AgentProcess, lives, until
from conftest import SchedulerProcess
from sandbox_guests import bubblewrap

from idle_accelerator import Client
from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.sdk.handles import JobHandle
from idle_accelerator.wire.states import AttemptState, TaskState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc and control groups")
WAIT_S = 90.0
TASKS = 1000
WARM_UP = 100
ROOM_BYTES = 1 << 20
MEMORY_BYTES = 16 << 20
TIERS = ("process", "bubblewrap")
FIRST_TIME = "[ $IDLE_ATTEMPT != 1 ] || "


@pytest.fixture(params=TIERS)
def agent(
    request: pytest.FixtureRequest,
    scheduler_process: SchedulerProcess,
    start_agent: Callable[..., AgentProcess],
) -> AgentProcess:
    if request.param == "bubblewrap":
        bubblewrap()
    options = ("--policy", "server", "--lend-for", "1h", "--cpus", "2", "--sandbox", request.param)
    return start_agent(scheduler_process.url, *options)


@pytest.fixture
def client(scheduler_process: SchedulerProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as opened:
        yield opened


def groups_of(agent_pid: int) -> list[Path]:
    """The control groups that an agent has made, its homes and what is in them."""
    from idle_accelerator.agent.host import cgroups, probing

    homes = [
        home
        for parent in probing.parents()
        for home in Path(parent).glob(f"{cgroups.HOME_PREFIX}*-{agent_pid}-*")
    ]
    return [
        folder for home in homes for folder in (home, *(each for each in home.iterdir() if each.is_dir()))
    ]


def is_over(
    client: Client, job: JobHandle, agent: AgentProcess, guests: list[psutil.Process], killed: int
) -> None:
    """After the agent's second start: the task was done once, its first attempt is accounted for, nothing of that stays."""
    job.wait(timeout=WAIT_S)
    (result,) = job.as_finished(timeout=WAIT_S)
    assert result.state is TaskState.SUCCEEDED
    detail = job.task(0)
    assert [attempt.state for attempt in detail.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    assert not any(lives(guest) for guest in guests)
    assert groups_of(killed) == []
    until(lambda: not any((agent.data_dir / "work").iterdir()), what="no folder of a task is left")
    until(lambda: agent.guests() == [], what="no process of a task is left")


def running(
    client: Client, agent: AgentProcess, script: str, **options: object
) -> tuple[JobHandle, list[psutil.Process]]:
    """A job of one task whose first attempt says ``up`` and stays."""
    job = client.submit(["sh", "-c", script], **options)  # pyright: ignore[reportArgumentType]
    until(lambda: b"up" in job.logs(task=0), what="the task runs")
    guests = agent.guests()
    assert guests
    return job, guests


def kill_and_start(agent: AgentProcess, guests: list[psutil.Process]) -> int:
    """Returns the pid that was killed."""
    killed = agent.pid
    agent.kill9()
    until(lambda: not any(lives(guest) for guest in guests), what="its guests died with it")
    agent.start()
    return killed


def test_killed_while_a_task_runs(client: Client, agent: AgentProcess) -> None:
    script = f"echo up; {FIRST_TIME}{{ sleep 1000 & setsid sleep 1000 & sleep 1000; }}"
    job, guests = running(client, agent, script)
    is_over(client, job, agent, guests, kill_and_start(agent, guests))


def test_killed_while_a_task_stands_frozen(client: Client, agent: AgentProcess) -> None:
    job, guests = running(client, agent, f"echo up; {FIRST_TIME}{{ sleep 1000 & sleep 1000; }}")
    word = control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None))
    control.wait_applied(agent.data_dir, word, WAIT_S)
    until(
        lambda: job.task(0).attempts[0].state is AttemptState.SUSPENDED,
        what="the scheduler knows that it stands still",
    )
    killed = kill_and_start(agent, guests)
    control.give_word(agent.data_dir, OwnerWord(kind="lend", for_s=600))
    is_over(client, job, agent, guests, killed)


def test_killed_while_outputs_are_stored(
    client: Client, agent: AgentProcess, scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    files = 2000
    make = f"i=0; while [ $i -lt {files} ]; do echo $i > out/$i; i=$((i+1)); done"
    script = f"mkdir out; {make}; echo up"
    job = client.submit(["sh", "-c", script], outputs=["out/*"])
    blobs = scheduler_process.data_dir / "blobs"
    until(lambda: sum(1 for _ in blobs.glob("??/*")) > files // 20, what="some of its outputs are stored")
    agent.suspend()
    stored = sum(1 for _ in blobs.glob("??/*"))
    assert stored < files, "killed in the midst of it"
    is_over(client, job, agent, [], kill_and_start(agent, []))
    fetched = job.download(tmp_path / "got", task=0)
    assert sorted(int(path.read_text()) for path in fetched) == list(range(files))


def test_a_thousand_short_tasks_leave_nothing(client: Client, agent: AgentProcess) -> None:
    """Each leaves a process in the background, one in a session of its own, and files; the ends of both are the agent's affair."""
    script = "echo left > file; mkdir folder; sleep 1000 & setsid sleep 1000 & echo $IDLE_TASK_INDEX"

    def run(tasks: int) -> None:
        job = client.submit(["sh", "-c", script], array=tasks)
        assert job.wait(timeout=10 * WAIT_S).counts.succeeded == tasks

    workers = min(32, (os.cpu_count() or 1) + 4)
    run(WARM_UP)
    before = Footprint(agent)
    run(TASKS)
    after = Footprint(agent)
    assert after.guests == []
    assert after.zombies == 0
    assert after.groups == before.groups
    assert after.mounts == before.mounts
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads + workers, (
        "but those of the event loop, which come as they are needed"
    )
    assert after.folders == 0
    assert after.disk_bytes < before.disk_bytes + ROOM_BYTES
    assert after.memory_bytes < before.memory_bytes + MEMORY_BYTES


class Footprint:
    """What an agent takes of its machine, once it has nothing in hand."""

    def __init__(self, agent: AgentProcess) -> None:
        work = agent.data_dir / "work"
        until(lambda: not any(work.iterdir()) and agent.guests() == [], what="the last workspace is wiped")
        process = psutil.Process(agent.pid)
        # What the next task would need is made anew after the last one: it belongs to an agent at rest.
        until(lambda: not zombies_of(process), what="what has ended is collected")
        self.guests = agent.guests()
        self.zombies = len(zombies_of(process))
        self.groups = len(groups_of(agent.pid))
        self.mounts = Path(f"/proc/{agent.pid}/mountinfo").read_text(encoding="utf-8")
        self.descriptors = process.num_fds()
        self.threads = process.num_threads()
        self.folders = sum(1 for _ in work.iterdir())
        self.disk_bytes = sum(path.stat().st_size for path in agent.data_dir.rglob("*") if path.is_file())
        self.memory_bytes = process.memory_info().rss


def zombies_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if not lives(child)]
