"""What a function's process says is the word of a stranger: whatever it says, it is bounded, in order and about its own calls."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.agent.folders import open_folder
from idle_accelerator.agent.workloads import frames, places
from idle_accelerator.agent.workloads.conversation import Call, Conversation, Output, Returned
from idle_accelerator.agent.workloads.stored_result import StoredResult


def conversation(workspace: Path = Path(__file__).parent, results="data", calls: int = 2) -> Conversation:
    made = Conversation(open_folder(workspace), results)
    made.pending.extend(Call(index=number, epoch=1, arguments=b"") for number in range(calls))
    return made


def frame(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return frames.HEAD.pack(len(body), kind) + body


def returned(index: int, result: bytes = b"r", *, encoding: int = frames.DATA, wall_s: float = 0.5) -> bytes:
    return frame(frames.RETURNED, frames.ENDED_BODY.pack(index, 1, wall_s), bytes((encoding,)), result)


def output(index: int, data: bytes, *, offset: int = 0, position: int = 0, stream: int = 1) -> bytes:
    return frame(frames.OUTPUT, frames.OUTPUT_BODY.pack(index, 1, stream, offset, position), data)


def raised(index: int, *texts: bytes, lengths: tuple[int, ...] = ()) -> bytes:
    head = frames.RAISED_BODY.pack(0, 0, *(lengths or tuple(map(len, texts))))
    return frame(frames.RAISED, frames.ENDED_BODY.pack(index, 1, 0.5), head, *texts)


def test_frames_are_heard_whole_however_they_are_cut():
    stream = (
        output(0, b"hello") + returned(0) + output(1, b"x", position=5) + raised(1, b"T", b"text", b"trace")
    )
    whole = conversation().hear(stream)
    assert [type(event) for event in whole] == [Output, Returned, Output, Returned]
    for size in (1, 2, 7):
        piecewise = conversation()
        events = [
            event for at in range(0, len(stream), size) for event in piecewise.hear(stream[at : at + size])
        ]
        assert events == whole
        assert not piecewise.pending


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_never_raise(chunks: list[bytes]):
    subject = conversation()
    for chunk in chunks:
        subject.hear(chunk)
    subject.hear_rest(b"".join(chunks))


@given(st.sampled_from([16, 17, 18, 19, 20, 21, 22]), st.binary(max_size=80))
def test_random_bodies_of_known_kinds_never_raise(kind: int, body: bytes):
    conversation().hear(frame(kind, body))
    conversation().hear(frame(kind, frames.CALL_BODY.pack(0, 1), body))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frames.HEAD.pack(frames.ANSWER_LIMIT_BYTES + 1, frames.RETURNED), "announced a frame"),
        (frame(99), "unknown kind"),
        (frame(frames.RETURNED, b"ab"), "too short"),
        (frame(frames.RETURNED, frames.ENDED_BODY.pack(0, 1, 0.0)), "too short"),
        (returned(1), "not its turn"),
        (returned(7), "not its turn"),
        (returned(0, encoding=frames.PICKLE), "another form"),
        (returned(0, encoding=9), "another form"),
        (returned(0, wall_s=float("nan")), "a call took"),
        (returned(0, wall_s=float("inf")), "a call took"),
        (returned(0, wall_s=-1.0), "a call took"),
        (raised(0, b"T", b"text", b"trace", lengths=(1, 4, 50)), "do not fit"),
        (raised(0, lengths=(2**32 - 1, 2**32 - 1, 2**32 - 1)), "do not fit"),
        (output(1, b"x"), "not its turn"),
        (output(0, b""), "0 bytes of output"),
        (output(0, b"x" * (frames.OUTPUT_LIMIT_BYTES + 1)), "bytes of output"),
        (output(0, b"x", stream=3), "stream 3"),
        (output(0, b"x", offset=2**63), "backwards"),
        (output(0, b"xy") + output(0, b"x", offset=1, position=2), "backwards"),
        (output(0, b"xy") + output(0, b"x", offset=2, position=1), "backwards"),
        (frame(frames.SHRUNK, bytes((3,))), "stream 3"),
        (frame(frames.SHRUNK), "too short"),
    ],
)
def test_nonsense_is_told_apart_and_nothing_after_it_is_heard(said: bytes, why: str):
    subject = conversation()
    subject.hear(said)
    assert subject.nonsense is not None
    assert why in subject.nonsense
    assert len(subject.pending) == 2
    assert subject.hear(returned(0)) == []


def test_what_came_before_nonsense_counts():
    subject = conversation()
    assert len(subject.hear(returned(0) + frame(99) + returned(1))) == 1
    assert subject.nonsense is not None
    assert [call.index for call in subject.pending] == [1]


def test_texts_of_an_exception_are_cut_to_the_limits_and_are_text():
    (event,) = conversation().hear(raised(0, b"T" * 400, b"\xff" * 30_000, b"t" * 150_000))
    assert isinstance(event, Returned)
    assert event.error is not None
    assert len(event.error.type_name) == frames.TYPE_NAME_LIMIT
    assert event.error.text == "�" * frames.TEXT_LIMIT
    assert len(event.error.traceback_text) == frames.TRACEBACK_LIMIT
    event.error.model_dump_json()


def stored(size: int) -> bytes:
    return frame(
        frames.STORED, frames.ENDED_BODY.pack(0, 1, 0.5), bytes((frames.DATA,)), struct.pack("<Q", size)
    )


@pytest.mark.parametrize(
    "case", ["file", "missing", "size", "link", "hard link", "pipe", "folder", "folder is a link"]
)
def test_a_large_result_is_a_plain_file_of_the_workspace_or_nothing(tmp_path: Path, case: str):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    places.make(workspace)
    path = workspace / places.OURS / places.RESULTS / places.result_name(0, 1)
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    if case in ("file", "size"):
        path.write_bytes(b"12345")
    elif case == "link":
        path.symlink_to(secret)
    elif case == "hard link":
        path.hardlink_to(secret)
    elif case == "pipe":
        os.mkfifo(path)
    elif case == "folder":
        path.mkdir()
    elif case == "folder is a link":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / path.name).write_bytes(b"12345")
        path.parent.rmdir()
        path.parent.symlink_to(elsewhere)
    subject = conversation(workspace)
    events = subject.hear(stored({"size": 4, "pipe": 0}.get(case, 5)))
    if case == "file":
        assert isinstance(events[0], Returned)
        assert isinstance(events[0].result, StoredResult)
        with events[0].result.open() as file:
            assert file.readall() == b"12345"
    else:
        assert events == []
        assert subject.nonsense is not None


def gathered(*sent: bytes) -> bytes:
    stream = b"".join(sent)
    return (frames.REPLIES_HEAD.pack(len(stream)) + stream).ljust(frames.REPLIES_BYTES, b"\0")


def test_replies_that_were_gathered_and_not_sent_count_after_the_end():
    subject = conversation()
    events = subject.hear_rest(gathered(output(0, b"x"), returned(0)))
    assert [type(event) for event in events] == [Output, Returned]
    assert [call.index for call in subject.pending] == [1]


def test_replies_that_were_sent_in_part_when_the_end_came_count_once():
    subject = conversation(calls=3)
    frames_sent = [output(0, b"x"), returned(0), returned(1)]
    first = subject.hear(b"".join(frames_sent)[: len(b"".join(frames_sent[:2])) + 5])
    assert [type(event) for event in first] == [Output, Returned]
    (rest,) = subject.hear_rest(gathered(*frames_sent))
    assert isinstance(rest, Returned)
    assert rest.index == 1
    assert [call.index for call in subject.pending] == [2]


def test_a_spoilt_file_of_replies_harms_nobody():
    for raw in (
        b"",
        b"abc",
        b"\xff" * frames.REPLIES_BYTES,
        gathered(b"\xff" * 100),
        gathered(returned(0)[:-1]),
    ):
        subject = conversation()
        assert subject.hear_rest(raw) == []
        assert len(subject.pending) == 2
