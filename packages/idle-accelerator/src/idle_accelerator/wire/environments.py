"""Environments: the Python packages that a task's own Python has, as a list of requirements that travels with the job.

The list is a subset of pip's requirements files: names, extras, versions, markers and hashes. What would let a list choose where things
come from, name files of the machine, or run a package's own build is no part of it and is refused: paths, addresses, editable installs,
other files, indexes, and every option but ``--hash``.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from idle_accelerator.wire.model import WireModel

LIMIT_BYTES: Final = 256 * 1024
MAX_REQUIREMENTS: Final = 2000
MAX_HASHES: Final = 500
"""Of one requirement; the packages with the most files have about 150."""
EnvironmentKind = Literal["locked", "unlocked"]
"""locked: every requirement says by hashes which files will do · unlocked: names and versions alone."""
PythonVersion = Annotated[str, Field(pattern=r"^3\.\d{1,3}$", examples=["3.11"])]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?"
_VERSION = r"[A-Za-z0-9.*+!_-]{1,100}"
_CLAUSE = rf"(?:===|~=|==|!=|<=|>=|<|>)\s*{_VERSION}"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*"
    rf"(?:\[\s*(?P<extras>{_NAME}(?:\s*,\s*{_NAME})*)?\s*\])?\s*"
    rf"(?P<clauses>\(?\s*{_CLAUSE}(?:\s*,\s*{_CLAUSE})*\s*,?\s*\)?)?\s*"
    r"(?:;\s*(?P<marker>.+))?",
    re.ASCII,
)
_ARCHIVE = re.compile(r"\.(whl|zip|tgz|tbz|tar(\.[a-z0-9]+)?)$", re.IGNORECASE)
"""pip takes such a name for a file."""
_MARKER = re.compile(r"[A-Za-z0-9_ .'\"()<>=!~,*+-]{1,1000}", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_WEAK_HASH = re.compile(r"(md5|sha1|sha224):.*")
_STRONG_HASH = re.compile(r"sha(384|512):[0-9a-f]{96,128}")
_SUBJECT_LENGTH: Final = 2000


class RequirementProblem(ValueError):
    """A line that is refused: ``line`` counts from 1; ``hint`` says what to write instead."""

    def __init__(self, message: str, *, line: int, hint: str) -> None:
        super().__init__(f"line {line}: {message}; {hint}")
        self.message = message
        self.line = line
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement in its canonical form."""

    name: str
    """As PEP 503 writes it."""
    extras: tuple[str, ...]
    clauses: tuple[str, ...]
    marker: str
    hashes: tuple[str, ...]
    line: int
    """Where it stands in the text."""

    @property
    def text(self) -> str:
        """Without hashes."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.name}{extras}{','.join(self.clauses)}{marker}"

    @property
    def pinned_text(self) -> str:
        return " ".join([self.text, *(f"--hash={digest}" for digest in self.hashes)])

    @property
    def is_pinned(self) -> bool:
        """One version, and hashes of its files."""
        return bool(self.hashes) and any(
            clause.startswith("==") and "*" not in clause for clause in self.clauses
        )


def parse_requirements(text: str) -> tuple[Requirement, ...]:
    """In canonical order. Raises RequirementProblem for the first line that is refused, or when there are none."""
    found = [_parse(line, number) for number, line in _logical_lines(text)]
    if not found:
        raise RequirementProblem("there are no requirements", line=1, hint="name at least one package")
    if len(found) > MAX_REQUIREMENTS:
        raise RequirementProblem(
            f"more than {MAX_REQUIREMENTS} requirements", line=found[MAX_REQUIREMENTS].line, hint="name fewer"
        )
    return tuple(sorted(found, key=lambda item: (item.name, item.text, item.hashes)))


def canonical_text(requirements: tuple[Requirement, ...]) -> str:
    """The same text for the same requirements, however they were written."""
    return "".join(f"{item.pinned_text}\n" for item in requirements)


class Environment(WireModel):
    """What a task's Python has installed, beside the standard library."""

    requirements: str = Field(
        min_length=1,
        max_length=LIMIT_BYTES,
        description="As in pip's requirements files: names, extras, versions, markers, --hash=sha256:…; nothing else.",
        examples=[
            "idna==3.10 --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3"
        ],
    )
    python: PythonVersion | None = Field(
        default=None, description="Minor version of Python; the node's own where it is not said."
    )

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if len(self.requirements.encode(errors="replace")) > LIMIT_BYTES:
            raise ValueError(f"must be at most {LIMIT_BYTES} bytes")
        parse_requirements(self.requirements)
        return self

    @property
    def kind(self) -> EnvironmentKind:
        parsed = parse_requirements(self.requirements)
        return "locked" if all(item.is_pinned for item in parsed) else "unlocked"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form: equal for texts that mean the same."""
        lines = canonical_text(parse_requirements(self.requirements)).splitlines()
        content = json.dumps({"version": 1, "python": self.python, "requirements": lines}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of its first line, line) without comments, continued lines joined."""
    found: list[tuple[int, str]] = []
    begun: list[str] = []
    first = 0
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not all(letter.isprintable() or letter == "\t" for letter in raw):
            raise RequirementProblem(
                "control characters", line=number, hint="write plain text, one requirement a line"
            )
        comment = raw.lstrip().startswith("#")
        line = "" if comment else re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if begun and comment:
            continue
        if not begun:
            first = number
        if line.endswith("\\"):
            begun.append(line[:-1])
            continue
        joined = " ".join([*begun, line]).strip()
        begun = []
        if joined:
            found.append((first, joined))
    joined = " ".join(begun).strip()
    return [*found, (first, joined)] if joined else found


