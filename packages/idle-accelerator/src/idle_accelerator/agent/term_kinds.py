"""What values in the owner's file look like, and how they are shown."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from idle_accelerator.errors import InvalidInput
from idle_accelerator.settings import check_url
from idle_accelerator.wire.units import format_duration, format_size, parse_duration, parse_size
from idle_sense.errors import InvalidPolicy
from idle_sense.quiet_hours import QuietHours


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a value in the file looks like."""

    read: Callable[[object, str], Any]
    """The value as ``AgentConfig`` has it. Raises InvalidInput, naming the field that is given with it."""
    show: Callable[[Any], str] = str


def refused(message: str, *, field: str, hint: str) -> InvalidInput:
    return InvalidInput(message, field=field, hint=hint)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise refused(f"{value!r} is no text.", field=field, hint='Write it in quotes: "…".')
    return value.strip()


def _one_of(choices: tuple[str, ...]) -> Callable[[object, str], str]:
    def read(value: object, field: str) -> str:
        if value not in choices:
            quoted = ", ".join(f'"{choice}"' for choice in choices)
            raise refused(f"{value!r} is not known here.", field=field, hint=f"Write one of {quoted}.")
        return str(value)

    return read


def _duration(value: object, field: str) -> float:
    if not isinstance(value, str):
        raise refused(f"{value!r} has no unit.", field=field, hint='Write it as "90s", "10m" or "1h30m".')
    return parse_duration(value, field=field)


def _size(value: object, field: str) -> int:
    if not isinstance(value, str):
        raise refused(f"{value!r} has no unit.", field=field, hint='Write it as "512M" or "8G".')
    return parse_size(value, field=field)


def _number(value: object, field: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value <= 4096
    ):
        raise refused(f"{value!r} is no number from 0 to 4096.", field=field, hint="For example: 3 or 0.5.")
    return float(value)


def _some(value: object, field: str) -> float:
    number = _number(value, field)
    if number == 0:
        raise refused("must be more than nothing.", field=field, hint="Leave it out to lend all.")
    return number


def _some_size(value: object, field: str) -> int:
    size = _size(value, field)
    if size == 0:
        raise refused("must be more than nothing.", field=field, hint="Leave it out to lend all.")
    return size


def _count(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000:
        raise refused(f"{value!r} is no whole number from 0 to 1000.", field=field, hint="For example: 1.")
    return value


def _cards(value: object, field: str) -> int | str:
    """How many, or which by number."""
    if not isinstance(value, str):
        return _count(value, field)
    text = value.strip()
    if text not in ("all", "none") and not re.fullmatch(r"[0-9]+(\s*,\s*[0-9]+)*", text):
        raise refused(
            f"{value!r} names no graphics cards.",
            field=field,
            hint='Write how many, or "all", "none" or "0,2".',
        )
    return text


def _truth(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise refused(f"{value!r} is neither true nor false.", field=field, hint="Write true or false.")
    return value


def _texts(value: object, field: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise refused(f"{value!r} is no list.", field=field, hint='Write it as ["a", "b"].')
    return tuple(_text(item, field) for item in cast("list[object]", value))


def _several_of(choices: tuple[str, ...]) -> Callable[[object, str], tuple[str, ...]]:
    read_one = _one_of(choices)

    def read(value: object, field: str) -> tuple[str, ...]:
        return tuple(read_one(item, field) for item in _texts(value, field))

    return read


def _hours(value: object, field: str) -> tuple[QuietHours, ...]:
    spans: list[QuietHours] = []
    for text in _texts([value] if isinstance(value, str) else value, field):
        try:
            spans.append(QuietHours.parse(text))
        except InvalidPolicy as error:
            raise refused(
                f"{text!r} is no span of hours.",
                field=field,
                hint='Write it as "18:00-08:00", "mon-fri 18:00-08:00" or "sat,sun 00:00-24:00".',
            ) from error
    if not spans:
        raise refused("the list is empty.", field=field, hint="Leave it out to lend at all hours.")
    return tuple(spans)


def _labels(value: object, field: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise refused("no table.", field=field, hint='Write [labels] and below it: room = "12".')
    table = cast("dict[str, object]", value)
    return {name: _text(item, f"{field}.{name}") for name, item in table.items()}


def _listed(value: tuple[object, ...]) -> str:
    return ", ".join(map(str, value))


def _pairs(value: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in value.items())


TEXT: Final = Kind(read=_text)
URL: Final = Kind(read=lambda value, field: check_url(_text(value, field), field))
DURATION: Final = Kind(read=_duration, show=format_duration)
SIZE: Final = Kind(read=_size, show=format_size)
SOME_SIZE: Final = Kind(read=_some_size, show=format_size)
CORES: Final = Kind(read=_number, show=lambda value: f"{value:g}")
SOME_CORES: Final = Kind(read=_some, show=CORES.show)
COUNT: Final = Kind(read=_count)
CARDS: Final = Kind(read=_cards)
TRUTH: Final = Kind(read=_truth, show=lambda value: str(value).lower())
TEXTS: Final = Kind(read=_texts, show=_listed)
HOURS: Final = Kind(read=_hours, show=_listed)
LABELS: Final = Kind(read=_labels, show=_pairs)


def choice(*choices: str) -> Kind:
    return Kind(read=_one_of(choices))


def choices(*every: str) -> Kind:
    return Kind(read=_several_of(every), show=_listed)
