"""Folders of attempts: made, filled with inputs, wiped. Nothing of the owner's is ever in them.

Inputs come by way of a cache of blobs by digest and are copied, never linked: a guest may write to what it was given. What it leaves
is looked at in ``outputs``.
"""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idle_accelerator.agent.link import Link
from idle_accelerator.agent.wiping import Wiping, rename_away
from idle_accelerator.errors import IdleError, StorageFull, Unavailable
from idle_accelerator.wire.jobs import InputFile
from idle_accelerator.wire.reasons import Reason, reason

CACHE_LIMIT_BYTES = 4 * 1024**3
RETRY_S: Final = 60.0
"""Between tries to remove what could not be removed."""
_OVER: Final = ".over-"
"""Folders that wait to be removed."""
_AT_ONCE: Final = 1000
"""Names that are removed before anything else happens: all of most workspaces."""
_AT_A_TIME: Final = 300
"""Names that are removed between two pauses."""
_PAUSE_S: Final = 0.02
_LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)


class InputMissing(IdleError):
    """An input cannot be had, and trying again will not help."""

    code = "input_missing"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"input {path} could not be fetched: {detail}", field="inputs")
        self.path = path
        self.detail = detail


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
    """All folders of this agent's attempts, below one directory that holds nothing else.

    A folder that is over is renamed first, so that no later attempt meets it, and then removed: a small one at once, the rest of a big
    one in the background and slowly, since the disk is the owner's. What cannot be removed is tried again, and counts as used.
    """

    def __init__(self, directory: Path, cache: BlobCache) -> None:
        self._directory = directory
        self._cache = cache
        self._over: dict[Path, _Over] = {}
        self._wiper: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> int:
        """Makes the directory, and takes in hand what an agent that crashed left in it; returns how many folders that were.

        To be called in the event loop.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        leftovers = [self._take_away(leftover, None) for leftover in list(self._directory.iterdir())]
        for over in leftovers:
            self._wipe_some(over, _AT_ONCE)
        self._go_on()
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

    async def discard(self, workspace: Path, *, disk_bytes: int = 0) -> None:
        """The attempt is over and its results are safe. Never fails; on return the folder is gone, or its removal goes on.

        ``disk_bytes``: what counts as used until it is gone.
        """

        def begin() -> None:
            self._wipe_some(self._take_away(workspace, disk_bytes), _AT_ONCE)

        await asyncio.to_thread(begin)
        self._go_on()

    @property
    def unwiped_bytes(self) -> int:
        """What folders take of the disk that are over and not gone yet."""
        return sum(over.used_bytes for over in list(self._over.values()))

    def stuck(self) -> Reason | None:
        """What could not be removed when it was last tried, for the owner of the machine."""
        stuck = [over for over in list(self._over.values()) if over.tries]
        if not stuck:
            return None
        first = stuck[0]
        detail = f"{first.wiping.path}: {first.wiping.problem}"[:500]
        return reason("agent.unwiped", count=len(stuck), detail=detail)

    async def close(self) -> None:
        """Stops removing; the next agent finds what is left."""
        self._closed = True
        if self._wiper is not None:
            self._wiper.cancel()
            await asyncio.gather(self._wiper, return_exceptions=True)

    def _take_away(self, path: Path, disk_bytes: int | None) -> "_Over":
        if not path.name.startswith(_OVER):
            away = self._directory / f"{_OVER}{secrets.token_hex(8)}"
            try:
                rename_away(path, away)
            except FileNotFoundError:
                pass  # The task removed it itself.
            except OSError as error:
                _log.warning("the workspace %s could not be renamed: %s", path, error)
                away = path
            path = away
        over = self._over[path] = _Over(
            wiping=Wiping(path), used_bytes=disk_bytes or 0, is_counted=disk_bytes is not None
        )
        return over

    def _wipe_some(self, over: "_Over", names: int) -> None:
        """One step, and what follows from it."""
        path = over.wiping.path
        state = over.wiping.step(names)
        if state == "gone":
            if over.tries:
                _log.info("the workspace %s is removed at last", path)
            self._over.pop(path, None)
        elif state == "stuck":
            if not over.tries:
                _log.warning(
                    "the workspace %s could not be removed: %s; its %d bytes count as used, and it is tried again every %.0f s",
                    path,
                    over.wiping.problem,
                    over.wiping.left_bytes,
                    RETRY_S,
                )
            over.tries += 1
            over.used_bytes = over.wiping.left_bytes if over.is_counted else 0
            over.due_s = time.monotonic() + RETRY_S
        else:
            over.due_s = 0.0

    def _go_on(self) -> None:
        """In the background, where something is left."""
        if self._over and not self._closed and (self._wiper is None or self._wiper.done()):
            self._wiper = asyncio.create_task(self._wipe_slowly(), name="wipe workspaces")

    async def _wipe_slowly(self) -> None:
        while self._over:
            now_s = time.monotonic()
            due = [over for over in list(self._over.values()) if over.due_s <= now_s]
            for over in due:
                await asyncio.to_thread(self._wipe_some, over, _AT_A_TIME)
                # The disk is busy for a third of the time at most.
                await asyncio.sleep(max(_PAUSE_S, 2 * (time.monotonic() - now_s)))
                now_s = time.monotonic()
            if not due:
                await asyncio.sleep(_LOOK_S)


@dataclass(slots=True, kw_only=True)
class _Over:
    """A folder that is to go."""

    wiping: Wiping
    used_bytes: int
    is_counted: bool
    """What an earlier agent left was missing from the free disk when this one began: it does not count again."""
    tries: int = 0
    """That failed."""
    due_s: float = math.inf
    """Not to be tried before; for its first step, whoever made it sees to that."""


def _place(source: Path, target: Path, *, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o700 if executable else 0o600)
