"""What a newcomer runs first: each example, as its docstring says, on a real pool."""

import importlib.util
import math
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess
from pool_builders import UserClient

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples"
DEADLINE_S = 240.0

Run = Callable[..., str]


@pytest.fixture
def first_agent(
    scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]
) -> AgentProcess:
    return start_agent(scheduler_process.url)


@pytest.fixture
def run(scheduler_process: SchedulerProcess, first_agent: AgentProcess, tmp_path: Path) -> Run:
    del first_agent  # it does the work

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
    first, *lines = run("pi.py").splitlines()
    assert first.startswith("submitted j")
    assert [line.split(" on ")[0].strip() for line in lines] == [f"{done} of 16" for done in range(1, 17)]
    assert float(lines[-1].rpartition(" is ")[2]) == pytest.approx(math.pi, abs=0.05)


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


def counted(output: str) -> tuple[dict[str, int], dict[str, int]]:
    """Words by file, and how often each of the most common ones was found."""
    files, words = output.split("most common:\n")
    return (
        {path: int(number) for number, path in re.findall(r"^ *(\d+) words in (.+)$", files, re.MULTILINE)},
        {word: int(times) for times, word in re.findall(r"^ *(\d+) x (\w+)$", words, re.MULTILINE)},
    )


def test_the_words_of_our_own_pages_are_counted_right(run: Run) -> None:
    docs = ROOT / "docs"
    here = {
        str(path.relative_to(docs)): Counter(
            word for word in re.split(r"[\W\d_]+", path.read_text(encoding="utf-8").lower()) if len(word) > 3
        )
        for path in docs.rglob("*.md")
    }
    files, words = counted(run("wordcount.py"))
    assert files == {path: found.total() for path, found in here.items()}
    everything = sum(here.values(), Counter[str]())
    assert len(words) == 10
    assert list(words.values()) == [times for _, times in everything.most_common(10)]
    assert words == {word: everything[word] for word in words}


def test_text_files_of_another_directory_count_in_every_language(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "texts" / "deeper"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("Größe größe a1b2 in", encoding="utf-8")
    (folder / "two.md").write_bytes(b"\xff\xfe idle")
    (folder / "picture.bin").write_bytes(b"machines")
    files, words = counted(run("wordcount.py", "texts"))
    assert files == {str(Path("deeper", "one.txt")): 2, str(Path("deeper", "two.md")): 1}
    assert words == {"größe": 2, "idle": 1}


def test_an_orbit_that_moves_ends_where_an_undisturbed_one_does(
    run: Run,
    first_agent: AgentProcess,
    start_agent: Callable[..., AgentProcess],
    scheduler_process: SchedulerProcess,
) -> None:
    alone = run("orbit.py", "--here")
    user = UserClient(scheduler_process.url)

    def stop_once_it_has_saved() -> None:
        def saved() -> bool:
            jobs = user.http.get("/v1/jobs").json()["jobs"]
            return bool(jobs) and bool(user.task(jobs[0]["job_id"], 0).checkpoints)

        until(saved, what="it saves", timeout_s=DEADLINE_S)
        first_agent.kill9()
        start_agent(scheduler_process.url)

    mover = threading.Thread(target=stop_once_it_has_saved)
    mover.start()
    submitted, result = run("orbit.py").splitlines()
    mover.join()
    assert f"{result}\n" == alone
    job_id = re.search(r"j[a-z2-7]{16}", submitted)
    assert job_id is not None
    attempts = user.task(job_id[0], 0).attempts
    assert len(attempts) >= 2
    assert all(item.resumed is not None and item.resumed.step for item in attempts[1:])
    user.close()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_can_be_read_at_a_glance(path: Path) -> None:
    _, told, code = path.read_text(encoding="utf-8").split('"""', 2)
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    assert f".venv/bin/python examples/{path.name}" in told
    assert f".venv\\Scripts\\python examples\\{path.name}" in told
    assert "python3 run.py up" in told
    assert "python3 run.py idlectl lend --for 10m" in told


def test_primes_are_counted_by_a_program_that_is_built_for_webassembly(run: Run) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("zig builds the example's C program: pip install ziglang (100 MB)")
    *_, last = run("primes.py").splitlines()
    assert "1,031,130 primes" in last
