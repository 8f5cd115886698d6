"""Plain data in bytes, and back: what results travel as. Reading runs no code, whoever wrote the bytes.

Layout: the byte 0x01, then one value. A value is a tag (one ASCII letter) and what the tag says: lengths and counts are
unsigned LEB128, other numbers little-endian. Lists of one sort of number are packed (tag ``A``), so that a million floats
cost eight million bytes and no loop.

Subclasses of the built-in containers, numbers and texts (Counter, defaultdict, named tuples, StrEnum …) come back as the
built-in that they derive from. Bounds: MAX_DEPTH levels, MAX_VALUES values outside packed lists and arrays, MAX_BYTES bytes.
"""

import struct
from collections.abc import Mapping
from typing import Any

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.codec_layout import MAX_BYTES, MAX_DEPTH, MAX_VALUES, VERSION, Record, damaged
from idle_accelerator.wire.codec_reader import Reader
from idle_accelerator.wire.codec_writer import Refused, Writer

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Record", "decode", "encode"]


def encode(value: Any, *, name: str = "result") -> bytes:
    """The value as bytes. Raises InvalidInput for what is no plain data; its field is a path such as ``result[3].x``."""
    writer = Writer()
    try:
        writer.write(value, MAX_DEPTH)
    except Refused as refused:
        path = name + "".join(reversed(refused.path))
        raise InvalidInput(refused.message, field=path, hint=refused.hint) from None
    except RecursionError:
        raise InvalidInput("nested too deep.", field=name, hint="Return a flatter value.") from None
    if len(writer.out) > MAX_BYTES:
        raise InvalidInput(
            f"larger than {MAX_BYTES} bytes.",
            field=name,
            hint="Write it to a file, and collect that as an output.",
        )
    return bytes(writer.out)


def decode(raw: bytes | bytearray | memoryview, *, dataclasses: Mapping[str, type] | None = None) -> Any:
    """The value that the bytes stand for. They may come from an enemy: nothing in them is ever run.

    A dataclass becomes an instance of ``dataclasses["module.qualname"]`` where that class has just these fields, else a
    Record. Its fields are set as unpickling would set them: ``__init__`` and ``__post_init__`` do not run.
    Raises InvalidInput when the bytes are damaged or over a bound, or need NumPy or Arrow where it is not installed.
    """
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"larger than {MAX_BYTES} bytes.", field="result")
    reader = Reader(bytes(raw), dataclasses or {})
    try:
        if reader.byte() != VERSION:
            raise damaged("not in a format that this version reads")
        value = reader.read(MAX_DEPTH)
    except InvalidInput:
        raise
    except (
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
        ArithmeticError,
        struct.error,
        RecursionError,
    ) as error:
        raise damaged(type(error).__name__) from error
    except MemoryError as error:
        raise damaged("too large for this machine's memory") from error
    if reader.place != len(reader.raw):
        raise damaged("something follows the value")
    return value
