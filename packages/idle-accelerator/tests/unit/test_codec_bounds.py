"""What is no plain data is refused with its path and a way out; what could hurt a reader is refused by the reader."""

import io
import math
import pathlib
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.codec import MAX_DEPTH, Record, decode, encode
from idle_accelerator.wire.codec_arrays import load_table


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


@dataclass
class Inner:
    value: Any


@dataclass
class Outer:
    name: str
    inner: list[Any] = field(default_factory=list)


Pair = namedtuple("Pair", "a b")  # noqa: PYI024  # the plain one is what users have


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "result"),
        ([0, 1, object()], "result[2]"),
        ((1, {"k": [object()]}), "result[1]['k'][0]"),
        ({1: {2: 3}, (1, Colour.RED): 4}, "result.keys[tuple][1]"),
        (Outer("a", [Inner(object())]), "result.inner[0].value"),
        ({Colour.RED}, "result{…}"),
        (lambda: 1, "result"),
        (int, "result"),
        (np.array([object()]), "result"),
        ([np.ma.masked_array([1, 2], [0, 1])], "result[0]"),
        ({"f": io.BytesIO()}, "result['f']"),
    ],
)
def test_what_is_no_plain_data_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode(value)
    assert refused.value.field == path
    assert refused.value.hint


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ((number for number in range(3)), "list("),
        (range(3), "list("),
        (Colour.RED, ".value"),
        (pathlib.PurePosixPath("a"), "str(path)"),
        (object(), "results='pickle'"),
    ],
)
def test_the_refusal_says_what_to_return_instead(value: Any, hint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode(value)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, x=[1]), {"x": [1]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Pair(1, 2), (1, 2)),
        (Level.LOW, 1),
        (Word.YES, "yes"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
    ],
)
def test_subclasses_come_back_as_the_builtin_they_derive_from(value: Any, plain: Any) -> None:
    back = decode(encode(value))
    assert (type(back), back) == (type(plain), plain)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match="holds itself"):
        encode(loop)


def test_depth_is_bounded_for_writer_and_reader_alike() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(InvalidInput):
        encode([value])
    for tag in (b"l\x01", b"t\x01", b"S\x01", b"Z\x01", b"d\x01", b"n", b"g"):
        with pytest.raises(InvalidInput):
            decode(b"\x01" + tag * 100_000 + b"N")


@pytest.mark.parametrize("tag", [b"l", b"t", b"S", b"d", b"R", b"s", b"b", b"i", b"m", b"Ad", b"a"])
def test_an_announced_size_beyond_the_bytes_allocates_nothing(tag: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(b"\x01" + tag + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")


def test_an_array_that_is_larger_than_its_bytes_is_refused() -> None:
    good = encode(np.zeros(3))
    huge = encode((2**40,))[1:]
    assert good.count(encode((3,))[1:]) == 1
    with pytest.raises(InvalidInput):
        decode(good.replace(encode((3,))[1:], huge))


@pytest.mark.parametrize("dtype", ["|O", "O", "object", "V0", "S0", "|V8", "i4,O", "<f8\n", "datetime64"])
def test_only_dtypes_of_plain_numbers_and_texts_are_read(dtype: str) -> None:
    raw = b"\x01n" + encode(dtype)[1:] + encode((0,))[1:] + b"\x00"
    with pytest.raises(InvalidInput):
        decode(raw)


def test_keys_chosen_to_collide_are_refused_instead_of_taking_hours() -> None:
    modulus = sys.hash_info.modulus
    hostile = {modulus * (number + 1) for number in range(1200)}
    with pytest.raises(InvalidInput, match="collide"):
        decode(encode(hostile))


def test_a_dataclass_is_filled_without_running_its_code() -> None:
    ran: list[str] = []

    @dataclass
    class Trap:
        x: int

        def __post_init__(self) -> None:
            ran.append("ran")

    raw = encode(Trap(1))
    ran.clear()
    back = decode(raw, dataclasses={f"{Trap.__module__}.{Trap.__qualname__}": Trap})
    assert isinstance(back, Trap)
    assert (back.x, ran) == (1, [])


def test_a_dataclass_with_other_fields_comes_back_as_a_record() -> None:
    name = f"{Inner.__module__}.{Inner.__qualname__}"
    back = decode(encode(Inner(3)), dataclasses={name: Outer})
    assert back == Record(name, {"value": 3})
    assert repr(back) == "Inner(value=3)"
    with pytest.raises(AttributeError):
        _ = back.other


def test_tables_come_back_equal_and_batches_as_tables() -> None:
    table = pa.table(
        {"a": [1, None, 3], "b": pa.array(["x", "y", "x"]).dictionary_encode(), "c": [[1], [], None]}
    )
    assert decode(encode(table)) == table
    assert decode(encode(table.to_batches()[0])) == table


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("column", [list(range(1000)), pa.array(["a"] * 1000).dictionary_encode()])
def test_a_compressed_table_is_refused_because_nothing_bounds_it(codec: str, column: Any) -> None:
    table = pa.table({"a": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_table(table)
    with pytest.raises(InvalidInput, match="compressed"):
        load_table(sink.getvalue().to_pybytes())


def test_an_extension_type_of_a_table_is_refused_because_its_reader_is_code() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), metadata={b"ARROW:extension:name": b"evil"})])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.table({"a": [1]}, schema=schema))
    with pytest.raises(InvalidInput, match="extension"):
        load_table(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_damaged_table_gives_a_table_or_a_clear_error(place: int) -> None:
    raw = bytearray(encode(pa.table({"a": ["x", "yy"], "b": [1, 2]})))
    raw[min(place + 5, len(raw) - 1)] ^= 0xFF
    try:
        decode(bytes(raw))
    except InvalidInput as error:
        assert error.hint  # noqa: PT017  # a value is as good: some bytes are padding


def test_importing_the_codec_brings_no_library_along() -> None:
    code = (
        "import sys; import idle_accelerator.wire.codec as c; assert c.decode(c.encode([1.5, None])) == [1.5, None];"
        "print([name for name in ('numpy', 'pyarrow', 'pydantic', 'zoneinfo') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_not_so_finite_numbers_survive() -> None:
    back = decode(encode([math.inf, -math.inf, math.nan, complex(math.nan, 1)]))
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])
    assert math.isnan(back[3].real)
