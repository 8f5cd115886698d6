"""Policies as files: units, what is refused in which words, and that what is written reads back."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_sense import InvalidPolicy, Policy, QuietHours


def test_a_file_with_units_is_a_policy() -> None:
    policy = Policy.from_toml(
        """
        based_on = "lab"
        name = "our lab"
        input_idle = "1 h 30 min"
        grace = "90 s"
        cpu_busy = "40 %"
        disk_busy = "60 MB/s"
        network_busy = "100 Mbit/s"
        hot = "85.5 °C"
        cool_c = 70
        lend_on_battery = true
        quiet_hours = ["22:00-07:00", "mon-fri 09:00-17:00"]
        ignore_programs = ["surveillance"]
        """
    )
    assert policy == dataclasses.replace(
        Policy.lab(),
        name="our lab",
        input_idle_s=5400.0,
        grace_s=90.0,
        cpu_busy_ratio=0.4,
        disk_busy_bytes_per_s=60e6,
        network_busy_bytes_per_s=12.5e6,
        hot_c=85.5,
        cool_c=70.0,
        lend_on_battery=True,
        quiet_hours=(QuietHours.parse("22:00-07:00"), QuietHours.parse("mon-fri 09:00-17:00")),
        ignore_programs=("surveillance",),
    )


def test_an_empty_file_is_the_desktop_policy_and_one_span_needs_no_list() -> None:
    assert Policy.from_toml("") == Policy.desktop()
    assert Policy.from_toml('quiet_hours = "22:00-07:00"').quiet_hours == (QuietHours.parse("22:00-07:00"),)


@pytest.mark.parametrize(
    ("text", "field", "line", "words"),
    [
        ('grace = "10 s"\ninput_idel = "5 min"', "input_idel", 2, "did you mean input_idle?"),
        ("nonsense_of_mine = 1", "nonsense_of_mine", 1, "there is no such field."),
        ("input_idle = 300", "input_idle", 1, "has no unit"),
        ('input_idle = "soon"', "input_idle", 1, '"5 min"'),
        ('input_idle = "5 miles"', "input_idle", 1, '"5 min"'),
        ("input_idle_s = -3", "input_idle_s", 1, "no amount"),
        ('cpu_busy = "140 %"', "cpu_busy_ratio", 1, "more than everything"),
        ('cpu_busy = "25"', "cpu_busy", 1, '"25 %"'),
        ('disk_busy = "20 MB"', "disk_busy", 1, '"20 MB/s"'),
        ('hot = "200 °F"', "hot", 1, '"85 °C"'),
        ('\n\ncpu_free = "90 %"', "cpu_free_ratio", 3, "Lower cpu_free_ratio"),
        ('watch_input = "no"', "watch_input", 1, "true or false"),
        ("name = 7", "name", 1, "text"),
        ('grace = "10 s"\ngrace_s = 5', "grace_s", 2, "given twice"),
        ('based_on = "destkop"', "based_on", 1, "did you mean desktop?"),
        ('quiet_hours = ["22-7"]', "quiet_hours", 1, "mon-fri 09:00-17:00"),
        ('quiet_hours = ["25:00-07:00"]', "quiet_hours", 1, "no time of day"),
        ('quiet_hours = ["moon 21:00-07:00"]', "quiet_hours", 1, "no day of the week"),
        ('quiet_hours = ["07:00-07:00"]', "quiet_hours", 1, "no length"),
        ("ignore_programs = [1]", "ignore_programs", 1, '["a", "b"]'),
        ("[input_idle]\nsoon = 1", "input_idle_s", 1, "no amount"),
        ("grace = = 1", "policy", 1, "no TOML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_field_line_and_mend(
    text: str, field: str, line: int, words: str
) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_toml(text)
    assert (caught.value.field, caught.value.line) == (field, line)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_there_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicy, match="desktop, server, lab, or a TOML file"):
        Policy.from_toml(tmp_path / "nothing.toml")
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidPolicy, match="cannot be read"):
        Policy.from_toml(path)


@pytest.mark.parametrize("policy", [Policy.desktop(), Policy.server(), Policy.lab()])
def test_what_is_written_is_for_people_and_reads_back(policy: Policy, tmp_path: Path) -> None:
    text = policy.to_toml()
    assert Policy.from_toml(text) == policy
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    assert Policy.from_toml(path) == policy
    assert 'grace_cap = "15 min"' in text
    assert "_s = " not in text, "every time has its unit"


def test_the_example_of_the_readme_is_a_policy() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    policy = Policy.from_toml(block)
    assert (policy.input_idle_s, policy.hot_c) == (600.0, 85.0)
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_toml(block.replace('based_on = "desktop"\ninput_idle', "\ninput_idel"))
    assert f"`{str(caught.value).partition('?')[0]}?`" in readme


amounts = st.floats(0, 1e9)
shares = st.floats(0, 1)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    given_fields: dict[str, object] = {}
    for item in dataclasses.fields(Policy):
        if item.name in ("quiet_hours", "ignore_programs"):
            continue
        if isinstance(item.default, bool):
            given_fields[item.name] = draw(st.booleans())
        elif isinstance(item.default, str):
            given_fields[item.name] = draw(st.text(st.characters(codec="utf-8"), max_size=20))
        else:
            given_fields[item.name] = draw(shares if item.name.endswith("_ratio") else amounts)
    for low, high in (
        ("cpu_free_ratio", "cpu_busy_ratio"),
        ("gpu_free_ratio", "gpu_busy_ratio"),
        ("disk_free_bytes_per_s", "disk_busy_bytes_per_s"),
        ("network_free_bytes_per_s", "network_busy_bytes_per_s"),
        ("memory_short_ratio", "memory_free_ratio"),
        ("stall_free_ratio", "stall_busy_ratio"),
        ("cool_c", "hot_c"),
        ("grace_s", "grace_cap_s"),
    ):
        given_fields[low], given_fields[high] = sorted([given_fields[low], given_fields[high]])  # type: ignore[type-var]
    given_fields["ignore_programs"] = tuple(
        draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=2))
    )
    spans = st.tuples(st.integers(0, 1439), st.integers(0, 1440), st.sets(st.integers(0, 6), min_size=1))
    given_fields["quiet_hours"] = tuple(
        QuietHours(start_minute=start, end_minute=end, days=tuple(sorted(days)))
        for start, end, days in draw(st.lists(spans, max_size=3))
        if start != end
    )
    return Policy(**given_fields)  # type: ignore[arg-type]


@given(policies())
def test_every_policy_survives_its_file(policy: Policy) -> None:
    assert Policy.from_toml(policy.to_toml()) == policy


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    for given_text in (text, f"input_idle = {text}", f'cpu_busy = "{text}"', f'quiet_hours = "{text}"'):
        try:
            policy = Policy.from_toml(given_text)
        except InvalidPolicy:
            continue
        assert isinstance(policy, Policy)
