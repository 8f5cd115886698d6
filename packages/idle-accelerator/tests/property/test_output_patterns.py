"""Patterns of output files against a model that is too slow and too plain to be wrong in the same way."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from idle_accelerator.agent.patterns import Patterns

NAME = st.text("ab.[]-!é", min_size=1, max_size=6)
PART = st.text("ab.*?[]-!é", min_size=1, max_size=6) | st.just("**")
PATH = st.lists(NAME, min_size=1, max_size=4)
PATTERN = st.lists(PART, min_size=1, max_size=4)


def model(path: list[str], parts: list[str]) -> bool:
    """By the words of the docstring, one name after the other."""
    if not path or not parts:
        return False
    if parts[0] == "**":
        rest = parts[1:] or ["*"]
        return model(path, rest) or (not path[0].startswith(".") and model(path[1:], parts))
    hidden = path[0].startswith(".") and not parts[0].startswith(".")
    if hidden or not fnmatchcase(path[0], parts[0]):
        return False
    return len(path) == len(parts) == 1 or (len(parts) > 1 and model(path[1:], parts[1:]))


def matched(path: list[str], *patterns: str) -> set[int]:
    subject = Patterns(patterns)
    states = subject.start()
    for name in path[:-1]:
        states = subject.below(states, name)
    return set(subject.matched(states, path[-1]))


@given(PATH, st.lists(PATTERN, min_size=1, max_size=3))
def test_a_file_is_matched_by_the_patterns_that_the_model_says(
    path: list[str], patterns: list[list[str]]
) -> None:
    expected = {number for number, parts in enumerate(patterns) if model(path, parts)}
    assert matched(path, *("/".join(parts) for parts in patterns)) == expected


@example("b", "[b-a]")
@example("b", "[!b-a]")
@example("-", "[a-]")
@example("]", "[]-a]")
@given(NAME, PART.filter(lambda part: part != "**"))
def test_a_name_is_matched_as_pythons_own_patterns_do(name: str, part: str) -> None:
    hidden = name.startswith(".") and not part.startswith(".")
    assert bool(matched([name], part)) == (fnmatchcase(name, part) and not hidden)


@given(st.text(max_size=30).filter(lambda text: "/" not in text and text), st.text(max_size=30).filter(bool))
def test_no_pattern_and_no_name_breaks_it(name: str, pattern: str) -> None:
    matched([name], pattern)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (["a" * 255], "*a" * 40 + "b"),
        (["a" * 255], "*[a-z]" * 40 + "b"),
        (["a"] * 60, "**/" * 60 + "b"),
        (["a"] * 60, "**/a/" * 30 + "b"),
    ],
)
def test_no_pattern_takes_for_ever(path: list[str], pattern: str) -> None:
    """With backtracking these would take longer than the age of the universe; the limit is there for hangs only."""
    began_s = time.monotonic()
    assert matched(path, pattern) == set()
    assert time.monotonic() - began_s < 60


def test_an_expression_that_negates_may_begin_with_either_sign() -> None:
    assert matched(["b"], "[!a]", "[^a]", "[!b]", "[^b]") == {0, 1}
