"""What a hostile task leaves, through a real agent and scheduler: only its own files come back, and nothing of it stays."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess

from idle_accelerator import Client
from idle_accelerator.sdk.handles import JobHandle
from idle_accelerator.wire.jobs import TaskResult

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as POSIX has them")
WAIT_S = 60.0


@pytest.fixture
def agent(scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]) -> AgentProcess:
    return start_agent(scheduler_process.url)


@pytest.fixture
def client(scheduler_process: SchedulerProcess, agent: AgentProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as opened:
        yield opened


def only(job: JobHandle) -> TaskResult:
    job.wait(timeout=WAIT_S)
    (result,) = job.as_finished(timeout=WAIT_S)
    return result


def run(client: Client, code: str, **options: object) -> tuple[JobHandle, TaskResult]:
    job = client.submit([sys.executable, "-c", code], **options)
    return job, only(job)


def test_links_pipes_and_names_bring_nothing_of_the_owners_and_lose_nothing_of_the_tasks(
    client: Client, agent: AgentProcess, tmp_path: Path
) -> None:
    owner = tmp_path / "owner"
    owner.mkdir()
    (owner / "secret.txt").write_text("secret")
    code = f"""
import os
owner = {str(owner)!r}
os.makedirs("out/sub")
for name in ("out/fine.txt", "out/sub/文件.txt", "out/new\\nline.txt", "out/con.txt"):
    open(name, "w").write("mine")
os.symlink(owner + "/secret.txt", "out/link.txt")
os.symlink(owner, "out/folder")
os.symlink("../../../identity.json", "out/identity.txt")
os.mkfifo("out/pipe.txt")
os.link(owner + "/secret.txt", "out/hard.txt")
with open("out/sparse.txt", "w") as file:
    file.truncate(1 << 40)
"""
    job, result = run(client, code, outputs=["out/**", "out/folder/*.txt"])
    assert result.state == "SUCCEEDED"
    assert [artifact.path for artifact in result.artifacts] == ["out/fine.txt", "out/sub/文件.txt"]
    assert result.reason is not None
    assert result.reason.code == "task.output_refused"
    assert "and 4 more" in result.reason.sentence
    files = job.download(tmp_path / "results")
    assert sorted(path.read_text() for path in files) == ["mine", "mine"]
    assert not any(b"secret" in path.read_bytes() for path in files)
    until(lambda: not any((agent.data_dir / "work").iterdir()), what="the workspace is wiped")
    assert (owner / "secret.txt").read_text() == "secret"


def test_outputs_are_limited_by_the_disk_that_was_asked_for(client: Client) -> None:
    code = "open('a.bin','wb').write(b'x'*600_000);open('b.bin','wb').write(b'x'*2_000_000)"
    _, result = run(client, code, outputs=["*.bin"], disk=1_000_000)
    assert [artifact.path for artifact in result.artifacts] == ["a.bin"]
    assert result.reason is not None
    assert "b.bin is of 1.9 MiB, over the limit of 977 KiB for a file" in result.reason.sentence


def test_the_outputs_of_a_failed_task_are_collected_as_carefully(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    code = f"import os;open('trace.txt','w').write('mine');os.symlink({str(tmp_path)!r}+'/secret.txt','s.txt');raise SystemExit(3)"
    _, result = run(client, code, outputs=["*.txt"])
    assert result.exit_code == 3
    assert [artifact.path for artifact in result.artifacts] == ["trace.txt"]


def test_a_large_result_that_a_function_swaps_for_a_link_is_none(client: Client, tmp_path: Path) -> None:
    """The function's own thread puts a link where its result will stand, as fast as it can."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 1_000_000)

    def swap(target: str) -> bytes:
        import pathlib
        import threading

        def race() -> None:
            while True:
                try:
                    link = pathlib.Path(".idle/results/link")
                    link.symlink_to(target)
                    link.rename(".idle/results/0.1")
                except OSError:
                    pass

        threading.Thread(target=race, daemon=True).start()
        return b"m" * 1_000_000

    job = client.submit_function(swap, str(secret))
    result = only(job)
    if result.result is not None:
        assert result.result.blob is not None
        client.download(result.result.blob, tmp_path / "fetched")
        assert b"sss" not in (tmp_path / "fetched").read_bytes()


def test_an_agent_killed_while_it_wipes_goes_on_when_it_is_started_again(
    client: Client, agent: AgentProcess
) -> None:
    code = "import os\nos.mkdir('many')\nfor n in range(30000): os.close(os.open(f'many/{n}', os.O_CREAT|os.O_WRONLY))"
    work = agent.data_dir / "work"
    _, result = run(client, code)
    assert result.state == "SUCCEEDED", "the result did not wait for the wiping"
    over = until(lambda: list(work.glob(".over-*")), what="the workspace was renamed to be wiped")
    agent.kill9()
    assert over[0].exists(), "killed in the midst of it"
    agent.start()
    until(lambda: not any(work.iterdir()), what="the rest is wiped")
    assert only(client.submit(["true"])).state == "SUCCEEDED"
