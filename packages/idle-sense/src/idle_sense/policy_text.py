"""Policies as TOML, with units.

    based_on = "desktop"                      # or "server", "lab"; desktop if left out
    input_idle = "10 min"
    cpu_busy = "40 %"
    disk_busy = "60 MB/s"
    hot = "85 °C"
    quiet_hours = ["22:00-07:00", "mon-fri 09:00-17:00"]
    ignore_programs = ["surveillance"]

A field is named as in ``Policy``, or without its unit (``input_idle`` for ``input_idle_s``); a bare number is in the unit of
the full name, and is refused under the short one, which has none.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from idle_sense.errors import InvalidPolicy
from idle_sense.policy import Policy
from idle_sense.quiet_hours import QuietHours

BASES: Mapping[str, Callable[[], Policy]] = {
    "desktop": Policy.desktop,
    "server": Policy.server,
    "lab": Policy.lab,
}

_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_BYTES = {
    "b": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "kbit": 125.0,
    "mbit": 125e3,
    "gbit": 125e6,
}
_PART = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([^\W\d]+)")


def read(path: Path) -> Policy:
    """Raises InvalidPolicy, also where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPolicy(
            f"{path} cannot be read ({error}).",
            field="policy",
            hint=f"Name one of {', '.join(BASES)}, or a TOML file.",
        ) from error
    return parse(text)


def parse(text: str) -> Policy:
    """Raises InvalidPolicy, naming the field, its line and the mend."""
    import tomllib  # noqa: PLC0415 - 0.5 MiB, and most policies come without a file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise InvalidPolicy(
            f"this is no TOML ({error}).",
            field="policy",
            hint='Write one field a line, like input_idle = "5 min".',
            line=int(found[1]) if found else None,
        ) from error
    lines = _lines(text)
    base = table.pop("based_on", "desktop")
    if not isinstance(base, str) or base not in BASES:
        raise InvalidPolicy(
            f"there is no policy {base!r}{_meant(str(base), BASES)}.",
            field="based_on",
            hint=f"Use one of {', '.join(BASES)}.",
            line=lines.get("based_on"),
        )
    changes: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, value in table.items():
        field = _field(key, lines.get(key))
        if field in changes:
            raise InvalidPolicy(
                f"it is given twice, as {keys[field]} too.",
                field=key,
                hint="Keep one of the two.",
                line=lines.get(key),
            )
        changes[field], keys[field] = _value(key, field, value, lines.get(key)), key
    try:
        return dataclasses.replace(BASES[base](), **changes)
    except InvalidPolicy as error:
        if error.line is None and error.field in keys:
            error.line = lines.get(keys[error.field])
        raise


def write(policy: Policy) -> str:
    """All fields, as ``parse`` reads them."""
    rows = [_row(item.name, getattr(policy, item.name)) for item in dataclasses.fields(policy)]
    return "\n".join(rows) + "\n"


_FIELDS = tuple(item.name for item in dataclasses.fields(Policy))
_DEFAULTS: Mapping[str, object] = {item.name: item.default for item in dataclasses.fields(Policy)}


def _short(field: str) -> str:
    """The name without its unit."""
    for unit in ("_bytes_per_s", "_ratio", "_s", "_c"):
        if field.endswith(unit):
            return field.removesuffix(unit)
    return field


_SHORT = {_short(field): field for field in _FIELDS}


def _field(key: str, line: int | None) -> str:
    if key in _FIELDS:
        return key
    if key in _SHORT:
        return _SHORT[key]
    raise InvalidPolicy(
        f"there is no such field{_meant(key, (*_FIELDS, *_SHORT))}.",
        field=key,
        hint="The fields are those of idle_sense.Policy; idle-sense explain --json lists them.",
        line=line,
    )


