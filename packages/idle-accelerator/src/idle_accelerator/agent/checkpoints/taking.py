"""A committed checkpoint, read as what a stranger left: every file of it becomes pieces with digests, or none of it counts.

The task runs on meanwhile and may remove an old checkpoint, or break its word and write to this one. What it removes stays readable where it is
held open; what it changes has another size, time or digest when it is read again, and then nothing of the checkpoint is used.
"""

import hashlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from io import FileIO
from typing import Final

from idle_accelerator.agent.checkpoints.reader import QuietReader
from idle_accelerator.agent.folders import Folder
from idle_accelerator.agent.outputs import (
    BYTES_LIMIT,
    DEPTH_LIMIT,
    PATH_LIMIT,
    OpenOutput,
    OutputCaps,
    OutputSearch,
    shown,
)
from idle_accelerator.agent.patterns import Everything
from idle_accelerator.wire.checkpoints import CHUNK_BYTES, MAX_FILES, Checkpoint, CheckpointFile, Manifest
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.reasons import Cause, Reason, reason

_LOOKS_LIMIT: Final = 4 * MAX_FILES
_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Of short files, in memory, for each checkpoint that is being sent."""
Mark = tuple[int, int, int, int]


class Refused(Exception):
    """It is not taken; ``cause`` says why."""

    def __init__(self, cause: Reason) -> None:
        super().__init__(cause.code)
        self.cause = cause


def limit_bytes_for(requirements: Requirements) -> int:
    """A checkpoint cannot be larger than the disk that its task asked for."""
    return requirements.disk_bytes or BYTES_LIMIT


@dataclass(frozen=True, slots=True)
class _Piece:
    path: str
    offset: int
    size_bytes: int


@dataclass(slots=True)
class _Source:
    mark: Mark
    content: bytes | FileIO | None
    """None: it is opened again when it is read again."""


class Taking:
    """``go_on`` until it says that the manifest is made, then ``read`` the pieces that are wanted, then ``check``. All in the reader's thread."""

    def __init__(self, folder: Folder, step: int, limit_bytes: int, reader: QuietReader) -> None:
        self._folder = folder
        self._step = step
        self._reader = reader
        self._sources: dict[str, _Source] = {}
        self._kept_bytes = 0
        self.places: dict[str, _Piece] = {}
        """Where each piece was found first, by digest."""
        self._files: list[CheckpointFile] = []
        self._manifest: bytes | None = None
        caps = OutputCaps(
            files=MAX_FILES,
            file_bytes=limit_bytes,
            total_bytes=limit_bytes,
            depth=DEPTH_LIMIT,
            path_length=PATH_LIMIT,
            looks=_LOOKS_LIMIT,
        )
        self._search = OutputSearch(folder, Everything(), caps)
        self._steps = self._work()

    def go_on(self) -> bool:
        """Some MiB of work. False when there is no more. Raises Refused."""
        return next(self._steps, None) is not None

    @property
    def manifest(self) -> bytes:
        """As it is stored. Only when ``go_on`` has said False."""
        if self._manifest is None:
            raise ValueError("the manifest is not made yet")
        return self._manifest

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self._step,
            manifest=hashlib.sha256(self.manifest).hexdigest(),
            size_bytes=sum(file.size_bytes for file in self._files),
            files=len(self._files),
        )

    def read(self, digest: str) -> bytes:
        """The piece of that digest, once more. Raises Refused when it is no such piece any more."""
        piece = self.places[digest]
        source = self._sources[piece.path]
        try:
            if isinstance(source.content, bytes):
                content = source.content
            elif source.content is not None:
                content = _read_at(source.content, piece.offset, piece.size_bytes)
            else:
                with self._folder.file(piece.path) as file:
                    content = _read_at(file, piece.offset, piece.size_bytes)
        except OSError as error:
            raise Refused(reason("checkpoint.gone")) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._changed(piece.path)
        return content

    def check(self) -> None:
        """Raises Refused when any file is another, or has been written to, since it was read first."""
        for path, source in self._sources.items():
            if isinstance(source.content, bytes):
                continue
            try:
                if source.content is not None:
                    mark = _mark(os.fstat(source.content.fileno()))
                else:
                    with self._folder.file(path) as file:
                        mark = _mark(os.fstat(file.fileno()))
            except OSError as error:
                raise Refused(reason("checkpoint.gone")) from error
            if mark != source.mark:
                raise self._changed(path)

    def close(self) -> None:
        for source in self._sources.values():
            if isinstance(source.content, FileIO):
                source.content.close()
                self._reader.let_go()
        self._sources.clear()
        self._steps.close()
        self._search.close()

    def _work(self) -> Generator[bool]:
        while outputs := self._search.take():
            for output in outputs:
                yield from self._hash(output)
            if self._search.has_refused:
                break
            yield True
        refused = self._search.refused()
        if refused is not None:
            raise Refused(_cause(refused.because[0]))
        self.check()
        files = tuple(sorted(self._files, key=lambda file: file.path))
        self._manifest = Manifest(files=files).model_dump_json(exclude_defaults=True).encode()

    def _hash(self, output: OpenOutput) -> Generator[bool]:
        chunks: list[str] = []
        source = _Source(mark=_mark(output.status), content=None)
        self._sources[output.path] = source
        try:
            for offset in range(0, output.size_bytes, CHUNK_BYTES):
                wanted = min(CHUNK_BYTES, output.size_bytes - offset)
                content = output.content
                piece = content if isinstance(content, bytes) else _read_at(content, offset, wanted)
                if len(piece) != wanted:
                    raise self._changed(output.path)
                digest = hashlib.sha256(piece).hexdigest()
                self.places.setdefault(digest, _Piece(output.path, offset, wanted))
                chunks.append(digest)
                if not isinstance(content, bytes):
                    yield True
            if isinstance(output.content, FileIO):
                if self._reader.may_hold():
                    source.content = output.content
            elif self._kept_bytes + output.size_bytes <= _KEPT_BYTES:
                self._kept_bytes += output.size_bytes
                source.content = output.content
        except OSError as error:
            raise Refused(reason("checkpoint.gone")) from error
        finally:
            if source.content is not output.content:
                output.close()
        self._files.append(
            CheckpointFile(
                path=output.path,
                size_bytes=output.size_bytes,
                executable=bool(output.status.st_mode & 0o100),
                chunks=tuple(chunks),
            )
        )

    def _changed(self, path: str) -> Refused:
        return Refused(reason("checkpoint.changed", path=shown(path)))


def _cause(first: Cause) -> Reason:
    """What was refused first, in the words for checkpoints."""
    path = str(first.params.get("path", ""))
    if first.code == "task.output_search":
        return reason("task.output_too_many", path=path, limit=MAX_FILES)
    if first.code == "task.output_changed":
        return reason("checkpoint.changed", path=path)
    return Reason(code=first.code, params=first.params)


def _mark(status: os.stat_result) -> Mark:
    """Not the time of its last change: that moves when a name of it goes."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_at(file: FileIO, offset: int, size_bytes: int) -> bytes:
    file.seek(offset)
    content = bytearray()
    while len(content) < size_bytes and (piece := file.read(size_bytes - len(content))):
        content += piece
    return bytes(content)
