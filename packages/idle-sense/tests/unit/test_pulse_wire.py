"""PulseAudio's messages as bytes: what is written is read again, and noise is never more than noise."""

import random
import struct

import pytest

from idle_sense.platform import pulse_wire as wire


def taken(raw: bytes) -> wire.Message:
    message = wire.take_message(bytearray(raw))
    assert message is not None
    return message


def test_what_is_written_is_read_again() -> None:
    raw = wire.message(9, 3, 7, "text", b"\x00cookie", {"application.name": "idle-sense", "a": "ä"}, None)
    message = taken(raw)
    assert (message.command, message.tag) == (9, 3)
    assert message.values == [7, "text", b"\x00cookie", {"application.name": "idle-sense", "a": "ä"}, ""]


def test_a_message_is_taken_when_it_is_whole_and_the_rest_is_left() -> None:
    raw = wire.message(2, 1, 5) + wire.message(66, 2, 6)
    buffer = bytearray()
    found = []
    for byte in raw:
        buffer.append(byte)
        if (message := wire.take_message(buffer)) is not None:
            found.append(message)
    assert [(one.command, one.tag, one.values) for one in found] == [(2, 1, [5]), (66, 2, [6])]
    assert not buffer


def test_sound_that_nobody_asked_for_is_passed_over() -> None:
    sound = struct.pack(">IIIII", 4, 0, 0, 0, 0) + b"\1\2\3\4"
    assert taken(sound + wire.message(2, 1)).tag == 1
    assert wire.take_message(bytearray(sound)) is None


def test_noise_is_garbage_or_not_whole_and_nothing_else() -> None:
    rolled = random.Random(3)
    whole = wire.message(2, 1, 5, "text", b"data", {"key": "value"})
    for _ in range(3000):
        noise = bytearray(whole)
        for _ in range(rolled.randrange(1, 6)):
            noise[rolled.randrange(len(noise))] = rolled.randrange(256)
        try:
            message = wire.take_message(noise)
        except wire.Garbage:
            continue
        assert message is None or isinstance(message.tag, int)


def source_output(**more: object) -> list[object]:
    values = {
        "client": 5,
        "module": wire.NOBODY,
        "resample": "copy",
        "corked": False,
        "properties": {},
    } | more
    return [
        1, "Call", values["module"], values["client"], 3, 1, b"", 0, 0, values["resample"], "native",
        values["properties"], values["corked"],
    ]  # fmt: skip


def test_what_records_is_judged_by_what_the_server_says_of_it() -> None:
    properties = {
        "application.name": "Meeting",
        "application.process.id": "4711",
        "application.process.binary": "zoom",
    }
    (call,) = wire.source_outputs(source_output(properties=properties))
    assert (call.program, call.pid, call.binary, call.device) == ("Meeting", 4711, "zoom", 3)
    assert not call.silent
    assert not call.internal
    (paused,) = wire.source_outputs(source_output(corked=True))
    assert paused.silent
    (canceller,) = wire.source_outputs(source_output(client=wire.NOBODY, module=8))
    assert canceller.internal
    (meter,) = wire.source_outputs(source_output(resample="peaks"))
    assert meter.internal
    (monitor,) = wire.source_outputs(source_output(properties={"stream.capture.sink": "true"}))
    assert monitor.internal
    (nameless,) = wire.source_outputs(source_output())
    assert (nameless.program, nameless.pid) == ("Call", 0)
    (strange,) = wire.source_outputs(source_output(properties={"application.process.id": "-1"}))
    assert strange.pid == 0


def test_lists_that_do_not_fit_are_garbage() -> None:
    for values in (source_output()[:-1], [*source_output(), 1], source_output(properties="none")):
        with pytest.raises(wire.Garbage):
            wire.source_outputs(values)
    with pytest.raises(wire.Garbage):
        wire.is_monitor([1, "name"])
    assert wire.source_outputs([]) == ()
