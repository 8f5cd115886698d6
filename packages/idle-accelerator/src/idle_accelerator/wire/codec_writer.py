"""The writing side of wire.codec."""

import sys
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.codec_arrays import dump_array, dump_table, is_array, is_table
from idle_accelerator.wire.codec_layout import (
    COMPLEX,
    DATE,
    DELTA,
    DOUBLE,
    MAX_DEPTH,
    MAX_VALUES,
    TIME,
    VERSION,
    Record,
)

_PACK_FROM = 16


class Refused(Exception):
    """Unwinds to ``encode``; each level in between adds its part of the path."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path: list[str] = []


class Writer:
    def __init__(self) -> None:
        self.out = bytearray((VERSION,))
        self._values = 0

    def write(self, value: object, depth: int) -> None:
        method = _WRITERS.get(type(value)) or _writer_of_other(value)
        if method is None:
            raise Refused(f"{_type_name(type(value))} is not plain data.", _hint(value))
        method(self, value, depth)

    def count(self, number: int) -> None:
        out = self.out
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)

    def none(self, _value: None, _depth: int) -> None:
        self.out += b"N"

    def boolean(self, value: bool, _depth: int) -> None:
        self.out += b"T" if value else b"F"

    def integer(self, value: int, _depth: int) -> None:
        length = (value.bit_length() + 8) // 8
        self.out += b"i"
        self.count(length)
        self.out += int(value).to_bytes(length, "little", signed=True)

    def real(self, value: float, _depth: int) -> None:
        self.out += b"f"
        self.out += DOUBLE.pack(value)

    def imaginary(self, value: complex, _depth: int) -> None:
        self.out += b"c"
        self.out += COMPLEX.pack(value.real, value.imag)

    def sized(self, tag: bytes, content: bytes | bytearray | memoryview) -> None:
        self.out += tag
        self.count(len(content))
        self.out += content

    def text(self, value: str, _depth: int) -> None:
        self.sized(b"s", value.encode("utf-8", "surrogatepass"))

    def octets(self, value: bytes | bytearray | memoryview, _depth: int) -> None:
        self.sized(b"b", bytes(value))

    def listed(self, value: list[Any], depth: int) -> None:
        if len(value) >= _PACK_FROM and self._packed(value):
            return
        self._items(b"l", value, depth, "[{}]")

    def tupled(self, value: tuple[Any, ...], depth: int) -> None:
        self._items(b"t", value, depth, "[{}]")

    def mutable_set(self, value: set[Any], depth: int) -> None:
        self._items(b"S", value, depth, "{{…}}")

    def frozen_set(self, value: frozenset[Any], depth: int) -> None:
        self._items(b"Z", value, depth, "{{…}}")

    def mapping(self, value: dict[Any, Any], depth: int) -> None:
        below = self._open(b"d", value, depth)
        for key, item in value.items():
            try:
                self.write(key, below)
            except Refused as refused:
                refused.path.append(f".keys[{_short(key)}]")
                raise
            try:
                self.write(item, below)
            except Refused as refused:
                refused.path.append(f"[{_short(key)}]")
                raise

    def record(self, value: Any, depth: int) -> None:
        known = isinstance(value, Record)
        name = value.type_name if known else f"{type(value).__module__}.{type(value).__qualname__}"
        names = list(value.fields) if known else [field.name for field in fields(value)]
        below = self._open(b"R", names, depth)
        self.text(name, below)
        for field in names:
            self.text(field, below)
            try:
                self.write(value.fields[field] if known else getattr(value, field), below)
            except AttributeError:
                refused = Refused("the field has no value.", "Give it one.")
                refused.path.append(f".{field}")
                raise refused from None
            except Refused as refused:
                refused.path.append(f".{field}")
                raise

    def moment(self, value: datetime, depth: int) -> None:
        self.out += b"D"
        self.out += DATE.pack(value.toordinal())
        self._clock(value)
        self._zone(value.tzinfo, value.utcoffset(), depth)

    def day(self, value: date, _depth: int) -> None:
        self.out += b"y"
        self.out += DATE.pack(value.toordinal())

    def clock_time(self, value: time, depth: int) -> None:
        self.out += b"h"
        self._clock(value)
        self._zone(value.tzinfo, value.utcoffset(), depth)

    def duration(self, value: timedelta, _depth: int) -> None:
        self.out += b"w"
        self.out += DELTA.pack(value.days, value.seconds, value.microseconds)

    def decimal(self, value: Decimal, _depth: int) -> None:
        self.sized(b"m", str(value).encode())

    def uuid(self, value: UUID, _depth: int) -> None:
        self.out += b"u"
        self.out += value.bytes

    def array(self, value: Any, depth: int) -> None:
        try:
            scalar, dtype, shape, content = dump_array(value)
        except InvalidInput as error:
            raise Refused(error.message, error.hint or "") from None
        self.out += b"g" if scalar else b"n"
        self.write(dtype, depth - 1)
        self.write(shape, depth - 1)
        self.sized(b"", content)

    def table(self, value: Any, _depth: int) -> None:
        self.sized(b"a", dump_table(value))

    def _open(self, tag: bytes, items: Collection[Any], depth: int) -> int:
        self._values += len(items)
        if depth <= 0:
            raise Refused(
                f"nested deeper than {MAX_DEPTH} levels, or holds itself.", "Return a flatter value."
            )
        if self._values > MAX_VALUES:
            raise Refused(f"more than {MAX_VALUES} values.", "Return a NumPy array, or write a file.")
        self.out += tag
        self.count(len(items))
        return depth - 1

    def _items(self, tag: bytes, items: Collection[object], depth: int, path: str) -> None:
        below = self._open(tag, items, depth)
        writers, place = _WRITERS, 0
        try:
            for place, item in enumerate(items):  # noqa: B007  # the place is read when an item is refused
                method = writers.get(type(item))
                if method is None:
                    self.write(item, below)
                else:
                    method(self, item, below)
        except Refused as refused:
            refused.path.append(path.format(place))
            raise

    def _packed(self, items: list[Any]) -> bool:
        kinds = set(map(type, items))
        if kinds == {float}:
            packed = array("d", items)
        elif kinds == {int}:
            try:
                packed = array("q", items)
            except OverflowError:
                return False
        else:
            return False
        if sys.byteorder == "big":
            packed.byteswap()
        self.out += b"A"
        self.out += packed.typecode.encode()
        self.count(len(packed))
        self.out += packed.tobytes()
        return True

    def _clock(self, value: datetime | time) -> None:
        self.out += TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)

    def _zone(self, zone: tzinfo | None, offset: timedelta | None, depth: int) -> None:
        """None, or the offset from UTC at that moment and the zone's IANA name (empty when it has none)."""
        if zone is None:
            self.write(None, depth - 1)
            return
        key = getattr(zone, "key", "") if type(zone).__module__.startswith("zoneinfo") else ""
        self.write((offset, str(key)), depth - 1)


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short(key: Any) -> str:
    text = repr(key) if isinstance(key, str | int | float | bool | bytes | type(None)) else type(key).__name__
    return text if len(text) <= 40 else f"{text[:39]}…"


