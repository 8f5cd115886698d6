"""What a task leaves, taken as a stranger's: looked for, opened once, and exactly what was opened is sent. Checkpoints are looked through in the
same way, while the task runs.

The task is dead by then, but something that it started may have escaped, and what it left may be anything: links out of the workspace,
devices, names that no system stores, files without end. What is refused is said, and loses nothing of the rest. Nothing is ever
unpacked here.
"""

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from idle_accelerator.agent.folders import Entry, Folder, is_only_name, open_folder
from idle_accelerator.agent.patterns import Everything, Patterns, States
from idle_accelerator.errors import InvalidInput
from idle_accelerator.sdk.artifacts import WINDOWS_DEVICES
from idle_accelerator.wire.jobs import Artifact, Requirements
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.texts import check_workspace_path, is_plain

FILES_LIMIT: Final = 10_000
BYTES_LIMIT: Final = 64 * 1024**3
"""Of all outputs of a task that asked for no disk."""
DEPTH_LIMIT: Final = 64
PATH_LIMIT: Final = 1000
LOOKS_LIMIT: Final = 500_000
"""Names that are looked at before the search gives up."""
_READ_AT_ONCE_BYTES: Final = 256 * 1024
_BATCH_FILES: Final = 32
_PIECE_BYTES: Final = 1024 * 1024
_CAUSES_SHOWN: Final = 5
_NO_DESCRIPTOR_TRIES: Final = 100
_NO_DESCRIPTOR_PAUSE_S: Final = 0.1
Opened = TypeVar("Opened")


@dataclass(frozen=True, kw_only=True)
class OutputCaps:
    """How much one attempt may leave. Sparse files count by their apparent size."""

    files: int = FILES_LIMIT
    file_bytes: int = BYTES_LIMIT
    total_bytes: int = BYTES_LIMIT
    depth: int = DEPTH_LIMIT
    """Folders that a file may lie in, one within the other."""
    path_length: int = PATH_LIMIT
    looks: int = LOOKS_LIMIT


def caps_for(requirements: Requirements) -> OutputCaps:
    """A task cannot leave more than the disk that it asked for."""
    limit_bytes = requirements.disk_bytes or BYTES_LIMIT
    return OutputCaps(file_bytes=limit_bytes, total_bytes=limit_bytes)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What the scheduler keeps now, by path, and what was not taken along."""

    artifacts: tuple[Artifact, ...]
    refused: Reason | None


@dataclass(frozen=True, kw_only=True)
class OpenOutput:
    """A regular file as it was found. Nobody looks for it by its name again."""

    path: str
    size_bytes: int
    content: bytes | FileIO
    """All of it, where it is short; else the open descriptor that was looked at."""
    status: os.stat_result

    def close(self) -> None:
        if not isinstance(self.content, bytes):
            self.content.close()


class Keeper(Protocol):
    """Where content goes: the agent's link."""

    async def store_bytes(self, content: bytes) -> str:
        """Returns the digest."""
        ...

    async def store_open(self, file: FileIO, digest: str, size_bytes: int) -> None:
        """Raises InvalidInput when the content is not what was measured."""
        ...


class Changed(Exception):
    """A file has more, fewer or other bytes than when it was opened: something still writes to it."""


