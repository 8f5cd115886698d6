"""Whole pools of real processes: what was accepted is done once and only once, whoever is killed."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, lives, until
from conftest import SchedulerProcess
from pool_builders import UserClient, command_spec, requirements
from sandbox_guests import stopped

from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.agent.host import mechanisms
from idle_accelerator.wire.jobs import LogPage, TaskResult
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

StartAgent = Callable[..., AgentProcess]
WORD_S = 30.0


@pytest.fixture
def user(scheduler_process: SchedulerProcess) -> UserClient:
    return UserClient(scheduler_process.url)


def python(code: str, **fields: object):
    return command_spec(sys.executable, "-c", code, **fields)


def ended(user: UserClient, job_id: str) -> JobState:
    def look() -> JobState | None:
        state = user.job(job_id).view.state
        return state if state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED) else None

    return until(look, what=f"job {job_id} ends")


def all_results(user: UserClient, job_id: str) -> list[TaskResult]:
    found: list[TaskResult] = []
    after = 0
    while page := user.results(job_id, after=after, limit=500).results:
        found += page
        after += len(page)
    return found


def output(user: UserClient, job_id: str, task: int, stream: str = "stdout") -> str:
    """What the newest attempt wrote so far."""
    answer = user.http.get(f"/v1/jobs/{job_id}/tasks/{task}/logs", params={"stream": stream})
    return LogPage.model_validate_json(answer.content).data.decode()


def test_two_agents_share_an_array_and_every_task_runs_once(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient, tmp_path: Path
) -> None:
    agents = [start_agent(scheduler_process.url) for _ in range(2)]
    ran = tmp_path / "ran"
    ran.mkdir()
    code = (
        f"import os,time;open({str(ran)!r}+'/'+os.environ['IDLE_TASK_INDEX'],'a').write('x');time.sleep(0.05)"
    )
    job = user.submit(python(code, tasks=80))
    assert ended(user, job) is JobState.SUCCEEDED
    results = all_results(user, job)
    assert sorted(item.index for item in results) == list(range(80))
    assert {path.name: path.read_text() for path in ran.iterdir()} == {str(index): "x" for index in range(80)}
    share = Counter(item.node_name for item in results)
    assert set(share) == {agent.data_dir.name for agent in agents}
    assert min(share.values()) >= 10


def test_a_killed_agents_tasks_are_done_by_others_and_counted_once(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    victim, other = start_agent(scheduler_process.url), start_agent(scheduler_process.url)
    job = user.submit(python("import time;time.sleep(0.3);print('done')", tasks=80))
    until(lambda: user.job(job).view.counts.succeeded >= 10, what="some tasks are done")
    guests = victim.guests()
    victim.kill9()
    until(lambda: not any(lives(guest) for guest in guests), what="its guests died with it")
    assert ended(user, job) is JobState.SUCCEEDED
    results = all_results(user, job)
    assert sorted(item.index for item in results) == list(range(80))
    assert Counter(item.node_name for item in results)[other.data_dir.name] > 0
    # A second life of the killed agent changes nothing of what was counted.
    victim.start()
    assert len(all_results(user, job)) == 80
    assert user.job(job).view.counts.succeeded == 80
    until(lambda: not any((victim.data_dir / "work").iterdir()), what="its old workspaces are wiped")


def test_a_killed_scheduler_loses_nothing_and_its_agents_work_on(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient, tmp_path: Path
) -> None:
    for _ in range(2):
        start_agent(scheduler_process.url)
    ran = tmp_path / "ran"
    ran.mkdir()
    code = (
        f"import os,time;open({str(ran)!r}+'/'+os.environ['IDLE_TASK_INDEX'],'a').write('x');time.sleep(0.2)"
    )
    job = user.submit(python(code, tasks=80))
    until(lambda: user.job(job).view.counts.succeeded >= 10, what="some tasks are done")
    scheduler_process.kill9()
    scheduler_process.start()
    assert ended(user, job) is JobState.SUCCEEDED
    assert sorted(item.index for item in all_results(user, job)) == list(range(80))
    again = [path.name for path in ran.iterdir() if path.read_text() != "x"]
    assert again == [], "the agents held on to their work, so none had to run twice"


def test_pause_freezes_the_whole_tree_and_resume_thaws_it(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url)
    code = (
        "import os,subprocess,sys,time\n"
        "child=subprocess.Popen([sys.executable,'-c','import time\\nwhile True: time.sleep(0.01)'],start_new_session=True)\n"
        "print('up',flush=True)\n"
        "deadline=time.time()+120\n"
        "while not os.path.exists('go') and time.time()<deadline: time.sleep(0.01)\n"
        "child.kill()"
    )
    job = user.submit(python(code))
    until(lambda: "up" in output(user, job, 0), what="the task runs")
    guests = agent.guests()
    assert len(guests) == 2
    word = control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None))
    status = control.wait_applied(agent.data_dir, word, WORD_S)
    assert status.lending == "paused"
    # A stop that is pending shows as running until the process is next due; it executes nothing more either way.
    until(lambda: all(stopped(guest.pid) for guest in guests), what="both are stopped")
    until(
        lambda: user.tasks(job).tasks[0].attempt_state is AttemptState.SUSPENDED,
        what="the scheduler knows that it stands still",
    )
    control.wait_applied(
        agent.data_dir, control.give_word(agent.data_dir, OwnerWord(kind="lend", for_s=600)), WORD_S
    )
    assert not any(stopped(guest.pid) for guest in guests)
    next((agent.data_dir / "work").iterdir()).joinpath("go").touch()
    assert ended(user, job) is JobState.SUCCEEDED


def test_an_owner_who_stays_gets_the_machine_back_and_the_task_goes_elsewhere_free_of_charge(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    first = start_agent(
        scheduler_process.url,
        "--policy",
        "server",
        "--lend-for",
        "1h",
        "--vacate-after",
        "1s",
        "--grace",
        "0",
    )
    job = user.submit(python("import os,time;print(os.environ['IDLE_ATTEMPT'],flush=True);time.sleep(3)"))
    until(lambda: "1" in output(user, job, 0), what="the first attempt runs")
    control.give_word(first.data_dir, OwnerWord(kind="pause", for_s=None))
    until(lambda: user.job(job).view.counts.queued == 1, what="the task is back in the queue")
    assert first.guests() == []
    start_agent(scheduler_process.url)
    assert ended(user, job) is JobState.SUCCEEDED
    attempts = user.task(job, 0).attempts
    assert [attempt.state for attempt in attempts] == [AttemptState.VACATED, AttemptState.SUCCEEDED]
    assert attempts[0].reason is not None
    assert attempts[0].reason.code == "owner.returned_long"


def test_cancel_and_timeout_kill_the_whole_tree(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url, "--policy", "server", "--lend-for", "1h", "--grace", "0")
    code = (
        "import subprocess,sys,time\n"
        "subprocess.Popen([sys.executable,'-c','import time;time.sleep(600)'],start_new_session=True)\n"
        "print('up',flush=True);time.sleep(600)"
    )
    cancelled = user.submit(python(code))
    until(lambda: "up" in output(user, cancelled, 0), what="the task runs")
    guests = agent.guests()
    assert len(guests) == 2
    user.http.post(f"/v1/jobs/{cancelled}/cancel")
    assert ended(user, cancelled) is JobState.CANCELLED
    assert not any(lives(guest) for guest in guests)
    timed = user.submit(python(code, timeout_s=1.0))
    assert ended(user, timed) is JobState.FAILED
    (result,) = all_results(user, timed)
    assert result.reason is not None
    assert result.reason.code == "task.timeout"
    assert agent.guests() == []


def test_a_task_that_wants_more_memory_than_it_asked_for_is_told_so(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    if not any(found.purpose == "memory" and found.how for found in mechanisms()):
        pytest.skip("nothing limits memory on this machine")
    start_agent(scheduler_process.url)
    job = user.submit(
        python("bytearray(400 << 20)", requirements=requirements(memory_bytes=100 << 20), retries=0)
    )
    assert ended(user, job) is JobState.FAILED
    (result,) = all_results(user, job)
    assert result.reason is not None
    assert result.reason.code == "task.out_of_memory"
    assert "100 MiB" in result.reason.sentence


def test_a_stopped_agent_gives_its_work_back_at_no_charge(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url, "--policy", "server", "--lend-for", "1h", "--grace", "0")
    job = user.submit(python("import time;print('up',flush=True);time.sleep(600)"))
    until(lambda: "up" in output(user, job, 0), what="the task runs")
    guests = agent.guests()
    assert agent.stop() == 0
    assert not any(lives(guest) for guest in guests)
    (attempt,) = user.task(job, 0).attempts
    assert attempt.state is AttemptState.VACATED
    task = user.tasks(job).tasks[0]
    assert task.state is TaskState.QUEUED
    assert not any((agent.data_dir / "work").iterdir())


def test_an_agent_that_died_before_it_could_hand_in_does_so_when_it_comes_back(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url)
    job = user.submit(python("import time;print('up',flush=True);time.sleep(1);print('end')"))
    until(lambda: "up" in output(user, job, 0), what="the task runs")
    scheduler_process.kill9()
    until(
        lambda: b'"end"' in (agent.data_dir / "journal.jsonl").read_bytes(), what="the end is in the journal"
    )
    agent.kill9()
    scheduler_process.start()
    agent.start()
    assert ended(user, job) is JobState.SUCCEEDED
    assert output(user, job, 0) == "up\nend\n"
    assert len(user.task(job, 0).attempts) == 1, "the result was kept, so nothing ran twice"


def test_the_self_checks_job_runs_while_strangers_work_waits(
    scheduler_process: SchedulerProcess, start_agent: StartAgent, user: UserClient
) -> None:
    agent = start_agent(scheduler_process.url, "--policy", "desktop")
    control.wait_applied(
        agent.data_dir, control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None)), WORD_S
    )
    stranger = user.submit(python("print('no')"))
    own = user.submit(python("print('yes')"))
    control.give_word(agent.data_dir, None)
    word = OwnerWord(kind="lend", for_s=120, jobs=(own,))
    control.wait_applied(agent.data_dir, control.give_word(agent.data_dir, word), WORD_S)
    assert ended(user, own) is JobState.SUCCEEDED
    assert user.job(stranger).view.state is JobState.QUEUED
    assert "by its owner's word to other jobs only" in user.job(stranger).view.waiting[0].sentence
