"""Output of tasks in the store: every byte once, the tail kept, gaps said."""

import itertools
import random

import pytest
from pool_builders import command_spec, succeeded
from store_bench import StoreBench

from idle_accelerator.scheduler.store.logs import KEPT_BYTES
from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.ids import AttemptRef

PIECE = 256 * 1024


def chunk(ref: AttemptRef, offset: int, data: bytes, stream: str = "stdout") -> LogChunk:
    return LogChunk(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, stream=stream, offset=offset, data=data
    )


@pytest.fixture
def running(bench: StoreBench) -> tuple[str, AttemptRef]:
    job_id, node = bench.submit(command_spec()), bench.enrol()
    return node, bench.lease(node, job_id)[0]


def test_pieces_in_any_order_and_repeated_read_as_one(
    bench: StoreBench, running: tuple[str, AttemptRef]
) -> None:
    node, ref = running
    text = bytes(range(256)) * 4
    cuts = sorted(random.Random(1).sample(range(1, len(text)), 12))
    pieces = [chunk(ref, start, text[start:end]) for start, end in itertools.pairwise([0, *cuts, len(text)])]
    shuffled = pieces * 2
    random.Random(2).shuffle(shuffled)
    for piece in shuffled:
        bench.log(node, piece)
    piece = bench.read_log(ref)
    assert (piece.offset, piece.data, piece.dropped_bytes) == (0, text, 0)


def test_a_piece_cut_anew_when_sent_again_loses_nothing(
    bench: StoreBench, running: tuple[str, AttemptRef]
) -> None:
    node, ref = running
    bench.log(node, chunk(ref, 0, b"hello"))
    bench.log(node, chunk(ref, 0, b"hello world"))
    assert bench.read_log(ref).data == b"hello world"
    bench.log(node, chunk(ref, 5, b" world, again"))
    bench.log(node, chunk(ref, 0, b"he"))
    assert bench.read_log(ref).data == b"hello world, again"


def test_the_tail_is_kept_and_what_is_gone_is_said(
    bench: StoreBench, running: tuple[str, AttemptRef]
) -> None:
    node, ref = running
    for number in range(8):
        bench.log(node, chunk(ref, number * PIECE, bytes([number]) * PIECE))
    piece = bench.read_log(ref)
    assert piece.offset + len(piece.data) == 8 * PIECE
    assert len(piece.data) == KEPT_BYTES
    assert piece.dropped_bytes == piece.offset == 8 * PIECE - KEPT_BYTES


def test_pieces_from_before_the_tail_take_no_room(bench: StoreBench, running: tuple[str, AttemptRef]) -> None:
    node, ref = running
    end = 64 * PIECE
    bench.log(node, chunk(ref, end, b"end"))
    for number in range(40):
        assert bench.log(node, chunk(ref, number * PIECE, b"x" * PIECE)) == set()
    assert bench.read_log(ref).data == b"end"


def test_a_gap_ends_a_piece_and_the_next_says_how_much_is_missing(
    bench: StoreBench, running: tuple[str, AttemptRef]
) -> None:
    node, ref = running
    bench.log(node, chunk(ref, 0, b"ab"), chunk(ref, 10, b"cd"))
    first = bench.read_log(ref)
    assert (first.data, first.dropped_bytes) == (b"ab", 0)
    second = bench.read_log(ref, offset=2)
    assert (second.offset, second.data, second.dropped_bytes) == (10, b"cd", 8)
    end = bench.read_log(ref, offset=12)
    assert (end.offset, end.data, end.dropped_bytes) == (12, b"", 0)


def test_streams_and_attempts_do_not_mix(bench: StoreBench, running: tuple[str, AttemptRef]) -> None:
    node, ref = running
    bench.log(node, chunk(ref, 0, b"out"), chunk(ref, 0, b"err", "stderr"))
    assert bench.read_log(ref).data == b"out"
    assert bench.read_log(ref, "stderr").data == b"err"


def test_only_the_attempts_own_node_may_write(bench: StoreBench, running: tuple[str, AttemptRef]) -> None:
    _node, ref = running
    assert bench.log(bench.enrol("thief"), chunk(ref, 0, b"forged")) == set()
    assert bench.read_log(ref).data == b""


def test_the_last_words_may_come_after_the_end(bench: StoreBench, running: tuple[str, AttemptRef]) -> None:
    node, ref = running
    bench.exchange(node, reports=[succeeded(ref)])
    bench.log(node, chunk(ref, 0, b"bye"))
    assert bench.read_log(ref).data == b"bye"
