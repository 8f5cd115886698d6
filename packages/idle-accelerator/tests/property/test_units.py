"""Sizes and durations: what people write is read exactly, and what is shown can be read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64K", 65536),
        ("1.5G", 3 << 29),
        ("2GiB", 2 << 30),
        ("1 mb", 1 << 20),
        (" 3t ", 3 << 40),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text, field="memory") == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1h 5s", 3605),
    ],
)
def test_durations_add_up(text: str, seconds: float) -> None:
    assert parse_duration(text, field="timeout") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "1X", "G", "1..5G", "1,5G", "1e3", "nan", "1G1"])
def test_what_is_no_size_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_size(text, field="memory")
    assert caught.value.field == "memory"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "-1", "5x", "h", "1h junk", "1..5h", "5 m x", "nan", "1e3"])
def test_what_is_no_duration_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration(text, field="timeout")
    assert caught.value.field == "timeout"
    assert caught.value.hint


@given(st.integers(0, 1 << 60))
def test_a_shown_size_reads_back_to_the_shown_precision(size: int) -> None:
    shown = format_size(size)
    assert parse_size(shown, field="x") == pytest.approx(size, rel=0.06, abs=0.5)


@given(st.floats(0, 1e9, allow_nan=False))
def test_a_shown_duration_reads_back_to_two_units(seconds: float) -> None:
    shown = format_duration(seconds).replace("min", "m")
    assert parse_duration(shown, field="x") == pytest.approx(seconds, rel=0.06, abs=0.06)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (4, "4 s"),
        (4.25, "4.2 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (11_400, "3 h 10 min"),
        (86_400, "1 d"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
