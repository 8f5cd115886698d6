"""Which files of this machine go along with a job, and where they will stand in its workspace."""

import glob
from collections.abc import Sequence
from pathlib import Path

from idle_accelerator.errors import InvalidInput


def input_files(texts: Sequence[str]) -> dict[str, str]:
    """Where each file shall stand in the workspace, and which file here that is. Raises InvalidInput."""
    found: dict[str, str] = {}
    for text in texts:
        for place, local in _files_of(text):
            if place in found and Path(found[place]).resolve() != Path(local).resolve():
                raise InvalidInput(
                    f"{found[place]} and {local} would both be {place!r} in the workspace.",
                    field="--input",
                    hint="Name one of them otherwise: --input FILE=NAME.",
                )
            found[place] = local
    return found


def _files_of(text: str) -> list[tuple[str, str]]:
    if Path(text).exists():
        return _files_at(Path(text), _own_place(Path(text)))
    local, sign, place = text.rpartition("=")
    if sign and Path(local).exists():
        return _files_at(
            Path(local), place.rstrip("/") + (f"/{Path(local).name}" if place.endswith("/") else "")
        )
    matches = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207  # ** from anywhere
    if matches:
        return [
            pair
            for match in matches
            if Path(match).is_file()
            for pair in _files_at(Path(match), _own_place(Path(match)))
        ]
    shown = local if sign else text
    raise InvalidInput(
        f"there is no file {shown!r} here.", field="--input", hint=f"Paths are taken from {Path.cwd()}."
    )


def _own_place(path: Path) -> str:
    """The same path as here where that lies below, else the bare name: so a command that works here works there."""
    if path.is_absolute() or ".." in path.parts:
        return path.resolve().name
    return path.as_posix()


def _files_at(local: Path, place: str) -> list[tuple[str, str]]:
    if not local.is_dir():
        return [(place, str(local))]
    prefix = "" if place in ("", ".") else f"{place}/"
    inside = sorted(path for path in local.rglob("*") if path.is_file())
    if not inside:
        raise InvalidInput(
            f"the folder {str(local)!r} holds no files.", field="--input", hint="Leave it out."
        )
    return [(prefix + path.relative_to(local).as_posix(), str(path)) for path in inside]


def files_named_by(command: Sequence[str], *, taken: frozenset[str]) -> dict[str, str]:
    """Files below this directory whose path is, letter by letter, a word of the command."""
    found: dict[str, str] = {}
    for word in command:
        path = Path(word)
        if not word or path.is_absolute() or ".." in path.parts or "\\" in word or len(word) > 1000:
            continue
        place = path.as_posix()
        try:
            is_file = path.is_file()
        except (OSError, ValueError):
            continue
        if is_file and place not in taken:
            found[place] = word
    return found
