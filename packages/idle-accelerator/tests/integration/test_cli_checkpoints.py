"""``idlectl checkpoints``, and progress where people look at a job, against a real scheduler and a scripted agent."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from checkpoint_builders import Saver
from pool_builders import FakeAgent, UserClient, command_spec, report, succeeded

from idle_accelerator.cli import main
from idle_accelerator.cli.checkpoints import how_far
from idle_accelerator.wire.checkpoints import CheckpointView, Progress
from idle_accelerator.wire.states import AttemptState

FILES = {"state.json": b"{}", "model.bin": b"w" * 5_000_000}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch, scheduler_process):
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


def running(user, agent, **fields):
    """A job whose tasks all run, and their leases by task index."""
    job_id = user.submit(command_spec("train", **fields))
    while len(agent.held) < fields.get("tasks", 1):
        agent.exchange(wait_s=5)
    refs = sorted(agent.held, key=lambda ref: ref.task_index)
    agent.exchange(reports=[report(ref, AttemptState.RUNNING) for ref in refs])
    return job_id, refs


def test_checkpoints_are_listed_newest_first_and_fetched(user, agent, capsys, tmp_path):
    job_id, (ref,) = running(user, agent)
    assert main(["checkpoints", job_id]) == 0
    assert "Task 0 has no checkpoint" in capsys.readouterr().err
    saver = Saver(agent)
    saver.save(ref, 40, {"state.json": b"old"})
    saver.save(ref, 80, FILES)
    assert main(["checkpoints", job_id[:10]]) == 0
    shown = capsys.readouterr()
    head, *rows = [row.split() for row in shown.out.splitlines()]
    assert head[:6] == ["STEP", "SIZE", "FILES", "SAVED", "NODE", "ATTEMPT"]
    assert [(row[0], row[1:3], row[3]) for row in rows] == [
        ("80", ["4.8", "MiB"], "2"),
        ("40", ["3", "B"], "1"),
    ]
    assert f"idlectl checkpoints {job_id[:8]} 0 --download DIR" in shown.err
    assert main(["checkpoints", job_id, "--json"]) == 0
    views = [
        CheckpointView.model_validate_json(json.dumps(item)) for item in json.loads(capsys.readouterr().out)
    ]
    assert [view.checkpoint.step for view in views] == [80, 40]
    assert main(["checkpoints", job_id, "0", "--download", "saved"]) == 0
    assert capsys.readouterr().out.strip().endswith("step-80")
    assert (tmp_path / "saved" / "step-80" / "model.bin").read_bytes() == FILES["model.bin"]
    assert main(["checkpoints", job_id, "--download", "saved", "--step", "40"]) == 0
    assert (tmp_path / "saved" / "step-40" / "state.json").read_bytes() == b"old"


def test_what_is_wrong_is_said_with_the_next_step(user, agent, capsys):
    job_id, refs = running(user, agent, tasks=2)
    assert main(["checkpoints", job_id]) == 1
    assert (
        f"error: TASK: the job has 2 tasks.\nhint: Say which: idlectl checkpoints {job_id} 0"
        in capsys.readouterr().err
    )
    assert main(["checkpoints", job_id, "1", "--step", "3"]) == 1
    assert "--download saved" in capsys.readouterr().err
    assert main(["checkpoints", job_id, "1", "--download", "x"]) == 1
    assert "error: step: task 1 has no checkpoint.\nhint: " in capsys.readouterr().err
    assert main(["checkpoints", job_id, "9"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    saver = Saver(agent)
    saver.save(refs[1], 3, {"a": b"x"})
    assert main(["checkpoints", job_id, "1", "--download", "."]) == 0
    assert main(["checkpoints", job_id, "1", "--download", "."]) == 1
    assert "stands there already" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal of POSIX")
def test_a_bar_is_drawn_on_a_terminal_and_the_folder_printed_alone(user, agent, tmp_path):
    import pty

    job_id, (ref,) = running(user, agent)
    Saver(agent).save(ref, 1, FILES)
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "idle_accelerator.cli", "checkpoints", job_id, "--download", "saved"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.close(ours)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    assert out.decode().strip() == str(Path("saved", "step-1"))
    assert "MB" in drawn.decode()


def test_a_job_shows_how_far_its_tasks_are_and_what_they_saved(user, agent, capsys):
    job_id, (ref,) = running(user, agent)
    saver = Saver(agent)
    saver.say(ref, 0.425, "epoch 3, loss 0.21")
    saver.save(ref, 40, {"state.json": b"x" * 2048})
    assert main(["job", job_id]) == 0
    shown = capsys.readouterr().out
    assert "42 %, epoch 3, loss 0.21" in shown
    assert "step 40, 2.0 KiB, " in shown
    agent.exchange(reports=[succeeded(ref)])
    job_id, refs = running(user, agent, tasks=2)
    assert main(["job", job_id]) == 0
    assert "PROGRESS" not in capsys.readouterr().out
    saver.say(refs[1], None, "warming up")
    assert main(["job", job_id]) == 0
    head, zero, one = capsys.readouterr().out.splitlines()[-3:]
    assert "PROGRESS" in head
    assert "warming up" in one
    assert "warming" not in zero


def test_waiting_for_a_job_shows_how_far_it_is(user, agent, capsys, monkeypatch):
    from idle_accelerator.cli import waiting

    monkeypatch.setattr(waiting, "_PROGRESS_EVERY_S", 0.1)
    job_id, (ref,) = running(user, agent)
    Saver(agent).say(ref, 0.5, "half way")
    seen = threading.Event()

    def finish():
        seen.wait(60)
        agent.exchange(reports=[succeeded(ref)])

    thread = threading.Thread(target=finish)
    thread.start()
    real = waiting.say
    monkeypatch.setattr(waiting, "say", lambda text: (real(text), seen.set()))
    deadline = time.monotonic() + 60
    assert main(["result", job_id, "--wait"]) == 0
    thread.join()
    assert time.monotonic() < deadline, "the word was never shown"
    assert "50 %, half way\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, ""),
        (Progress(), ""),
        (Progress(done_ratio=0.0), "0 %"),
        (Progress(done_ratio=0.29), "29 %"),
        (Progress(done_ratio=0.9999), "99 %"),
        (Progress(done_ratio=1.0, note="done"), "100 %, done"),
        (Progress(note="epoch 2"), "epoch 2"),
    ],
)
def test_progress_in_words(progress, text):
    assert how_far(progress) == text
