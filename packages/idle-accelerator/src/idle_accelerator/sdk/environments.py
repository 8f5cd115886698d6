"""From what a user wants installed to the environment that travels with a job.

Where this machine has uv, what is wanted is resolved here, before anything is sent: to exact versions with the hashes of their files, for
every system at once. Then every node installs the same, and nodes that do not know the submitter take it. A lock that was made
elsewhere is taken as it is: pip's format with hashes, or ``pylock.toml`` (PEP 751).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from idle_accelerator.errors import InvalidInput, TooLarge
from idle_accelerator.sdk.indexes import index_environment, redact
from idle_accelerator.wire.environments import (
    LIMIT_BYTES,
    Environment,
    RequirementProblem,
    canonical_text,
    parse_requirements,
)
from idle_accelerator.wire.units import format_size

OLDEST_PYTHON: Final = "3.11"
"""That agents run on: what is resolved for it and all later ones runs on every node."""
_RESOLVE_S: Final = 600.0
_MINORS: Final = range(11, 31)
_SCRIPT_BLOCK: Final = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""As PEP 723 gives it."""
_SCRIPT_LIMIT_BYTES: Final = 10 * 1024 * 1024
_INSTALL_UV: Final = "install uv here, which finds out the exact versions and hashes: pip install uv"


@dataclass(frozen=True, kw_only=True)
class ScriptNeeds:
    """What a script says of itself by PEP 723."""

    requirements: tuple[str, ...]
    python: str | None
    """Minor version; None: any that nodes have."""


def environment_for(
    *,
    requirements: Sequence[str] | None,
    lock: str | os.PathLike[str] | None,
    python: str | None,
    function_python: str | None,
    own_pool: bool,
) -> Environment | None:
    """None where nothing is wanted. Reads files and may run uv, which may take its time.

    ``own_pool``: where there is no uv, names without hashes will do, as the pool is the submitter's own. Raises InvalidInput, TooLarge.
    """
    _check_python(python, function_python)
    wanted = function_python or python
    if lock is not None:
        if requirements:
            raise InvalidInput(
                "there are requirements as well.",
                field="lock",
                hint="Give one of them: a lock names everything.",
            )
        return _environment(_read_lock(Path(lock)), wanted, field="lock")
    if not requirements:
        if python is not None:
            raise InvalidInput(
                "says which Python packages are installed for, and there are none.",
                field="python",
                hint="Give requirements or a lock as well.",
            )
        return None
    if isinstance(requirements, str):
        raise InvalidInput(
            "a list is wanted, not one text.", field="requirements", hint=f"Write [{requirements!r}]."
        )
    text = "\n".join(str(item) for item in requirements)
    parsed = _parsed(text, field="requirements")
    if all(item.is_pinned for item in parsed):
        return _environment(text, wanted, field="requirements")
    uv = find_uv()
    if uv is not None:
        return _environment(_resolve(uv, canonical_text(parsed), wanted), wanted, field="requirements")
    if own_pool:
        return _environment(text, wanted, field="requirements")
    raise InvalidInput(
        "exact versions with hashes are needed by nodes that do not know you, and there is no uv here.",
        field="requirements",
        hint=f"{_INSTALL_UV[:1].upper()}{_INSTALL_UV[1:]}; or give a lock.",
    )


def read_requirements(path: Path, *, field: str) -> list[str]:
    """The lines of a requirements file. Raises InvalidInput."""
    text = _read(path, field=field)
    try:
        parse_requirements(text)
    except RequirementProblem as problem:
        raise InvalidInput(
            f"{path}, line {problem.line}: {problem.message}.", field=field, hint=_sentence(problem.hint)
        ) from None
    return text.splitlines()


def script_needs(path: Path, *, own_python: str) -> ScriptNeeds | None:
    """None where the script says nothing. ``own_python``: preferred where it will do but not every version does. Raises InvalidInput."""
    try:
        if path.stat().st_size > _SCRIPT_LIMIT_BYTES:
            return None
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return None
    blocks = [found for found in _SCRIPT_BLOCK.finditer(text) if found["type"] == "script"]
    if not blocks:
        return None
    field = str(path)
    if len(blocks) > 1:
        raise InvalidInput("has more than one block '# /// script'.", field=field, hint="Leave one.")
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:]
        for line in blocks[0]["content"].splitlines(keepends=True)
    )
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(
            f"its block '# /// script' is no TOML: {error}.", field=field, hint="Mend it (PEP 723)."
        ) from None
    return _script_needs(values, field, own_python)


