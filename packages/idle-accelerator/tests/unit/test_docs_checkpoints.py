"""What docs/howto/checkpoints.md and docs/reference/task-module.md show runs, saves, goes on, and is all there is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from idle_accelerator import task

ROOT = Path(__file__).parents[4]
HOWTO = (ROOT / "docs" / "howto" / "checkpoints.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "task-module.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", HOWTO, re.MULTILINE | re.DOTALL)
    return found


def test_the_training_loop_is_short_runs_and_goes_on(tmp_path: Path) -> None:
    program = block("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 16
    env = {name: value for name, value in os.environ.items() if not name.startswith("IDLE_")}
    eager = program.replace("every(60)", "every(0)").replace("100_000", "20")
    (tmp_path / "train.py").write_text(eager)

    def run(**extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "train.py"],
            cwd=tmp_path,
            env={**env, **extra},
            capture_output=True,
            text=True,
            check=False,
        )

    alone = run()
    assert alone.returncode == 0, alone.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
    home = tmp_path / "saved"
    (tmp_path / "vacate").touch()
    for attempt in range(1, 4):
        left = run(IDLE_CHECKPOINT_DIR=str(home), IDLE_VACATE_FILE=str(tmp_path / "vacate"))
        assert left.returncode == 85, left.stderr
        assert (home / "LATEST").read_text() == f"step-{attempt}"
    assert run(IDLE_CHECKPOINT_DIR=str(home)).stdout == alone.stdout
    assert sorted(path.name for path in home.iterdir()) == ["LATEST", "step-19", "step-20"]


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh")
def test_the_shells_loop_saves_leaves_and_goes_on(tmp_path: Path) -> None:
    home, vacate = tmp_path / "home", tmp_path / "vacate"
    home.mkdir()

    def run(resume_from: str) -> tuple[int, str]:
        env = {
            "IDLE_CHECKPOINT_DIR": str(home),
            "IDLE_VACATE_FILE": str(vacate),
            "IDLE_RESUME_FROM": resume_from,
        }
        done = subprocess.run(
            ["sh", "-ec", block("bash").replace("sync\n", ":\n")],  # of the whole machine: not in a test
            env={"PATH": os.environ["PATH"], **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    vacate.touch()
    assert run("") == (85, "")
    assert (home / "LATEST").read_text() == "step-1"
    vacate.unlink()
    assert run(str(home / "step-1")) == (0, "done at 1000\n")
    assert (home / "LATEST").read_text() == "step-1000"


@pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler; on Debian: apt-get install -y gcc"
)
def test_the_commit_in_c_makes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = "".join(
        f"#include <{name}>\n" for name in ("fcntl.h", "stdio.h", "sys/stat.h", "sys/types.h", "unistd.h")
    )
    main = 'int main(int count, char **words) { return count == 2 && commit(words[1], 7, "abc", 3) == 0 ? 0 : 1; }\n'
    (tmp_path / "commit.c").write_text(headers + block("c") + main)
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "commit", tmp_path / "commit.c"], check=True
    )
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([tmp_path / "commit", home], check=True)
    monkeypatch.setenv("IDLE_CHECKPOINT_DIR", str(home))
    assert task.resume_step() == 7
    assert (home / "step-7" / "state").read_bytes() == b"abc"
    assert sorted(path.name for path in home.iterdir()) == ["LATEST", "step-7"]


def test_the_reference_names_all_of_the_module_and_nothing_else() -> None:
    table = REFERENCE[REFERENCE.index("| name |") : REFERENCE.index("## What holds")]
    named = {
        name
        for row in table.splitlines()[2:]
        if row.startswith("|")
        for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", row.split("|")[1])
    }
    assert named == set(task.__all__)
