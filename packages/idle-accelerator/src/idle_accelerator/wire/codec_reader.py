"""The reading side of wire.codec. The bytes may come from an enemy."""

import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from idle_accelerator.wire.codec_arrays import load_array, load_table
from idle_accelerator.wire.codec_layout import COMPLEX, DATE, DELTA, DOUBLE, MAX_VALUES, TIME, Record, damaged

_MANY_KEYS = 1000
_ZONE_LENGTH = 100


class Reader:
    def __init__(self, raw: bytes, classes: Mapping[str, type]) -> None:
        self.raw = raw
        self.place = 0
        self._classes = classes
        self._values = 0

    def read(self, depth: int) -> Any:
        method = _READERS.get(self.byte())
        if method is None:
            raise damaged("unknown tag")
        return method(self, depth)

    def byte(self) -> int:
        value = self.raw[self.place]
        self.place += 1
        return value

    def count(self) -> int:
        number = shift = 0
        while True:
            part = self.byte()
            number |= (part & 127) << shift
            if part < 128:
                return number
            shift += 7
            if shift > 63:
                raise damaged("a length beyond all bounds")

    def take(self, length: int) -> bytes:
        start, end = self.place, self.place + length
        if end > len(self.raw):
            raise damaged("cut short")
        self.place = end
        return self.raw[start:end]

    def none(self, _depth: int) -> None:
        return None

    def true(self, _depth: int) -> bool:
        return True

    def false(self, _depth: int) -> bool:
        return False

    def integer(self, _depth: int) -> int:
        return int.from_bytes(self.take(self.count()), "little", signed=True)

    def real(self, _depth: int) -> float:
        return DOUBLE.unpack(self.take(8))[0]

    def imaginary(self, _depth: int) -> complex:
        return complex(*COMPLEX.unpack(self.take(16)))

    def text(self, _depth: int) -> str:
        return self.take(self.count()).decode("utf-8", "surrogatepass")

    def octets(self, _depth: int) -> bytes:
        return self.take(self.count())

    def listed(self, depth: int) -> list[Any]:
        number, below = self._open(depth)
        return [self.read(below) for _ in range(number)]

    def tupled(self, depth: int) -> tuple[Any, ...]:
        return tuple(self.listed(depth))

    def mutable_set(self, depth: int) -> set[Any]:
        items = self.listed(depth)
        return set(_hashable(items))

    def frozen_set(self, depth: int) -> frozenset[Any]:
        return frozenset(self.mutable_set(depth))

    def mapping(self, depth: int) -> dict[Any, Any]:
        number, below = self._open(depth)
        keys: list[Any] = []
        values: list[Any] = []
        for _ in range(number):
            keys.append(self.read(below))
            values.append(self.read(below))
        return dict(zip(_hashable(keys), values, strict=True))

    def packed(self, _depth: int) -> list[Any]:
        code = chr(self.byte())
        if code not in "dq":
            raise damaged("unknown packing")
        packed: array[Any] = array(code)
        packed.frombytes(self.take(8 * self.count()))
        if sys.byteorder == "big":
            packed.byteswap()
        return packed.tolist()

    def record(self, depth: int) -> Any:
        number, below = self._open(depth)
        name = self._expect(b"s"[0], below)
        values: dict[str, Any] = {}
        for _ in range(number):
            field = self._expect(b"s"[0], below)
            values[field] = self.read(below)
        if len(values) != number:
            raise damaged("a field twice")
        cls = self._classes.get(name)
        if cls is None or {field.name for field in fields(cls)} != values.keys():
            return Record(name, values)
        instance: Any = cast("Any", object.__new__(cls))
        for field, value in values.items():
            object.__setattr__(instance, field, value)
        return instance

    def moment(self, depth: int) -> datetime:
        (ordinal,) = DATE.unpack(self.take(4))
        hour, minute, second, microsecond, fold = TIME.unpack(self.take(8))
        clock = time(hour, minute, second, microsecond, self._zone(depth), fold=fold)
        return datetime.combine(date.fromordinal(ordinal), clock)

    def day(self, _depth: int) -> date:
        return date.fromordinal(DATE.unpack(self.take(4))[0])

    def clock_time(self, depth: int) -> time:
        hour, minute, second, microsecond, fold = TIME.unpack(self.take(8))
        return time(hour, minute, second, microsecond, self._zone(depth), fold=fold)

    def duration(self, _depth: int) -> timedelta:
        return timedelta(*DELTA.unpack(self.take(12)))

    def decimal(self, _depth: int) -> Decimal:
        return Decimal(self.take(self.count()).decode("ascii"))

    def uuid(self, _depth: int) -> UUID:
        return UUID(bytes=self.take(16))

    def array(self, depth: int) -> Any:
        return load_array(self._part(depth), self._part(depth), self.take(self.count()), scalar=False)

    def array_scalar(self, depth: int) -> Any:
        return load_array(self._part(depth), self._part(depth), self.take(self.count()), scalar=True)

    def table(self, _depth: int) -> Any:
        return load_table(self.take(self.count()))

    def _part(self, depth: int) -> Any:
        if depth < 0:
            raise damaged("nested too deep")
        return self.read(depth - 1)

    def _open(self, depth: int) -> tuple[int, int]:
        number = self.count()
        self._values += number
        if depth <= 0 or number > len(self.raw) - self.place or self._values > MAX_VALUES:
            raise damaged("nested too deep, or too many values")
        return number, depth - 1

    def _expect(self, tag: int, depth: int) -> str:
        if self.raw[self.place] != tag:
            raise damaged("a name is no text")
        return self.read(depth)

    def _zone(self, depth: int) -> tzinfo | None:
        said = self._part(depth)
        if said is None:
            return None
        offset, key = said
        zone = _named_zone(key) if key else None
        if zone is not None:
            return zone
        if offset is None:
            return None
        return UTC if offset == timedelta(0) else timezone(offset)


def _hashable(keys: list[Any]) -> list[Any]:
    """The keys, unless they were chosen to collide: then a set of them would take quadratic time."""
    if len(keys) > _MANY_KEYS and len(set(map(hash, keys))) < len(keys) // 2:
        raise damaged("keys that collide")
    return keys


def _named_zone(key: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo  # noqa: PLC0415  # reads the system's table of zones: only where a value has one

    parts = key.split("/")
    if len(key) > _ZONE_LENGTH or not all(
        part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in parts
    ):
        return None
    try:
        return ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        return None


_READERS: dict[int, Callable[[Reader, int], Any]] = {
    ord(tag): method
    for tag, method in {
        "N": Reader.none,
        "T": Reader.true,
        "F": Reader.false,
        "i": Reader.integer,
        "f": Reader.real,
        "c": Reader.imaginary,
        "s": Reader.text,
        "b": Reader.octets,
        "l": Reader.listed,
        "t": Reader.tupled,
        "S": Reader.mutable_set,
        "Z": Reader.frozen_set,
        "d": Reader.mapping,
        "A": Reader.packed,
        "R": Reader.record,
        "D": Reader.moment,
        "y": Reader.day,
        "h": Reader.clock_time,
        "w": Reader.duration,
        "m": Reader.decimal,
        "u": Reader.uuid,
        "n": Reader.array,
        "g": Reader.array_scalar,
        "a": Reader.table,
    }.items()
}
