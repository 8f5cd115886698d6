"""Numbers in place of names of people, programs and other machines, so that a trace can be given away."""

import dataclasses
import getpass
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, cast

from idle_sense.facts import Calls, Media, Reading, Session, Terminal
from idle_sense.policy import Policy
from idle_sense.types import Snapshot


class Names:
    """The same name always gets the same number, so that a policy judges as it would have judged the names."""

    def __init__(
        self, *, people: Iterable[str] = (), folders: Iterable[str] = (), kept: Iterable[str] = ()
    ) -> None:
        """``people``: known from the start. ``folders``: shown as ``~``. ``kept``: programs that keep their names."""
        self._kept = frozenset(kept)
        self._given: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._words: dict[str, str] = {folder: "~" for folder in folders if len(folder) > 1}
        self._pattern: re.Pattern[str] | None = None
        for person in people:
            self._person(person)

    @classmethod
    def native(cls, policy: Policy) -> Self:
        """This user, and this user's home; programs that the policy names keep their names."""
        try:
            people = [getpass.getuser()]
        except (KeyError, OSError, ImportError):  # no entry for this user; on Windows, no variable
            people = []
        try:
            folders = [str(Path.home())]
        except RuntimeError:
            folders = []
        return cls(people=people, folders=folders, kept=policy.ignore_programs)

    def hidden(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without them. Whoever is logged in is also cut out of all other text in it."""
        for somebody in (*(snapshot.sessions.value or ()), *(snapshot.terminals.value or ())):
            self._person(somebody.user)
        parts = {item.name: self._part(getattr(snapshot, item.name)) for item in dataclasses.fields(snapshot)}
        return dataclasses.replace(snapshot, **parts)

    def _part(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._clean(value)
        if isinstance(value, tuple):
            return tuple(self._part(item) for item in cast("tuple[Any, ...]", value))
        if isinstance(value, Session):
            name, user = self._number("session", value.name), self._person(value.user)
            return dataclasses.replace(value, name=name, user=user)
        if isinstance(value, Terminal):
            user, host = self._person(value.user), self._number("host", value.host)
            return dataclasses.replace(value, name=self._clean(value.name), user=user, host=host)
        if isinstance(value, Calls):
            return Calls(microphones=self._programs(value.microphones), cameras=self._programs(value.cameras))
        if isinstance(value, Media):
            return Media(playing=self._programs(value.playing), inhibitors=self._programs(value.inhibitors))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {item.name: self._part(getattr(value, item.name)) for item in dataclasses.fields(value)}
            return dataclasses.replace(cast("Reading[Any]", value), **parts)
        return value

    def _clean(self, text: str) -> str:
        if self._pattern is None:
            words = sorted(self._words, key=len, reverse=True)
            whole = [rf"(?<!\w){re.escape(word)}(?!\w)" for word in words]
            self._pattern = re.compile("|".join(whole) or r"(?!)")
        return self._pattern.sub(lambda found: self._words[found[0]], text)

    def _person(self, name: str) -> str:
        if name in ("", "root"):
            return name
        number = self._number("user", name)
        if name not in self._words:
            self._words[name] = number
            self._pattern = None
        return number

    def _programs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name if name in self._kept or name.startswith("/dev/") else self._number("program", name)
            for name in names
        )

    def _number(self, kind: str, name: str) -> str:
        if not name:
            return ""
        if (kind, name) not in self._given:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._given[kind, name] = f"{kind} {self._counts[kind]}"
        return self._given[kind, name]
