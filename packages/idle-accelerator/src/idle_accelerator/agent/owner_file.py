"""``owner.toml``: the file in which the owner of a machine keeps their terms. Read at the agent's start, and again when it changes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from idle_accelerator.agent.terms import BY_KEY, Term, parse, terms
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.reasons import Reason, reason

OWNER_FILE: Final = "owner.toml"
LARGEST_BYTES: Final = 256 * 1024
_log = logging.getLogger(__name__)
_Signature = tuple[int, int, int] | None


class OwnerFile:
    """The terms that hold, and what is wrong with the file since. A file that is absent says nothing."""

    def __init__(
        self, path: Path, given: Mapping[str, object] | None = None, *, required: bool = False
    ) -> None:
        """``given``: what flags say, by key, as ``AgentConfig`` has it. ``required``: the file must be there.

        Raises InvalidInput for a file that cannot be read or makes no sense.
        """
        self.path: Final = path
        self.problem: Reason | None = None
        """Why the file as it is now does not hold; then the terms are those that held before."""
        self._given: Final = {
            key: Term(setting=BY_KEY[key], value=value, origin=BY_KEY[key].flag or "flag")
            for key, value in (given or {}).items()
        }
        self._signature: _Signature = _signature(path)
        if required and self._signature is None:
            raise InvalidInput(
                "there is no such file.", field=str(path), hint="Write one, or leave --owner-file out."
            )
        self._written = _read(path)

    def terms(self, defaults: Mapping[str, Any]) -> tuple[Term, ...]:
        """``defaults``: by field of ``AgentConfig``."""
        return terms(self._written, self._given, defaults)

    def values(self) -> dict[str, Any]:
        """What file and flags say, by field of ``AgentConfig``."""
        return {term.setting.field: term.value for term in (*self._written.values(), *self._given.values())}

    def origin(self, key: str) -> str | None:
        """Who said it; None: nobody."""
        term = self._given.get(key) or self._written.get(key)
        return None if term is None else term.origin

    def look(self) -> bool:
        """Read the file anew if it has changed. True when what it says, or what is wrong with it, is another than before."""
        signature = _signature(self.path)
        if signature == self._signature:
            return False
        self._signature = signature
        before = (self._written, self.problem)
        try:
            self._written = _read(self.path)
        except InvalidInput as error:
            _log.warning(
                "%s keeps to the last good terms: %s: %s %s",
                self.path.name,
                error.field,
                error.message,
                error.hint,
            )
            self.problem = reason("terms.broken", detail=f"{error.field}: {error.message}"[:500])
        else:
            self.problem = None
            later = sorted(
                key
                for key in {*self._written, *before[0]}
                if not BY_KEY[key].live and _value(self._written, key) != _value(before[0], key)
            )
            _log.info("%s has changed", self.path)
            if later:
                _log.info("from the next start on: %s", ", ".join(later))
        return (self._written, self.problem) != before


def _value(written: Mapping[str, Term], key: str) -> Any:
    term = written.get(key)
    return None if term is None else term.value


def _signature(path: Path) -> _Signature:
    """Another one for another content; None where there is no file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _read(path: Path) -> dict[str, Term]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
        if len(raw) > LARGEST_BYTES:
            raise InvalidInput(
                f"more than {LARGEST_BYTES // 1024} KiB.",
                field=str(path),
                hint="Keep nothing but terms in it.",
            )
        text = raw.decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}.", field=str(path), hint="Mend its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("no UTF-8 text.", field=str(path), hint="Save it as UTF-8.") from error
    return parse(text, origin=str(path))
