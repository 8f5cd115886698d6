"""One long task between two machines whose owners come back again and again: it ends as if nobody had ever disturbed it."""

import hashlib
import itertools
import sys
from collections.abc import Callable, Mapping

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess
from pool_builders import UserClient, command_spec

from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.wire.jobs import LogPage, TaskDetail
from idle_accelerator.wire.states import AttemptState, JobState

MOVES = 10
STEPS = 20_000
DEADLINE_S = 180.0
PROGRAM = f"""
import hashlib, os, time
from idle_accelerator import task
step, value, due = 0, b"", task.every(0.2)
if saved := task.resume_from():
    step, value = task.resume_step(), (saved / "value").read_bytes()
print("from", step)
while step < {STEPS}:
    step += 1
    value = hashlib.sha256(value + str(step).encode()).digest()
    if not os.path.exists("hurry"):
        time.sleep(0.005)
    print(step)
    if due():
        task.commit(step, {{"value": value}})
        task.progress(step / {STEPS})
        if task.should_stop():
            task.leave()
print("result", value.hex())
"""
PATIENT = (
    "--policy",
    "server",
    "--lend-for",
    "1h",
    "--cpus",
    "1",
    "--vacate-after",
    "100ms",
    "--grace",
    "60",
)
HARSH = (*PATIENT[:-1], "0")


def undisturbed() -> str:
    value = b""
    for step in range(1, STEPS + 1):
        value = hashlib.sha256(value + str(step).encode()).digest()
    return value.hex()


class Watched:
    """The task, as its submitter sees it."""

    def __init__(self, user: UserClient, job_id: str) -> None:
        self._user = user
        self.job_id = job_id

    def look(self) -> TaskDetail:
        return self._user.task(self.job_id, 0)

    def lines(self, epoch: int) -> list[str]:
        answer = self._user.http.get(
            f"/v1/jobs/{self.job_id}/tasks/0/logs", params={"stream": "stdout", "epoch": epoch}
        )
        assert answer.status_code == 200, answer.text
        return LogPage.model_validate_json(answer.content).data.decode().split("\n")[:-1]

    def is_saved_by(self, epoch: int) -> int | None:
        """The step of its newest checkpoint, once this attempt has saved it."""
        kept = self.look().checkpoints
        return kept[0].checkpoint.step if kept and kept[0].epoch == epoch else None

    def runs_after(self, epoch: int) -> tuple[int, str] | None:
        """The attempt after this one, and its node, once it runs."""
        attempts = self.look().attempts
        if not attempts or attempts[-1].epoch <= epoch or attempts[-1].state is not AttemptState.RUNNING:
            return None
        return attempts[-1].epoch, attempts[-1].node_name

    def move(self, epoch: int, node: str, agents: Mapping[str, AgentProcess]) -> tuple[int, str, int]:
        """Its owner comes back once it has saved. Returns the attempt and node after it, and the step that was kept before."""
        kept = until(lambda: self.is_saved_by(epoch), what=f"attempt {epoch} saves", timeout_s=DEADLINE_S)
        control.give_word(agents[node].data_dir, OwnerWord(kind="pause", for_s=None))
        following = until(
            lambda: self.runs_after(epoch), what=f"it moves on after attempt {epoch}", timeout_s=DEADLINE_S
        )
        control.give_word(agents[node].data_dir, OwnerWord(kind="lend", for_s=3600))
        return *following, kept


@pytest.fixture
def user(scheduler_process: SchedulerProcess) -> UserClient:
    return UserClient(scheduler_process.url)


def test_a_task_that_moves_ten_times_ends_as_an_undisturbed_one_does(
    scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess], user: UserClient
) -> None:
    """One owner gives it time to save when he returns, the other none: then it goes on from what was uploaded while it ran."""
    patient, harsh = (start_agent(scheduler_process.url, *options) for options in (PATIENT, HARSH))
    agents = {agent.data_dir.name: agent for agent in (patient, harsh)}
    task = Watched(user, user.submit(command_spec(sys.executable, "-c", PROGRAM)))
    epoch, node = until(lambda: task.runs_after(0), what="it runs", timeout_s=DEADLINE_S)
    kept: dict[int, int] = {}
    nodes = [node]
    for _ in range(MOVES):
        before = epoch
        epoch, node, kept[before] = task.move(before, node, agents)
        nodes.append(node)
    (work,) = (
        path for agent in agents.values() for path in (agent.data_dir / "work").glob(f"{task.job_id}*")
    )
    (work / "hurry").touch()
    until(
        lambda: user.job(task.job_id).view.state is JobState.SUCCEEDED, what="it ends", timeout_s=DEADLINE_S
    )

    # A lease that was given back before anything ran is no move.
    attempts = [item for item in task.look().attempts if item.state is not AttemptState.REJECTED]
    assert [item.state for item in attempts] == [AttemptState.VACATED] * MOVES + [AttemptState.SUCCEEDED]
    assert [item.node_name for item in attempts] == nodes
    assert all(before != after for before, after in itertools.pairwise(nodes))
    assert task.lines(attempts[-1].epoch)[-1] == f"result {undisturbed()}"
    for before, after in itertools.pairwise(attempts):
        assert after.resumed is not None
        assert after.resumed.reason is None
        begun = after.resumed.step
        assert begun is not None
        assert task.lines(after.epoch)[0] == f"from {begun}"
        assert begun >= kept[before.epoch], "what the scheduler had is never lost"
        done = int(task.lines(before.epoch)[-1])
        if agents[before.node_name] is patient:
            assert (before.exit_code, done - begun) == (85, 0), "who gets time to save loses nothing"
        else:
            assert begun <= done
