"""docs/reference/reasons.md is the table of the code: every reason with both of its sentences, and no other."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import idle_sense.sentences as sensed
from idle_accelerator.wire import sentences
from idle_accelerator.wire.reasons import Reason, render

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "reference" / "reasons.md"
HEADING = "| code | English | Chinese |\n|---|---|---|\n"
AREAS: Mapping[str, str] = {
    "task": "How an attempt ended",
    "attempts": "How an attempt ended",
    "lease": "How an attempt ended",
    "agent": "How an attempt ended",
    "owner": "How an attempt ended",
    "checkpoint": "What became of a checkpoint",
    "node": "Whether a machine is lent",
    "terms": "Whether a machine is lent",
    "lend": "Whether a machine is lent",
    "wait": "Why a task waits",
    "match": "Why a task waits",
}
SENSED = "What idle-sense says about a machine"


def rows() -> dict[str, dict[str, tuple[str, str]]]:
    """Heading → code → (English, Chinese), as the code has them."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for code, english in sentences.ENGLISH.items():
        # memory.pressure ends an attempt; the other codes of memory are idle-sense's.
        heading = AREAS.get(code.partition(".")[0], "How an attempt ended")
        found.setdefault(heading, {})[code] = (english, sentences.CHINESE[code])
    found[SENSED] = {
        code: (english, sensed.CHINESE[code])
        for code, english in sensed.ENGLISH.items()
        if code not in sentences.ENGLISH
    }
    return found


def expected() -> str:
    """The page from its first table on."""
    return "\n".join(
        f"## {heading}\n\n{HEADING}"
        + "".join(f"| `{code}` | {english} | {chinese} |\n" for code, (english, chinese) in table.items())
        for heading, table in rows().items()
    )


def test_the_page_of_reasons_is_that_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    start = text.index("## ")
    assert text[start:] == expected(), f"from its first '## ' on, {PAGE.name} should read:\n\n{expected()}"


def test_no_sentence_breaks_the_table() -> None:
    shown = [text for table in rows().values() for pair in table.values() for text in pair]
    assert [text for text in shown if re.search(r"[|\n<]", text)] == []


def test_no_reason_is_left_out() -> None:
    listed = {code for table in rows().values() for code in table}
    assert listed == set(sentences.ENGLISH) | set(sensed.ENGLISH)


def test_the_example_at_the_top_reads_as_it_says() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = json.loads(block)
    sentence = shown.pop("sentence")
    assert render(Reason.model_validate(shown)) == sentence