def _script_needs(values: dict[str, Any], field: str, own_python: str) -> ScriptNeeds | None:
    tool = values.get("tool")
    settings = cast("dict[str, Any]", tool).get("uv") if isinstance(tool, dict) else None
    for name in ("sources", "index", "index-url", "extra-index-url", "find-links", "override-dependencies"):
        if isinstance(settings, dict) and name in settings:
            raise InvalidInput(
                f"its [tool.uv] names {name!r}, which a node cannot follow.",
                field=field,
                hint="Make a lock of what it needs and give that: uv export --script FILE > LOCK, then --lock LOCK.",
            )
    listed = values.get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in cast("list[Any]", listed)):
        raise InvalidInput("its 'dependencies' are no list of texts.", field=field, hint="See PEP 723.")
    wanted = values.get("requires-python")
    if wanted is not None and not isinstance(wanted, str):
        raise InvalidInput("its 'requires-python' is no text.", field=field, hint="As in: '>=3.11'.")
    python = None if wanted is None else _minor_for(wanted, field, own_python)
    dependencies = tuple(cast("list[str]", listed))
    return ScriptNeeds(requirements=dependencies, python=python) if dependencies else None


def find_uv() -> str | None:
    """The one beside this Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("uv.exe" if sys.platform == "win32" else "uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _minor_for(wanted: str, field: str, own_python: str) -> str | None:
    """The minor version to ask for, by a version specifier such as ``>=3.11,<3.13``; None when all will do."""
    clauses = [
        re.fullmatch(r"\s*(>=|<=|==|!=|~=|<|>)\s*3(?:\.(\d+))?(?:\.[\d*]+)*\s*", item)
        for item in wanted.split(",")
        if item.strip()
    ]
    fitting = [
        minor
        for minor in _MINORS
        if all(found is not None and _fits(found[1], found[2], minor) for found in clauses)
    ]
    if not fitting:
        raise InvalidInput(
            f"its requires-python {wanted!r} leaves no Python that nodes have.",
            field=field,
            hint=f"Nodes have Python {OLDEST_PYTHON} and later.",
        )
    if len(fitting) == len(_MINORS):
        return None
    own = int(own_python.partition(".")[2])
    return f"3.{own if own in fitting else fitting[0]}"


def _fits(sign: str, number: str | None, minor: int) -> bool:
    if number is None:
        return sign in (">=", "==", "~=")
    bound = int(number)
    return {
        ">=": minor >= bound,
        ">": minor >= bound,  # of 3.11.4, say: a later patch of it will do
        "<=": minor <= bound,
        "<": minor < bound,
        "==": minor == bound,
        "!=": minor != bound,
        "~=": minor >= bound,
    }[sign]


def _check_python(python: str | None, function_python: str | None) -> None:
    if python is None:
        return
    if not re.fullmatch(r"3\.\d{1,3}", python):
        raise InvalidInput(
            f"{python!r} is no minor version of Python.", field="python", hint="For example: 3.12."
        )
    if function_python is not None and python != function_python:
        raise InvalidInput(
            f"functions run by the Python that pickled them, which is {function_python}.",
            field="python",
            hint="Leave it out, or run this program by that Python.",
        )


def _parsed(text: str, *, field: str) -> tuple[Any, ...]:
    try:
        return parse_requirements(text)
    except RequirementProblem as problem:
        place = f"{field}[{problem.line - 1}]" if field == "requirements" else field
        where = "" if field == "requirements" else f"line {problem.line}: "
        raise InvalidInput(f"{where}{problem.message}.", field=place, hint=_sentence(problem.hint)) from None


def _environment(text: str, python: str | None, *, field: str) -> Environment:
    canonical = canonical_text(_parsed(text, field=field))
    size = len(canonical)
    if size > LIMIT_BYTES:
        raise TooLarge(
            f"the requirements with their hashes are {format_size(size)}; at most {format_size(LIMIT_BYTES)} are taken.",
            field=field,
            hint="Leave packages out that the tasks do not import.",
        )
    return Environment(requirements=canonical, python=python)


def _resolve(uv: str, text: str, python: str | None) -> str:
    """Exact versions with hashes, for all systems. Raises InvalidInput with what uv says."""
    index = index_environment()
    env = {**index, "PATH": os.environ.get("PATH", os.defpath), "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory(prefix="idle-") as folder:
        source = Path(folder, "requirements.in")
        source.write_text(text, encoding="utf-8")
        command = [
            *(uv, "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-annotate"),
            *("--generate-hashes", "--universal", "--only-binary", ":all:"),
            *("--python-version", python or OLDEST_PYTHON, str(source)),
        ]
        try:
            done = subprocess.run(
                command,
                env=env,
                cwd=folder,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=_RESOLVE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InvalidInput(
                f"uv could not be asked for exact versions: {type(error).__name__}.",
                field="requirements",
                hint="Make a lock by hand: uv pip compile --generate-hashes --universal FILE > LOCK.",
            ) from None
    if done.returncode != 0:
        said = " ".join(redact(done.stderr, index).replace(folder, "").split())[:600]
        raise InvalidInput(
            f"uv finds no versions that go together: {said}",
            field="requirements",
            hint="Only packages with wheels can be installed on nodes: see what it says of them.",
        )
    return done.stdout


def _read(path: Path, *, field: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path}: {error.strerror}.",
            field=field,
            hint="Paths are relative to the folder that you are in.",
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no UTF-8 text.", field=field, hint="Give a text file.") from None


def _read_lock(path: Path) -> str:
    text = _read(path, field="lock")
    if path.name == "uv.lock":
        raise InvalidInput(
            "a uv.lock holds more than packages of an index.",
            field="lock",
            hint="Export it: uv export --no-emit-project --format pylock.toml -o pylock.toml, then give that.",
        )
    text = _from_pylock(text) if path.suffix == ".toml" else text
    parsed = _parsed(text, field="lock")
    loose = next((item for item in parsed if not item.is_pinned), None)
    if loose is not None:
        raise InvalidInput(
            f"{loose.name} has no exact version with hashes.",
            field="lock",
            hint="Make it so: uv pip compile --generate-hashes --universal FILE > LOCK; or give it as requirements.",
        )
    return text


def _from_pylock(text: str) -> str:
    """PEP 751, as far as packages of an index go."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"no valid TOML: {error}.", field="lock", hint="Make it anew.") from None
    packages = _tables(values.get("packages"))
    if not isinstance(values.get("lock-version"), str) or not packages:
        raise InvalidInput(
            "no lock as PEP 751 has it.", field="lock", hint="uv export --format pylock.toml makes one."
        )
    return "\n".join(_locked_line(package) for package in packages)


def _tables(value: Any) -> list[dict[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _locked_line(package: Mapping[str, Any]) -> str:
    name, version = package.get("name"), package.get("version")
    other = next((kind for kind in ("vcs", "directory", "archive") if kind in package), None)
    if other is not None or not isinstance(name, str) or not isinstance(version, str):
        raise InvalidInput(
            f"{name} comes from elsewhere than an index.",
            field="lock",
            hint="Nodes install wheels of an index alone: send your own code as input files.",
        )
    hashes = [wheel.get("hashes") for wheel in _tables(package.get("wheels"))]
    digests = [
        cast("dict[str, Any]", item).get("sha256") if isinstance(item, dict) else None for item in hashes
    ]
    if not digests or None in digests:
        raise InvalidInput(
            f"{name} has no wheel with a sha256.",
            field="lock",
            hint="Nodes install wheels alone: leave it out.",
        )
    marker = package.get("marker")
    suffix = f" ; {marker}" if isinstance(marker, str) else ""
    return " ".join([f"{name}=={version}{suffix}", *(f"--hash=sha256:{digest}" for digest in digests)])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
