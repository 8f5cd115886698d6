"""The canonical form of requirements: it means the same, and is its own canonical form."""

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.wire.environments import (
    Environment,
    RequirementProblem,
    canonical_text,
    parse_requirements,
)

names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}((a|b|rc)[0-9])?(\.post[0-9])?", fullmatch=True)
clauses = st.lists(st.tuples(st.sampled_from(["==", ">=", "<", "!=", "~="]), versions), max_size=3)
markers = st.sampled_from(["", "python_version >= '3.12'", "sys_platform == 'linux' and os_name != \"nt\""])
hashes = st.lists(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=3)
lines = st.tuples(names, st.lists(names, max_size=2), clauses, markers, hashes)
Line = tuple[str, list[str], list[tuple[str, str]], str, list[str]]


def written(line: Line, source: random.Random) -> str:
    """One of the ways to write it."""
    name, extras, signs, marker, digests = line
    space = source.choice(["", " ", "  \t"])
    shown = "".join(source.choice([letter, letter.upper()]) for letter in name)
    shown = re.sub(r"[-_.]", lambda _: source.choice("-_."), shown)
    listed = source.sample(extras, len(extras))
    text = shown + (f"[{','.join(listed)}]" if listed else "")
    text += space + f"{space},{space}".join(
        f"{sign}{space}{version}" for sign, version in source.sample(signs, len(signs))
    )
    text += f"{space};{space}{marker}" if marker else ""
    broken = source.choice([" ", " \\\n    "])
    text += "".join(f"{broken}--hash=sha256:{digest}" for digest in source.sample(digests, len(digests)))
    return text + source.choice(["", "  # why", "\n\n# more"])


@given(
    st.lists(lines, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.randoms(use_true_random=False),
)
def test_however_it_is_written_it_is_the_same_environment(
    wanted: list[Line], one: random.Random, other: random.Random
) -> None:
    first = Environment(requirements="\n".join(written(line, one) for line in wanted))
    second = Environment(
        requirements="\r\n".join(written(line, other) for line in other.sample(wanted, len(wanted)))
    )
    assert first.digest == second.digest
    assert first.kind == second.kind
    canonical = canonical_text(parse_requirements(first.requirements))
    assert canonical_text(parse_requirements(canonical)) == canonical


@given(lines, lines)
def test_different_requirements_are_different_environments(one: Line, other: Line) -> None:
    plain = random.Random(1)
    texts = [canonical_text(parse_requirements(written(line, plain))) for line in (one, other)]
    same = Environment(requirements=texts[0]).digest == Environment(requirements=texts[1]).digest
    assert same == (texts[0] == texts[1])


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_and_nothing_dangerous_comes_through(text: str) -> None:
    try:
        canonical = canonical_text(parse_requirements(text))
    except RequirementProblem:
        return
    for line in canonical.splitlines():
        assert re.match(r"[a-z0-9]", line)
        assert not re.search(r"[@/\\$`|&{}\0]", line)