class OutputSearch:
    """Files that the patterns match, opened a few at a time. Not thread-safe; each call may be made in another thread."""

    def __init__(self, workspace: Folder, patterns: Sequence[str] | Everything, caps: OutputCaps) -> None:
        self._workspace = workspace
        self._names = () if isinstance(patterns, Everything) else tuple(patterns)
        self._patterns = patterns if isinstance(patterns, Everything) else Patterns(patterns)
        self._matched: set[int] = set()
        self._caps = caps
        self._owner = workspace.status().st_uid
        self._looks = self._files = self._bytes = 0
        self._causes: list[Reason] = []
        self._refusals = 0
        self._is_over = False
        self._found = self._walk(workspace, "", self._patterns.start(), 0)

    def take(self) -> list[OpenOutput]:
        """The next files; none when there are no more. At most the last is one that stays open."""
        outputs: list[OpenOutput] = []
        for output in islice(self._found, _BATCH_FILES):
            outputs.append(output)
            if not isinstance(output.content, bytes):
                break
        return outputs

    def refuse(self, cause: Reason) -> None:
        self._refusals += 1
        if len(self._causes) < _CAUSES_SHOWN:
            self._causes.append(cause)

    @property
    def has_refused(self) -> bool:
        return bool(self._causes)

    def refused(self) -> Reason | None:
        """All that was refused. To be asked at the end."""
        if not self._is_over and self._looks < self._caps.looks:
            for number, pattern in enumerate(self._names):
                if number not in self._matched:
                    self.refuse(reason("task.output_unmatched", pattern=shown(pattern)))
        if not self._causes:
            return None
        more = self._refusals - len(self._causes)
        causes = [*self._causes, reason("task.output_more", count=more)] if more else self._causes
        return reason("task.output_refused", because=causes)

    def close(self) -> None:
        self._found.close()
        self._workspace.close()

    def _stop(self, cause: Reason) -> None:
        """Nothing more is looked at."""
        self._is_over = True
        self.refuse(cause)

    def _walk(self, folder: Folder, prefix: str, states: States, depth: int) -> Generator[OpenOutput]:
        for entry in self._entries(folder, prefix):
            if self._is_over:
                return
            path = prefix + entry.name
            if entry.is_folder:
                below = self._patterns.below(states, entry.name)
                if below:
                    yield from self._descend(folder, entry.name, path, below, depth)
                continue
            matched = self._patterns.matched(states, entry.name)
            self._matched.update(matched)
            if matched:
                output = self._opened(folder, entry, path)
                if output is not None:
                    yield output
            elif entry.is_link and self._leads_on(states, entry.name):
                self.refuse(reason("task.output_link", path=shown(path)))

    def _entries(self, folder: Folder, prefix: str) -> list[Entry]:
        """In the order of their names, and no more than may still be looked at."""
        left = self._caps.looks - self._looks
        if left == 0:
            return []
        try:
            with folder.entries() as entries:
                found = list(islice(entries, left))
                is_cut = next(entries, None) is not None
        except OSError as error:
            self.refuse(_unreadable(prefix.removesuffix("/") or ".", error))
            return []
        self._looks += len(found)
        if self._looks == self._caps.looks and (is_cut or prefix):
            self.refuse(reason("task.output_search", path=shown(prefix or "."), limit=self._caps.looks))
        return sorted(found, key=lambda entry: entry.name)

    def _leads_on(self, states: States, name: str) -> bool:
        """Whether a pattern names it as a folder on its way; ``**`` passes links by in silence, as a shell does."""
        return bool(self._patterns.below(self._patterns.named(states), name))

    def _descend(
        self, folder: Folder, name: str, path: str, states: States, depth: int
    ) -> Generator[OpenOutput]:
        if depth >= self._caps.depth:
            self.refuse(reason("task.output_deep", path=shown(path), limit=self._caps.depth))
            return
        try:
            below = _opening(lambda: folder.folder(name))
        except OSError as error:
            self.refuse(_not_opened(path, error))
            return
        with below:
            yield from self._walk(below, f"{path}/", states, depth + 1)

    def _opened(self, folder: Folder, entry: Entry, path: str) -> OpenOutput | None:
        """None when it was refused."""
        cause = name_problem(path, self._caps)
        if cause is None and entry.is_link:
            cause = reason("task.output_link", path=shown(path))
        elif cause is None and not entry.is_file:
            # Not opened at all: opening a device may do something.
            cause = reason("task.output_special", path=shown(path))
        if cause is not None:
            self.refuse(cause)
            return None
        if self._files >= self._caps.files:
            self._stop(reason("task.output_too_many", path=shown(path), limit=self._caps.files))
            return None
        try:
            file = _opening(lambda: folder.file(entry.name))
        except OSError as error:
            self.refuse(_not_opened(path, error))
            return None
        output: OpenOutput | None = None
        try:
            output = self._checked(folder, entry.name, file, path)
        except OSError as error:
            self.refuse(_unreadable(path, error))
        except Changed:
            self.refuse(_changed(path))
        finally:
            if output is None or output.content is not file:
                file.close()
        return output

    def _checked(self, folder: Folder, name: str, file: FileIO, path: str) -> OpenOutput | None:
        """The open descriptor decides. Raises OSError or Changed."""
        status = os.fstat(file.fileno())
        size_bytes = status.st_size
        cause: Reason | None = None
        if not stat.S_ISREG(status.st_mode):
            cause = reason("task.output_special", path=shown(path))
        elif not is_only_name(folder, name, status):
            cause = reason("task.output_hard_link", path=shown(path))
        elif status.st_uid != self._owner:
            cause = reason("task.output_owner", path=shown(path))
        elif size_bytes > self._caps.file_bytes:
            cause = reason(
                "task.output_too_large",
                path=shown(path),
                size_bytes=size_bytes,
                limit_bytes=self._caps.file_bytes,
            )
        elif self._bytes + size_bytes > self._caps.total_bytes:
            cause = reason("task.outputs_too_large", path=shown(path), limit_bytes=self._caps.total_bytes)
        if cause is not None:
            self.refuse(cause)
            return None
        content = _read_exactly(file, size_bytes) if size_bytes <= _READ_AT_ONCE_BYTES else file
        self._files += 1
        self._bytes += size_bytes
        return OpenOutput(path=path, size_bytes=size_bytes, content=content, status=status)


