"""The owner's terms: what may be said in ``owner.toml`` or by flags of ``idlectl agent``, and who said it.

A setting is one line in ``SETTINGS``; it names a field of ``AgentConfig``, whose default stands where nobody says anything. What the file
says goes before that, and a flag before the file.
"""

import difflib
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

POLICIES: Final = ("desktop", "server", "lab")
ON_BATTERY: Final = ("vacate", "freeze", "lend")
DURING: Final[Mapping[str, tuple[str, ...]]] = {
    "calls": ("call.",),
    "fullscreen": ("screen.",),
    "media": ("media.",),
    "load": ("load.",),
}
"""What an owner may do beside using keyboard and mouse without that their share ends: beginnings of idle-sense's codes."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a value in the file looks like."""

    read: Callable[[object, str], Any]
    """The value as ``AgentConfig`` has it. Raises InvalidInput, naming the field that is given with it."""
    show: Callable[[Any], str] = str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that an owner can say."""

    key: str
    """In the file, with its table before a dot."""
    field: str
    """Of ``AgentConfig``."""
    kind: Kind
    meaning: str
    flag: str | None = None
    """Of ``idlectl agent``, where it has one."""
    live: bool = False
    """A change is taken up while the agent runs; else at its next start."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A setting as it holds."""

    setting: Setting
    value: Any
    origin: str
    """The flag, ``FILE, line N``, or ``default``."""

    @property
    def shown(self) -> str:
        return "" if self.value is None else self.setting.kind.show(self.value)


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


SETTINGS: Final = (
    Setting(
        key="scheduler",
        field="scheduler_url",
        kind=URL,
        flag="--scheduler",
        meaning="whose pool it is lent to; IDLE_SCHEDULER goes before it",
    ),
    Setting(key="name", field="name", kind=TEXT, flag="--name", meaning="how the pool calls this machine"),
    Setting(
        key="policy",
        field="policy",
        kind=choice(*POLICIES),
        flag="--policy",
        meaning="what counts as use",
    ),
    Setting(
        key="input_idle",
        field="input_idle_s",
        kind=DURATION,
        flag="--input-idle",
        live=True,
        meaning="without keyboard and mouse for so long it counts as idle",
    ),
    Setting(
        key="sandbox",
        field="sandbox",
        kind=TEXT,
        flag="--sandbox",
        meaning="how work is kept apart from you",
    ),
    Setting(
        key="container_image",
        field="container_image",
        kind=TEXT,
        flag="--container-image",
        meaning="whose programs work sees in the sandbox container",
    ),
    Setting(
        key="lend_for",
        field="lend_for_s",
        kind=DURATION,
        flag="--lend-for",
        meaning="lend from the start, by your word, for so long",
    ),
    Setting(
        key="upload_limit",
        field="upload_bytes_per_s",
        kind=SIZE,
        flag="--upload-limit",
        meaning="checkpoints leave with so much a second at most; 0 is no limit",
    ),
    Setting(
        key="vacate_after",
        field="vacate_after_s",
        kind=DURATION,
        flag="--vacate-after",
        live=True,
        meaning="frozen work leaves when you have been back for so long",
    ),
    Setting(
        key="grace",
        field="grace_s",
        kind=DURATION,
        flag="--grace",
        live=True,
        meaning="what work gets to save itself before it is killed",
    ),
    Setting(
        key="on_battery",
        field="on_battery",
        kind=choice(*ON_BATTERY),
        live=True,
        meaning="on battery, work leaves at once, is frozen, or runs on",
    ),
    Setting(key="labels", field="labels", kind=LABELS, flag="--label", meaning="what jobs may ask for"),
    Setting(key="share.cpus", field="cpus", kind=SOME_CORES, flag="--cpus", meaning="cores lent while away"),
    Setting(
        key="share.memory",
        field="memory_bytes",
        kind=SOME_SIZE,
        flag="--memory",
        meaning="memory lent while away",
    ),
    Setting(key="share.disk", field="disk_bytes", kind=SIZE, flag="--disk", meaning="disk lent"),
    Setting(
        key="share.gpus",
        field="gpus",
        kind=CARDS,
        flag="--gpus",
        meaning='graphics cards lent while away: how many, or which, such as "0,2"; none in a sandbox if left out',
    ),
    Setting(
        key="share.present.cpus",
        field="present_cpus",
        kind=CORES,
        live=True,
        meaning="cores that work may use while you use the machine",
    ),
    Setting(
        key="share.present.memory",
        field="present_memory_bytes",
        kind=SIZE,
        live=True,
        meaning="memory that work may use meanwhile; in proportion to the cores if left out",
    ),
    Setting(
        key="share.present.gpus",
        field="present_gpus",
        kind=COUNT,
        live=True,
        meaning="graphics cards that work may use meanwhile",
    ),
    Setting(
        key="share.present.during",
        field="present_during",
        kind=choices(*DURING),
        live=True,
        meaning="what does not end that share: of calls, fullscreen, media, load",
    ),
    Setting(
        key="network.lend",
        field="network",
        kind=choice("off", "proxy", "open"),
        flag="--network",
        meaning="what work in a sandbox may reach: nothing, the hosts that are allowed, or every public one",
    ),
    Setting(
        key="network.allow",
        field="allow_hosts",
        kind=TEXTS,
        flag="--allow-host",
        meaning="those hosts, such as pypi.org or *.example.org",
    ),
    Setting(
        key="network.rate",
        field="network_bytes_per_s",
        kind=SOME_SIZE,
        flag="--network-rate",
        meaning="what each may move a second through the proxy",
    ),
    Setting(
        key="environments.keep",
        field="environments_kept_bytes",
        kind=SIZE,
        flag="--environments",
        meaning="disk for the packages that tasks ask for, kept for the next time; 0 installs none",
    ),
    Setting(
        key="environments.size",
        field="environment_size_bytes",
        kind=SOME_SIZE,
        flag="--environment-size",
        meaning="most that the packages of one task may take",
    ),
    Setting(
        key="environments.time",
        field="environment_time_s",
        kind=DURATION,
        flag="--environment-time",
        meaning="longest that installing them may take",
    ),
    Setting(
        key="hours.lend",
        field="hours",
        kind=HOURS,
        live=True,
        meaning="when lending is allowed, in this machine's own time",
    ),
)
"""In the order in which they are shown."""

