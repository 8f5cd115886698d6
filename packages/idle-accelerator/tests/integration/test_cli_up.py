"""`idlectl up`: real scheduler, real agent, and what happens when it is stopped, killed, or in the way of another."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from sandbox_guests import bubblewrap

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's"
)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
_READY_S = 120


class Up:
    """An `idlectl up` whose output is read as it comes."""

    def __init__(self, data_dir, port, *flags):
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "idle_accelerator.cli", "up", "--no-web"),
                *("--data-dir", str(data_dir), "--port", str(port), *flags),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, text):
        seen = []
        for row in self.process.stdout:
            seen.append(row)
            if text in row:
                return "".join(seen)
        raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")

    def finish(self):
        out, _ = self.process.communicate(timeout=_READY_S)
        return self.process.returncode, out

    def children(self):
        return psutil.Process(self.process.pid).children()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_up(tmp_path):
    started = []

    def start(port, *flags, data_dir=None):
        up = Up(data_dir or tmp_path / "pool", port, *flags)
        started.append(up)
        return up

    yield start
    for up in started:
        up.close()


def all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_check_sends_a_task_through_the_whole_loop_and_stops_everything(start_up, free_port, tmp_path):
    up = start_up(free_port, "--check")
    status, out = up.finish()
    assert status == 0, out
    assert "6*7 = 42, run on " in out
    assert "by your word: this machine is lent to that job alone" in out
    for place in (
        f"http://127.0.0.1:{free_port}/docs",
        str(tmp_path / "pool/logs"),
        "submit --scheduler",
        "lend --for 10m",
    ):
        assert place in out
    assert "run.py agent --scheduler http://" in out
    assert "--host 0.0.0.0" in out
    assert {"scheduler.log", "agent.log"} <= {path.name for path in (tmp_path / "pool/logs").iterdir()}
    word = json.loads((tmp_path / "pool/agent/word.json").read_text())
    assert word["word"] is None  # taken back
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def test_the_owners_earlier_word_holds_again_after_the_self_check(start_up, free_port, tmp_path):
    from idle_accelerator.agent import control

    control.give_word(tmp_path / "pool/agent", control.OwnerWord(kind="pause", for_s=None))
    status, out = start_up(free_port, "--check").finish()
    assert status == 0, out
    assert control.read_word(tmp_path / "pool/agent").word == control.OwnerWord(kind="pause", for_s=None)


def test_beyond_loopback_the_join_command_carries_the_key(start_up, free_port, tmp_path):
    status, out = start_up(free_port, "--check", "--host", "0.0.0.0", "--sandbox", "process").finish()
    assert status == 0, out
    key = (tmp_path / "pool/scheduler/scheduler.key").read_text().strip()
    assert f":{free_port} --key {key}" in out.split("join", 1)[1]
    assert key not in (tmp_path / "pool/logs/agent.log").read_text()


def test_beyond_loopback_its_own_machine_runs_work_in_a_sandbox_too_and_again_plainly_when_it_is_closed(
    start_up, free_port, tmp_path
):
    bubblewrap()
    log = tmp_path / "pool/logs/agent.log"
    status, out = start_up(free_port, "--check", "--host", "0.0.0.0").finish()
    assert status == 0, out
    assert "tier bubblewrap" in log.read_text()
    assert "tier process" not in log.read_text()
    status, out = start_up(free_port, "--check").finish()
    assert status == 0, out
    assert "tier process" in log.read_text()


@POSIX
@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)]
)
def test_it_stops_everything_when_it_is_asked_to_also_twice(start_up, free_port, signals):
    up = start_up(free_port)
    up.read_until("no job in the pool")
    children = up.children()
    assert len(children) == 2
    for number in signals:
        up.process.send_signal(number)
        time.sleep(0.05)  # two signals at once would be one
    status, out = up.finish()
    assert status == 0, out
    assert "Stopped after" in out
    assert "Traceback" not in out
    assert all_gone(children)


@POSIX
def test_ctrl_c_before_it_is_ready_leaves_nothing_behind(start_up, free_port):
    up = start_up(free_port)
    up.read_until("data in")
    up.process.send_signal(signal.SIGINT)
    status, out = up.finish()
    assert status == 130, out
    assert not (up.data_dir / "up.json").exists()
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


@LINUX
def test_killed_without_a_word_it_leaves_nothing_behind_and_can_start_again_at_once(start_up, free_port):
    first = start_up(free_port)
    first.read_until("Ready after")
    children = first.children()
    first.process.kill()
    status, out = start_up(free_port, "--check").finish()
    assert status == 0, out
    assert all_gone(children)


def test_a_second_one_over_the_same_data_says_which_one_runs(start_up, free_port):
    first = start_up(free_port)
    first.read_until("scheduler  ready")
    status, out = start_up(free_port).finish()
    assert status == 1
    assert f"already runs over {first.data_dir}" in out
    assert f"process {first.process.pid}, scheduler http://127.0.0.1:{free_port}" in out


def test_a_taken_port_is_an_error_that_names_the_flag(start_up, tmp_path):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out = start_up(port).finish()
    assert status == 1
    assert out.startswith(f"error: --port: port {port} on 127.0.0.1 is taken by another program.\nhint: ")
    assert not (tmp_path / "pool/scheduler").exists()


@POSIX
def test_a_child_that_dies_is_said_with_its_log_and_ends_everything(start_up, free_port):
    up = start_up(free_port)
    up.read_until("no job in the pool")
    children = up.children()
    scheduler = next(child for child in children if "scheduler" in child.cmdline())
    os.kill(scheduler.pid, signal.SIGKILL)
    status, out = up.finish()
    assert status == 1
    assert "error: the scheduler was killed by signal 9" in out
    assert str(up.data_dir / "logs/scheduler.log") in out
    assert all_gone(children)
