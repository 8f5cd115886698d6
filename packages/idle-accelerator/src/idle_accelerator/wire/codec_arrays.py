"""NumPy arrays and Arrow tables for wire.codec. Neither library is imported until a value needs it.

Arrays travel as dtype, shape and their bytes in C order; object dtypes are refused both ways. Tables travel as an
uncompressed Arrow IPC stream; a reader refuses compressed ones, whose size once opened nothing bounds, and extension
types, whose readers are code.
"""

import math
import re
import struct
import sys
from types import ModuleType
from typing import Any, cast

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.codec_layout import damaged

_PLAIN_DTYPE = re.compile(
    r"^[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU][1-9]\d{0,8}|[mM]8(\[[\da-zA-Z/]{1,20}\])?)$"
)
_PADDING = re.compile(r"^\|V[1-9]\d{0,8}$")
_MAX_DIMENSIONS = 32


def is_array(value: Any) -> bool:
    """A NumPy array or scalar."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def is_table(value: Any) -> bool:
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(value, arrow.Table | arrow.RecordBatch)


def dump_array(value: Any) -> tuple[bool, Any, tuple[int, ...], memoryview]:
    """(is a scalar, dtype, shape, bytes in C order). Raises InvalidInput for object dtypes and masked arrays."""
    import numpy as np  # noqa: PLC0415  # it is imported already: the value is its own

    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInput(
            "a masked array is not plain data.", hint="Return .filled(…), or data and mask as a pair."
        )
    found = np.asarray(value)
    if found.dtype.hasobject:
        raise InvalidInput(
            "an array of Python objects is not plain data.", hint="Return .tolist(), or use a plain dtype."
        )
    described = _as_plain(np.lib.format.dtype_to_descr(found.dtype))
    if not _is_plain_dtype(described):
        raise InvalidInput(
            f"arrays of dtype {found.dtype} do not travel.", hint="Convert it with .astype(…)."
        )
    content = np.ascontiguousarray(found).reshape(-1).view(np.uint8).data if found.size else memoryview(b"")
    return isinstance(value, np.generic), described, found.shape, content


def load_array(described: Any, shape: Any, content: bytes, *, scalar: bool) -> Any:
    """An array of its own, writable memory. Raises InvalidInput for what ``dump_array`` never writes."""
    np = _library("numpy", "NumPy")
    if not _is_shape(shape) or not _is_plain_dtype(described):
        raise damaged("not an array")
    dtype = np.lib.format.descr_to_dtype(_as_numpy(described))
    if dtype.hasobject or dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise damaged("not an array of this shape")
    loaded = (
        np.frombuffer(content, dtype=dtype).reshape(shape).copy() if content else np.empty(shape, dtype=dtype)
    )
    return loaded[()] if scalar else loaded


def dump_table(value: Any) -> memoryview:
    pa = _library("pyarrow", "Arrow")

    table = pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return memoryview(sink.getvalue())


def load_table(content: bytes) -> Any:
    """A table whose offsets and lengths have all been checked. Raises InvalidInput otherwise."""
    pa = _library("pyarrow", "Arrow")
    try:
        for message in pa.ipc.MessageReader.open_stream(content):
            _check_message(message.type, bytes(message.metadata))
        with pa.ipc.open_stream(content) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, struct.error, StopIteration) as error:
        raise damaged("not an Arrow table") from error
    return table


def _check_message(kind: str, metadata: bytes) -> None:
    """Refuses compression and extension types before Arrow reads the batch; offsets as in Arrow's Message.fbs."""
    if b"ARROW:extension:name" in metadata:
        raise damaged("an Arrow extension type")
    if kind == "schema":
        return
    header = _follow(metadata, struct.unpack_from("<I", metadata, 0)[0], 2)
    if kind == "dictionary":
        header = _follow(metadata, header, 1)
    if header and _field(metadata, header, 3):
        raise damaged("a compressed Arrow table")


def _field(buffer: bytes, table: int, slot: int) -> int:
    """Where the field of a flatbuffer table stands; 0 when it is left out."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    length = struct.unpack_from("<H", buffer, vtable)[0]
    place = 4 + 2 * slot
    offset = struct.unpack_from("<H", buffer, vtable + place)[0] if place < length else 0
    return table + offset if offset else 0


def _follow(buffer: bytes, table: int, slot: int) -> int:
    place = _field(buffer, table, slot)
    return place + struct.unpack_from("<I", buffer, place)[0] if place else 0


def _as_plain(described: Any) -> Any:
    """NumPy's description of a dtype, with tuples all the way down."""
    if not isinstance(described, list | tuple):
        return described
    return tuple(_as_plain(part) for part in cast("list[Any]", described))


def _as_numpy(described: Any) -> Any:
    """The other way: a list of fields, as NumPy wants it."""
    if isinstance(described, str):
        return described
    return [(name, _as_numpy(dtype), *shape) for name, dtype, *shape in described]


def _is_plain_dtype(described: Any) -> bool:
    """A plain dtype's name, or a tuple of (name, dtype) and (name, dtype, shape)."""
    if isinstance(described, str):
        return _PLAIN_DTYPE.match(described) is not None
    if not isinstance(described, tuple):
        return False
    fields = cast("tuple[Any, ...]", described)
    return 0 < len(fields) <= 1000 and all(_is_plain_field(field) for field in fields)


def _is_plain_field(field: Any) -> bool:
    if not isinstance(field, tuple):
        return False
    parts = cast("tuple[Any, ...]", field)
    if len(parts) not in (2, 3) or not isinstance(parts[0], str):
        return False
    if len(parts) == 3 and not _is_shape(parts[2]):
        return False
    return _is_plain_dtype(parts[1]) or (isinstance(parts[1], str) and bool(_PADDING.match(parts[1])))


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, tuple):
        return False
    sizes = cast("tuple[Any, ...]", shape)
    return len(sizes) <= _MAX_DIMENSIONS and all(type(size) is int and size >= 0 for size in sizes)


def _library(module: str, name: str) -> Any:
    try:
        found: ModuleType = __import__(module)
    except ImportError:
        raise InvalidInput(
            f"this result needs {name}, which is not installed here.",
            field="result",
            hint=f"pip install {module}",
        ) from None
    return found
