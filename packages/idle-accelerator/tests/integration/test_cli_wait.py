"""`idlectl submit --wait` and `result --wait`, as processes, against a real scheduler and a scripted agent."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from pool_builders import FakeAgent, UserClient, command_spec, function_spec, offer, report

from idle_accelerator.wire.codec import encode
from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.payload import RemoteError, inline_payload
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Worker:
    """A node that ends every task at once: it prints its index, and fails those in ``failing``."""

    def __init__(self, url, *, failing=()):
        self._agent = FakeAgent(url)
        self._failing = failing
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        while not self._ended.is_set():
            held = sorted(self._agent.held)
            self._agent.exchange(
                logs=[self._said(ref, stream) for ref in held for stream in ("stdout", "stderr")],
                reports=[self._end(ref) for ref in held],
                wait_s=0.5,
            )

    def _said(self, ref, stream):
        return LogChunk(
            job_id=ref.job_id,
            task_index=ref.task_index,
            epoch=ref.epoch,
            stream=stream,
            offset=0,
            data=f"{stream} {ref.task_index}\n".encode(),
        )

    def _end(self, ref):
        if ref.task_index in self._failing:
            return report(ref, AttemptState.FAILED, exit_code=3, reason=reason("task.exit_code", exit_code=3))
        return report(ref, AttemptState.SUCCEEDED, exit_code=0)

    def close(self):
        self._ended.set()
        self._thread.join(timeout=30)
        self._agent.close()


@pytest.fixture
def start_worker(scheduler_process):
    started = []

    def start(**options):
        worker = Worker(scheduler_process.url, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def start_idlectl(tmp_path, scheduler_process):
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "idle_accelerator.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "IDLE_SCHEDULER": scheduler_process.url,
                "IDLE_CONFIG": str(tmp_path / "none.toml"),
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def lines_until(stream, text):
    """Lines of the stream up to the first one that holds ``text``."""
    seen = []
    for row in stream:
        seen.append(row)
        if text in row:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def test_one_task_behaves_as_the_command_itself_would(start_worker, start_idlectl):
    start_worker()
    status, out, err = finish(start_idlectl("submit", "--wait", "--", "true"))
    assert (status, out) == (0, "stdout 0\n")
    assert "stderr 0\n" in err


def test_an_array_is_headed_by_task_and_fails_if_one_task_failed(start_worker, start_idlectl):
    start_worker(failing={1})
    status, out, err = finish(start_idlectl("submit", "--array", "3", "--wait", "--", "true"))
    assert status == 1
    assert out == "".join(f"==> task {index} <==\nstdout {index}\n" for index in range(3))
    assert "task 1 failed on alpha: exited with status 3\n==> stderr of task 1 <==\nstderr 1\n" in err
    assert "stderr 0" not in err


def test_it_says_why_it_waits_and_goes_on_when_a_node_comes(start_worker, start_idlectl):
    process = start_idlectl("submit", "--wait", "--", "true")
    assert lines_until(process.stderr, "waits: ")[-1].startswith("waits: no node has joined yet")
    start_worker()
    assert finish(process)[:2] == (0, "stdout 0\n")


@POSIX
def test_ctrl_c_leaves_the_job_going_and_says_how_to_cancel_it(start_idlectl, scheduler_process):
    process = start_idlectl("submit", "--wait", "--", "true")
    lines_until(process.stderr, "waits: ")
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, out) == (130, "")
    assert "goes on" in err
    assert "to cancel it: idlectl cancel j" in err
    assert "Traceback" not in err
    user = UserClient(scheduler_process.url)
    job_id = err.split("; job ")[1].split(" ")[0] if "; job " in err else err.split("job ")[1].split(" ")[0]
    assert user.job(job_id).view.state == "QUEUED"
    user.close()


def test_waiting_outlasts_a_restart_of_the_scheduler(start_worker, start_idlectl, scheduler_process):
    process = start_idlectl("submit", "--wait", "--", "true")
    lines_until(process.stderr, "waits: ")
    scheduler_process.restart()
    start_worker()
    assert finish(process)[:2] == (0, "stdout 0\n")


def test_result_can_wait_for_a_job_that_somebody_else_submitted(
    start_worker, start_idlectl, scheduler_process
):
    user = UserClient(scheduler_process.url)
    job_id = user.submit(command_spec("true"))
    process = start_idlectl("result", job_id[:8], "--wait")
    start_worker()
    assert finish(process)[:2] == (0, "stdout 0\n")
    user.close()


def test_values_of_functions_are_shown_and_what_they_raised(start_idlectl, scheduler_process):
    agent, user = FakeAgent(scheduler_process.url), UserClient(scheduler_process.url)
    job_id = user.submit(function_spec(3))
    while len(agent.held) < 3:
        agent.exchange(lends=offer(), wait_s=5)
    zero, one, two = sorted(agent.held)
    error = RemoteError(type_name="ValueError", text="no", traceback_text="File f.py, line 3\x1b[2J")
    agent.exchange(
        reports=[
            report(
                zero,
                AttemptState.SUCCEEDED,
                encoding="data",
                result=inline_payload(encode({"a": [1, "\x1b"]})),
            ),
            report(one, AttemptState.SUCCEEDED, encoding="pickle", result=inline_payload(b"cos\nsystem\n.")),
            report(
                two, AttemptState.FAILED, error=error, reason=reason("task.exception", type_name="ValueError")
            ),
        ]
    )
    status, out, err = finish(start_idlectl("result", job_id))
    assert status == 1
    assert out.splitlines()[:3] == ["==> task 0 <==", "{'a': [1, '\\x1b']}", "==> task 1 <=="]
    assert "(a pickle of 12 B; to open it:" in out
    assert "task 2 failed on alpha: the function raised ValueError\nFile f.py, line 3␛[2J\n" in err
    agent.close()
    user.close()
