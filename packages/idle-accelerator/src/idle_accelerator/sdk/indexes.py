"""Where uv downloads packages from on this machine: by uv's own settings, and where these say nothing, by pip's.

Of the settings only those that say where from, through which proxy and whom to believe are read: uv itself is then started without its
configuration files, so that nothing else in them (a cache elsewhere, builds allowed for a package) has a say. The values may hold
passwords: they are handed to uv in its environment alone, and ``redact`` takes them out of whatever is said about them.

Settings: https://docs.astral.sh/uv/reference/settings/ and https://pip.pypa.io/en/stable/topics/configuration/
"""

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

_PASSED: Final = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "NETRC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HOME",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_INSECURE_HOST",
    "UV_INDEX_STRATEGY",
    "UV_OFFLINE",
)
"""Variables that uv needs to reach an index, or that say how."""
_WHERE: Final = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
)
_CREDENTIALS: Final = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
_USER_INFO: Final = re.compile(r"(?<=//)[^/\s'\"`]*@")
_QUERY: Final = re.compile(r"(\w://[^\s?'\"`]+)\?[^\s'\"`]*")
_SPACES: Final = re.compile(r"\s+")


def index_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which uv finds this machine's index, and no other of ``inherited``."""
    env = {name: inherited[name] for name in _PASSED if inherited.get(name)}
    env |= {name: value for name, value in inherited.items() if _CREDENTIALS.fullmatch(name)}
    own = {name: inherited[name] for name in _WHERE if inherited.get(name)}
    for path in _uv_files(inherited):
        # The nearer file has been read first: it wins.
        own = {**_from_uv(path), **own}
    if not any(name in own for name in _WHERE):
        own = {**_from_pip(inherited), **own}
    return {**own, **env}


def redact(text: str, env: Mapping[str, str] | None = None) -> str:
    """The text without user names and passwords of addresses, without queries, and without the secrets that ``env`` holds."""
    cleaned = _QUERY.sub(r"\1?***", _USER_INFO.sub("***@", text))
    for name, value in (env or {}).items():
        if _CREDENTIALS.fullmatch(name) and len(value) > 3:
            cleaned = cleaned.replace(value, "***")
    return cleaned


def _uv_files(inherited: Mapping[str, str]) -> Iterator[Path]:
    if named := inherited.get("UV_CONFIG_FILE"):
        yield Path(named)
        return
    home = inherited.get("HOME") or inherited.get("USERPROFILE") or ""
    if sys.platform == "win32":
        yield Path(inherited.get("APPDATA", home), "uv", "uv.toml")
        yield Path(inherited.get("PROGRAMDATA", "C:\\ProgramData"), "uv", "uv.toml")
        return
    if home or inherited.get("XDG_CONFIG_HOME"):
        yield Path(inherited.get("XDG_CONFIG_HOME") or Path(home, ".config"), "uv", "uv.toml")
    yield Path("/etc/uv/uv.toml")


def _from_uv(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # uv itself, which tells of what is wrong with it, is not asked to read it
    pip = content.get("pip")
    values: dict[str, Any] = {**(cast("dict[str, Any]", pip) if isinstance(pip, dict) else {}), **content}
    env: dict[str, str] = {}
    default, others = _indexes(values.get("index"))
    if isinstance(values.get("index-url"), str):
        default = default or values["index-url"]
    others += _texts(values.get("extra-index-url"))
    if default:
        env["UV_DEFAULT_INDEX"] = default
    if others:
        env["UV_INDEX"] = " ".join(others)
    if links := _texts(values.get("find-links")):
        env["UV_FIND_LINKS"] = ",".join(_existing(links))
    if hosts := _texts(values.get("allow-insecure-host")):
        env["UV_INSECURE_HOST"] = " ".join(hosts)
    for key, name in (
        ("no-index", "UV_NO_INDEX"),
        ("native-tls", "UV_NATIVE_TLS"),
        ("system-certs", "UV_SYSTEM_CERTS"),
    ):
        if values.get(key) is True:
            env[name] = "true"
    for key, name in (
        ("keyring-provider", "UV_KEYRING_PROVIDER"),
        ("index-strategy", "UV_INDEX_STRATEGY"),
        ("http-proxy", "HTTP_PROXY"),
        ("https-proxy", "HTTPS_PROXY"),
        ("no-proxy", "NO_PROXY"),
    ):
        value = values.get(key)
        if isinstance(value, str):
            env[name] = value
    return env


def _indexes(tables: Any) -> tuple[str, list[str]]:
    """The default index and the others; those that are meant for named packages only are left out."""
    default, others = "", list[str]()
    for table in cast("list[Any]", tables) if isinstance(tables, list) else []:
        if not isinstance(table, dict):
            continue
        values = cast("dict[str, Any]", table)
        url, name = values.get("url"), values.get("name")
        if not isinstance(url, str) or values.get("explicit") is True:
            continue
        if values.get("default") is True:
            default = f"{name}={url}" if isinstance(name, str) else url
        else:
            others.append(f"{name}={url}" if isinstance(name, str) else url)
    return default, others


def _from_pip(inherited: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for path in _pip_files(inherited):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    prefix = "PIP_"
    for name, value in inherited.items():
        if name.startswith(prefix) and value:
            values[name.removeprefix(prefix).lower().replace("_", "-")] = value
    env: dict[str, str] = {}
    if url := values.get("index-url", "").strip():
        env["UV_DEFAULT_INDEX"] = url
    if others := _SPACES.split(values.get("extra-index-url", "").strip()):
        env["UV_INDEX"] = " ".join(others)
    if links := _SPACES.split(values.get("find-links", "").strip()):
        env["UV_FIND_LINKS"] = ",".join(_existing(links))
    if values.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"):
        env["UV_NO_INDEX"] = "true"
    if hosts := _SPACES.split(values.get("trusted-host", "").strip()):
        env["UV_INSECURE_HOST"] = " ".join(hosts)
    if (certificates := values.get("cert", "").strip()) and Path(certificates).is_file():
        env["SSL_CERT_FILE"] = certificates
    if "UV_INDEX" in env:
        # pip takes the best version of any index, uv the first index that has the package at all.
        env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in env.items() if value}


def _pip_files(inherited: Mapping[str, str]) -> Iterator[Path]:
    """The farthest first: a nearer one wins."""
    home = inherited.get("HOME") or inherited.get("USERPROFILE") or ""
    if sys.platform == "win32":
        yield Path(inherited.get("PROGRAMDATA", "C:\\ProgramData"), "pip", "pip.ini")
        yield Path(inherited.get("APPDATA", home), "pip", "pip.ini")
    else:
        yield Path("/etc/pip.conf")
        if home:
            yield Path(home, ".pip", "pip.conf")
            yield Path(inherited.get("XDG_CONFIG_HOME") or Path(home, ".config"), "pip", "pip.conf")
    yield Path(sys.prefix, "pip.ini" if sys.platform == "win32" else "pip.conf")
    if named := inherited.get("PIP_CONFIG_FILE"):
        yield Path(named)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]


def _existing(links: Iterable[str]) -> list[str]:
    """uv ends at a folder that is not there; pip passes it over."""
    return [link for link in links if link and ("://" in link or Path(link).is_dir())]
