"""The few messages of PulseAudio's native protocol that tell who records and who plays, as bytes. PipeWire speaks it too.

Written after PulseAudio's PROTOCOL file and ``tagstruct``: a message is 20 bytes of head (length, channel, offset, flags), then
values that each begin with a letter for their type. All numbers are big-endian. Version 21 is asked for, which both servers
still answer in.
"""

import struct
from typing import Any, NamedTuple, cast

VERSION = 21
COOKIE_BYTES = 256
ERROR, REPLY, AUTH, SET_CLIENT_NAME = 0, 2, 8, 9
GET_SOURCE_INFO, GET_SINK_INPUTS, GET_SOURCE_OUTPUTS, SUBSCRIBE, SUBSCRIBE_EVENT = 23, 30, 32, 35, 66
SINK_INPUTS_AND_SOURCE_OUTPUTS = 0x04 | 0x08
"""Mask of what is subscribed to (``pa_subscription_mask``)."""
NOBODY = 0xFFFFFFFF
"""Index of no client, no module, no sink."""
MOST_BYTES = 1 << 20
_CONTROL = 0xFFFFFFFF
_HEAD = struct.Struct(">IIIII")
_SINK_INPUT_FIELDS, _SOURCE_OUTPUT_FIELDS = 18, 13


class Garbage(Exception):
    """The bytes are no message of this protocol."""


class Stream(NamedTuple):
    """What a program records or plays."""

    recording: bool
    program: str
    """As it calls itself; else its file's name; else the stream's."""
    binary: str
    pid: int
    """As the program says; inside a container another one than outside. 0: it does not."""
    device: int
    """Index of the source or sink."""
    silent: bool
    """Paused (corked) or muted."""
    internal: bool
    """Of the server itself, such as an echo canceller's; or only measures loudness, or records what is played."""


class Message(NamedTuple):
    command: int
    tag: int
    values: list[Any]


Sent = int | str | bytes | dict[str, str] | None
"""A number, a text, a cookie, properties, no text."""


def message(command: int, tag: int, *values: Sent) -> bytes:
    body = b"".join(_packed(value) for value in (command, tag, *values))
    return _HEAD.pack(len(body), _CONTROL, 0, 0, 0) + body


def _packed(value: Sent) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, int):
        return b"L" + struct.pack(">I", value)
    if isinstance(value, str):
        return b"t" + value.encode() + b"\0"
    if isinstance(value, bytes):
        return b"x" + struct.pack(">I", len(value)) + value
    pairs = ((key, text.encode() + b"\0") for key, text in value.items())
    return b"P" + b"".join(_packed(key) + _packed(len(text)) + _packed(text) for key, text in pairs) + b"N"


def take_message(buffer: bytearray) -> Message | None:
    """Takes the first message off the buffer; None: it is not whole yet. Raises Garbage."""
    while len(buffer) >= _HEAD.size:
        length, channel, _, _, _ = _HEAD.unpack_from(buffer)
        if length > MOST_BYTES:
            raise Garbage
        if len(buffer) < _HEAD.size + length:
            return None
        data = bytes(buffer[_HEAD.size : _HEAD.size + length])
        del buffer[: _HEAD.size + length]
        if channel != _CONTROL:
            continue  # sound; nobody asked for any
        values = _values(data)
        if len(values) < 2 or not isinstance(values[0], int) or not isinstance(values[1], int):
            raise Garbage
        return Message(values[0], values[1], values[2:])
    return None


def _values(data: bytes) -> list[Any]:
    reader = _Reader(data)
    values: list[Any] = []
    try:
        while reader.offset < len(data):
            values.append(reader.value())
    except (struct.error, IndexError, ValueError, RecursionError):
        raise Garbage from None
    return values


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def value(self) -> Any:
        kind = self._bytes(1)
        if kind in _FIXED:
            return self._number(_FIXED[kind])
        if kind == b"t":
            end = self.data.index(b"\0", self.offset)
            text = self._bytes(end - self.offset)
            self.offset += 1
            return text.decode("utf-8", "replace")
        if kind == b"N":
            return ""
        if kind in b"10":
            return kind == b"1"
        if kind == b"x":
            return self._bytes(self._number(4))
        if kind in (b"m", b"v"):  # a channel map, a volume for each channel
            return self._bytes(self._number(1) * (1 if kind == b"m" else 4))
        if kind == b"P":
            return self._properties()
        if kind == b"f":  # a format: its number, and properties
            return self.value(), self.value()
        raise Garbage

    def _properties(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while (key := self.value()) != "":
            self.value()  # the length, which the next value carries as well
            data = self.value()
            if not isinstance(key, str) or not isinstance(data, bytes):
                raise Garbage
            found[key] = data.rstrip(b"\0").decode("utf-8", "replace")
        return found

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _bytes(self, count: int) -> bytes:
        if self.offset + count > len(self.data):
            raise Garbage
        piece = self.data[self.offset : self.offset + count]
        self.offset += count
        return piece


_FIXED = {b"L": 4, b"B": 1, b"R": 8, b"r": 8, b"U": 8, b"V": 4, b"T": 8, b"a": 6}
"""Bytes of numbers, times, volumes and sample forms: none of their values is looked at but for ``L``."""


def sink_inputs(values: list[Any]) -> tuple[Stream, ...]:
    """Of an answer to GET_SINK_INPUTS. Raises Garbage."""
    return tuple(
        _stream(item, recording=False, muted=item[12], properties=item[13], corked=item[14])
        for item in _items(values, _SINK_INPUT_FIELDS)
    )


def source_outputs(values: list[Any]) -> tuple[Stream, ...]:
    """Of an answer to GET_SOURCE_OUTPUTS. Raises Garbage."""
    return tuple(
        _stream(item, recording=True, muted=False, properties=item[11], corked=item[12])
        for item in _items(values, _SOURCE_OUTPUT_FIELDS)
    )


def is_monitor(values: list[Any]) -> bool:
    """Of an answer to GET_SOURCE_INFO: whether the source hears what a sink plays, and no microphone. Raises Garbage."""
    if len(values) < 9 or not isinstance(values[8], int):
        raise Garbage
    return values[8] != NOBODY


def _items(values: list[Any], fields: int) -> list[list[Any]]:
    if len(values) % fields:
        raise Garbage
    return [values[at : at + fields] for at in range(0, len(values), fields)]


def _stream(item: list[Any], *, recording: bool, muted: Any, properties: Any, corked: Any) -> Stream:
    if not isinstance(properties, dict) or not isinstance(item[4], int):
        raise Garbage
    texts = cast("dict[str, str]", properties)
    binary = texts.get("application.process.binary", "")
    pid = texts.get("application.process.id", "")
    # PulseAudio's meters resample by peaks, PipeWire's say what they are.
    meter = texts.get("stream.monitor") == "true" or (recording and item[9] == "peaks")
    hears_sink = texts.get("stream.capture.sink") == "true"
    return Stream(
        recording=recording,
        program=texts.get("application.name") or binary or str(item[1]) or "a program without name",
        binary=binary,
        pid=int(pid) if pid.isdigit() and len(pid) < 10 else 0,
        device=item[4],
        silent=bool(muted) or bool(corked),
        internal=meter or hears_sink or (item[3] == NOBODY and item[2] != NOBODY),
    )