BY_KEY: Final = {setting.key: setting for setting in SETTINGS}
_TABLES: Final = frozenset(
    ".".join(key.split(".")[:count]) for key in BY_KEY for count in range(1, key.count(".") + 1)
)
_HEADER: Final = re.compile(r"\s*\[\s*([\w\s.\"'-]+?)\s*\]")
_KEY: Final = re.compile(r"\s*([\w.\"'-]+)\s*=")


def terms(
    written: Mapping[str, Term], given: Mapping[str, Term], defaults: Mapping[str, Any]
) -> tuple[Term, ...]:
    """Every setting as it holds. ``written`` in the file and ``given`` by flags, by key; ``defaults`` by field."""
    found: list[Term] = []
    for setting in SETTINGS:
        said = given.get(setting.key) or written.get(setting.key)
        found.append(said or Term(setting=setting, value=defaults.get(setting.field), origin="default"))
    return tuple(found)


def parse(text: str, *, origin: str) -> dict[str, Term]:
    """What a file says, by key. Raises InvalidInput that names the file, the line, the key and the mend."""
    import tomllib  # noqa: PLC0415  # most agents have no such file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        where = f"{origin}, line {found[1]}" if found else origin
        raise refused(
            f"no TOML: {error}.", field=where, hint='Write one setting a line, such as grace = "30s".'
        ) from error
    lines = _lines(text)
    said: dict[str, Term] = {}
    for key, value in _flat(table, lambda key: _at(origin, lines, key)).items():
        setting = BY_KEY[key]
        where = _at(origin, lines, key)
        said[key] = Term(setting=setting, value=setting.kind.read(value, f"{where}: {key}"), origin=where)
    return said


def _flat(table: Mapping[str, object], where: Callable[[str], str], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if key in BY_KEY:
            found[key] = value
        elif key in _TABLES:
            if not isinstance(value, dict):
                raise refused(
                    f"{value!r} is no table.",
                    field=f"{where(key)}: {key}",
                    hint=f"Write [{key}] on a line of its own.",
                )
            found |= _flat(cast("dict[str, object]", value), where, f"{key}.")
        else:
            close = difflib.get_close_matches(key, [*BY_KEY, *_TABLES], n=1)
            meant = f"Did you mean {close[0]}? " if close else ""
            raise refused(
                "there is no such setting.",
                field=f"{where(key)}: {key}",
                hint=f"{meant}List them all with: idlectl terms",
            )
    return found


def _at(origin: str, lines: Mapping[str, int], key: str) -> str:
    """The line of a key, or of the first one below it."""
    line = lines.get(key)
    return origin if line is None else f"{origin}, line {line}"


def _lines(text: str) -> dict[str, int]:
    """Where each key stands. Keys inside of multi-line values may be found too, which harms nobody."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _plain(header[1])
            found.setdefault(table, number)
        elif entry := _KEY.match(line):
            key = _plain(entry[1])
            found.setdefault(f"{table}.{key}" if table else key, number)
    return found


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