def _hint(value: object) -> str:
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module == "pandas":
        return "Return .to_numpy(), .to_dict(), .to_pydatetime() or pyarrow.Table.from_pandas(…)."
    if module == "torch":
        return "Return .detach().cpu().numpy()."
    if hasattr(value, "model_dump"):
        return "Return .model_dump()."
    if hasattr(value, "__fspath__"):
        return "Return str(path): and mind that the file stays on the node unless it is an output."
    if hasattr(kind, "__members__"):
        return "Return its .value."
    if isinstance(value, Iterable):
        return "Return list(…) of it."
    return (
        "Return None, numbers, text, bytes, dates, lists, dicts, dataclasses, NumPy arrays or Arrow tables; or submit with "
        "results='pickle' and open the result from nodes that you trust by name."
    )


_Method = Callable[[Writer, Any, int], None]
_WRITERS: dict[type, _Method] = {
    type(None): Writer.none,
    bool: Writer.boolean,
    int: Writer.integer,
    float: Writer.real,
    complex: Writer.imaginary,
    str: Writer.text,
    bytes: Writer.octets,
    bytearray: Writer.octets,
    memoryview: Writer.octets,
    list: Writer.listed,
    tuple: Writer.tupled,
    set: Writer.mutable_set,
    frozenset: Writer.frozen_set,
    dict: Writer.mapping,
    datetime: Writer.moment,
    date: Writer.day,
    time: Writer.clock_time,
    timedelta: Writer.duration,
    Decimal: Writer.decimal,
    UUID: Writer.uuid,
    Record: Writer.record,
}
_DERIVABLE = (dict, list, tuple, frozenset, set, str, bytes, int, float, complex)


def _writer_of_other(value: object) -> _Method | None:
    if is_array(value):
        return Writer.array
    if is_table(value):
        return Writer.table
    if is_dataclass(value) and not isinstance(value, type):
        return Writer.record
    return next((_WRITERS[kind] for kind in _DERIVABLE if isinstance(value, kind)), None)
