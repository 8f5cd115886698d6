"""Every reason has a sentence, in both languages, with the parameters that it is given."""

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import idle_accelerator
from idle_accelerator.wire.reasons import Reason, aged, reason, render, view
from idle_accelerator.wire.sentences import CHINESE, ENGLISH

SOURCE = Path(idle_accelerator.__file__).parent
CODE = re.compile(r"^[a-z_]+(\.[a-z_]+)+$")


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def calls_of_reason() -> Iterator[tuple[str, str, set[str] | None]]:
    """(where, code, names of parameters; None when they are not written out) of each ``reason("…")`` in the source."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            first = node.args[0]
            if name != "reason" or not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                continue
            # What ``because`` holds is rendered as ``why``.
            names = {
                "why" if keyword.arg == "because" else keyword.arg for keyword in node.keywords if keyword.arg
            }
            known = all(keyword.arg is not None for keyword in node.keywords)
            yield f"{path.relative_to(SOURCE)}:{node.lineno}", first.value, names if known else None


def test_the_scan_finds_the_codes_of_the_source() -> None:
    found = {code for _, code, _ in calls_of_reason()}
    assert {"lease.stale", "task.cancelled", "match.cpus", "node.offline", "wait.no_nodes"} <= found


@pytest.mark.parametrize(("where", "code", "names"), list(calls_of_reason()))
def test_every_code_of_the_source_has_its_sentence(where: str, code: str, names: set[str] | None) -> None:
    assert CODE.match(code), where
    assert code in ENGLISH, where
    if names is not None:
        assert placeholders(ENGLISH[code]) <= names, f"{where}: the sentence would not render"


def test_no_sentence_waits_for_a_code_that_nobody_gives() -> None:
    others = (path for path in SOURCE.rglob("*.py") if path.name != "sentences.py")
    source = "".join(path.read_text(encoding="utf-8") for path in others)
    assert [code for code in ENGLISH if f'"{code}"' not in source] == []


def test_both_languages_say_the_same() -> None:
    assert set(ENGLISH) == set(CHINESE)
    for code, template in ENGLISH.items():
        assert placeholders(template) == placeholders(CHINESE[code]), code
        assert CODE.match(code), code


def test_a_reason_and_what_it_follows_from_are_said_in_one_language() -> None:
    why = reason(
        "wait.node", node="lab", because=[reason("match.cpus", needed=8, offered=2), reason("lend.hint")]
    )
    assert render(why) == "lab: needs 8 cores, lends 2; to lend it now: idlectl lend --for 10m"
    assert render(why, "zh") == "lab：需要 8 个核，只出借 2；要现在出借：idlectl lend --for 10m"
    assert Reason.model_validate_json(why.model_dump_json()) == why


def test_what_remains_shrinks_and_never_below_nothing() -> None:
    left = reason("node.lent", remaining_s=90)
    assert aged(left, 30).params["remaining_s"] == 60
    assert aged(left, 300).params["remaining_s"] == 0


def test_no_english_sentence_stands_among_the_chinese() -> None:
    for code, template in CHINESE.items():
        assert any("\u4e00" <= letter <= "\u9fff" for letter in template) or template == "{node}：{why}", code


@pytest.mark.parametrize("code", sorted(ENGLISH))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_sentence_renders_without_leftovers(code: str, language) -> None:
    params = {
        name: 65.0 if name.rsplit("_", 1)[-1] in ("s", "bytes") else "x"
        for name in placeholders(ENGLISH[code])
    }
    said = render(reason(code, **params), language)
    assert said
    assert said != code
    assert "{" not in said


def test_units_are_made_human_by_the_parameters_name() -> None:
    assert render(reason("task.timeout", timeout_s=600)) == "ran longer than its timeout of 10 min"
    assert render(reason("node.disk_low", free_bytes=1 << 20)) == "only 1.0 MiB left on its disk"
    assert render(reason("match.cpus", needed=4.0, offered=0.5)) == "needs 4 cores, lends 0.5"
    busy_disk = reason("load.disk", used_bytes_per_s=3 << 20, limit_bytes_per_s=1 << 20, calm_s=20)
    assert render(busy_disk).startswith("other programs move 3.0 MiB/s from and to disks")
    assert "is at 93 °C" in render(reason("heat.hot", hottest_c=93.2, limit_c=80, sensor="cpu"))


def test_an_unknown_code_falls_back_on_the_origins_own_words() -> None:
    assert render(Reason(code="new.thing", text="said so")) == "said so"
    assert render(Reason(code="new.thing")) == "new.thing"
    assert render(Reason(code="task.timeout", text="said so")) == "said so", "parameters are missing"


def test_ages_grow_while_they_are_kept() -> None:
    shown = view(aged(reason("node.offline", age_s=4), 60))
    assert shown.sentence == "not heard of for 1 min 4 s"
    assert view(reason("node.offline", age_s=4)).params["age_s"] == 4


@given(
    st.sampled_from(sorted(ENGLISH)) | st.just("un.known"),
    st.dictionaries(
        st.sampled_from(["age_s", "limit_bytes", "x_ratio", "node", "count", "timeout_s", "{evil}", ""]),
        st.text(max_size=20)
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=6,
    ),
    st.floats(0, 1e9),
)
def test_no_parameters_that_a_node_may_send_break_a_reader(code: str, params, older_by_s: float) -> None:
    shown = view(aged(Reason(code=code, params=params), older_by_s))
    assert shown.sentence
    assert render(shown, "zh")
