"""Whole pools of real processes: what a task saved is there for its next attempt, wherever that runs and whoever was killed."""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import psutil
import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess
from pool_builders import UserClient, command_spec
from sandbox_guests import bubblewrap

from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.wire.checkpoints import CHUNK_BYTES
from idle_accelerator.wire.jobs import Function, JobSpec, LogPage
from idle_accelerator.wire.packing import pack
from idle_accelerator.wire.payload import inline_payload
from idle_accelerator.wire.states import AttemptState, JobState

StartAgent = Callable[..., AgentProcess]
LENT = ("--policy", "server", "--lend-for", "1h", "--cpus", "2")
SAVING = """
import json, os, shutil, signal, sys, time
from pathlib import Path
home, start = Path(os.environ["IDLE_CHECKPOINT_DIR"]), os.environ["IDLE_RESUME_FROM"]
step = int((Path(start) / "state").read_text()) if start else 0
print("from", step, flush=True)

def commit(step, **files):
    part = home / f"step-{step}.tmp"
    part.mkdir()
    for name, content in {"state": str(step).encode(), **files}.items():
        with open(part / name, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    part.rename(home / f"step-{step}")
    (home / "LATEST.tmp").write_text(f"step-{step}")
    os.replace(home / "LATEST.tmp", home / "LATEST")

def say(ratio, note=""):
    told = Path(os.environ["IDLE_PROGRESS_FILE"])
    told.with_name("said").write_text(json.dumps({"done_ratio": ratio, "note": note}))
    os.replace(told.with_name("said"), told)
"""


@pytest.fixture
def user(scheduler_process: SchedulerProcess) -> UserClient:
    return UserClient(scheduler_process.url)


def saving(code: str, **fields: object):
    return command_spec(sys.executable, "-c", SAVING + code, **fields)


def ended(user: UserClient, job_id: str) -> JobState:
    def look() -> JobState | None:
        state = user.job(job_id).view.state
        return state if state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED) else None

    return until(look, what=f"job {job_id} ends", timeout_s=120)


def output(user: UserClient, job_id: str) -> str:
    answer = user.http.get(f"/v1/jobs/{job_id}/tasks/0/logs", params={"stream": "stdout"})
    return LogPage.model_validate_json(answer.content).data.decode()


def steps(user: UserClient, job_id: str) -> list[int]:
    return [item.checkpoint.step for item in user.task(job_id, 0).checkpoints]