def _parse(line: str, number: int) -> Requirement:
    if line.startswith("-"):
        raise _refused_option(line, number)
    subject, *options = " ".join(line.split()).split(" --")
    if len(subject) > _SUBJECT_LENGTH:
        raise RequirementProblem(
            f"{_shown(subject)!r}… is too long", line=number, hint="write one requirement a line"
        )
    hashes = tuple(sorted({_hash_of(f"--{option}", number) for option in options}))
    if len(hashes) > MAX_HASHES:
        raise RequirementProblem(f"more than {MAX_HASHES} hashes", line=number, hint="leave older files out")
    if "@" in subject.partition(";")[0] or "://" in subject:
        raise RequirementProblem(
            f"{_shown(subject)!r} names an address",
            line=number,
            hint="write name==version: packages come from the node's own index alone",
        )
    found = _REQUIREMENT.fullmatch(subject.strip())
    if found is None or _ARCHIVE.search(found["name"]):
        path = re.match(r"[./~\\]|[A-Za-z]:|.*(\.whl|\.tar\.gz|\.zip|[/\\].*)$", subject.strip())
        raise RequirementProblem(
            f"{_shown(subject)!r} is {'a path' if path else 'no requirement'}",
            line=number,
            hint="write a package by its name, as in numpy==2.3.1",
        )
    marker = " ".join((found["marker"] or "").split())
    if marker and not _MARKER.fullmatch(marker):
        raise RequirementProblem(
            f"{_shown(marker)!r} is no marker", line=number, hint="as in: ; python_version >= '3.12'"
        )
    clauses = (found["clauses"] or "").strip("() \t")
    return Requirement(
        name=_normal(found["name"]),
        extras=tuple(sorted({_normal(item.strip()) for item in (found["extras"] or "").split(",") if item})),
        clauses=tuple(sorted({re.sub(r"\s+", "", item) for item in clauses.split(",") if item.strip()})),
        marker=marker,
        hashes=hashes,
        line=number,
    )


def _refused_option(line: str, number: int) -> RequirementProblem:
    word = re.split(r"[\s=]", line, maxsplit=1)[0]
    hints = {
        ("-r", "--requirement", "-c", "--constraint"): "put what that file says here",
        ("-e", "--editable"): "only wheels of an index are installed: send your own code as input files",
        (
            "-i",
            "--index-url",
            "--extra-index-url",
            "-f",
            "--find-links",
            "--no-index",
            "--pre",
            "--prefer-binary",
        ): ("leave it out: a node's owner says where packages come from"),
    }
    hint = next(
        (
            text
            for words, text in hints.items()
            if any(word == item or (len(item) == 2 and word.startswith(item)) for item in words)
        ),
        "leave it out: the only option is --hash, after a requirement",
    )
    return RequirementProblem(f"{_shown(word)!r} is not taken", line=number, hint=hint)


def _hash_of(option: str, number: int) -> str:
    name, sign, value = option.strip().partition("=")
    if not sign:
        name, _, value = option.strip().partition(" ")
    value = value.strip()
    if name != "--hash":
        raise RequirementProblem(
            f"{_shown(name)!r} is not taken", line=number, hint="the only option of a requirement is --hash"
        )
    if _HASH.fullmatch(value) or _STRONG_HASH.fullmatch(value):
        return value
    if _WEAK_HASH.fullmatch(value):
        raise RequirementProblem(
            f"{_shown(value)!r} is a hash that can be forged", line=number, hint="write sha256"
        )
    raise RequirementProblem(
        f"{_shown(value)!r} is no hash", line=number, hint="write --hash=sha256: and 64 hex digits"
    )


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _shown(text: str) -> str:
    """Short, and without what may be a password in an address."""
    return re.sub(r"//[^/@\s]*@", "//***@", text.strip())[:80]
