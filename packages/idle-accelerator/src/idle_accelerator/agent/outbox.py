"""What the scheduler has yet to hear: states, ends, output, checkpoints, progress. Kept until an answer has acknowledged it."""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from idle_accelerator.agent.journal import EndedAttempt, Journal, ref_of
from idle_accelerator.wire.checkpoints import ProgressNote, SavedCheckpoint
from idle_accelerator.wire.exchange import AttemptReport, HeldAttempts, LogChunk
from idle_accelerator.wire.ids import AttemptRef

REPORTS_AT_ONCE = 2000
LOG_BYTES_AT_ONCE = 4 * 1024 * 1024
LOG_CHUNKS_AT_ONCE = 1000
SAVES_AT_ONCE = 1000
LOG_BYTES_KEPT = 1024 * 1024
"""Of each stream: when the line is slower than the output, its oldest bytes go, as only the tail is kept anyway."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one request tells."""

    reports: tuple[AttemptReport, ...]
    logs: tuple[LogChunk, ...]
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    progress: tuple[ProgressNote, ...] = ()

    @property
    def has_news(self) -> bool:
        """Whether it holds what the scheduler should hear at once."""
        return bool(self.reports or self.logs or self.checkpoints)


class Outbox:
    """Everything that the agent holds and has to say.

    An attempt is held from its lease until its end has been acknowledged. ``news`` is set while something urgent waits;
    states on the way go along with the next request, whatever it is about.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: set[AttemptRef] = set()
        self._states: dict[AttemptRef, AttemptReport] = {}
        self._ends: dict[AttemptRef, EndedAttempt] = {}
        self._logs: dict[tuple[AttemptRef, str], deque[LogChunk]] = {}
        self._saved: dict[AttemptRef, SavedCheckpoint] = {}
        self._notes: dict[AttemptRef, ProgressNote] = {}
        self.news = asyncio.Event()

    def recover(self, ends: Iterable[EndedAttempt]) -> None:
        """Ends that an earlier agent could not hand in."""
        for end in ends:
            self._held.add(end.ref)
            self._file(end)

    def hold(self, ref: AttemptRef) -> bool:
        """Take a lease in hand; False when it is in hand already, or its end is."""
        if ref in self._held:
            return False
        self._held.add(ref)
        return True

    def state(self, report: AttemptReport) -> None:
        """Where a live attempt stands now; replaces what was not sent yet."""
        self._states[ref_of(report)] = report

    def saved(self, checkpoint: SavedCheckpoint) -> None:
        """A live attempt's newest checkpoint, whose content the scheduler has."""
        self._saved[ref_of(checkpoint)] = checkpoint
        self.news.set()

    def note(self, note: ProgressNote) -> None:
        """What a live attempt says of itself now; goes along with the next request."""
        self._notes[ref_of(note)] = note

    def finish(self, report: AttemptReport, logs: Sequence[LogChunk] = ()) -> None:
        """An attempt's end, with the last of its output. From here on it survives a crash of the agent."""
        end = EndedAttempt(report=report, logs=tuple(logs))
        self._states.pop(end.ref, None)
        self._notes.pop(end.ref, None)
        # With the output that was on its way already: once the end is in the journal, nobody would write it again.
        waiting = [
            chunk for stream in ("stdout", "stderr") for chunk in self._logs.get((end.ref, stream), ())
        ]
        self._journal.ended(
            EndedAttempt(report=report, logs=(*waiting, *end.logs), saved=self._saved.get(end.ref))
        )
        self._file(end)

    def _file(self, end: EndedAttempt) -> None:
        self._ends[end.ref] = end
        for chunk in end.logs:
            self._keep(chunk)
        if end.saved is not None:
            self._saved[end.ref] = end.saved
        self.news.set()

    def log(self, chunk: LogChunk) -> None:
        """A piece of a live attempt's output."""
        self._keep(chunk)
        self.news.set()

    def _keep(self, chunk: LogChunk) -> None:
        waiting = self._logs.setdefault((ref_of(chunk), chunk.stream), deque())
        waiting.append(chunk)
        size = sum(len(item.data) for item in waiting)
        while size > LOG_BYTES_KEPT and len(waiting) > 1:
            size -= len(waiting.popleft().data)

    def forget(self, ref: AttemptRef) -> None:
        """Nobody waits for this attempt any more."""
        self._held.discard(ref)
        self._states.pop(ref, None)
        self._saved.pop(ref, None)
        self._notes.pop(ref, None)
        self._logs.pop((ref, "stdout"), None)
        self._logs.pop((ref, "stderr"), None)
        if self._ends.pop(ref, None) is not None:
            self._journal.acknowledged([ref])

    def take(self) -> Batch:
        """What the next request says. It stays here until ``acknowledge``. Ends wait for the rest of their output."""
        self.news.clear()
        chunks: list[LogChunk] = []
        size = 0
        left_out: set[AttemptRef] = set()
        for (ref, _stream), waiting in self._logs.items():
            for chunk in waiting:
                size += len(chunk.data)
                if len(chunks) >= LOG_CHUNKS_AT_ONCE or (chunks and size > LOG_BYTES_AT_ONCE):
                    left_out.add(ref)
                    break
                chunks.append(chunk)
        saved = tuple(itertools.islice(self._saved.values(), SAVES_AT_ONCE))
        if len(saved) < len(self._saved):
            left_out |= set(itertools.islice(self._saved, SAVES_AT_ONCE, None))
        notes = tuple(itertools.islice(self._notes.values(), SAVES_AT_ONCE))
        ready = (end.report for ref, end in self._ends.items() if ref not in left_out)
        ends = tuple(itertools.islice(ready, REPORTS_AT_ONCE))
        states = tuple(itertools.islice(self._states.values(), REPORTS_AT_ONCE - len(ends)))
        self._journal.flush()
        return Batch(reports=ends + states, logs=tuple(chunks), checkpoints=saved, progress=notes)

    def acknowledge(self, batch: Batch) -> None:
        """An answer to the request with this batch has come: it is on the scheduler's disk, or was refused as stale."""
        for chunk in batch.logs:
            key = (ref_of(chunk), chunk.stream)
            waiting = self._logs.get(key)
            # What was dropped meanwhile stood before it, so the chunk is first or gone.
            if waiting and waiting[0] is chunk:
                waiting.popleft()
                if not waiting:
                    del self._logs[key]
        for checkpoint in batch.checkpoints:
            if self._saved.get(ref_of(checkpoint)) is checkpoint:
                del self._saved[ref_of(checkpoint)]
        for note in batch.progress:
            if self._notes.get(ref_of(note)) is note:
                del self._notes[ref_of(note)]
        done: list[AttemptRef] = []
        for report in batch.reports:
            ref = ref_of(report)
            if self._states.get(ref) is report:
                del self._states[ref]
            end = self._ends.get(ref)
            if end is not None and end.report is report:
                del self._ends[ref]
                self._held.discard(ref)
                done.append(ref)
        self._journal.acknowledged(done)
        self._journal.flush()
        if self._ends or self._logs or self._saved:
            self.news.set()

    def holding(self) -> tuple[HeldAttempts, ...]:
        """Every attempt in hand, also those whose end is not acknowledged yet."""
        by_job: dict[str, list[tuple[int, int]]] = {}
        for ref in self._held:
            by_job.setdefault(ref.job_id, []).append((ref.task_index, ref.epoch))
        return tuple(HeldAttempts(job_id=job_id, attempts=tuple(pairs)) for job_id, pairs in by_job.items())

    def tells_all(self, batch: Batch) -> bool:
        """Whether the batch has the end of everything that is in hand, and no output follows."""
        ended = {ref_of(report) for report in batch.reports} & self._ends.keys()
        return (
            len(ended) == len(self._held)
            and sum(map(len, self._logs.values())) == len(batch.logs)
            and len(self._saved) == len(batch.checkpoints)
        )

    @property
    def all_ended(self) -> bool:
        """Whether nothing is in hand but ends."""
        return len(self._ends) == len(self._held)

    @property
    def is_empty(self) -> bool:
        """Whether every end, all output and every checkpoint has been acknowledged."""
        return not self._ends and not self._logs and not self._saved
