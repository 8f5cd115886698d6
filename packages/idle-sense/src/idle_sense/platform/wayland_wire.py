"""Wayland messages as bytes (Wayland protocol, wire format): words of 32 bits in the machine's own order, strings with their
length and a NUL, padded to words."""

import struct
import sys
from typing import NamedTuple

from idle_sense.platform.local_socket import ServerProblem

DISPLAY = 1
"""The object that every connection begins with."""
HEAD_BYTES = 8
_ORDER = "<" if sys.byteorder == "little" else ">"


class Event(NamedTuple):
    object: int
    opcode: int
    body: bytes


def request(target: int, opcode: int, *arguments: int | str) -> bytes:
    """Numbers (also ids of objects, new or old) and strings."""
    body = b"".join(
        struct.pack(_ORDER + "I", argument) if isinstance(argument, int) else _string(argument)
        for argument in arguments
    )
    return struct.pack(_ORDER + "II", target, (HEAD_BYTES + len(body)) << 16 | opcode) + body


def length_of(buffer: bytes | bytearray) -> int | None:
    """How long the message that begins the buffer is; None: not known yet. Raises ServerProblem for what is none."""
    if len(buffer) < HEAD_BYTES:
        return None
    length = struct.unpack_from(_ORDER + "I", buffer, 4)[0] >> 16
    if length < HEAD_BYTES or length % 4:
        raise ServerProblem("it speaks another protocol")
    return length


def event(message: bytes) -> Event:
    target, word = struct.unpack_from(_ORDER + "II", message)
    return Event(target, word & 0xFFFF, message[HEAD_BYTES:])


def arguments(body: bytes, kinds: str) -> tuple[int | str, ...]:
    """``kinds``: ``u`` for a number, ``s`` for a string. Raises struct.error for a body that is too short."""
    found: list[int | str] = []
    offset = 0
    for kind in kinds:
        (number,) = struct.unpack_from(_ORDER + "I", body, offset)
        offset += 4
        if kind == "s":
            if offset + number > len(body):
                raise struct.error("a string beyond the end of its message")
            found.append(body[offset : offset + max(0, number - 1)].decode("utf-8", "replace"))
            offset += number + -number % 4
        else:
            found.append(number)
    return tuple(found)


def _string(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack(_ORDER + "I", len(data)) + data + bytes(-len(data) % 4)
