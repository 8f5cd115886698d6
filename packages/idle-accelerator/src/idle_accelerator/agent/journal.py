"""What a restarted agent must know: guests that may still run, and ends that no answer has acknowledged yet.

One JSON object a line, appended. A line cut short by a crash is the last one, and is left out. The page cache survives a
killed process; a power cut may cost the newest lines, and then their tasks run again: nothing is lost.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from idle_accelerator.agent.sandbox import GuestRecord
from idle_accelerator.wire.checkpoints import ProgressNote, SavedCheckpoint
from idle_accelerator.wire.exchange import AttemptReport, LogChunk
from idle_accelerator.wire.ids import AttemptRef

COMPACT_OVER_BYTES = 8 * 1024 * 1024
CLEAR_OVER_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EndedAttempt:
    """An attempt's end as it will be reported, with the last of its output."""

    report: AttemptReport
    logs: tuple[LogChunk, ...]
    saved: SavedCheckpoint | None = None
    """Its last checkpoint, where the scheduler has the content and not yet the word of it."""

    @property
    def ref(self) -> AttemptRef:
        return ref_of(self.report)


def ref_of(item: AttemptReport | LogChunk | SavedCheckpoint | ProgressNote) -> AttemptRef:
    return AttemptRef(item.job_id, item.task_index, item.epoch)


class Journal:
    """Appends wait in memory until ``flush``, so that a hundred ends cost one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guests: dict[int, GuestRecord] = {}
        self._ends: dict[AttemptRef, EndedAttempt] = {}
        self._pending: list[bytes] = []
        self._size_bytes = 0
        self._descriptor: int | None = None

    def open(self) -> None:
        """Reads what an earlier agent left. Raises OSError."""
        content = self._path.read_bytes() if self._path.exists() else b""
        for line in content.split(b"\n"):
            if line:
                self._replay(line)
        self._rewrite()

    def _replay(self, line: bytes) -> None:
        try:
            values: dict[str, Any] = json.loads(line)
            if "guest" in values:
                record = GuestRecord(**values["guest"])
                self._guests[record.pid] = record
            elif "gone" in values:
                self._guests.pop(int(values["gone"]), None)
            elif "end" in values:
                end = EndedAttempt(
                    report=AttemptReport.model_validate_json(json.dumps(values["end"])),
                    logs=tuple(LogChunk.model_validate_json(json.dumps(item)) for item in values["logs"]),
                    saved=SavedCheckpoint.model_validate_json(json.dumps(values["saved"]))
                    if "saved" in values
                    else None,
                )
                self._ends[end.ref] = end
            elif "acknowledged" in values:
                for item in values["acknowledged"]:
                    self._ends.pop(AttemptRef(*item), None)
        except (ValueError, TypeError, KeyError, ValidationError):
            _log.warning("left out a damaged line of %s", self._path)

    @property
    def leftover_guests(self) -> tuple[GuestRecord, ...]:
        return tuple(self._guests.values())

    @property
    def unacknowledged(self) -> tuple[EndedAttempt, ...]:
        return tuple(self._ends.values())

    def guest_started(self, record: GuestRecord) -> None:
        """Written at once: from now on something runs."""
        self._guests[record.pid] = record
        self._append({"guest": asdict(record)})
        self.flush()

    def guest_gone(self, record: GuestRecord) -> None:
        if self._guests.pop(record.pid, None) is not None:
            self._append({"gone": record.pid})

    def ended(self, end: EndedAttempt) -> None:
        self._ends[end.ref] = end
        self._pending.append(_end_line(end))

    def acknowledged(self, refs: Sequence[AttemptRef]) -> None:
        gone = [ref for ref in refs if self._ends.pop(ref, None) is not None]
        if gone:
            self._append({"acknowledged": gone})

    def flush(self) -> None:
        """Hands what waits to the system. A full disk is logged: then only memory holds it, and a crash would cost a rerun."""
        if self._descriptor is None:
            return
        try:
            if not self._guests and not self._ends and self._size_bytes > CLEAR_OVER_BYTES:
                self._pending.clear()
                os.ftruncate(self._descriptor, 0)
                self._size_bytes = 0
            elif self._size_bytes > COMPACT_OVER_BYTES:
                self._rewrite()
            elif self._pending:
                block = b"".join(self._pending)
                self._pending.clear()
                written = os.write(self._descriptor, block)
                # A line that was cut short would spoil the next one: then all is written anew, once there is room.
                self._size_bytes += written if written == len(block) else COMPACT_OVER_BYTES
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def close(self) -> None:
        self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def forget_guests(self) -> None:
        """The leftovers of an earlier agent are dead."""
        for record in self.leftover_guests:
            self.guest_gone(record)

    def _append(self, values: dict[str, Any]) -> None:
        self._pending.append(json.dumps(values).encode() + b"\n")

    def _rewrite(self) -> None:
        """The same knowledge in as few lines as it takes, put in the old file's place at once."""
        lines = [json.dumps({"guest": asdict(record)}).encode() + b"\n" for record in self._guests.values()]
        lines += [_end_line(end) for end in self._ends.values()]
        temporary = self._path.with_name(self._path.name + ".new")
        with temporary.open("wb") as file:
            file.write(b"".join(lines))
        temporary.chmod(0o600)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        temporary.replace(self._path)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._size_bytes = sum(map(len, lines))
        self._pending.clear()


def _end_line(end: EndedAttempt) -> bytes:
    logs = ",".join(chunk.model_dump_json() for chunk in end.logs)
    saved = "" if end.saved is None else f',"saved":{end.saved.model_dump_json()}'
    return f'{{"end":{end.report.model_dump_json()},"logs":[{logs}]{saved}}}\n'.encode()
