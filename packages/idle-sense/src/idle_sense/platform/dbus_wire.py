"""D-Bus messages as bytes; jeepney writes and reads, nothing here touches a socket."""

import struct
from typing import Any, NamedTuple

from idle_sense.platform.local_socket import MOST_BYTES, ServerProblem

_NO_REPLY_EXPECTED, _NO_AUTO_START = 1, 2


class Message(NamedTuple):
    """What a bus sends us."""

    kind: str
    """``method_return``, ``error``, ``signal`` or ``method_call``."""
    answers: int
    """Serial of the question; 0: none."""
    path: str
    interface: str
    member: str
    """Of a signal; of an error its name."""
    sender: str
    body: tuple[Any, ...]


def call_bytes(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: tuple[Any, ...],
    *,
    answered: bool,
) -> bytes:
    """A question that starts no service."""
    jeepney = _jeepney()
    where = jeepney.DBusAddress(path, bus_name=destination, interface=interface)
    message = jeepney.new_method_call(where, member, signature or None, body)
    message.header.flags = jeepney.MessageFlag(_NO_AUTO_START | (0 if answered else _NO_REPLY_EXPECTED))
    return bytes(message.serialise(serial=serial))


def take_message(buffer: bytearray) -> Message | None:
    """Takes the first message off the buffer; None: it is not whole yet. Raises ServerProblem for bytes that are no message."""
    if len(buffer) < 16:
        return None
    order = {0x6C: "<", 0x42: ">"}.get(buffer[0])
    if order is None or not 1 <= buffer[1] <= 4 or buffer[3] != 1:
        raise ServerProblem("it speaks another protocol")
    (body_bytes,) = struct.unpack_from(order + "I", buffer, 4)
    (field_bytes,) = struct.unpack_from(order + "I", buffer, 12)
    length = 16 + field_bytes + -field_bytes % 8 + body_bytes
    if length > MOST_BYTES:
        raise ServerProblem("it sends more than a watcher can take")
    if len(buffer) < length:
        return None
    data = bytes(buffer[:length])
    del buffer[:length]
    return _parsed(data)


def _parsed(data: bytes) -> Message:
    jeepney = _jeepney()
    try:
        parsed = jeepney.Message.from_buffer(data)
        kind = str(parsed.header.message_type.name)
        fields = {field.name: value for field, value in parsed.header.fields.items()}
        return Message(
            kind=kind,
            answers=int(fields.get("reply_serial", 0)),
            path=str(fields.get("path", "")),
            interface=str(fields.get("interface", "")),
            member=str(fields.get("error_name" if kind == "error" else "member", "")),
            sender=str(fields.get("sender", "")),
            body=tuple(parsed.body),
        )
    except (ValueError, KeyError, IndexError, TypeError, AssertionError, struct.error, RecursionError):
        # All that jeepney raises for bytes that are no message.
        raise ServerProblem("it speaks another protocol") from None


def _jeepney() -> Any:
    """Without types of its own; imported only where there is a bus."""
    import jeepney  # noqa: PLC0415 - as said

    return jeepney
