"""What people type on the submit page, turned into the SDK's arguments. Every refusal names its field and the fix."""

import re
import shlex

from idle_accelerator.errors import InvalidInput
from idle_accelerator.web.texts import in_language
from idle_accelerator.wire.units import parse_duration, parse_size

_OPERATORS = "|&;<>`"
_VARIABLE = re.compile(r"\$[A-Za-z_{(][A-Za-z0-9_]*")


class FormError(InvalidInput):
    """A refusal that the page can say in both languages: ``key`` of the table of texts, with its parameters."""

    def __init__(self, key: str, *, field: str, **params: object) -> None:
        self.key = key
        self.params = params
        super().__init__(in_language("en", key, **params), field=field)


def parse_command(text: str) -> list[str]:
    """The argument vector. Raises FormError for an empty line, an open quotation mark, and shell syntax outside quotes."""
    command = text.strip()
    if not command:
        raise FormError("form.command_empty", field="command")
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise FormError("form.open_quote", field="command") from error
    mark = shell_syntax(command)
    if mark is not None:
        raise FormError("form.shell", field="command", mark=mark, wrapped=f"sh -c {shlex.quote(command)}")
    if not argv or not argv[0]:
        raise FormError("form.command_empty", field="command")
    return argv


def shell_syntax(command: str) -> str | None:
    """The first mark that a shell would act on: pipes, redirections, ``;`` and ``&``, ``$NAME``, ``$(…)``, back-ticks."""
    quote = ""
    position = 0
    while position < len(command):
        mark = command[position]
        if mark == "\\" and quote != "'":
            position += 2
            continue
        if mark == quote:
            quote = ""
        elif not quote and mark in "'\"":
            quote = mark
        elif quote != "'":
            variable = _VARIABLE.match(command, position)
            if variable is not None:
                return variable[0]
            if mark == "`" or (not quote and mark in _OPERATORS):
                return mark
        position += 1
    return None


def parse_lines(text: str) -> list[str]:
    """Non-empty lines, without surrounding blanks."""
    return [row.strip() for row in text.splitlines() if row.strip()]


def parse_pairs(text: str, *, field: str, example: str) -> dict[str, str]:
    """``NAME=value``, one a line; the value may hold anything, also ``=``. Raises FormError naming the line."""
    pairs: dict[str, str] = {}
    for number, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        name, separator, value = row.partition("=")
        name = name.strip()
        if not separator or not name:
            raise FormError("form.no_pair", field=field, line=number, example=example)
        if name in pairs:
            raise FormError("form.pair_twice", field=field, line=number, name=name)
        pairs[name] = value.strip()
    return pairs


def parse_amount(text: str, *, field: str) -> int:
    """Bytes; nothing typed means that nothing is reserved. Raises FormError."""
    if not text.strip():
        return 0
    try:
        return parse_size(text, field=field)
    except InvalidInput as error:
        raise FormError("form.size", field=field, given=text.strip()) from error


def parse_timeout(text: str, *, field: str = "timeout") -> float | None:
    """Seconds; nothing typed means no limit. Raises FormError."""
    if not text.strip():
        return None
    try:
        seconds = parse_duration(text, field=field)
    except InvalidInput as error:
        raise FormError("form.duration", field=field, given=text.strip()) from error
    if seconds <= 0:
        raise FormError("form.duration", field=field, given=text.strip())
    return seconds
