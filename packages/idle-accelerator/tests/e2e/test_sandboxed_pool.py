"""A whole pool whose agent runs everything in tier ``bubblewrap``: the same promises as without, and nothing of the owner's."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from agent_process import AgentProcess, lives, until
from conftest import SchedulerProcess
from pool_builders import UserClient, command_spec
from sandbox_guests import bubblewrap, stopped

from idle_accelerator import Client
from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.errors import RemoteException
from idle_accelerator.wire.jobs import LogPage
from idle_accelerator.wire.states import AttemptState, JobState

WAIT_S = 60.0
SANDBOXED = (
    "--policy",
    "server",
    "--lend-for",
    "1h",
    "--cpus",
    "2",
    "--grace",
    "0",
    "--sandbox",
    "bubblewrap",
)
SLEEP = "import time;print('up',flush=True);time.sleep(600)"


@pytest.fixture
def agent(scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]) -> AgentProcess:
    bubblewrap()
    return start_agent(scheduler_process.url, *SANDBOXED)


@pytest.fixture
def client(scheduler_process: SchedulerProcess, agent: AgentProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as opened:
        yield opened


@pytest.fixture
def user(scheduler_process: SchedulerProcess, agent: AgentProcess) -> UserClient:
    return UserClient(scheduler_process.url)


def python(code: str, **fields: object):
    return command_spec(sys.executable, "-c", code, **fields)


def output(user: UserClient, job_id: str) -> str:
    answer = user.http.get(f"/v1/jobs/{job_id}/tasks/0/logs", params={"stream": "stdout"})
    return LogPage.model_validate_json(answer.content).data.decode()


def ended(user: UserClient, job_id: str) -> JobState:
    def look() -> JobState | None:
        state = user.job(job_id).view.state
        return state if state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED) else None

    return until(look, what=f"job {job_id} ends")


def test_two_hundred_calls_come_back_in_order_and_an_exception_as_itself(client: Client) -> None:
    def square(value: int) -> int:
        return value * value

    def fail() -> None:
        raise ValueError("inside")

    assert list(client.map(square, range(200))) == [value * value for value in range(200)]
    with pytest.raises(RemoteException, match="inside"):
        client.submit_function(fail).result(timeout=WAIT_S)


def test_a_command_reads_its_inputs_and_its_outputs_come_back(client: Client, tmp_path: Path) -> None:
    given = tmp_path / "words.txt"
    given.write_text("one two three")
    job = client.submit(
        [
            "sh",
            "-c",
            "wc -w < words.txt > count.txt; mkdir -p sub; echo $IDLE_TASK_INDEX > sub/index; touch /tmp/other",
        ],
        array=2,
        inputs=[str(given)],
        outputs=["count.txt", "sub/*"],
    )
    job.wait(timeout=WAIT_S)
    got = {
        path.relative_to(tmp_path / "got"): path.read_text().strip()
        for path in job.download(tmp_path / "got", task=1)
    }
    assert {path.name: text for path, text in got.items()} == {"count.txt": "3", "index": "1"}


def test_a_task_that_fails_once_succeeds_at_its_second_attempt(user: UserClient) -> None:
    job = user.submit(
        python("import os,sys;sys.exit(0 if os.environ['IDLE_ATTEMPT']=='2' else 3)", retries=1)
    )
    assert ended(user, job) is JobState.SUCCEEDED
    assert [attempt.state for attempt in user.task(job, 0).attempts] == [
        AttemptState.FAILED,
        AttemptState.SUCCEEDED,
    ]


def test_cancel_and_timeout_leave_no_process(user: UserClient, agent: AgentProcess) -> None:
    cancelled = user.submit(python(SLEEP))
    until(lambda: "up" in output(user, cancelled), what="the task runs")
    guests = agent.guests()
    assert guests
    user.http.post(f"/v1/jobs/{cancelled}/cancel")
    assert ended(user, cancelled) is JobState.CANCELLED
    assert not any(lives(guest) for guest in guests)
    timed = user.submit(python(SLEEP, timeout_s=1.0))
    assert ended(user, timed) is JobState.FAILED
    reason = user.task(timed, 0).attempts[0].reason
    assert reason is not None
    assert reason.code == "task.timeout"
    until(lambda: agent.guests() == [], what="nothing is left")


def test_the_owners_word_freezes_what_runs_inside_and_thaws_it(user: UserClient, agent: AgentProcess) -> None:
    code = "import os,time\nprint('up',flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    job = user.submit(python(code))
    until(lambda: "up" in output(user, job), what="the task runs")
    guests = agent.guests()
    word = control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None))
    assert control.wait_applied(agent.data_dir, word, WAIT_S).lending == "paused"
    until(lambda: all(stopped(guest.pid) for guest in guests), what="all of it stands still")
    control.give_word(agent.data_dir, OwnerWord(kind="lend", for_s=600))
    next((agent.data_dir / "work").iterdir()).joinpath("go").touch()
    assert ended(user, job) is JobState.SUCCEEDED


def test_a_killed_agent_takes_its_sandboxes_with_it(user: UserClient, agent: AgentProcess) -> None:
    job = user.submit(python(SLEEP))
    until(lambda: "up" in output(user, job), what="the task runs")
    guests = agent.guests()
    assert guests
    agent.kill9()
    until(lambda: not any(lives(guest) for guest in guests), what="they died with it")


def test_a_job_cannot_read_the_agents_token_nor_ask_its_scheduler(
    client: Client, agent: AgentProcess, scheduler_process: SchedulerProcess
) -> None:
    token = agent.data_dir / "identity.json"
    assert "token" in token.read_text(), "the bait is there"

    def steal(path: str, url: str) -> dict[str, str]:
        import urllib.request
        from pathlib import Path

        seen = {}
        for name, look in {
            "token": lambda: Path(path).read_text(),
            "scheduler": lambda: urllib.request.urlopen(url, timeout=5).read(),
        }.items():
            try:
                seen[name] = str(look())
            except OSError as error:
                seen[name] = type(error).__name__
        return {**seen, "data": str(sorted(entry.name for entry in Path(path).parent.iterdir()))}

    seen = client.submit_function(steal, str(token), f"{scheduler_process.url}/healthz").result(
        timeout=WAIT_S
    )
    assert seen == {"token": "FileNotFoundError", "data": "['work']", "scheduler": "URLError"}


def test_the_node_says_in_which_sandbox_it_runs_and_what_that_holds(
    client: Client, agent: AgentProcess
) -> None:
    (node,) = client.nodes()
    assert node.facts.sandbox_tier == "bubblewrap"
    assert node.facts.isolation is not None
    assert node.facts.isolation.probed_at is not None
    assert node.facts.isolation.net == "network namespace without a way out"
    assert psutil.Process(agent.pid).is_running()


def test_a_job_goes_where_what_it_asks_for_holds_and_its_attempt_says_what_held(client: Client) -> None:
    held = client.submit(["/bin/true"], isolation=["net", "bubblewrap", "container"])
    refused = client.submit(["/bin/true"], isolation=["landlock", "gpu"])
    held.wait(timeout=WAIT_S)
    (attempt,) = held.task(0).attempts
    assert attempt.usage is not None
    assert attempt.usage.ran_under is not None
    assert attempt.usage.ran_under.tier == "bubblewrap"
    (node,) = client.nodes()
    assert attempt.isolation == node.facts.isolation
    assert "needs the sandbox landlock, has bubblewrap" in " ".join(refused.explain())
    refused.cancel()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root's guests alone are others")
def test_roots_guests_are_somebody_else_to_the_machine(client: Client, user: UserClient) -> None:
    job_id = user.submit(python("import os; print(os.getuid()); open('/dev/stdout', 'w').write('opened')"))
    ended(user, job_id)
    assert output(user, job_id).split() == [os.environ["IDLE_GUEST_USER"], "opened"]
    sleeping = user.submit(python(SLEEP))
    until(lambda: "up" in output(user, sleeping), what="it runs")
    owners: set[int] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended while it was looked at
            if SLEEP in process.cmdline() and "bwrap" not in process.name():
                owners.add(process.uids().real)
    client.job(sleeping).cancel()
    assert owners == {int(os.environ["IDLE_GUEST_USER"])}


def test_an_agent_that_enrolled_by_a_key_stays_in_its_sandbox_when_it_is_started_without(
    start_scheduler: Callable[..., SchedulerProcess],
    start_agent: Callable[..., AgentProcess],
    tmp_path: Path,
) -> None:
    bubblewrap()
    scheduler = start_scheduler(host="0.0.0.0")  # that is what it is about
    lend = ("--policy", "server", "--lend-for", "1h")
    first = start_agent(scheduler.url, *lend, "--key", scheduler.key)
    assert first.stop() == 0
    first.log_path.write_text("")
    again = AgentProcess(scheduler.url, first.data_dir, *lend, state_dir=tmp_path / "state")
    try:
        again.start()
        assert "tier bubblewrap" in again.log()
    finally:
        again.close()
