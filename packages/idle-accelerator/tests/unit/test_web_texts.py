"""The page's texts, and amounts in both languages."""

import ast
import re
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import idle_accelerator.web
from idle_accelerator.web import amounts
from idle_accelerator.web.texts import TEXTS, in_language
from idle_accelerator.wire.nodes import Isolation, Lending
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

_SOURCES = sorted(Path(idle_accelerator.web.__file__).parent.rglob("*.py"))


def _fields(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("key", sorted(TEXTS))
def test_both_languages_say_the_same_with_the_same_parameters(key):
    english, chinese = TEXTS[key]
    assert english.strip()
    assert chinese.strip()
    assert _fields(english) == _fields(chinese)


def test_every_text_that_the_page_asks_for_is_there_and_every_text_is_asked_for():
    """Keys that are put together from a state are looked at by their states below."""
    literals = {
        node.value
        for source in _SOURCES
        if source.name != "texts.py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    made = {f"state.{state.value}" for kind in (JobState, TaskState, AttemptState) for state in kind}
    made |= {f"lending.{lending}" for lending in Lending.__args__}
    made |= {
        f"nodes.isolation.{line}"
        for line in Isolation.model_fields
        if line not in ("tier", "probed_at", "most_memory_bytes")
    }
    assert made <= set(TEXTS)
    assert {key for key in TEXTS if key not in made and key not in literals} == set()
    asked = {
        match
        for source in _SOURCES
        for match in re.findall(r'\bsay\(\s*"([a-z_.A-Z]+)"', source.read_text(encoding="utf-8"))
    }
    assert asked
    assert asked - set(TEXTS) == set()


def test_parameters_of_strangers_are_never_read_as_templates():
    assert in_language("en", "job.open_hint") == TEXTS["job.open_hint"][0]
    assert in_language("en", "need.node", name="{0.__class__}") == "only node {0.__class__}"


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0.25, "250 ms", "250 毫秒"),
        (4.2, "4.2 s", "4.2 秒"),
        (4, "4 s", "4 秒"),
        (125, "2 min 5 s", "2 分钟 5 秒"),
        (3600, "1 h", "1 小时"),
        (11400, "3 h 10 min", "3 小时 10 分钟"),
        (3605, "1 h", "1 小时"),
        (187200, "2 d 4 h", "2 天 4 小时"),
    ],
)
def test_durations_have_two_units_at_most_in_both_languages(seconds, english, chinese):
    assert amounts.duration(seconds, "en") == english
    assert amounts.duration(seconds, "zh") == chinese


def test_ages_never_lie_in_the_future():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert amounts.ago(now + timedelta(minutes=5), "en", now=now) == "just now"
    assert amounts.ago(now - timedelta(seconds=65.9), "en", now=now) == "1 min ago"
    assert amounts.ago(now - timedelta(seconds=65), "zh", now=now) == "1 分钟前"
    assert amounts.ago(None, "en") == "—"


def test_cores_have_no_needless_decimals():
    assert [amounts.cores(count) for count in (4, 4.0, 0.5, 1.25, 0.333, 0)] == [
        "4",
        "4",
        "0.5",
        "1.25",
        "0.33",
        "0",
    ]
