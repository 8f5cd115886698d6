"""What a newcomer runs first: each example, as its docstring says, on a real pool."""

import os
import re
import struct
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


def rows_of(path: Path) -> list[bytes]:
    """The rows of an RGB picture as the example writes it. Fails where it is no well-formed PNG."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunk = content[place + 4 : place + 8 + size]
        assert struct.unpack_from(">I", content, place + 8 + size) == (zlib.crc32(chunk),)
        chunks[chunk[:4]] = chunk[4:]
        place += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert form == [8, 2, 0, 0, 0], "8 bits, RGB, not interlaced"
    pixels, line = zlib.decompress(chunks[b"IDAT"]), 3 * width + 1
    assert len(pixels) == height * line
    assert set(pixels[::line]) == {0}, "no row is filtered"
    return [pixels[start + 1 : start + line] for start in range(0, len(pixels), line)]


def test_the_zoom_is_one_picture_of_all_frames(run: Run, tmp_path: Path) -> None:
    run("mandelbrot.py")
    frames = [rows_of(path) for path in sorted((tmp_path / "zoom").glob("frame-*.png"))]
    picture = rows_of(tmp_path / "zoom" / "zoom.png")
    assert (len(picture[0]), len(picture)) == (3 * 640, 480)
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        left, top = 480 * (number % 4), 160 * (number // 4)
        assert [row[left : left + 480] for row in picture[top : top + 160]] == frame
    # 0 is in the set, and far outside of it there is colour.
    x = round((0.743643887 / 3 + 0.5) * 160)
    y = round((0.131825904 / 3 + 0.5) * 160)
    assert frames[0][y][3 * x : 3 * x + 3] == bytes(3)
    assert frames[0][0][:3] != bytes(3)
    assert all(len(set(b"".join(frame))) > 100 for frame in frames), "each frame has many shades"


def test_words_are_counted_right(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.md").write_text("Idle machines idle; IDLE!", encoding="utf-8")
    (folder / "two.md").write_text("machines that sit idle", encoding="utf-8")
    found = Counter(
        {word: int(times) for times, word in re.findall(r"(\d+)  (\w+)", run("wordcount.py", "texts"))}
    )
    assert found == Counter(idle=4, machines=2, that=1)


def test_words_of_every_language_and_kind_of_text_file_count(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "texts" / "deeper"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("Größe größe a1b2", encoding="utf-8")
    (folder / "picture.bin").write_bytes(b"\xff\xfe")
    assert run("wordcount.py", "texts").splitlines() == ["counting the words of 1 files …", "     2  größe"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_can_be_read_at_a_glance(path: Path) -> None:
    _, told, code = path.read_text(encoding="utf-8").split('"""', 2)
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    assert f".venv/bin/python examples/{path.name}" in told
    assert f".venv\\Scripts\\python examples\\{path.name}" in told
    assert "python3 run.py up" in told
