"""The pages below docs/ tell the truth: their commands exist."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PAGES = sorted(ROOT.glob("docs/**/*.md"))


def fences(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^ *```{language}\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def commands() -> list[tuple[str, str]]:
    return [
        (path.name, line.strip())
        for path in PAGES
        for block in fences(path, "sh")
        for line in block.splitlines()
        if line.strip()
    ]


@cache
def help_of(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "idle_accelerator.cli", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"idlectl has no command {command!r}"
    return done.stdout


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_exists_with_its_flags(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[:2] == ["python3", "run.py"]:
        words = words[2:]
        words = words[1:] if words[0] == "idlectl" else words
    elif words[0] == "idlectl":
        words = words[1:]
    else:
        pytest.fail(f"{page}: a command of another program: {line}")
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    flags = [word for word in own if word.startswith("--")]
    described = help_of(words[0])
    assert [flag for flag in flags if flag not in described] == []