def test_a_task_that_asks_to_go_on_elsewhere_goes_on_from_its_checkpoint_for_free(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    start_agent(scheduler_process.url)
    job = user.submit(saving("commit(step + 1)\nsys.exit(0 if step == 2 else 85)"))
    assert ended(user, job) is JobState.SUCCEEDED
    attempts = user.task(job, 0).attempts
    assert [item.state for item in attempts] == [AttemptState.VACATED] * 2 + [AttemptState.SUCCEEDED]
    assert [item.resumed.step if item.resumed else None for item in attempts] == [None, 1, 2]
    assert attempts[0].reason is not None
    assert attempts[0].reason.sentence == "saved checkpoint step-1 and asked to go on elsewhere"
    assert user.task(job, 0).checkpoints == (), "they went with the task"


def test_a_task_that_asks_for_it_without_having_saved_anything_has_failed(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    start_agent(scheduler_process.url)
    job = user.submit(saving("step == 0 and commit(1)\nsys.exit(75)", retries=1))
    assert ended(user, job) is JobState.FAILED
    attempts = user.task(job, 0).attempts
    assert [item.state for item in attempts] == [
        AttemptState.VACATED,
        AttemptState.FAILED,
        AttemptState.FAILED,
    ]
    assert [item.exit_code for item in attempts] == [75] * 3
    assert attempts[1].reason is not None
    assert attempts[1].reason.code == "task.nothing_saved"
    assert attempts[1].reason.sentence.endswith("than it began with: it committed none")


def test_a_running_task_shows_its_checkpoints_and_its_progress(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    start_agent(scheduler_process.url)
    code = (
        "commit(4)\nsay(0.25, 'a quarter')\n"
        "while not os.path.exists('more'): time.sleep(0.01)\n"
        "commit(9, big=os.urandom(9_000_000))\nsay(0.5)\ntime.sleep(600)"
    )
    job = user.submit(saving(code))
    until(lambda: steps(user, job) == [4], what="the first is kept")
    until(lambda: user.task(job, 0).task.progress is not None, what="progress is shown")
    progress = user.tasks(job).tasks[0].progress
    assert progress is not None
    assert (progress.done_ratio, progress.note) == (0.25, "a quarter")
    (work,) = (Path(scheduler_process.data_dir).parent / "agent0" / "work").iterdir()
    (work / "more").touch()
    until(lambda: steps(user, job) == [9, 4], what="the second is kept")
    newest = user.task(job, 0).checkpoints[0]
    assert (newest.checkpoint.files, newest.checkpoint.size_bytes) == (2, 9_000_001)
    assert (newest.epoch, newest.node_name, newest.resumed_by) == (1, "agent0", ())
    until(lambda: getattr(user.task(job, 0).task.progress, "done_ratio", None) == 0.5, what="it moves on")
    user.http.post(f"/v1/jobs/{job}/cancel")
    assert ended(user, job) is JobState.CANCELLED
    assert user.task(job, 0).checkpoints == ()


def test_the_task_of_a_killed_agent_goes_on_elsewhere_from_its_last_whole_checkpoint(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    first = start_agent(scheduler_process.url)
    job = user.submit(saving("step or commit(7)\nstep and sys.exit(0)\ntime.sleep(600)"))
    until(lambda: steps(user, job) == [7], what="the checkpoint is kept")
    first.kill9()
    start_agent(scheduler_process.url)
    assert ended(user, job) is JobState.SUCCEEDED
    assert output(user, job) == "from 7\n"
    second = user.task(job, 0).attempts[1]
    assert second.node_name == "agent1"
    assert second.resumed is not None
    assert second.resumed.step == 7


def test_what_was_committed_just_before_the_owner_took_the_machine_back_is_not_lost(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    first = start_agent(scheduler_process.url, *LENT, "--vacate-after", "1s", "--grace", "30")
    code = (
        "def leave(*_):\n    commit(3, big=os.urandom(6_000_000))\n    sys.exit(85)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "step and sys.exit(0)\ncommit(1)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    job = user.submit(saving(code))
    until(lambda: "up" in output(user, job), what="the task runs")
    control.give_word(first.data_dir, OwnerWord(kind="pause", for_s=None))
    until(lambda: user.job(job).view.counts.queued == 1, what="the task is back in the queue")
    assert steps(user, job)[0] == 3
    start_agent(scheduler_process.url)
    assert ended(user, job) is JobState.SUCCEEDED
    assert output(user, job) == "from 3\n"
    assert user.task(job, 0).attempts[0].state is AttemptState.VACATED


def test_an_agent_that_is_stopped_sends_the_last_commit_first(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url, *LENT, "--grace", "0")
    code = "commit(4, big=os.urandom(9_000_000))\nprint('up', flush=True)\ntime.sleep(600)"
    job = user.submit(saving(code))
    until(lambda: "up" in output(user, job), what="it has committed")
    assert agent.stop() == 0
    assert steps(user, job) == [4]
    assert user.task(job, 0).attempts[0].state is AttemptState.VACATED


def test_a_function_with_files_of_its_own_goes_on_elsewhere_too(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    def work() -> str:
        import os
        import sys
        from pathlib import Path

        start = os.environ["IDLE_RESUME_FROM"]
        if start:
            Path("found").write_text("x")
            return (Path(start) / "state").read_text()
        home = Path(os.environ["IDLE_CHECKPOINT_DIR"])
        (home / "step-1").mkdir()
        (home / "step-1" / "state").write_text("half")
        (home / "new").write_text("step-1")
        (home / "new").replace(home / "LATEST")
        sys.exit(85)

    function = Function(
        name="work",
        code=inline_payload(cloudpickle.dumps(work)),
        arguments=inline_payload(pack([cloudpickle.dumps(((), {}))])),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
    )
    start_agent(scheduler_process.url)
    job = user.submit(JobSpec(workload=function, outputs=("found",)))
    assert ended(user, job) is JobState.SUCCEEDED
    attempts = user.task(job, 0).attempts
    assert [(item.state, item.exit_code) for item in attempts] == [
        (AttemptState.VACATED, 85),
        (AttemptState.SUCCEEDED, 0),
    ]
    (result,) = user.results(job).results
    assert result.result is not None
    assert result.result.inline is not None
    assert b"half" in result.result.inline


def test_in_the_sandbox_a_task_finds_its_checkpoint_too(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    bubblewrap()
    start_agent(scheduler_process.url, *LENT, "--sandbox", "bubblewrap")
    code = (
        "print(sorted(os.listdir(start)) if start else '-', flush=True)\n"
        "commit(step + 1, big=bytes(5_000_000))\nsys.exit(0 if step == 1 else 85)"
    )
    job = user.submit(saving(code))
    assert ended(user, job) is JobState.SUCCEEDED
    assert output(user, job) == "from 1\n['big', 'state']\n"
    assert len(user.task(job, 0).attempts) == 2


def test_nothing_of_the_owners_leaves_by_way_of_a_checkpoint(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient, tmp_path: Path
) -> None:
    """In tier ``process`` the task may read it by itself; the agent must not do it in its stead."""
    agent = start_agent(scheduler_process.url)
    token = agent.data_dir / "identity.json"
    code = (
        "part = home / 'step-1'\npart.mkdir()\n(part / 'state').write_text('1')\n"
        f"os.symlink({str(token)!r}, part / 'token')\n"
        "(home / 'n').write_text('step-1')\nos.replace(home / 'n', home / 'LATEST')\n"
        "time.sleep(600)"
    )
    job = user.submit(saving(code))
    until(lambda: user.task(job, 0).checkpoint_refused is not None, what="it is refused")
    refused = user.task(job, 0).checkpoint_refused
    assert refused is not None
    assert refused.sentence.startswith("checkpoint step-1 was not taken: token is a link")
    assert steps(user, job) == []
    blobs = (scheduler_process.data_dir / "blobs").rglob("*")
    assert not any(b"token" in path.read_bytes() for path in blobs if path.is_file())


class SlowPool:
    """A scheduler on this machine's own address, so that it counts as far away, and agents that send 1 MiB a second."""

    def __init__(self, start_scheduler: Callable[..., SchedulerProcess], start_agent: StartAgent) -> None:
        address = next((item for item in _addresses() if not item.startswith("127.")), None)
        if address is None:
            pytest.skip("this machine has no IPv4 address but loopback")
        self.scheduler = start_scheduler(host="0.0.0.0")
        self._url = f"http://{address}:{self.scheduler.port}"
        self._start_agent = start_agent
        self.user = UserClient(self.scheduler.url, key=self.scheduler.key)

    def agent(self) -> AgentProcess:
        slow = ("--sandbox", "process", "--upload-limit", "1MiB", "--key", self.scheduler.key)
        return self._start_agent(self._url, *LENT, *slow)

    def large_blobs(self) -> list[Path]:
        found = (self.scheduler.data_dir / "blobs").rglob("*")
        return [path for path in found if path.is_file() and path.stat().st_size == CHUNK_BYTES]


def _addresses() -> list[str]:
    return [
        item.address
        for of_interface in psutil.net_if_addrs().values()
        for item in of_interface
        if item.family is socket.AF_INET
    ]


@pytest.fixture
def slow(start_scheduler: Callable[..., SchedulerProcess], start_agent: StartAgent) -> SlowPool:
    return SlowPool(start_scheduler, start_agent)


LARGE_SECOND = (
    "step and sys.exit(0)\ncommit(1)\n"
    "while not os.path.exists('more'): time.sleep(0.01)\n"
    "commit(2, big=os.urandom(12 * 1024 * 1024))\ntime.sleep(600)"
)


def go_on(agent: AgentProcess) -> None:
    (work,) = (agent.data_dir / "work").iterdir()
    (work / "more").touch()


def test_an_agent_killed_in_the_middle_of_an_upload_leaves_the_last_whole_checkpoint(slow: SlowPool) -> None:
    first = slow.agent()
    job = slow.user.submit(saving(LARGE_SECOND))
    until(lambda: steps(slow.user, job) == [1], what="the first is kept")
    go_on(first)
    until(lambda: len(slow.large_blobs()) == 1, what="a piece of the second is there")
    first.kill9()
    assert steps(slow.user, job) == [1]
    slow.agent()
    assert ended(slow.user, job) is JobState.SUCCEEDED
    assert output(slow.user, job) == "from 1\n"


def test_a_scheduler_killed_in_the_middle_of_an_upload_has_the_rest_of_it_later(slow: SlowPool) -> None:
    agent = slow.agent()
    job = slow.user.submit(saving(LARGE_SECOND))
    until(lambda: steps(slow.user, job) == [1], what="the first is kept")
    go_on(agent)
    began_s = time.monotonic()
    until(lambda: len(slow.large_blobs()) == 1, what="a piece of the second is there")
    slow.scheduler.restart()
    until(lambda: steps(slow.user, job) == [2, 1], what="the second is kept as well")
    assert time.monotonic() - began_s >= 11.5, "12 MiB at 1 MiB a second take as long as that"
    assert agent.guests(), "the task ran all the while"
