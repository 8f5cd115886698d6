"""What a program that runs as a task may rely on: whole checkpoints or none, a notice that is heard, progress that costs nothing."""

import ast
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idle_accelerator import task

SOURCES = (Path(task.__file__), Path(task.__file__).with_name("for_guests") / "idle_accelerator.py")
DEADLINE_S = 60.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and no SIGTERM, on Windows")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has asked for nothing yet, outside of a pool."""
    for name in [name for name in os.environ if name.startswith("IDLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(task, "_notice", task._Notice())
    monkeypatch.setattr(task, "_said_at_s", float("-inf"))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("IDLE_CHECKPOINT_DIR", str(folder))
    return folder


def save(step: int, text: str = "") -> None:
    with task.checkpoint(step) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "state").write_text(f"{step} {text}")
        (folder / "state").write_text(f"{step} {text}")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def whole(root: Path) -> int | None:
    """The step to go on from, read as the contract says. Fails where LATEST names something that is not whole."""
    if not (root / "LATEST").exists():
        return None
    name = (root / "LATEST").read_text()
    first, second = ((root / name / path).read_text() for path in ("state", "deep/state"))
    assert first == second
    assert first.split()[0] == name.removeprefix("step-")
    return int(first.split()[0])


def test_a_checkpoint_is_what_the_contract_says(root: Path) -> None:
    with task.checkpoint(7) as folder:
        assert folder == root / "step-7.tmp"
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("x")
        assert not (root / "LATEST").exists()
    assert names(root) == ["LATEST", "step-7"]
    assert (root / "LATEST").read_bytes() == b"step-7"
    assert task.resume_from() == root / "step-7"
    assert task.resume_step() == 7


def test_the_last_two_are_kept_and_what_killed_processes_left_goes(root: Path) -> None:
    root.mkdir()
    (root / "step-2.tmp").mkdir()
    (root / "step-1.old.tmp").mkdir()
    (root / "notes.txt").write_text("the user's own")
    for step in range(3, 8):
        save(step)
    assert names(root) == ["LATEST", "notes.txt", "step-6", "step-7"]


def test_what_the_attempt_goes_on_from_is_not_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(1)
    monkeypatch.setenv("IDLE_RESUME_FROM", str(root / "step-1"))
    for step in (2, 3, 4):
        save(step)
    assert names(root) == ["LATEST", "step-1", "step-3", "step-4"]
    assert task.resume_step() == 4


def test_an_exception_leaves_the_checkpoint_before(root: Path) -> None:
    save(1)

    def interrupted() -> None:
        with task.checkpoint(2) as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(root) == ["LATEST", "step-1"]
    assert whole(root) == 1


def test_a_step_may_come_again_and_may_fall(root: Path) -> None:
    for step in (5, 6, 6, 2):
        save(step)
    assert names(root) == ["LATEST", "step-2", "step-6"]
    assert whole(root) == 2


@posix
def test_a_kill_before_any_operation_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies before the first, the second, … change of the disk, until it comes to its end."""
    events = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir"}
    deaths = 0
    steps = (1, 2, 3, 3, 4)
    seen: set[int | None] = set()
    while True:
        root = tmp_path / str(deaths)
        monkeypatch.setenv("IDLE_CHECKPOINT_DIR", str(root))
        child = os.fork()
        if child == 0:
            count = 0

            def strike(event: str, _arguments: object) -> None:
                nonlocal count
                if event in events:
                    count += 1
                    if count > deaths:  # noqa: B023  # the child sees one value only
                        os._exit(9)

            sys.addaudithook(strike)
            for number, step in enumerate(steps):
                save(step, str(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = whole(root) if root.exists() else None
        seen.add(found)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        deaths += 1
        assert found is None or f"step-{found}" in names(root)
        # And the next process goes on.
        save(9)
        assert whole(root) == 9
        assert not [name for name in names(root) if name.endswith(".tmp")]
    assert deaths > 50
    assert seen == {None, 1, 2, 3, 4}


def test_files_are_on_the_disk_before_the_checkpoint_has_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        if sys.platform == "linux":
            synced.append(Path(f"/proc/self/fd/{number}").readlink().name)
        else:
            synced.append("?")
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    save(1)
    if sys.platform == "linux":
        assert sorted(synced[:4]) == sorted(["state", "deep", "state", "step-1.tmp"])
        assert synced[3:] == ["step-1.tmp", "checkpoints", "LATEST.tmp", "checkpoints"]
    assert len(synced) >= 3


def test_commit_takes_bytes_and_files(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    task.commit(3, {"a/b": b"bytes", "model": tmp_path / "model"})
    assert (root / "step-3" / "a" / "b").read_bytes() == b"bytes"
    assert (root / "step-3" / "model").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "", "."])
def test_commit_writes_nowhere_else(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="commit"):
        task.commit(1, {name: b"x"})
    assert names(root) == []


@pytest.mark.parametrize("step", [-1, 10**18, 1.5, "3", None])
def test_a_step_is_a_whole_number(root: Path, step: object) -> None:
    with pytest.raises(ValueError, match="no step"), task.checkpoint(step):  # pyright: ignore[reportArgumentType]
        pass
    assert not root.exists()


def test_numbers_of_numpy_are_steps(root: Path) -> None:
    numpy = pytest.importorskip("numpy")
    save(numpy.int64(4))
    assert whole(root) == 4


@pytest.mark.parametrize("word", ["step-1/../..", "..", "step-9", "", "step-1.tmp", "\u0663"])
def test_a_latest_that_names_no_checkpoint_is_no_checkpoint(root: Path, word: str) -> None:
    save(1)
    (root / "LATEST").write_text(word, encoding="utf-8")
    assert task.resume_from() is None
    assert task.resume_step() == 0


def test_what_came_from_another_node_is_gone_on_from(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDLE_RESUME_FROM", "")
    assert task.resume_from() is None
    monkeypatch.setenv("IDLE_RESUME_FROM", "/elsewhere/step-40")
    assert task.resume_from() == Path("/elsewhere/step-40")
    assert task.resume_step() == 40
    save(41)
    assert task.resume_from() == root / "step-41"


def test_outside_of_a_pool_nothing_is_kept_and_nothing_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with task.checkpoint(1) as folder:
        (folder / "state").write_text("x")
    assert not folder.exists()
    task.progress(0.5, "half")
    assert list(tmp_path.iterdir()) == []
    assert task.resume_from() is None
    assert task.resume_step() == 0
    handler = signal.getsignal(signal.SIGTERM)
    assert task.should_stop() is False
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (task.index(), task.count(), task.attempt()) == (0, 1, 1)


def test_which_task_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TASK_INDEX": "3", "TASK_COUNT": "8", "ATTEMPT": "2"}.items():
        monkeypatch.setenv(f"IDLE_{name}", value)
    assert (task.index(), task.count(), task.attempt()) == (3, 8, 2)


def until(truth: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_vacate_file_is_noticed_and_stays_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vacate = tmp_path / "vacate"
    monkeypatch.setenv("IDLE_VACATE_FILE", str(vacate))
    assert not task.should_stop()
    vacate.touch()
    until(task.should_stop)
    vacate.unlink()
    assert task.should_stop()


@posix
def test_sigterm_is_noticed_and_a_handler_of_the_programs_own_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDLE_VACATE_FILE", str(tmp_path / "vacate"))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert not task.should_stop()
    os.kill(os.getpid(), signal.SIGTERM)
    assert task.should_stop()

    monkeypatch.setattr(task, "_notice", task._Notice())
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    assert not task.should_stop()
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert not task.should_stop()


@posix
def test_asked_from_a_thread_it_looks_for_the_file_and_touches_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDLE_VACATE_FILE", str(tmp_path / "vacate"))
    (tmp_path / "vacate").touch()
    handler = signal.getsignal(signal.SIGTERM)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(task.should_stop()))
    thread.start()
    thread.join()
    assert answers == [True]
    assert signal.getsignal(signal.SIGTERM) is handler


@posix
def test_workers_that_the_program_forked_can_be_ended_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vacate = tmp_path / "vacate"
    monkeypatch.setenv("IDLE_VACATE_FILE", str(vacate))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    task.should_stop()
    fork = multiprocessing.get_context("fork")
    begun = fork.Semaphore(0)

    def wait_until_told() -> None:
        begun.release()
        while not task.should_stop():
            time.sleep(0.01)

    def started() -> Any:
        # Python forgets a signal that comes to a child before it has looked about.
        worker = fork.Process(target=wait_until_told)
        worker.start()
        assert begun.acquire(timeout=DEADLINE_S)
        return worker

    worker = started()
    worker.terminate()
    worker.join(DEADLINE_S)
    assert worker.exitcode == -signal.SIGTERM

    worker = started()
    vacate.touch()
    worker.terminate()
    worker.join(DEADLINE_S)
    assert worker.exitcode == 0, "a notice, which the file goes before, lets it save"


def test_leaving_has_the_status_that_says_so() -> None:
    with pytest.raises(SystemExit) as left:
        task.leave()
    assert left.value.code == task.LEFT == 85


def test_it_is_time_after_the_interval_and_at_once_when_told_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(task.time, "monotonic", lambda: now)
    due = task.every(60)
    asked: list[bool] = []
    for now in (1.0, 59.0, 60.0, 61.0, 119.0, 120.5, 121.0):  # noqa: B007  # the clock reads it
        asked.append(due())  # noqa: PERF401  # as above
    assert asked == [False, False, True, False, False, True, False]
    (tmp_path / "vacate").touch()
    monkeypatch.setenv("IDLE_VACATE_FILE", str(tmp_path / "vacate"))
    assert due()
    with pytest.raises(ValueError, match="seconds"):
        task.every(float("nan"))


def test_progress_is_a_small_file_that_is_always_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "progress"
    monkeypatch.setenv("IDLE_PROGRESS_FILE", str(place))
    now = 0.0
    monkeypatch.setattr(task.time, "monotonic", lambda: now)
    task.progress(0.25, "epoch 1\nof 4\x1b[31m " + "x" * 5000)
    said = json.loads(place.read_bytes())
    assert said["done_ratio"] == 0.25
    assert said["note"].startswith("epoch 1 of 4 [31m xx")
    assert len(said["note"]) == 200
    assert place.stat().st_size <= 4096
    now = 0.1
    task.progress(0.3)
    assert json.loads(place.read_bytes())["done_ratio"] == 0.25, "too soon"
    now = 0.3
    task.progress(None, "é" * 200)
    assert json.loads(place.read_bytes()) == {"done_ratio": None, "note": "é" * 200}
    assert place.stat().st_size <= 4096
    task.progress(1.0000001)
    assert json.loads(place.read_bytes()) == {"done_ratio": 1.0, "note": ""}, "the end is never left out"
    assert [path.name for path in tmp_path.iterdir()] == ["progress"]
    with pytest.raises(ValueError, match="not a number"):
        task.progress(float("nan"))


def test_progress_that_cannot_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDLE_PROGRESS_FILE", str(tmp_path / "gone" / "progress"))
    task.progress(0.5)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.parent.name)
def test_it_needs_python_3_9_and_its_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_loop_that_the_module_shows_runs(tmp_path: Path) -> None:
    program = (task.__doc__ or "").split("::\n", 1)[1].split("\nNeeds nothing", 1)[0]
    lines = [line[4:] for line in program.splitlines()]
    place = tmp_path / "train.py"
    place.write_text("\n".join([*lines, "print(state['step'], round(state['x'], 6))"]))
    env = {**os.environ, "IDLE_CHECKPOINT_DIR": str(tmp_path / "kept")}
    done = subprocess.run([sys.executable, place], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "100000"
