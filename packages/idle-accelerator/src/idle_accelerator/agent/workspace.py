"""Folders of attempts: made, filled with inputs, searched for outputs, wiped. Nothing of the owner's is ever in them.

Inputs come by way of a cache of blobs by digest and are copied, never linked: a guest may write to what it was given.
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idle_accelerator.agent.link import Link
from idle_accelerator.errors import IdleError, StorageFull, Unavailable
from idle_accelerator.wire.jobs import Artifact, InputFile, check_workspace_path

CACHE_LIMIT_BYTES = 4 * 1024**3
OUTPUTS_LIMIT = 10_000
DEPTH_LIMIT = 64
_log = logging.getLogger(__name__)


class InputMissing(IdleError):
    """An input cannot be had, and trying again will not help."""

    code = "input_missing"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"input {path} could not be fetched: {detail}", field="inputs")
        self.path = path
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class FoundOutputs:
    """What the patterns matched, and the first thing that was not taken along, in words."""

    files: tuple[tuple[str, Path], ...]
    """(path in the workspace, file)"""
    refused: str | None


class BlobCache:
    """Blobs on this machine, by digest; the least recently used go first when there are too many bytes."""

    def __init__(self, directory: Path, link: Link, *, limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
        self._directory = directory
        self._link = link
        self._limit_bytes = limit_bytes
        self._fetching: dict[str, asyncio.Lock] = {}

    def open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._directory.glob(".*"):
            leftover.unlink()

    async def get(self, digest: str) -> Path:
        """The blob's file; it stays at least until the next call. Raises what ``Link.fetch_blob`` raises."""
        path = self._directory / digest
        async with self._fetching.setdefault(digest, asyncio.Lock()):
            if not path.is_file():
                await self._link.fetch_blob(digest, path)
                await asyncio.to_thread(self._make_room, path)
        self._fetching.pop(digest, None)
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def _make_room(self, newest: Path) -> None:
        entries = [(path.stat(), path) for path in self._directory.iterdir() if path != newest]
        total = newest.stat().st_size + sum(status.st_size for status, _ in entries)
        for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
            if total <= self._limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size


class Workspaces:
    """All folders of this agent's attempts, below one directory that holds nothing else."""

    def __init__(self, directory: Path, cache: BlobCache) -> None:
        self._directory = directory
        self._cache = cache

    def open(self) -> int:
        """Makes the directory, and wipes what an agent that crashed left in it; returns how many folders that were."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        leftovers = list(self._directory.iterdir())
        for leftover in leftovers:
            wipe(leftover)
        return len(leftovers)

    def make(self, name: str) -> Path:
        path = self._directory / name
        path.mkdir(mode=0o700)
        return path

    async def stage(self, inputs: Sequence[InputFile], workspace: Path) -> None:
        """Puts every input in its place. Raises InputMissing, Unavailable (the scheduler), StorageFull or OSError of the disk."""
        for item in inputs:
            try:
                source = await self._cache.get(item.digest)
            except IdleError as error:
                if isinstance(error, Unavailable | StorageFull):
                    raise
                raise InputMissing(item.path, error.message) from error
            await asyncio.to_thread(_place, source, workspace / item.path, executable=item.executable)


def _place(source: Path, target: Path, *, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o700 if executable else 0o600)


def wipe(path: Path) -> None:
    """Removes a folder, also where a guest took away its own rights to it, and makes sure that it is gone.

    Raises OSError when something of it cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return

    def allow_and_retry(remove: Callable[[str], object], name: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            return
        for place in (os.path.dirname(name), name):  # noqa: PTH120  # rmtree speaks in strings
            if not os.path.islink(place):  # noqa: PTH114  # as above
                os.chmod(place, stat.S_IRWXU)  # noqa: PTH101  # as above
        if os.path.isdir(name) and not os.path.islink(name):  # noqa: PTH112, PTH114  # as above
            shutil.rmtree(name)
        else:
            remove(name)

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=allow_and_retry)
    else:
        shutil.rmtree(path, onerror=lambda remove, name, info: allow_and_retry(remove, name, info[1]))
    if path.exists():
        raise OSError(f"{path} is still there after it was removed")


