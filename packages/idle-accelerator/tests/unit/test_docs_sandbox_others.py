"""The page of the sandboxes beside those of Linux says what the code tries."""

import re
from pathlib import Path

from idle_accelerator.agent.sandbox import hostile_portable, portable, wasm_hostile

PAGE = (Path(__file__).parents[4] / "docs/reference/sandbox-others.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if re.match(r"\| `\w+` \|", line)
    ]


def test_the_attempts_of_a_hostile_module_are_those_of_the_code() -> None:
    said = [(name.strip("`"), means, line) for name, means, line, *_ in rows("`wasm`")]
    assert said == [(item.name, item.means, item.line) for item in wasm_hostile.ATTEMPTS]


def test_the_attempts_on_macos_and_windows_are_those_of_the_code() -> None:
    said = {
        name.strip("`"): (means, line) for name, means, line in rows("What is tried on macOS and Windows")
    }
    assert said == {
        name: ((attempt.__doc__ or "").strip(), portable.LINES.get(name, "has to work"))
        for name, attempt in hostile_portable.ATTEMPTS.items()
    }
