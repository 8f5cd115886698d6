"""What people and programs see: results go to stdout, everything said about them to stderr.

Names, commands and reasons come from other people's machines. Before they reach a terminal, characters that could
steer it are made visible; bytes that go into a file or a pipe stay as they are.
"""

import codecs
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from idle_accelerator.errors import IdleError

if TYPE_CHECKING:
    from rich.console import Console

    from idle_accelerator.wire.model import WireModel

_PIPE_WIDTH = 4000
_UNTAMED = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """One remark, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """Text of a result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_error(error: IdleError) -> None:
    """``error: field: message``, then ``hint: …``, on stderr."""
    where = f"{error.field}: " if error.field else ""
    say(f"error: {safe(where + text_of(error))}")
    if error.hint:
        say(f"hint: {safe(error.hint)}")


def text_of(error: IdleError) -> str:
    """The message; with the remote traceback where there is one."""
    remote = getattr(error, "traceback_text", "")
    return f"{error.message}\n\nTraceback on the node:\n{remote}" if remote else error.message


def safe(text: str) -> str:
    """The text with all that steers or hides made visible: control characters, directions of writing; newlines and tabs stay."""
    return text if text.isprintable() else "".join(map(_visible, text))


def line(text: str) -> str:
    """The text as one safe line."""
    return safe(" ".join(text.split()))


def shorten(text: str, width: int) -> str:
    """One safe line of at most ``width`` characters."""
    flat = line(text)
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _visible(character: str) -> str:
    if character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"\\u{code:04x}"


class OutputWriter:
    """Writes the bytes that a task wrote: unchanged into files and pipes; for a terminal only colours may steer it."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stream = sys.stderr if stderr else sys.stdout
        self._tame = self._stream.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ends_with_newline = True

    def write(self, data: bytes) -> None:
        if not data:
            return
        self._ends_with_newline = data.endswith(b"\n")
        binary = getattr(self._stream, "buffer", None)
        if self._tame or binary is None:
            self._stream.write(_UNTAMED.sub(lambda match: _visible(match[0]), self._decoder.decode(data)))
        else:
            self._stream.flush()
            binary.write(data)
        self._stream.flush()

    def end_line(self) -> None:
        """A newline, if the last byte was none."""
        if not self._ends_with_newline:
            self.write(b"\n")


def console(*, stderr: bool = False) -> "Console":
    """A Rich console that adds nothing to a text. Into a pipe it never wraps."""
    from rich.console import Console  # noqa: PLC0415  # 60 ms, only where something is drawn

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table on stdout; the last column takes what room is left. ``empty`` is said on stderr when there are no rows."""
    from rich.table import Table  # noqa: PLC0415  # as above

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, name in enumerate(columns):
        last = place == len(columns) - 1
        table.add_column(name, no_wrap=not last, overflow="fold" if last else "ellipsis")
    for row in rows:
        table.add_row(*(line(cell) for cell in row))
    if table.row_count == 0:
        say(empty)
        return
    console().print(table)


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values below one another, on stdout; values may have several lines."""
    kept = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *others = safe(value).splitlines() or [""]
        show(f"{name:<{width}}  {first}")
        for other in others:
            show(f"{'':<{width}}  {other}")


def show_json(model: "WireModel") -> None:
    """The wire model's own JSON: times are ISO in UTC, bytes base64."""
    show(model.model_dump_json(indent=2))


def show_plain_json(value: Any) -> None:
    show(json.dumps(value, indent=2, ensure_ascii=False))
