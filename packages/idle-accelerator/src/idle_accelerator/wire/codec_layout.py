"""What both sides of wire.codec agree on: bounds, the layout of fixed-size parts, and the record."""

import struct
from collections.abc import Mapping
from typing import Any

from idle_accelerator.errors import InvalidInput

VERSION = 1
MAX_DEPTH = 100
MAX_VALUES = 10_000_000
MAX_BYTES = 1 << 31
DOUBLE = struct.Struct("<d")
COMPLEX = struct.Struct("<2d")
DATE = struct.Struct("<i")
TIME = struct.Struct("<BBBIB")
DELTA = struct.Struct("<iiI")


class Record:
    """An instance of a dataclass that the reader does not have, or has with other fields.

    ``record.x`` reads the field ``x``; ``record.fields`` is all of them; ``type_name`` is the class's ``module.qualname``.
    """

    __slots__ = ("fields", "type_name")

    def __init__(self, type_name: str, fields: Mapping[str, Any]) -> None:
        self.type_name = type_name
        self.fields = dict(fields)

    def __getattr__(self, name: str) -> Any:
        if name in Record.__slots__ or name not in self.fields:
            raise AttributeError(f"no field {name!r}")
        return self.fields[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and (other.type_name, other.fields) == (self.type_name, self.fields)

    def __hash__(self) -> int:
        return hash((self.type_name, tuple(self.fields.items())))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.type_name.rpartition('.')[2]}({inside})"


def damaged(detail: str) -> InvalidInput:
    return InvalidInput(
        f"the bytes are not a whole value ({detail}).", field="result", hint="Run the task again."
    )
