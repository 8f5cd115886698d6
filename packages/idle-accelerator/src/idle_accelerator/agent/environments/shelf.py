"""Environments that are whole, on disk: one folder each, named by what it was made from, and never written to again.

``made/KEY``    an environment; it comes here by one rename, so whatever lies here is whole
``making/…``    what is being made; left by an agent that crashed, it is removed at the next start
``cache``       uv's own: wheels unpacked once, whose files environments share by hard links

The least recently used go first when there are too many bytes; never one that is in use.
"""

import contextlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from idle_accelerator.agent.environments.faults import EnvironmentRefused, EnvironmentTrouble
from idle_accelerator.agent.environments.uv import programs_in
from idle_accelerator.agent.wiping import Wiping, rename_away

_log = logging.getLogger(__name__)
_NAMES_AT_A_TIME: Final = 5000
_BLOCK_BYTES: Final = 512


class Shelf:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.cache: Final = directory / "cache"
        self._made = directory / "made"
        self._making = directory / "making"

    def open(self) -> int:
        """Makes the folders and removes what an agent that crashed was making; returns how much that was. Raises OSError."""
        for folder in (self._directory, self.cache, self._made, self._making):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        leftovers = list(self._making.iterdir())
        for leftover in leftovers:
            wipe(leftover)
        return len(leftovers)

    def find(self, key: str) -> Path | None:
        folder = self._made / key
        return folder if folder.is_dir() else None

    def take(self, key: str) -> Path:
        """It is used now. Raises EnvironmentTrouble where somebody else has removed it."""
        folder = self.find(key)
        if folder is None:
            raise EnvironmentTrouble("it was removed as soon as it was made.")
        self.touch(key)
        return folder

    def touch(self, key: str) -> None:
        """It is used now."""
        with contextlib.suppress(OSError):
            os.utime(self._made / key)

    def new_place(self) -> Path:
        """An empty folder of its own, in which something can be made."""
        place = self._making / secrets.token_hex(8)
        place.mkdir(mode=0o700)
        return place

    def put(self, folder: Path, key: str) -> None:
        """From now on it is whole. Raises OSError."""
        target = self._made / key
        folder.chmod(0o700)  # a folder that comes to another place is written to: its ``..``
        folder.rename(target)
        target.chmod(0o555)
        self.touch(key)

    def used_bytes(self) -> int:
        """What all of it takes of the disk; files that several share count once."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for status in _walk(self._directory):
            name = (status.st_dev, status.st_ino)
            if status.st_nlink > 1:
                if name in seen:
                    continue
                seen.add(name)
            total += _size(status)
        return total

    def make_room(self, limit_bytes: int, *, in_use: Callable[[], Iterable[str]]) -> int:
        """Removes the least recently used until all of it fits, then uv's cache if that does not help; returns what is left.

        Not to be called while uv runs.
        """
        used_bytes = self.used_bytes()
        while used_bytes > limit_bytes:
            kept = set(in_use())
            candidates = [
                (folder.stat().st_mtime, folder) for folder in self._made.iterdir() if folder.name not in kept
            ]
            if not candidates:
                break
            oldest = min(candidates)[1]
            _log.info("removing the environment %s, which was not used for longest", oldest.name[:12])
            self._remove(oldest)
            self._drop_unshared()
            used_bytes = self.used_bytes()
        if used_bytes > limit_bytes:
            # What environments in use share with it stays on the disk by their own links.
            self._remove(self.cache)
            self.cache.mkdir(mode=0o700)
            used_bytes = self.used_bytes()
        return used_bytes

    def _drop_unshared(self) -> None:
        """Wheels in uv's cache that no environment has any more. uv fetches what it misses anew."""
        for archives in self.cache.glob("archive-v*"):
            for archive in list(archives.iterdir()):
                if not any(status.st_nlink > 1 for status in _walk(archive) if stat.S_ISREG(status.st_mode)):
                    self._remove(archive)

    def _remove(self, folder: Path) -> None:
        away = self._making / f"over-{secrets.token_hex(8)}"
        try:
            folder.chmod(0o700)
            rename_away(folder, away)
        except OSError as error:
            _log.warning("%s could not be removed: %s", folder, error)
            return
        wipe(away)


def wipe(path: Path) -> None:
    """Removes it, whatever it is. What cannot be removed is logged, and found at the next start."""
    wiping = Wiping(path)
    while (state := wiping.step(_NAMES_AT_A_TIME)) == "more":
        time.sleep(0)
    if state == "stuck":
        _log.warning("%s could not be removed: %s", path, wiping.problem)


def seal(folder: Path, before: dict[str, str]) -> None:
    """Takes the right to write from all of it, and looks whether it is what it should be.

    ``before`` is ``fixed_parts`` of the empty environment. Raises EnvironmentRefused for one in which a package changed what makes it
    an environment, or that holds links or special files; OSError.
    """
    if fixed_parts(folder) != before:
        raise EnvironmentRefused("a package replaces the environment's own Python or settings.")
    known = {Path(name) for name in before}
    for path, status in _walk_paths(folder):
        if stat.S_ISLNK(status.st_mode):
            if path.relative_to(folder) not in known:
                raise EnvironmentRefused(f"a package brings the link {path.name[:100]!r}.")
        elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise EnvironmentRefused(f"a package brings {path.name[:100]!r}, which is no file.")
        else:
            # Readable for all: a guest may run as a user of its own. Who may come here is said by the folders above.
            mode = 0o555 if status.st_mode & stat.S_IXUSR else 0o444
            if stat.S_IMODE(status.st_mode) != mode:
                path.chmod(mode)


def fixed_parts(folder: Path) -> dict[str, str]:
    """What no package may change: links and settings of the environment itself."""
    parts = {"pyvenv.cfg": (folder / "pyvenv.cfg").read_text(encoding="utf-8")}
    for place in (folder, programs_in(folder)):
        for path in place.iterdir():
            if path.is_symlink():
                parts[path.relative_to(folder).as_posix()] = str(path.readlink())
            elif path.name.startswith("python"):
                parts[path.relative_to(folder).as_posix()] = f"{path.lstat().st_size}"
    return parts


def _walk_paths(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All that is in it, folders after what they hold; no link is followed. Raises OSError."""
    folders = [folder]
    for place in folders:  # grows meanwhile
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
    for place in reversed(folders):
        yield place, place.lstat()


def _walk(folder: Path) -> Iterator[os.stat_result]:
    """The same, passing over what vanishes meanwhile and what may not be read."""
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield status
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(Path(entry.path))


def _size(status: os.stat_result) -> int:
    blocks: int = getattr(status, "st_blocks", 0)
    return blocks * _BLOCK_BYTES if blocks else status.st_size


class Meter:
    """How many bytes an install has taken so far: what is being made, and what is new in uv's cache."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder
        self._cache = cache
        self._before = set(self._entries())

    def _entries(self) -> Iterator[Path]:
        """In which uv unpacks and keeps wheels."""
        for path in self._cache.iterdir():
            if path.name.startswith("archive-v") and path.is_dir():
                yield from path.iterdir()
            elif path.name.startswith("."):
                yield path

    def used_bytes(self) -> int:
        seen: set[tuple[int, int]] = set()
        total = 0
        with contextlib.suppress(OSError):
            new = [path for path in self._entries() if path not in self._before]
            for place in (self._folder, *new):
                for status in _walk(place):
                    if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
                        name = (status.st_dev, status.st_ino)
                        if name in seen:
                            continue
                        seen.add(name)
                    total += _size(status)
        return total
