"""A task's environment: complete, and nothing of the agent's own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idle_accelerator.agent.workloads import function, places
from idle_accelerator.agent.workloads.contract import give_notice, task_environment
from idle_accelerator.wire.ids import AttemptRef

JOB = "j" + "a" * 16


def environment(workspace: Path, **changes) -> dict[str, str]:
    values = {
        "ref": AttemptRef(JOB, 3, 2),
        "task_count": 8,
        "threads": 4,
        "workspace": workspace,
        "grace_s": 2.5,
        "extra": {},
        **changes,
    }
    return task_environment(**values)


def test_nothing_of_the_agents_own_environment_is_passed_on_but_the_path(tmp_path: Path):
    inherited = {
        "PATH": "/bin",
        "IDLE_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HOME": "/root",
        "LD_PRELOAD": "x",
    }
    env = environment(tmp_path, inherited=inherited)
    assert env["PATH"] == "/bin"
    assert env["HOME"] == str(tmp_path)
    assert "secret" not in env.values()
    assert "LD_PRELOAD" not in env
    assert all(value == str(tmp_path) or not value.startswith("/root") for value in env.values())


def test_a_path_is_there_also_when_the_agent_has_none(tmp_path: Path):
    assert environment(tmp_path, inherited={})["PATH"]


def test_the_contract_is_complete(tmp_path: Path):
    env = environment(tmp_path)
    assert {name: value for name, value in env.items() if name.startswith("IDLE_")} == {
        "IDLE_JOB_ID": JOB,
        "IDLE_TASK_INDEX": "3",
        "IDLE_TASK_COUNT": "8",
        "IDLE_ATTEMPT": "2",
        "IDLE_THREADS": "4",
        "IDLE_CHECKPOINT_DIR": str(tmp_path / ".idle" / "checkpoint"),
        "IDLE_RESUME_FROM": "",
        "IDLE_PROGRESS_FILE": str(tmp_path / ".idle" / "progress"),
        "IDLE_VACATE_FILE": str(tmp_path / ".idle" / "vacate"),
        "IDLE_GRACE_S": "2.5",
    }
    assert Path(env["IDLE_CHECKPOINT_DIR"]).is_dir()
    assert Path(env["TMPDIR"]).is_dir()
    assert Path(env["TMPDIR"]).is_relative_to(tmp_path)
    assert not Path(env["IDLE_VACATE_FILE"]).exists()


def test_numeric_libraries_are_told_how_many_threads_to_use_and_never_none(tmp_path: Path):
    env = environment(tmp_path, threads=0)
    assert env["IDLE_THREADS"] == env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"


def test_a_job_may_change_everything_but_the_contract(tmp_path: Path):
    extra = {"PATH": "/opt", "OMP_NUM_THREADS": "2", "HOME": "/h", "MINE": "1", "IDLE_JOB_ID": "forged"}
    env = environment(tmp_path, extra=extra)
    assert (env["PATH"], env["OMP_NUM_THREADS"], env["HOME"], env["MINE"]) == ("/opt", "2", "/h", "1")
    assert env["IDLE_JOB_ID"] == JOB


def test_a_checkpoint_to_go_on_from_is_named(tmp_path: Path):
    assert environment(tmp_path, resume_from=tmp_path / "c")["IDLE_RESUME_FROM"] == str(tmp_path / "c")


def test_our_folders_are_the_owners_alone(tmp_path: Path):
    environment(tmp_path)
    environment(tmp_path)
    for path in (tmp_path / places.OURS, places.checkpoint_dir(tmp_path), places.temporary_dir(tmp_path)):
        assert path.stat().st_mode & 0o077 == 0


def test_notice_makes_the_vacate_file_appear_once_and_follows_no_link(tmp_path: Path):
    environment(tmp_path)
    give_notice(tmp_path)
    give_notice(tmp_path)
    assert places.vacate_file(tmp_path).stat().st_size == 0
    places.vacate_file(tmp_path).unlink()
    places.vacate_file(tmp_path).symlink_to(tmp_path / "elsewhere")
    give_notice(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_notice_to_a_task_that_removed_our_folder_raises_nothing(tmp_path: Path):
    give_notice(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_guest_program_loads_nothing_slow_and_does_nothing_by_being_loaded():
    code = f"import runpy, sys; runpy.run_path({str(function.PROGRAM)!r}, run_name='loaded'); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath},
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert "cloudpickle" in loaded
    slow = {
        "pydantic",
        "asyncio",
        "pathlib",
        "socket",
        "subprocess",
        "numpy",
        "idle_accelerator.wire.model",
        "ctypes",
    }
    assert loaded & slow == set()
    assert {name for name in loaded if name.startswith("idle_accelerator.agent.")} <= {
        name for name in loaded if name.startswith("idle_accelerator.agent.workloads")
    }


@pytest.mark.skipif(sys.platform == "win32", reason="names of variables have no case there")
def test_names_of_variables_keep_their_case(tmp_path: Path):
    assert environment(tmp_path, extra={"mine": "1"})["mine"] == "1"
