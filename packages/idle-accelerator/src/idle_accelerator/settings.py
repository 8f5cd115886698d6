"""Where this user's files stand, and which scheduler is meant. Light to import."""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from idle_accelerator.errors import InvalidInput

DEFAULT_URL = "http://127.0.0.1:8000"
_APP = "idle-accelerator"
_URL_HINT = f"Write it as {DEFAULT_URL}, or https://HOST:PORT."


def data_dir() -> Path:
    """This user's data: IDLE_DATA_DIR, else the place that the system has for it."""
    given = os.environ.get("IDLE_DATA_DIR", "")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs  # noqa: PLC0415  # only where no variable says it

    return Path(platformdirs.user_data_dir(_APP, appauthor=False))


def config_file() -> Path:
    """This user's settings: IDLE_CONFIG, else ``config.toml`` in the place that the system has for them. May be absent."""
    given = os.environ.get("IDLE_CONFIG", "")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs  # noqa: PLC0415  # only where no variable says it

    return Path(platformdirs.user_config_dir(_APP, appauthor=False)) / "config.toml"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Which scheduler, with which key, and who said so."""

    url: str
    key: str | None = field(repr=False)
    origin: str
    """``--scheduler``, ``IDLE_SCHEDULER``, the path of the config file, or ``default``."""


def connection(url: str | None = None, key: str | None = None) -> Connection:
    """What is given here wins over IDLE_SCHEDULER and IDLE_KEY, they over ``[client]`` in the config file, it over the default.

    The file's key is used for the file's scheduler only: a key never goes to an address that it was not written down for.
    Raises InvalidInput for nonsense, saying where it came from.
    """
    path = config_file()
    found_url, origin = _first((url, "--scheduler"), (os.environ.get("IDLE_SCHEDULER"), "IDLE_SCHEDULER"))
    found_key, key_origin = _first((key, "--key"), (os.environ.get("IDLE_KEY"), "IDLE_KEY"))
    if found_url is not None and found_key is not None:
        return Connection(
            url=check_url(found_url, origin), key=_check_key(found_key, key_origin), origin=origin
        )
    section = _client_section(path)
    written_url, _ = _first((section.get("scheduler"), str(path)))
    written_key, _ = _first((section.get("key"), str(path)))
    if found_url is None:
        found_url, origin = (written_url, str(path)) if written_url is not None else (DEFAULT_URL, "default")
    checked = check_url(found_url, origin)
    if (
        found_key is None
        and written_key is not None
        and checked == check_url(written_url or DEFAULT_URL, str(path))
    ):
        found_key, key_origin = written_key, str(path)
    return Connection(
        url=checked, key=None if found_key is None else _check_key(found_key, key_origin), origin=origin
    )


def check_url(text: str, origin: str) -> str:
    """A scheduler's address without a slash at its end. Raises InvalidInput that names ``origin``."""
    stripped = text.strip().rstrip("/")
    problem = _problem_of(stripped)
    if problem is not None:
        raise InvalidInput(f"{text!r} {problem}.", field=origin, hint=_URL_HINT)
    return stripped


def _problem_of(url: str) -> str | None:
    if not url.isprintable() or any(letter.isspace() for letter in url):
        return "holds spaces or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not an address"
    if parts.scheme not in ("http", "https"):
        return "is not an http:// or https:// address"
    if not parts.hostname or port == 0:
        return "names no host" if not parts.hostname else "names port 0"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password; the key goes elsewhere (--key or IDLE_KEY)"
    if parts.query or parts.fragment:
        return "holds a query or a fragment"
    return None


def _check_key(text: str, origin: str) -> str:
    stripped = text.strip()
    if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise InvalidInput(
            "not a key: keys are one word of ASCII letters, digits and signs.",
            field=origin,
            hint="It stands in scheduler.key in the scheduler's data directory.",
        )
    return stripped


def _first(*candidates: tuple[str | None, str]) -> tuple[str | None, str]:
    """The first that says anything, with its origin."""
    return next(((text, origin) for text, origin in candidates if text and text.strip()), (None, ""))


def _client_section(path: Path) -> dict[str, str]:
    try:
        parsed = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}.", field=str(path), hint="Mend its permissions."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"not valid TOML: {error}.", field=str(path), hint="Mend or remove the file."
        ) from error
    section: Any = parsed.get("client", {})
    if not isinstance(section, dict):
        raise InvalidInput(
            "'client' is no table.", field=str(path), hint="Write [client] on a line of its own."
        )
    values = cast("dict[str, Any]", section)
    for name, value in values.items():
        if name not in ("scheduler", "key"):
            raise InvalidInput(
                f"unknown setting {name!r} in [client].", field=str(path), hint="There are: scheduler, key."
            )
        if not isinstance(value, str):
            raise InvalidInput(f"[client] {name} is no text.", field=str(path), hint=f'Write {name} = "…".')
    return values
