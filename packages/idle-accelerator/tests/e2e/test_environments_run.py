"""Packages that a task needs, from the submitter's words to a guest that has them, through a whole pool."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from agent_process import AgentProcess, lives, until
from conftest import SchedulerProcess
from pool_builders import UserClient, command_spec
from sandbox_guests import bubblewrap
from wheel_index import WheelIndex, serve, source, uv_or_skip, wheel

from idle_accelerator import Client
from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.errors import TaskFailed
from idle_accelerator.wire.environments import Environment
from idle_accelerator.wire.reasons import ReasonView
from idle_accelerator.wire.states import AttemptState, JobState

WAIT_S = 120.0
GREET = wheel("greet", "1.0", {"greet.py": "WORD = 'hello'\n"}, requires="manners")
MANNERS = wheel("manners", "2.0", {"manners.py": "LEVEL = 3\n"})
LENT = ("--policy", "server", "--lend-for", "1h", "--cpus", "2", "--grace", "0")
PRINT = "import greet, manners; print(greet.WORD, manners.LEVEL)"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WheelIndex]:
    """Where submitter and agents find packages, by settings of their own."""
    uv_or_skip()
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    served, end = serve()
    monkeypatch.setenv("UV_DEFAULT_INDEX", served.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "submitters-cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield served
    end()


@pytest.fixture
def agent(
    index: WheelIndex, scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]
) -> AgentProcess:
    return start_agent(scheduler_process.url, *LENT)


@pytest.fixture
def sandboxed(
    index: WheelIndex, scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]
) -> AgentProcess:
    bubblewrap()
    return start_agent(scheduler_process.url, *LENT, "--sandbox", "bubblewrap")


def submit(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "idle_accelerator.cli", "submit", *arguments],
        cwd=folder,
        env={**os.environ, "IDLE_SCHEDULER": url},
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_S,
        check=False,
    )


def left(agent: AgentProcess) -> list[str]:
    return [path.name for path in (agent.data_dir / "environments" / "making").iterdir()]


def uv_processes(agent: AgentProcess) -> list[psutil.Process]:
    return [guest for guest in agent.guests() if guest.name().startswith("uv")]


def test_submit_with_requirements_with_a_lock_and_of_a_script_that_names_its_own(
    sandboxed: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    lines = [index.add(GREET), index.add(MANNERS)]
    (tmp_path / "requirements.txt").write_text("Greet>=1  # a word\n")
    (tmp_path / "lock.txt").write_text("\n".join(lines))
    (tmp_path / "job.py").write_text(f"# /// script\n# dependencies = ['greet']\n# ///\n{PRINT}\n")
    ways = {
        "requirements": ("--requirements", "requirements.txt", "--wait", "--", "python", "-c", PRINT),
        "lock": ("--lock", "lock.txt", "--wait", "--", "python", "-c", PRINT),
        "script": ("--wait", "job.py"),
    }
    for way, arguments in ways.items():
        done = submit(scheduler_process.url, tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (0, "hello 3\n"), (way, done.stderr)
        assert ("job.py says it needs" in done.stderr) == (way == "script")
    (made,) = (sandboxed.data_dir / "environments" / "made").iterdir()
    assert next(made.rglob("greet.py")), "all three are the same environment"
    assert left(sandboxed) == []


def test_functions_of_a_map_have_the_packages_and_share_one_environment(
    sandboxed: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess
) -> None:
    index.add(GREET)
    index.add(MANNERS)

    def word(number: int) -> str:
        import greet  # pyright: ignore[reportMissingImports]

        return f"{greet.WORD} {number}"

    with Client(scheduler_process.url) as client:
        for _ in range(2):
            said = list(client.map(word, range(20), options={"requirements": ["greet"]}))
            assert said == [f"hello {number}" for number in range(20)]
        assert (
            client.submit_function(word, 7, options={"requirements": ["greet"]}).result(WAIT_S) == "hello 7"
        )
        with pytest.raises(TaskFailed, match="greet"):
            client.submit_function(word, 7).result(WAIT_S)
    assert len([path for path in index.downloads() if "greet" in path]) == 1
    assert len(list((sandboxed.data_dir / "environments" / "made").iterdir())) == 1


def last_reason(user: UserClient, job: str) -> ReasonView:
    reason = user.task(job, 0).attempts[-1].reason
    assert reason is not None
    return reason


def ended(user: UserClient, job: str) -> JobState:
    def look() -> JobState | None:
        state = user.job(job).view.state
        return state if state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED) else None

    return until(look, what=f"job {job} ends", timeout_s=WAIT_S)


def test_what_can_never_be_made_fails_and_says_why(
    agent: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    line = index.add(source("built", "1.0", f"open({str(mark)!r}, 'w').write('ran')\n"))
    user = UserClient(scheduler_process.url)
    job = user.submit(command_spec("python", "-c", "", environment=Environment(requirements=line)))
    assert ended(user, job) is JobState.FAILED
    reason = last_reason(user, job)
    assert reason.code == "task.environment_refused"
    assert "built" in reason.sentence
    assert not mark.exists()
    user.close()


def test_nodes_that_do_not_know_the_submitter_wait_for_hashes_and_say_so(
    sandboxed: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess
) -> None:
    index.add(MANNERS)
    user = UserClient(scheduler_process.url)
    job = user.submit(command_spec("python", "-c", "", environment=Environment(requirements="manners")))

    def said() -> bool:
        waiting = user.job(job).view.waiting
        return any("only environments whose files are named by hashes" in item.sentence for item in waiting)

    until(said, what="it says what it waits for")
    assert user.task(job, 0).attempts == ()
    user.close()


def test_a_node_without_uv_says_that_it_makes_none(
    index: WheelIndex, scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]
) -> None:
    agent = start_agent(scheduler_process.url, *LENT, "--environments", "0")
    user = UserClient(scheduler_process.url)
    line = index.add(MANNERS)
    job = user.submit(command_spec("python", "-c", "", environment=Environment(requirements=line)))

    def said() -> bool:
        return any("makes no environments" in item.sentence for item in user.job(job).view.waiting)

    until(said, what="it says what it waits for")
    assert not (agent.data_dir / "environments").exists()
    user.close()


@pytest.mark.parametrize("function", [False, True])
def test_an_owner_who_returns_ends_the_making_at_once_and_it_goes_on_elsewhere_later(
    agent: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess, function: bool
) -> None:
    line = index.add(MANNERS)
    index.slow.set()

    def level() -> int:
        import manners  # pyright: ignore[reportMissingImports]

        return manners.LEVEL

    with Client(scheduler_process.url) as client:
        options = {"requirements": [line]}
        job = (
            client.submit_function(level, options=options)  # pyright: ignore[reportArgumentType]
            if function
            else client.submit(["python", "-c", "import manners"], requirements=[line])
        )
        (process,) = until(lambda: uv_processes(agent), what="uv is at work")
        until(index.downloads, what="it fetches the wheel")
        control.give_word(agent.data_dir, OwnerWord(kind="pause", for_s=None))
        until(lambda: not lives(process), what="uv is dead")
        until(lambda: left(agent) == [], what="it left nothing")
        user = UserClient(scheduler_process.url)
        first = until(
            lambda: [item for item in user.task(job.id, 0).attempts if item.finished_at], what="told"
        )[0]
        assert first.state is (AttemptState.REJECTED if function else AttemptState.VACATED)
        assert first.reason is not None
        assert first.reason.code == "owner.paused"
        index.slow.clear()
        control.give_word(agent.data_dir, OwnerWord(kind="lend", for_s=3600))
        assert ended(user, job.id) is JobState.SUCCEEDED
        user.close()


def test_a_cancelled_job_ends_its_making(
    agent: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess
) -> None:
    line = index.add(MANNERS)
    index.slow.set()
    with Client(scheduler_process.url) as client:
        job = client.submit(["python", "-c", "import manners"], requirements=[line])
        (process,) = until(lambda: uv_processes(agent), what="uv is at work")
        job.cancel()
        until(lambda: not lives(process), what="uv is dead")
        until(lambda: left(agent) == [], what="it left nothing")


def test_an_agent_killed_while_it_makes_one_leaves_no_process_and_nothing_half_made(
    agent: AgentProcess, index: WheelIndex, scheduler_process: SchedulerProcess
) -> None:
    line = index.add(MANNERS)
    index.slow.set()
    with Client(scheduler_process.url) as client:
        job = client.submit(["python", "-c", "import manners"], requirements=[line])
        (process,) = until(lambda: uv_processes(agent), what="uv is at work")
        until(index.downloads, what="it fetches the wheel")
        agent.kill9()
        assert left(agent)
        agent.start()
        assert not lives(process)
        until(lambda: len(left(agent)) <= 1, what="what was half made is gone")
        index.slow.clear()
        job.wait(timeout=WAIT_S)
        until(lambda: left(agent) == [], what="nothing is left")
        user = UserClient(scheduler_process.url)
        assert ended(user, job.id) is JobState.SUCCEEDED
        user.close()
