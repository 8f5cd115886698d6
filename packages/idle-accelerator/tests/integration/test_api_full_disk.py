"""A scheduler whose disk is full refuses what it cannot keep, keeps what it has, and works again once there is room."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from conftest import SchedulerProcess
from pool_builders import FakeAgent, UserClient, command_spec, digest_of, succeeded

from idle_accelerator.wire.exchange import ExchangeAnswer
from idle_accelerator.wire.model import ErrorBody
from idle_accelerator.wire.states import JobState

FILLER = "x" * 120_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_a_clear_error_and_no_loss(
    small_disk: Path, start_scheduler: Callable[..., SchedulerProcess]
) -> None:
    process = start_scheduler(small_disk / "scheduler")
    user, agent = UserClient(process.url), FakeAgent(process.url)
    running = user.submit(command_spec())
    agent.exchange()
    (ref,) = agent.held

    blob = os.urandom(20_000_000)
    response = user.http.put(f"/v1/blobs/{digest_of(blob)}", content=blob)
    assert response.status_code == 507, response.text
    assert ErrorBody.model_validate_json(response.content).hint
    assert not any(path.is_file() for path in (small_disk / "scheduler" / "blobs").rglob("*"))

    accepted = [running]
    while True:
        response = user.http.post("/v1/jobs", content=command_spec("echo", FILLER).model_dump_json())
        if response.status_code != 201:
            break
        accepted.append(response.json()["job_id"])
    assert response.status_code == 507, response.text
    error = ErrorBody.model_validate_json(response.content)
    assert error.code == "storage_full"
    assert error.hint
    (small_disk / "the rest").write_bytes(b"x" * free_bytes(small_disk))

    request = agent.request(reports=[succeeded(ref, b"r" * 30_000)])
    assert agent.send(request).status_code == 507, "a report that is not on disk is not acknowledged"
    assert user.http.get("/healthz").status_code == 200
    assert len(user.http.get("/v1/jobs", params={"limit": 500}).json()["jobs"]) == len(accepted)
    assert user.job(running).view.state is JobState.ACTIVE

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    answer = agent.send(request)
    assert answer.status_code == 200
    ExchangeAnswer.model_validate_json(answer.content)
    assert user.job(running).view.state is JobState.SUCCEEDED
    user.submit(command_spec("echo", FILLER))
    process.restart()
    assert len(user.http.get("/v1/jobs", params={"limit": 500}).json()["jobs"]) == len(accepted) + 1


def test_a_scheduler_that_cannot_make_its_store_says_so_and_ends(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * (free_bytes(small_disk) - 20_000))
    process = SchedulerProcess(small_disk / "scheduler", 0)
    process.log_path = tmp_path / "log"
    with pytest.raises(AssertionError, match="disk is full"):
        process.start()


def free_bytes(place: Path) -> int:
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize


def test_the_answers_of_a_full_disk_can_be_retried(scheduler_process: SchedulerProcess) -> None:
    document = httpx2.get(f"{scheduler_process.url}/openapi.json").json()
    for path in ("/v1/jobs", "/v1/nodes", "/v1/nodes/{node}/exchange"):
        assert "507" in document["paths"][path]["post"]["responses"]
