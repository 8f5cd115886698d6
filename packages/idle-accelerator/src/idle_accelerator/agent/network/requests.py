"""What a guest asks of the proxy: the head of one HTTP request (RFC 9110, 9112), read with care and made anew. Standard library alone."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from idle_accelerator.wire.hosts import check_name

HEAD_LIMIT_BYTES: Final = 16 * 1024
_HTTP_PORT: Final = 80
_LAST_PORT: Final = 65_535
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"host"}
)


class NotUnderstoodError(Exception):
    """The request is none that this proxy serves; its text is a sentence for the guest's author."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Where a guest wants to go."""

    name: str
    """A host name in lower case, or the text of an address."""
    port: int
    first: bytes
    """What is sent there first: empty for a tunnel, else the request without what was meant for the proxy."""

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def read(head: bytes) -> Wanted:
    """``head`` ends with its empty line. Raises NotUnderstoodError."""
    request, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    words = request.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):  # method, target, version
        raise NotUnderstoodError("That is no request of HTTP/1.1.")
    method, target, version = words
    if method == b"CONNECT":
        name, port = _authority(_text(target), None)
        return Wanted(name=name, port=port, first=b"")
    try:
        url = urlsplit(_text(target))
    except ValueError as error:
        raise NotUnderstoodError(f"That is no address: {error}.") from None
    if url.scheme != "http" or not url.netloc or "@" in url.netloc:
        raise NotUnderstoodError(
            "This proxy opens tunnels (CONNECT) and passes on plain requests for http:// addresses; nothing else."
        )
    name, port = _authority(url.netloc, _HTTP_PORT)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in _HOP_BY_HOP]
    if any(field[:1] in (b" ", b"\t") for field in kept):
        raise NotUnderstoodError("A header of the request goes on in a second line.")
    lines = [
        b" ".join((method, path.encode("ascii"), version)),
        b"Host: " + url.netloc.encode("ascii"),
        # One connection, one request: the next may be for another host.
        b"Connection: close",
        *kept,
    ]
    return Wanted(name=name, port=port, first=b"\r\n".join(lines) + b"\r\n\r\n")


def _text(target: bytes) -> str:
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise NotUnderstoodError("The address of the request is not ASCII.")
    return text


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    name, port = text, ""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    try:
        number = int(port) if port else default_port
        if number is None or not 1 <= number <= _LAST_PORT or (port and not port.isdecimal()):
            raise NotUnderstoodError(f"{text!r} names no port.")
        return check_name(name), number
    except ValueError as error:
        raise NotUnderstoodError(f"{text!r}: {error}.") from None
