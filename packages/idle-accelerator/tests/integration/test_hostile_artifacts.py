"""Paths of artifacts come from nodes, so they are hostile: the scheduler refuses those that lead out, the SDK writes none of them elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import SchedulerProcess
from pool_builders import FakeAgent, UserClient, command_spec, digest_of, report, requirements

from idle_accelerator.errors import InvalidInput
from idle_accelerator.sdk import handles
from idle_accelerator.sdk.client import Client
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Artifact
from idle_accelerator.wire.states import AttemptState, TaskState

CONTENT = b"made"


@pytest.fixture
def client(scheduler_process: SchedulerProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as made:
        yield made


@pytest.fixture
def agent(scheduler_process: SchedulerProcess) -> Iterator[FakeAgent]:
    made = FakeAgent(scheduler_process.url)
    yield made
    made.close()


@pytest.fixture
def user(scheduler_process: SchedulerProcess) -> Iterator[UserClient]:
    made = UserClient(scheduler_process.url)
    yield made
    made.close()


def leased(user: UserClient, agent: FakeAgent) -> AttemptRef:
    job_id = user.submit(command_spec("x", outputs=("*",), requirements=requirements(cpus=0.1)))
    for _ in range(100):
        agent.exchange(wait_s=0.5)
        found = [ref for ref in agent.held if ref.job_id == job_id]
        if found:
            return found[0]
    raise AssertionError("nothing was leased")


def artifact(path: str) -> Artifact:
    """Unchecked, as a hostile node makes it."""
    return Artifact.model_construct(path=path, digest=digest_of(CONTENT), size_bytes=len(CONTENT))


def finish(agent: FakeAgent, ref: AttemptRef, *paths: str) -> int:
    said = report(ref, AttemptState.SUCCEEDED, exit_code=0)
    said = said.model_copy(update={"artifacts": tuple(map(artifact, paths))})
    return agent.send(agent.request().model_copy(update={"reports": (said,)})).status_code


HOSTILE = (
    "../up",
    "/etc/passwd",
    "a/../../b",
    "a//b",
    ".",
    "",
    "C:/x",
    "a\\..\\b",
    "a\nb",
    "a\x1b[2Jb",
    "a\u202eb",
    "a\0b",
    ".. /x",
    "x" * 1001,
)


def test_the_scheduler_takes_no_path_that_leads_out_or_lies_to_a_reader(
    user: UserClient, agent: FakeAgent
) -> None:
    ref = leased(user, agent)
    for path in HOSTILE:
        assert finish(agent, ref, "fine", path) == 422, path
    assert user.task(ref.job_id, 0).task.state is TaskState.ACTIVE
    assert finish(agent, ref, "fine") == 200
    assert [item.path for item in user.task(ref.job_id, 0).artifacts] == ["fine"]


def test_more_artifacts_than_a_task_may_leave_are_not_taken(user: UserClient, agent: FakeAgent) -> None:
    ref = leased(user, agent)
    assert finish(agent, ref, *map(str, range(10_001))) == 422


def test_a_download_stays_in_its_folder_where_links_stand_in_the_way(
    user: UserClient, agent: FakeAgent, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "made").write_bytes(CONTENT)
    client.upload(tmp_path / "made")
    outside, to = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    to.mkdir()
    (outside / "keep").write_text("mine")
    (to / "link").symlink_to(outside)
    ref = leased(user, agent)
    assert finish(agent, ref, "link/keep", "fine") == 200
    with pytest.raises(InvalidInput, match="a link in the folder leads out of it"):
        client.job(ref.job_id).download(to)
    (to / "link").unlink()
    (to / "link").mkdir()
    (to / "link" / "keep").symlink_to(outside / "keep")
    client.job(ref.job_id).download(to)
    assert (to / "link" / "keep").read_bytes() == CONTENT
    assert (outside / "keep").read_text() == "mine", "a link that stood there was replaced, not followed"


def test_a_file_that_another_needs_as_its_folder_is_said(
    user: UserClient, agent: FakeAgent, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "made").write_bytes(CONTENT)
    client.upload(tmp_path / "made")
    ref = leased(user, agent)
    assert finish(agent, ref, "a", "a/b") == 200
    with pytest.raises(InvalidInput, match="cannot be written"):
        client.job(ref.job_id).download(tmp_path / "to")


def test_names_as_long_as_a_file_system_takes_are_downloaded(
    user: UserClient, agent: FakeAgent, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "made").write_bytes(CONTENT)
    client.upload(tmp_path / "made")
    names = ["文" * 85, "x" * 255, "😀" * 63]
    ref = leased(user, agent)
    assert finish(agent, ref, *names) == 200
    files = client.job(ref.job_id).download(tmp_path / "to")
    assert sorted(path.name for path in files) == sorted(names)
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(names)


def test_on_windows_a_name_that_means_something_else_there_is_not_written(
    user: UserClient, agent: FakeAgent, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "sys", SimpleNamespace(platform="win32"))
    for path in ("con.txt", "out/NUL", "ab:stream", "trailing.", "trailing ", "a?b", "com¹"):
        ref = leased(user, agent)
        assert finish(agent, ref, path) == 200
        agent.held.discard(ref)
        with pytest.raises(InvalidInput, match="Windows cannot hold"):
            client.job(ref.job_id).download(tmp_path / "to")
        assert not (tmp_path / "to").exists()
