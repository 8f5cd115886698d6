"""The client commands against a real scheduler and a scripted agent."""

import json
import re
from datetime import UTC, datetime

import pytest
from pool_builders import (
    FakeAgent,
    UserClient,
    command_spec,
    digest_of,
    node_facts,
    offer,
    report,
    resources,
    succeeded,
)

from idle_accelerator.cli import main
from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.jobs import Artifact, JobDetail, JobPage, TaskDetail, TaskPage
from idle_accelerator.wire.nodes import Isolation, NodePage, NodeView
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch, scheduler_process):
    """A directory and a configuration of their own; the scheduler named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDLE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("IDLE_SCHEDULER", scheduler_process.url)
    monkeypatch.delenv("IDLE_KEY", raising=False)


@pytest.fixture
def user(scheduler_process):
    client = UserClient(scheduler_process.url)
    yield client
    client.close()


@pytest.fixture
def agent(scheduler_process):
    node = FakeAgent(scheduler_process.url)
    yield node
    node.close()


def take_all(agent, count):
    """Leases until the agent holds ``count`` attempts, by task index."""
    while len(agent.held) < count:
        agent.exchange(wait_s=5)
    return sorted(agent.held, key=lambda ref: ref.task_index)


def log(ref, stream, data, offset=0):
    return LogChunk(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, stream=stream, offset=offset, data=data
    )


def test_submit_prints_the_id_alone_on_stdout_and_what_to_do_next_beside_it(user, capsys):
    assert main(["submit", "--name", "first", "--array", "3", "--", "sh", "-c", "exit 0"]) == 0
    shown = capsys.readouterr()
    job_id = shown.out.strip()
    detail = user.job(job_id)
    assert detail.spec.workload.argv == ("sh", "-c", "exit 0")
    assert (detail.view.name, detail.spec.tasks) == ("first", 3)
    assert f"idlectl logs {job_id[:8]} --follow" in shown.err


def test_every_flag_of_submit_reaches_the_spec(user, capsys, tmp_path, monkeypatch):
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "job.sh").write_text("#!/bin/sh\n")
    (tmp_path / "job.sh").chmod(0o755)
    monkeypatch.setenv("FROM_HERE", "yes")
    flags = (
        "--input data.csv=in/d.csv --output out/*.png --array 2 --retries 3 --cpus 0.5 --memory 1.5G --disk 10G --gpus 1"
        " --os linux --arch x86_64 --label room=12 --node alpha --env A=1 --env FROM_HERE --timeout 1h30m --priority -5"
    )
    assert main(["submit", *flags.split(), "./job.sh", "--wait"]) == 0
    shown = capsys.readouterr()
    assert "Sends job.sh too, as the command names it" in shown.err
    spec = user.job(shown.out.strip()).spec
    assert spec.workload.argv == ("./job.sh", "--wait")  # what follows the program is the program's
    assert {item.path: item.executable for item in spec.inputs} == {"in/d.csv": False, "job.sh": True}
    assert spec.outputs == ("out/*.png",)
    assert (spec.tasks, spec.retries, spec.timeout_s, spec.priority) == (2, 3, 5400.0, -5)
    assert spec.env == {"A": "1", "FROM_HERE": "yes"}
    wanted = spec.requirements
    assert (wanted.cpus, wanted.memory_bytes, wanted.disk_bytes, wanted.gpus) == (
        0.5,
        3 * 2**29,
        10 * 2**30,
        1,
    )
    assert (wanted.os, wanted.arch, wanted.labels, wanted.node) == (
        "linux",
        "x86_64",
        {"room": "12"},
        "alpha",
    )


def test_jobs_lists_newest_first_and_json_is_the_wire_models_own(user, capsys):
    first = user.submit(command_spec("true", name="one"))
    second = user.submit(command_spec("false", "\x1b[2J", name="two"))
    assert main(["jobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "STATE", "TASKS", "SUBMITTED", "NAME", "WHAT"]
    assert [row.split()[0] for row in lines[1:]] == [second[:8], first[:8]]
    assert "QUEUED" in lines[1]
    assert "\x1b" not in lines[1]
    assert main(["jobs", "--json"]) == 0
    text = capsys.readouterr().out
    page = JobPage.model_validate_json(text)
    assert [view.job_id for view in page.jobs] == [second, first]
    assert UTC_TIME.fullmatch(json.loads(text)["jobs"][0]["submitted_at"])


def test_jobs_can_be_of_one_state_and_page_by_page(user, capsys):
    ids = [user.submit(command_spec("true")) for _ in range(3)]
    assert main(["cancel", ids[0]]) == 0
    capsys.readouterr()
    assert main(["jobs", "--state", "cancelled", "--json"]) == 0
    assert [view.job_id for view in JobPage.model_validate_json(capsys.readouterr().out).jobs] == [ids[0]]
    assert main(["jobs", "--limit", "2"]) == 0
    shown = capsys.readouterr()
    cursor = re.search(r"--cursor (\d+)", shown.err)[1]
    assert main(["jobs", "--cursor", cursor, "--json"]) == 0
    assert [view.job_id for view in JobPage.model_validate_json(capsys.readouterr().out).jobs] == [ids[0]]
    assert main(["jobs", "--state", "FAILED"]) == 0
    assert capsys.readouterr() == ("", "No job is FAILED.\n")


def test_job_says_why_it_waits_and_takes_a_unique_beginning_of_its_id(user, agent, capsys):
    job_id = user.submit(command_spec("true", requirements={"cpus": 64.0}, timeout_s=600.0))
    agent.exchange()
    assert main(["job", job_id[:10]]) == 0
    shown = capsys.readouterr().out
    assert "alpha: needs 64 cores, lends 4" in shown
    assert re.search(r"needs +64 CPUs, at most 10 min\n", shown)
    assert main(["job", job_id[:10], "--json"]) == 0
    assert JobDetail.model_validate_json(capsys.readouterr().out).view.job_id == job_id


def test_an_ambiguous_or_unknown_id_is_said(user, capsys):
    user.submit(command_spec("true"))
    user.submit(command_spec("true"))
    assert main(["job", "j"]) == 1
    assert "error: " in capsys.readouterr().err
    assert main(["job", "jaaaaaaaaaaaaaaaa"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "jaaaaaaaaaaaaaaaa" in shown


def test_tasks_are_shown_with_their_attempts_and_reasons(user, agent, capsys):
    job_id = user.submit(command_spec("x", tasks=3))
    zero, one, two = take_all(agent, 3)
    agent.exchange(
        reports=[
            succeeded(zero),
            report(one, AttemptState.FAILED, exit_code=7, reason=reason("task.exit_code", exit_code=7)),
            report(two, AttemptState.RUNNING),
        ]
    )
    assert main(["job", job_id]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert rows[-3][:4] == ["0", "SUCCEEDED", "1", "alpha"]
    assert rows[-2][:5] == ["1", "FAILED", "1", "alpha", "7"]
    assert rows[-2][-4:] == ["exited", "with", "status", "7"]
    assert rows[-1][:2] == ["2", "RUNNING"]
    assert main(["job", job_id, "--tasks", "--json"]) == 0
    assert [task.index for task in TaskPage.model_validate_json(capsys.readouterr().out).tasks] == [0, 1, 2]
    assert main(["job", job_id, "--task", "1"]) == 0
    assert "exited with status 7" in capsys.readouterr().out
    assert main(["job", job_id, "--task", "1", "--json"]) == 0
    assert TaskDetail.model_validate_json(capsys.readouterr().out).task.exit_code == 7
    assert main(["job", job_id, "--task", "9"]) == 1
    assert "error: " in capsys.readouterr().err


def test_logs_are_the_tasks_bytes_of_either_stream(user, agent, capfdbinary):
    job_id = user.submit(command_spec("x", tasks=2))
    _, one = take_all(agent, 2)
    agent.exchange(
        reports=[report(one, AttemptState.RUNNING)],
        logs=[log(one, "stdout", b"so\xff far\n"), log(one, "stderr", b"careful\n")],
    )
    assert main(["logs", job_id, "--task", "1"]) == 0
    assert capfdbinary.readouterr().out == b"so\xff far\n"
    assert main(["logs", job_id, "--task", "1", "--stderr"]) == 0
    assert capfdbinary.readouterr().out == b"careful\n"
    agent.exchange(reports=[succeeded(one)], logs=[log(one, "stdout", b"done\n", offset=8)])
    assert main(["logs", job_id, "--task", "1", "--follow"]) == 0
    assert capfdbinary.readouterr().out == b"so\xff far\ndone\n"


def test_result_shows_output_by_task_and_fails_when_one_did(user, agent, capfd, tmp_path, scheduler_process):
    job_id = user.submit(command_spec("x", tasks=2))
    zero, one = take_all(agent, 2)
    agent.exchange(logs=[log(zero, "stdout", b"zero"), log(one, "stderr", b"oh no\n")])
    agent.exchange(reports=[report(zero, AttemptState.SUCCEEDED, exit_code=0)])
    assert main(["result", job_id]) == 1
    shown = capfd.readouterr()
    assert shown.out == "==> task 0 <==\nzero\n"
    assert f"1 of 2 tasks have not finished; to wait: idlectl result {job_id[:8]} --wait" in shown.err
    agent.exchange(
        reports=[report(one, AttemptState.FAILED, exit_code=1, reason=reason("task.exit_code", exit_code=1))]
    )
    assert main(["result", job_id, "--to", "out"]) == 1
    shown = capfd.readouterr()
    assert "task 1 failed on alpha: exited with status 1\n==> stderr of task 1 <==\noh no\n" in shown.err
    assert "The finished tasks have brought no output files." in shown.err
    assert main(["result", job_id, "--task", "0"]) == 0
    assert capfd.readouterr().out == "zero\n"
    assert main(["result", job_id, "--json"]) == 1
    assert [item["exit_code"] for item in json.loads(capfd.readouterr().out)["results"]] == [0, 1]


def test_an_output_that_was_not_collected_is_said(user, agent, capfd):
    job_id = user.submit(command_spec("x", outputs=("out/*.png",)))
    (ref,) = take_all(agent, 1)
    why = reason("task.output_refused", because=[reason("task.output_unmatched", pattern="out/*.png")])
    agent.exchange(reports=[report(ref, AttemptState.SUCCEEDED, exit_code=0, reason=why)])
    assert main(["result", job_id]) == 0
    assert "task 0: an output was not collected: nothing matches 'out/*.png'" in capfd.readouterr().err


def test_cancel_ends_what_waits_and_says_how_it_stands(user, capsys):
    ids = [user.submit(command_spec("x", tasks=4)) for _ in range(2)]
    assert main(["cancel", *ids]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{job_id} CANCELLED: 0/4" for job_id in ids]


def test_a_node_says_line_by_line_what_its_sandbox_holds(scheduler_process, capsys):
    lines = dict.fromkeys(
        ("fs", "net", "pidns", "calls", "mem", "disk", "freeze", "prio", "kill", "gpu"), "it"
    )
    tried = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    held = Isolation(tier="bubblewrap", **{**lines, "net": "fails: it leaks"}, probed_at=tried)
    node = FakeAgent(
        scheduler_process.url, facts=node_facts("held", sandbox_tier="bubblewrap", isolation=held)
    )
    assert main(["node", "held"]) == 0
    said = capsys.readouterr().out
    for part in ("bubblewrap", "net: fails: it leaks", "fs: it", "tried on 2026-01-02 03:04 UTC"):
        assert part in said
    node.close()


def test_nodes_are_listed_with_their_reasons_and_drained_and_forgotten(agent, capsys):
    agent.exchange(lends=offer("in_use", resources(cpus=3), reasons=(reason("node.settling"),)))
    assert main(["nodes"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:5] == ["alpha", agent.node_id[:8], "in_use", "0", "3/4"]
    assert row.rstrip().endswith("idle, but not for long enough yet")
    assert main(["nodes", "--json"]) == 0
    assert [view.node_id for view in NodePage.model_validate_json(capsys.readouterr().out).nodes] == [
        agent.node_id
    ]
    assert main(["node", "alpha"]) == 0
    assert "none: a plain process" in capsys.readouterr().out
    assert main(["node", "alpha", "--json"]) == 0
    view = NodeView.model_validate_json(capsys.readouterr().out)
    assert isinstance(view.enrolled_at, datetime)
    assert main(["drain", "alpha"]) == 0
    assert capsys.readouterr().out == "alpha takes nothing new; it still holds 0.\n"
    assert main(["drain", agent.node_id, "--undo", "--json"]) == 0
    assert NodeView.model_validate_json(capsys.readouterr().out).lending == "in_use"
    assert main(["forget", "alpha"]) == 0
    capsys.readouterr()
    assert main(["nodes"]) == 0
    assert "No machine has joined yet" in capsys.readouterr().err
    assert main(["node", "alpha"]) == 1
    assert "there is no node 'alpha'" in capsys.readouterr().err


def test_a_scheduler_that_is_not_there_is_said_with_what_to_do(capsys, free_port):
    assert main(["jobs", "--scheduler", f"http://127.0.0.1:{free_port}"]) == 1
    shown = capsys.readouterr().err
    assert f"error: the scheduler at http://127.0.0.1:{free_port}" in shown
    assert "\nhint: " in shown
    assert "Traceback" not in shown


def test_the_flag_wins_over_the_environment_and_that_over_the_file(
    user, capsys, tmp_path, monkeypatch, free_port, scheduler_process
):
    job_id = user.submit(command_spec("true"))
    nowhere = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("IDLE_SCHEDULER", nowhere)
    assert main(["jobs", "--scheduler", scheduler_process.url]) == 0
    assert job_id[:8] in capsys.readouterr().out
    monkeypatch.delenv("IDLE_SCHEDULER")
    (tmp_path / "config.toml").write_text(f'[client]\nscheduler = "{scheduler_process.url}"\n')
    assert main(["jobs"]) == 0
    assert job_id[:8] in capsys.readouterr().out
    monkeypatch.setenv("IDLE_SCHEDULER", nowhere)
    assert main(["jobs"]) == 1
    assert "(from IDLE_SCHEDULER)" in capsys.readouterr().err


def test_beyond_loopback_the_key_is_needed_and_taken_from_flag_or_environment(
    start_scheduler, capsys, monkeypatch
):
    guarded = start_scheduler(host="0.0.0.0")
    assert main(["jobs", "--scheduler", guarded.url]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["jobs", "--scheduler", guarded.url, "--key", guarded.key]) == 0
    monkeypatch.setenv("IDLE_KEY", guarded.key)
    assert main(["doctor", "--scheduler", guarded.url]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"ok +key +good", shown)
    monkeypatch.setenv("IDLE_KEY", "idle_wrong")
    assert main(["doctor", "--scheduler", guarded.url]) == 1
    assert re.search(r"fail +key +refused", capsys.readouterr().out)


def test_doctor_finds_the_scheduler_and_says_all_of_it_as_json(capsys, free_port, scheduler_process):
    assert main(["doctor", "--json"]) == 0
    findings = {item["subject"]: item for item in json.loads(capsys.readouterr().out)}
    assert findings["scheduler"]["level"] == "ok"
    assert f"{scheduler_process.url} (from IDLE_SCHEDULER), version 0.1.0" in findings["scheduler"]["found"]
    assert findings["clock"]["level"] == "ok"
    assert {"Python", "platform", "SQLite", "isolation", "data directory", "senses input"} <= findings.keys()
    assert main(["doctor", "--json", "--scheduler", f"http://127.0.0.1:{free_port}"]) == 1
    findings = {item["subject"]: item for item in json.loads(capsys.readouterr().out)}
    assert findings["scheduler"]["level"] == "fail"
    assert "idlectl up" in findings["scheduler"]["advice"]


def test_output_files_are_fetched_into_the_folder_that_was_named(user, agent, capfd, tmp_path):
    content = b"picture"
    digest = digest_of(content)
    headers = {"Authorization": f"Bearer {agent.identity.token}"}
    assert agent.client.put(f"/v1/blobs/{digest}", content=content, headers=headers).status_code == 201
    job_id = user.submit(command_spec("x", outputs=("out/*",)))
    (ref,) = take_all(agent, 1)
    artifact = Artifact(path="out/a.png", digest=digest, size_bytes=len(content))
    agent.exchange(reports=[report(ref, AttemptState.SUCCEEDED, exit_code=0, artifacts=(artifact,))])
    assert main(["result", job_id, "--to", "there"]) == 0
    assert (tmp_path / "there/out/a.png").read_bytes() == content
    assert "1 output file (7 B) in there" in capfd.readouterr().err
    assert main(["result", job_id]) == 0
    assert (tmp_path / f"idle-{job_id[:8]}/out/a.png").read_bytes() == content