async def collect_outputs(
    keeper: Keeper,
    workspace: Path,
    patterns: Sequence[str],
    caps: OutputCaps,
    *,
    patiently: Callable[[Callable[[], Awaitable[str]]], Awaitable[str]],
) -> Collected:
    """Has the scheduler keep every file that the patterns match. The task must be dead.

    ``patiently`` stores one, trying again while the scheduler is away; what it raises for other reasons is raised here.
    """
    try:
        search = await asyncio.to_thread(lambda: OutputSearch(open_folder(workspace), patterns, caps))
    except OSError as error:
        return Collected(
            artifacts=(), refused=reason("task.output_refused", because=[_unreadable(".", error)])
        )
    artifacts: list[Artifact] = []
    outputs: list[OpenOutput] = []
    try:
        while outputs := await asyncio.to_thread(search.take):
            for output in outputs:
                digest = await _stored(keeper, output, search, patiently)
                if digest is not None:
                    artifacts.append(Artifact(path=output.path, digest=digest, size_bytes=output.size_bytes))
    finally:
        for output in outputs:
            output.close()
        search.close()
    return Collected(
        artifacts=tuple(sorted(artifacts, key=lambda artifact: artifact.path)), refused=search.refused()
    )


async def _stored(
    keeper: Keeper,
    output: OpenOutput,
    search: OutputSearch,
    patiently: Callable[[Callable[[], Awaitable[str]]], Awaitable[str]],
) -> str | None:
    """The digest; None when it was refused."""
    try:
        return await patiently(lambda: store(keeper, output.content, output.size_bytes))
    except (Changed, InvalidInput):
        search.refuse(_changed(output.path))
    except OSError as error:
        search.refuse(_unreadable(output.path, error))
    finally:
        output.close()
    return None


async def store(keeper: Keeper, content: bytes | FileIO, size_bytes: int) -> str:
    """The digest; on return the scheduler has it on its disk. Raises Changed or InvalidInput for a file that something still
    writes to, and OSError."""
    if isinstance(content, bytes):
        return await keeper.store_bytes(content)
    digest = await asyncio.to_thread(_measured, content, size_bytes)
    await keeper.store_open(content, digest, size_bytes)
    return digest


def _opening(step: Callable[[], Opened]) -> Opened:
    """Other attempts may have all descriptors of the agent for a moment: no fault of this task's."""
    for _ in range(_NO_DESCRIPTOR_TRIES):
        try:
            return step()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(_NO_DESCRIPTOR_PAUSE_S)
    return step()


def _read_exactly(file: FileIO, size_bytes: int) -> bytes:
    """Raises Changed when there is more or less."""
    content = b""
    while len(content) <= size_bytes and (piece := file.read(size_bytes + 1 - len(content))):
        content += piece
    if len(content) != size_bytes:
        raise Changed
    return content


def _measured(file: FileIO, size_bytes: int) -> str:
    file.seek(0)
    hasher = hashlib.sha256()
    left = size_bytes + 1
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        hasher.update(piece)
        left -= len(piece)
    if left != 1:
        raise Changed
    return hasher.hexdigest()


def _changed(path: str) -> Reason:
    return reason("task.output_changed", path=shown(path))


def _unreadable(path: str, error: OSError) -> Reason:
    return reason("task.output_unreadable", path=shown(path), detail=error.strerror or str(error))


def _not_opened(path: str, error: OSError) -> Reason:
    """What stood there as a file or folder is no such thing any more, or may not be read."""
    if error.errno == errno.EXDEV:
        return reason("task.output_mount", path=shown(path))
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return reason("task.output_link", path=shown(path))
    if error.errno in (errno.ENXIO, errno.ENODEV):
        return reason("task.output_special", path=shown(path))
    return _unreadable(path, error)


def name_problem(path: str, caps: OutputCaps) -> Reason | None:
    """Why no system, or not every one, stores a file under that name."""
    try:
        path.encode()
        check_workspace_path(path)
    except ValueError:
        return reason("task.output_name", path=shown(path))
    if any(part.endswith((" ", ".")) or WINDOWS_DEVICES.match(part) for part in path.split("/")):
        return reason("task.output_name", path=shown(path))
    if len(path) > caps.path_length:
        return reason("task.output_long_path", path=shown(path), limit=caps.path_length)
    return None


def shown(path: str) -> str:
    """Fit for a sentence, whatever it is."""
    if not is_plain(path):
        path = path.encode("unicode_escape").decode()
    return path if len(path) <= 200 else f"{path[:150]}…{path[-40:]}"
