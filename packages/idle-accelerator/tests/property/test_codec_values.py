"""Plain data: what goes in comes out, and hostile bytes only ever give a value or InvalidInput."""

import math
import pickle
import sys
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.codec import decode, encode

_ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")]),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
_OFFSETS = st.one_of(st.none(), st.just(UTC))
_HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.dates(),
    st.times(timezones=_OFFSETS),
    st.timedeltas(),
    st.datetimes(timezones=_ZONES, allow_imaginary=False),
    st.decimals(allow_nan=False),
    st.uuids(),
)
_KEYS = st.recursive(
    _HASHABLE, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4), max_leaves=4
)
_VALUES = st.recursive(
    _HASHABLE
    | st.lists(st.floats(allow_nan=False), min_size=16, max_size=40)
    | st.lists(st.integers(-(2**70), 2**70), min_size=16, max_size=40),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.tuples(inner, inner)
        | st.dictionaries(_KEYS, inner, max_size=6)
        | st.sets(_KEYS, max_size=6)
    ),
    max_leaves=30,
)


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any


def same(left: Any, right: Any) -> bool:
    """Equal and of the same types, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return (
            list(map(type, left)) == list(map(type, right))
            and left == right
            and all(map(same, left.values(), right.values()))
        )
    return left == right


@given(_VALUES)
def test_what_goes_in_comes_out_with_the_same_types(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(_VALUES, _VALUES)
def test_a_dataclass_comes_back_as_the_class_that_the_reader_has(x: Any, y: Any) -> None:
    classes = {f"{Point.__module__}.{Point.__qualname__}": Point}
    assert decode(encode(Point(x, y)), dataclasses=classes) == Point(x, y)


@given(_VALUES)
def test_a_record_can_be_written_and_read_again(value: Any) -> None:
    record = decode(encode(Point(value, 1)))
    assert (record.x, record.y, record.fields) == (value, 1, {"x": value, "y": 1})
    assert decode(encode(record)) == record


@given(st.floats())
@example(math.nan)
@example(-0.0)
def test_every_double_keeps_its_bits(number: float) -> None:
    back = decode(encode([number] * 20))
    assert [math.copysign(1, item) for item in back] == [math.copysign(1, number)] * 20
    assert all(item == number or (math.isnan(item) and math.isnan(number)) for item in back)


@st.composite
def _arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    kind = draw(
        st.sampled_from(
            ["?", "<i1", "<i8", ">u4", "<f2", ">f8", "<c16", "S3", "<U2", "<M8[ms]", "<m8[D]", "i4,(2,)f8,U3"]
        )
    )
    dtype = np.dtype(kind)
    shape = draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    size = dtype.itemsize * math.prod(shape)
    if dtype.kind == "U" or dtype.names:  # arbitrary bytes are no Unicode
        return np.zeros(shape, dtype=dtype)
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype.kind == "b":
        raw = bytes(item & 1 for item in raw)
    found = np.frombuffer(raw, dtype=dtype).reshape(shape)
    return np.asfortranarray(found) if draw(st.booleans()) else found


@given(_arrays())
def test_arrays_keep_dtype_shape_and_bytes(array: np.ndarray[Any, Any]) -> None:
    back = decode(encode(array))
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    if array.ndim == 0:
        scalar = decode(encode(array[()]))
        assert type(scalar) is type(array[()])


_SEEDS = [
    encode(value)
    for value in (
        [1, "a", {"b": (1.5, None)}, {2, 3}],
        np.arange(6).reshape(2, 3),
        [Point(1, [2] * 20)],
        np.array([(1, 2.0)], dtype="i4,f8"),
    )
]


@given(st.binary(max_size=200).map(lambda tail: b"\x01" + tail))
@settings(max_examples=500)
def test_hostile_bytes_give_a_value_or_a_clear_error(raw: bytes) -> None:
    _open(raw)


@given(st.sampled_from(_SEEDS), st.data())
@settings(max_examples=500)
def test_damaged_bytes_give_a_value_or_a_clear_error(raw: bytes, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(1, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _open(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))


def _open(raw: bytes) -> None:
    before = set(sys.modules)
    try:
        decode(raw)
    except InvalidInput as error:
        assert error.hint  # noqa: PT017  # a value is as good
    assert not {
        name for name in set(sys.modules) - before if not name.startswith(("numpy", "pyarrow", "zoneinfo"))
    }


@given(st.integers(2, 5))
def test_a_pickle_is_never_opened(protocol: int) -> None:
    with pytest.raises(InvalidInput):
        decode(pickle.dumps(print, protocol))