def _meant(word: str, known: "Mapping[str, object] | tuple[str, ...]") -> str:
    import difflib  # noqa: PLC0415 - for mistakes alone

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _value(key: str, field: str, value: object, line: int | None) -> object:
    """In the field's own unit. What has no unit is left to ``Policy`` to judge."""

    def refused(hint: str) -> InvalidPolicy:
        return InvalidPolicy(f"{value!r} is not understood.", field=key, hint=hint, line=line)

    default = _DEFAULTS[field]
    if isinstance(default, tuple):
        return _several(key, field, value, line)
    if isinstance(default, bool | str):
        return value
    kind = next(kind for kind in _KINDS if field.endswith(kind.suffix))
    if isinstance(value, str):
        number = kind.parse(value.strip())
        if number is None:
            raise refused(kind.hint)
        return number
    if key != field and isinstance(value, int | float) and not isinstance(value, bool):
        raise InvalidPolicy(
            f"{value!r} has no unit.", field=key, hint=f"{kind.hint} Or use the name {field}.", line=line
        )
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _several(key: str, field: str, value: object, line: int | None) -> tuple[object, ...]:
    items = [value] if isinstance(value, str) else cast("list[object]", value)
    if not isinstance(value, str | list) or not all(isinstance(item, str) for item in items):
        raise InvalidPolicy(
            f"{value!r} is no list of texts.", field=key, hint='Write it like ["a", "b"].', line=line
        )
    if field != "quiet_hours":
        return tuple(items)
    try:
        return tuple(QuietHours.parse(str(item)) for item in items)
    except InvalidPolicy as error:
        error.line = line
        raise


def duration_s(text: str) -> float | None:
    """``90 s``, ``5 min``, ``1 h 30 min``; None for anything else."""
    parts = _PART.findall(text.lower())
    if not parts or _PART.sub("", text.lower()).strip(" ,"):
        return None
    if any(unit not in _SECONDS for _, unit in parts):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _share(text: str) -> float | None:
    return float(number) / 100.0 if (number := _number(text.removesuffix("%"), text, "%")) else None


def _rate(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z]+)(?:/s|ps)", text.lower())
    return float(found[1]) * _BYTES[found[2]] if found and found[2] in _BYTES else None


def _celsius(text: str) -> float | None:
    for unit in ("°C", "°c", "C", "c"):
        if text.endswith(unit):
            number = _number(text.removesuffix(unit), text, unit)
            return None if number is None else float(number)
    return None


def _number(rest: str, text: str, unit: str) -> str | None:
    rest = rest.strip()
    good = text.endswith(unit) and re.fullmatch(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", rest)
    return rest if good else None


@dataclasses.dataclass(frozen=True)
class _Kind:
    suffix: str
    parse: Callable[[str], float | None]
    hint: str


_KINDS = (
    _Kind("_bytes_per_s", _rate, 'Write it like "20 MB/s" or "100 Mbit/s".'),
    _Kind("_ratio", _share, 'Write it like "25 %".'),
    _Kind("_c", _celsius, 'Write it like "85 °C".'),
    _Kind("_s", duration_s, 'Write it like "90 s", "5 min" or "1 h 30 min".'),
)


def _lines(text: str) -> dict[str, int]:
    """Where each key stands."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*(?:=|\])", line.lstrip("["))
        if key is not None:
            found.setdefault(key[1], number)
    return found


def _row(field: str, value: object) -> str:
    match value:
        case bool():
            return f"{field} = {'true' if value else 'false'}"
        case int() | float():
            return _amount(field, float(value))
        case tuple():
            items = cast("tuple[object, ...]", value)
            return f"{field} = [{', '.join(_quoted(str(item)) for item in items)}]"
        case _:
            return f"{field} = {_quoted(str(value))}"


def _amount(field: str, value: float) -> str:
    """The handsomest text that reads back as this very number; a bare number where none does."""
    kind = next(kind for kind in _KINDS if field.endswith(kind.suffix))
    match kind.suffix:
        case "_s":
            units = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
            texts = [f"{value / size:g} {unit}" for unit, size in units if value >= size or size == 1.0]
        case "_ratio":
            texts = [f"{value * 100:g} %"]
        case "_c":
            texts = [f"{value:g} °C"]
        case _:
            texts = [f"{value / 1e6:g} MB/s"]
    for text in texts:
        if kind.parse(text) == value:
            return f"{_short(field)} = {_quoted(text)}"
    return f"{field} = {value!r}"


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in escaped) + '"'
