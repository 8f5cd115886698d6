"""What a newcomer runs first: each example, as its docstring says, on a real pool."""

import os
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess
from conftest import SchedulerProcess

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples"
DEADLINE_S = 240.0

Run = Callable[..., str]


@pytest.fixture
def run(scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess], tmp_path: Path) -> Run:
    start_agent(scheduler_process.url)

    def run(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments],
            cwd=tmp_path,
            env={**os.environ, "IDLE_SCHEDULER": scheduler_process.url, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_pi_is_near_pi(run: Run) -> None:
    lines = run("pi.py").splitlines()
    assert len(lines) == 17
    assert float(lines[-1].rpartition("≈")[2]) == pytest.approx(3.14159, abs=0.01)


def test_the_zoom_is_one_picture_of_all_frames(run: Run, tmp_path: Path) -> None:
    run("mandelbrot.py", "zoom")
    assert len(list((tmp_path / "zoom").glob("frame-*.png"))) == 12
    content = (tmp_path / "zoom" / "zoom.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (640, 480)
    start = content.index(b"IDAT")
    rows = zlib.decompress(content[start + 4 : start + 4 + int.from_bytes(content[start - 4 : start], "big")])
    assert len(rows) == height * (3 * width + 1)
    assert len(set(rows)) > 100, "a picture has more than one colour"


def test_words_are_counted_right(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.md").write_text("Idle machines idle; IDLE!", encoding="utf-8")
    (folder / "two.md").write_text("machines that sit idle", encoding="utf-8")
    found = Counter(
        {word: int(times) for times, word in re.findall(r"(\d+)  (\w+)", run("wordcount.py", "texts"))}
    )
    assert found == Counter(idle=4, machines=2, that=1)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_can_be_read_at_a_glance(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    code = text.split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    assert "python3 run.py up" in text
