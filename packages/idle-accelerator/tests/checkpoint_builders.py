"""Checkpoints for tests, as an agent hands them in: pieces and manifest as blobs, then a word in the exchange."""

from collections.abc import Mapping, Sequence

from pool_builders import FakeAgent, digest_of

from idle_accelerator.wire.checkpoints import (
    CHUNK_BYTES,
    Checkpoint,
    CheckpointFile,
    Manifest,
    Progress,
    ProgressNote,
    SavedCheckpoint,
)
from idle_accelerator.wire.exchange import ExchangeAnswer
from idle_accelerator.wire.ids import AttemptRef


def pieces_of(content: bytes) -> list[bytes]:
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    return Manifest(
        files=tuple(
            CheckpointFile(
                path=path, size_bytes=len(content), chunks=tuple(map(digest_of, pieces_of(content)))
            )
            for path, content in files.items()
        )
    )


def blobs_of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Everything by its digest, the manifest included."""
    parts = [piece for content in files.values() for piece in pieces_of(content)]
    parts.append(manifest_of(files).model_dump_json().encode())
    return {digest_of(part): part for part in parts}


def checkpoint_of(step: int, files: Mapping[str, bytes]) -> Checkpoint:
    manifest = manifest_of(files)
    return Checkpoint(
        step=step,
        manifest=digest_of(manifest.model_dump_json().encode()),
        size_bytes=manifest.size_bytes,
        files=len(files),
    )


class Saver:
    """What an agent says of checkpoints and progress, with all else that it says."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent

    def save(self, ref: AttemptRef, step: int, files: Mapping[str, bytes]) -> Checkpoint:
        headers = {"Authorization": f"Bearer {self.agent.identity.token}"}
        for digest, content in blobs_of(files).items():
            response = self.agent.client.put(f"/v1/blobs/{digest}", content=content, headers=headers)
            assert response.status_code in (200, 201, 204), response.text
        made = checkpoint_of(step, files)
        saved = SavedCheckpoint(
            job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, checkpoint=made
        )
        self._say(checkpoints=(saved,))
        return made

    def say(self, ref: AttemptRef, done_ratio: float | None, note: str = "") -> None:
        word = ProgressNote(
            job_id=ref.job_id,
            task_index=ref.task_index,
            epoch=ref.epoch,
            progress=Progress(done_ratio=done_ratio, note=note),
        )
        self._say(progress=(word,))

    def _say(self, **said: Sequence[object]) -> None:
        response = self.agent.send(self.agent.request().model_copy(update=said))
        assert response.status_code == 200, response.text
        assert not ExchangeAnswer.model_validate_json(response.content).grants