async def wipe_soon(path: Path) -> None:
    """``wipe`` off the event loop; what cannot be removed now is tried again at the agent's next start."""
    try:
        await asyncio.to_thread(wipe, path)
    except OSError as error:
        _log.warning(
            "the workspace %s could not be removed: %s; it is tried again at the next start", path, error
        )


def find_outputs(workspace: Path, patterns: Sequence[str]) -> FoundOutputs:
    """Regular files that the patterns match. The task must be dead: nothing may move while this looks.

    Patterns are those of a shell: ``*`` and ``?`` within a name, ``[…]``, ``**`` for any folders; a leading dot is matched
    by a dot only. Links are never followed or taken, since they may point out of the workspace.
    """
    found: dict[str, Path] = {}
    refused: str | None = None
    for pattern in patterns:
        matched = False
        for path, file in _matches(workspace, "", tuple(pattern.split("/")), DEPTH_LIMIT):
            matched = True
            why = _why_not(path, file)
            if why is None and path not in found and len(found) >= OUTPUTS_LIMIT:
                why = f"there are more than {OUTPUTS_LIMIT} outputs"
            if why is None:
                found[path] = file
            elif refused is None:
                refused = why
        if not matched and refused is None:
            refused = f"nothing matches {pattern!r}"
    return FoundOutputs(files=tuple(sorted(found.items())), refused=refused)


def _matches(folder: Path, prefix: str, parts: tuple[str, ...], depth: int) -> Iterator[tuple[str, Path]]:
    """(path, entry) of everything but folders that the parts match below ``folder``."""
    if not parts or depth == 0:
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches(folder, prefix, rest or ("*",), depth)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        path = f"{prefix}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if part == "**":
            if is_folder:
                yield from _matches(Path(entry.path), f"{path}/", parts, depth - 1)
        elif _name_matches(entry.name, part):
            if rest and is_folder:
                yield from _matches(Path(entry.path), f"{path}/", rest, depth - 1)
            elif not rest and not is_folder:
                yield path, Path(entry.path)


def _name_matches(name: str, pattern: str) -> bool:
    expression = ""
    position = 0
    while position < len(pattern):
        sign = pattern[position]
        position += 1
        if sign == "*":
            expression += ".*"
        elif sign == "?":
            expression += "."
        elif sign == "[" and (end := pattern.find("]", position + 1)) > 0:
            inner = pattern[position:end].replace("\\", "\\\\")
            expression += f"[{'^' + inner[1:] if inner.startswith('!') else inner}]"
            position = end + 1
        else:
            expression += re.escape(sign)
    try:
        return re.fullmatch(expression, name, re.DOTALL) is not None
    except re.error:
        return name == pattern


def _why_not(path: str, file: Path) -> str | None:
    shown = path.encode("ascii", "backslashreplace").decode()[:200]
    try:
        check_workspace_path(path)
        path.encode()
    except ValueError as error:
        return f"the name {shown!r} {error}"
    if len(path) > 1000:
        return f"the path {shown!r} is longer than 1000 characters"
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"{shown} is a link"
    if not stat.S_ISREG(status.st_mode):
        return f"{shown} is no regular file"
    if status.st_nlink > 1:
        return f"{shown} has more than one name (hard link)"
    return None


async def store_outputs(link: Link, found: FoundOutputs) -> tuple[Artifact, ...]:
    """Has the scheduler keep every file. Raises Unavailable or StorageFull of the scheduler, InvalidInput for what cannot be read."""
    artifacts: list[Artifact] = []
    for path, file in found.files:
        digest, size_bytes = await link.store_file(file)
        artifacts.append(Artifact(path=path, digest=digest, size_bytes=size_bytes))
    return tuple(artifacts)
