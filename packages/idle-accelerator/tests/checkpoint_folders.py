"""A workspace in which a test commits checkpoints as a task does, and a scheduler's blobs in memory."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from idle_accelerator.agent.workloads import places
from idle_accelerator.errors import Damaged, IdleError, NotFound, TooLarge


class SavingTask:
    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        places.make(workspace)
        self.home = places.checkpoint_dir(workspace)

    def write(self, step: int, files: Mapping[str, bytes]) -> Path:
        """The folder of a checkpoint, complete, which nothing names yet."""
        folder = self.home / f"step-{step}"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder.mkdir(exist_ok=True)
        return folder

    def name(self, text: str) -> None:
        """Puts this into LATEST."""
        new = self.home / "LATEST.new"
        new.write_text(text)
        new.replace(self.home / places.LATEST)

    def commit(self, step: int, files: Mapping[str, bytes] | None = None) -> Path:
        folder = self.write(step, {"state": str(step).encode()} if files is None else files)
        self.name(f"step-{step}\n")
        return folder

    def say(self, text: str) -> None:
        new = self.workspace / places.OURS / "progress.new"
        new.write_text(text)
        new.replace(places.progress_file(self.workspace))


class BlobsInMemory:
    """The agent's link, as far as checkpoints need it. ``before_piece`` is called before each piece is stored; what it raises is raised."""

    on_loopback = True

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.before_piece: Callable[[], None] = lambda: None

    async def missing(self, digests: list[str]) -> tuple[str, ...]:
        return tuple(digest for digest in digests if digest not in self.blobs)

    async def store_piece(
        self, content: bytes, digest: str, slices: Callable[[], AsyncIterator[bytes]]
    ) -> None:
        self.before_piece()
        came = b"".join([piece async for piece in slices()])
        assert came == content
        assert hashlib.sha256(came).hexdigest() == digest
        self.blobs[digest] = came
        self.sent.append(digest)

    async def read_blob(self, digest: str, limit_bytes: int) -> bytes:
        content = self.blobs.get(digest)
        problem: IdleError | None = None
        if content is None:
            problem = NotFound("there is no such blob.")
        elif len(content) > limit_bytes:
            problem = TooLarge("it is too large.")
        elif hashlib.sha256(content).hexdigest() != digest:
            problem = Damaged("it arrived damaged.")
        if problem is not None:
            raise problem
        assert content is not None
        return content


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
