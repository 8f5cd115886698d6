"""The page about the sandbox says what the code does: its tables are read back and compared."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from idle_accelerator.agent.sandbox import ways
from idle_accelerator.agent.sandbox.attempts import ATTEMPTS, expected
from idle_accelerator.wire.nodes import Isolation

PAGE = (Path(__file__).parents[4] / "docs/reference/sandbox.md").read_text(encoding="utf-8")
TIERS = ("process", "landlock", "container", "bubblewrap")
WHO = {"nothing": "everybody", "root": "root", "luck": "some"}


def rows(*header: str) -> list[list[str]]:
    """The cells of the rows of the only table with this header."""
    found = re.findall(
        rf"^\| {re.escape(' | '.join(header))} \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE
    )
    assert len(found) == 1
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in found[0].splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="the hostile program is for Linux")
def test_every_attempt_stands_there_with_what_comes_of_it() -> None:
    from idle_accelerator.agent.sandbox import hostile

    said = rows("attempt", "what it is", "line", "without a sandbox", *(f"`{tier}`" for tier in TIERS))
    assert said == [
        [
            attempt.name,
            (inspect.getdoc(hostile.ATTEMPTS[attempt.name]) or "").splitlines()[0],
            attempt.field,
            WHO[attempt.needs],
            *(expected(attempt, tier) for tier in TIERS),
        ]
        for attempt in ATTEMPTS
    ]


def test_every_line_stands_there_with_what_it_is_about() -> None:
    fields = Isolation.model_fields
    assert rows("line", "what it is about") == [[name, fields[name].description] for name in ways.LINES]
    assert set(ways.LINES) == set(fields) - {"tier", "probed_at", "most_memory_bytes"}


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_sizes_and_the_files_name_are_those_of_the_code() -> None:
    from idle_accelerator.agent.sandbox import bubblewrap, trial

    assert f"at most {bubblewrap.MEMORY_FILES_LIMIT_BYTES >> 20} MiB each" in PAGE
    assert f"`{trial.CACHE_FILE}`" in PAGE
