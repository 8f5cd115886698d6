"""A checkpoint on its way to the scheduler: only pieces that are missing there, no faster than the pace, the manifest last."""

from collections.abc import AsyncIterator
from itertools import islice
from typing import Final, Protocol

from idle_accelerator.agent.checkpoints.looking import Look
from idle_accelerator.agent.checkpoints.pacing import Pace
from idle_accelerator.agent.checkpoints.reader import QuietReader
from idle_accelerator.agent.checkpoints.taking import Refused, Taking
from idle_accelerator.wire.checkpoints import MANIFEST_LIMIT_BYTES, MAX_ASKED, Checkpoint
from idle_accelerator.wire.reasons import reason

_SLICE_BYTES: Final = 64 * 1024


class Line(Protocol):
    """Where content goes: the agent's link."""

    async def missing(self, digests: list[str]) -> tuple[str, ...]: ...
    async def store_piece(self, content: bytes, digest: str, slices: "Slices") -> None: ...


class Slices(Protocol):
    """A body in slices, each in its turn; called anew for each try."""

    def __call__(self) -> AsyncIterator[bytes]: ...


async def send_checkpoint(
    line: Line, look: Look, step: int, *, limit_bytes: int, pace: Pace, reader: QuietReader
) -> Checkpoint:
    """On return the scheduler has all of it on its disk.

    Raises Refused for a checkpoint that is not to be used, Unavailable or StorageFull of the scheduler. May be cancelled: what was sent stays there
    and is not sent again.
    """
    try:
        folder = await reader.run(lambda: look.open(step))
    except OSError as error:
        raise Refused(reason("checkpoint.gone")) from error
    taking = Taking(folder, step, limit_bytes, reader)
    try:
        while await reader.run(taking.go_on):
            pass
        digests = iter(taking.places)
        while some := list(islice(digests, MAX_ASKED)):
            for digest in await line.missing(some):
                content = await reader.run(lambda digest=digest: taking.read(digest))
                await line.store_piece(content, digest, _slices(content, pace))
        # What was read twice had the same content; what was read once is as it was then, or the checkpoint is none.
        await reader.run(taking.check)
        manifest, checkpoint = taking.manifest, taking.checkpoint
        if len(manifest) > MANIFEST_LIMIT_BYTES:
            raise Refused(reason("checkpoint.manifest", limit_bytes=MANIFEST_LIMIT_BYTES))
        if await line.missing([checkpoint.manifest]):
            await line.store_piece(manifest, checkpoint.manifest, _slices(manifest, pace))
        return checkpoint
    finally:
        # After the job that may run now: a descriptor that is read from in another thread is not closed.
        reader.later(taking.close)


def _slices(content: bytes, pace: Pace) -> Slices:
    async def slices() -> AsyncIterator[bytes]:
        for start in range(0, len(content), _SLICE_BYTES):
            some = content[start : start + _SLICE_BYTES]
            await pace.take(len(some))
            yield some

    return slices
