"""Packed arguments: exact there and back, and hostile bytes give an error, never something else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.packing import HEAD_BYTES, count, count_of_head, item, pack


@given(st.lists(st.binary(max_size=200), max_size=50))
def test_every_item_comes_back_as_it_was(items: list[bytes]) -> None:
    packed = pack(items)
    assert count(packed) == count_of_head(packed[:HEAD_BYTES]) == len(items)
    assert [item(packed, index) for index in range(len(items))] == items


@given(st.lists(st.binary(max_size=50), max_size=20), st.data())
def test_a_cut_pack_is_refused_at_any_length(items: list[bytes], data: st.DataObject) -> None:
    packed = pack(items)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(InvalidInput):
        count(packed[:cut])


@given(st.binary(max_size=300), st.integers(-5, 1 << 40))
def test_foreign_bytes_give_an_error_or_bytes(raw: bytes, index: int) -> None:
    for hostile in (raw, b"IPK1" + raw):
        with contextlib.suppress(InvalidInput):
            assert isinstance(item(hostile, index), bytes)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_a_flipped_offset_never_reads_outside(items: list[bytes], data: st.DataObject) -> None:
    packed = bytearray(pack(items))
    place = data.draw(st.integers(0, len(items) - 1))
    struct.pack_into("<Q", packed, HEAD_BYTES + 8 * place, data.draw(st.integers(0, (1 << 64) - 1)))
    for index in range(len(items)):
        with contextlib.suppress(InvalidInput):
            assert len(item(bytes(packed), index)) <= sum(map(len, items))


def test_an_announced_giant_costs_nothing() -> None:
    with pytest.raises(InvalidInput):
        count(b"IPK1" + struct.pack("<I", 0xFFFFFFFF) + b"\0" * 64)


@pytest.mark.parametrize("index", [-1, 2, 1 << 70])
def test_there_is_no_item_beyond_the_last(index: int) -> None:
    with pytest.raises(InvalidInput):
        item(pack([b"a", b"b"]), index)
