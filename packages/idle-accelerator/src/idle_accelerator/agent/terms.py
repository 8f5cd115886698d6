"""The owner's terms: what may be said in ``owner.toml`` or by flags of ``idlectl agent``, and who said it.

A setting is one line in ``SETTINGS``; it names a field of ``AgentConfig``, whose default stands where nobody says anything. What the file
says goes before that, and a flag before the file.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from idle_accelerator.agent.term_kinds import (
    CARDS,
    CORES,
    COUNT,
    DURATION,
    HOURS,
    LABELS,
    SIZE,
    SOME_CORES,
    SOME_SIZE,
    TEXT,
    TEXTS,
    URL,
    Kind,
    choice,
    choices,
    refused,
)

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
