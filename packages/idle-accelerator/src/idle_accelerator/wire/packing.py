"""Many byte strings in one payload, readable by index without reading the rest.

Layout, little-endian: ``b"IPK1"``, u32 count n, n+1 u64 offsets relative to the end of the table, then the items.
"""

import struct
from collections.abc import Sequence

from idle_accelerator.errors import InvalidInput

_MAGIC = b"IPK1"
_HEAD = struct.Struct("<4sI")
HEAD_BYTES = _HEAD.size


def pack(items: Sequence[bytes]) -> bytes:
    offsets = [0]
    for item in items:
        offsets.append(offsets[-1] + len(item))
    return b"".join([_HEAD.pack(_MAGIC, len(items)), struct.pack(f"<{len(offsets)}Q", *offsets), *items])


def count_of_head(head: bytes) -> int:
    """How many items the first HEAD_BYTES of a pack announce. Raises InvalidInput when they are not a pack's."""
    if len(head) < HEAD_BYTES:
        raise InvalidInput("too short to be packed arguments.", field="arguments")
    magic, number = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise InvalidInput("not packed arguments.", field="arguments")
    return int(number)


def count(packed: bytes) -> int:
    """How many items there are. Raises InvalidInput when the bytes are not a whole pack."""
    number = count_of_head(packed)
    table_end = _HEAD.size + 8 * (number + 1)
    if len(packed) < table_end:
        raise InvalidInput("not packed arguments.", field="arguments")
    if struct.unpack_from("<Q", packed, table_end - 8)[0] != len(packed) - table_end:
        raise InvalidInput("packed arguments are cut short.", field="arguments")
    return number


def item(packed: bytes, index: int) -> bytes:
    """The item at ``index``. Raises InvalidInput when there is none."""
    number = count(packed)
    if not 0 <= index < number:
        raise InvalidInput(f"no item {index} in packed arguments of {number}.", field="arguments")
    table_end = _HEAD.size + 8 * (number + 1)
    start, end = struct.unpack_from("<2Q", packed, _HEAD.size + 8 * index)
    if not start <= end <= len(packed) - table_end:
        raise InvalidInput("packed arguments are damaged.", field="arguments")
    return packed[table_end + start : table_end + end]
