"""The processes behind `idlectl up`, with a real scheduler as the child."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import psutil
import pytest

from idle_accelerator.cli.children import ChildEnded, Children

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's"
)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
_PARENT = """
import sys, time
from pathlib import Path
from idle_accelerator.cli.children import Children
directory = Path(sys.argv[1])
children = Children(logs=directory)
child = children.start(
    "scheduler", ["scheduler", "--port", sys.argv[2], "--data-dir", str(directory / "s")], patience_s=10
)
print(child.pid, flush=True)
time.sleep(600)
"""


def eventually(holds, *, seconds=30, why=""):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def is_ready(port):
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    return False


@pytest.fixture
def children(tmp_path):
    started = Children(logs=tmp_path)
    yield started
    started.stop(lambda: True)


def start_scheduler(children, tmp_path, port):
    return children.start(
        "scheduler", ["scheduler", "--port", str(port), "--data-dir", str(tmp_path / "s")], patience_s=10
    )


def test_a_child_stops_by_itself_when_it_is_asked(children, tmp_path, free_port):
    child = start_scheduler(children, tmp_path, free_port)
    eventually(lambda: is_ready(free_port), why=child.tail())
    children.check()
    assert children.stop(lambda: False) == []
    assert child.process.returncode == 0
    assert not is_ready(free_port)


@POSIX
def test_a_child_that_will_not_stop_is_killed(children, tmp_path, free_port):
    child = start_scheduler(children, tmp_path, free_port)
    eventually(lambda: is_ready(free_port), why=child.tail())
    os.kill(child.pid, signal.SIGSTOP)  # a stopped process takes no SIGTERM
    child.patience_s = 0.2
    assert children.stop(lambda: False) == ["scheduler"]
    assert child.process.returncode == -signal.SIGKILL


@POSIX
def test_a_second_wish_to_stop_shortens_the_patience(children, tmp_path, free_port):
    child = start_scheduler(children, tmp_path, free_port)
    eventually(lambda: is_ready(free_port), why=child.tail())
    os.kill(child.pid, signal.SIGSTOP)
    child.patience_s = 600
    assert children.stop(lambda: True) == ["scheduler"]


def test_a_child_that_ends_early_is_an_error_with_the_end_of_its_log(children, tmp_path):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = start_scheduler(children, tmp_path, taken.getsockname()[1])
        assert child.process.wait(timeout=30) == 1
    with pytest.raises(ChildEnded, match="the scheduler ended with status 1") as ended:
        children.check()
    assert "is taken by another program" in ended.value.message
    assert str(tmp_path / "scheduler.log") in ended.value.hint


@POSIX
def test_ctrl_c_in_the_terminal_does_not_reach_a_child(children, tmp_path, free_port):
    child = start_scheduler(children, tmp_path, free_port)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    assert os.getsid(child.pid) == child.pid


def test_the_log_of_an_earlier_run_is_kept_but_not_taken_for_this_one(children, tmp_path, free_port):
    (tmp_path / "scheduler.log").write_text("yesterday\n")
    child = start_scheduler(children, tmp_path, free_port)
    eventually(lambda: child.tail() != "", why="it wrote nothing")
    assert "yesterday" not in child.tail()
    assert child.log.read_text().startswith("yesterday\n")


@LINUX
def test_children_end_with_a_parent_that_is_killed_without_a_word(tmp_path, free_port):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), str(free_port)], stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(parent.stdout.readline()))
    eventually(lambda: is_ready(free_port), why=(tmp_path / "scheduler.log").read_text())
    parent.kill()
    parent.wait(timeout=30)
    eventually(
        lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, why="the child lives on"
    )
    assert not is_ready(free_port)
