"""The door: begin to watch an attempt, hand over its newest checkpoint at its end, put one back for the next."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.checkpoints.looking import Look, Seen
from idle_accelerator.agent.checkpoints.pacing import Pace
from idle_accelerator.agent.checkpoints.reader import QuietReader
from idle_accelerator.agent.checkpoints.restoring import Restored, restore
from idle_accelerator.agent.checkpoints.sending import send_checkpoint
from idle_accelerator.agent.checkpoints.taking import Refused, limit_bytes_for
from idle_accelerator.agent.link import Link
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.errors import IdleError, StorageFull, Unavailable
from idle_accelerator.wire.checkpoints import Checkpoint, Progress, ProgressNote, SavedCheckpoint
from idle_accelerator.wire.reasons import Reason, reason, render

LOOK_EVERY_S: Final = 1.0
DEFAULT_UPLOAD_BYTES_PER_S: Final = 4 * 1024 * 1024
AFTER_NOTICE_S: Final = 15.0
"""How long the end of an attempt that had to leave waits for its last checkpoint to be sent."""
OWN_ACCORD_S: Final = 600.0
"""As above, for a task that left because it wanted to."""
_RETRY_S: Final = 5.0
_FULL_RETRY_S: Final = 30.0
_log = logging.getLogger(__name__)


class Saves:
    """Of all attempts of this agent."""

    def __init__(self, link: Link, outbox: Outbox, *, upload_bytes_per_s: float | None) -> None:
        """``upload_bytes_per_s``: of all checkpoints together; None is no limit, and none holds for a scheduler on this machine."""
        self.link = link
        self.outbox = outbox
        self.reader = QuietReader()
        self._upload_bytes_per_s = upload_bytes_per_s
        self._pace: Pace | None = None
        self._watches: set[Watch] = set()
        self._rounds: asyncio.Task[None] | None = None

    @property
    def pace(self) -> Pace:
        if self._pace is None:
            self._pace = Pace(None if self.link.on_loopback else self._upload_bytes_per_s)
        return self._pace

    def begin(self, attempt: Attempt, workspace: Path) -> "Watch":
        """From now on, until its ``stop``."""
        watch = Watch(self, attempt, workspace)
        self._watches.add(watch)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._go_round(), name="look for checkpoints")
        return watch

    async def restore(self, attempt: Attempt, workspace: Path) -> Restored | None:
        """See ``restoring.restore``."""
        limit_bytes = limit_bytes_for(attempt.spec.requirements)
        return await restore(self.link, workspace, attempt.resume, limit_bytes=limit_bytes)

    def forget(self, watch: "Watch") -> None:
        self._watches.discard(watch)

    async def close(self) -> None:
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        await self.reader.close()

    async def _go_round(self) -> None:
        """One for all attempts, while there are any."""
        while self._watches:
            await asyncio.sleep(LOOK_EVERY_S)
            for watch, seen in await asyncio.to_thread(_look_at, tuple(self._watches)):
                watch.take_in(seen)


def _look_at(watches: Iterable["Watch"]) -> list[tuple["Watch", Seen | None]]:
    return [(watch, watch.looked()) for watch in watches]


class Watch:
    """One attempt's. All calls but ``looked`` are made in the event loop."""

    def __init__(self, saves: Saves, attempt: Attempt, workspace: Path) -> None:
        self._saves = saves
        self._attempt = attempt
        self._look = Look(workspace)
        self._over = False
        base = attempt.resumed.checkpoint if attempt.resumed is not None else None
        self._base = self._known = -1 if base is None else base.step
        """``_known``: the highest step that is sent, being sent, or was gone on from."""
        self._wanted: int | None = None
        self._sending: asyncio.Task[None] | None = None
        self._waits_for_scheduler = False
        self._deadline_s = math.inf
        self._patient = False
        self._hurry = asyncio.Event()
        self._progress: Progress | None = None
        self.saved: Checkpoint | None = None
        """The newest of this attempt that the scheduler has."""
        self.refused: Reason | None = None
        """Why the newest that was committed was not taken."""

    def looked(self) -> Seen | None:
        """What is new. In any thread."""
        return None if self._over else self._look.look()

    def take_in(self, seen: Seen | None) -> None:
        if seen is None or self._over:
            return
        if seen.progress is not None and seen.progress != self._progress:
            self._progress = seen.progress
            self._say()
        if seen.problem is not None:
            self._refuse(seen.problem)
        if seen.step is None:
            return
        highest = self._known if self._wanted is None else self._wanted
        if seen.step > highest:
            self._wanted = seen.step
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(
                    self._send_all(), name=f"checkpoint of {self._attempt.ref}"
                )
        elif seen.step < highest or seen.step == self._base:
            self._refuse(reason("checkpoint.not_newer", step=seen.step, known=highest))

    async def end(self, *, within_s: float, patiently: bool = False) -> Checkpoint | None:
        """The task is dead: sends its newest checkpoint, if the time suffices. Returns the newest that the scheduler has of this attempt.

        ``patiently``: time in which the scheduler does not answer is given as well, until somebody calls ``hurry``.
        """
        self._patient = patiently
        self._deadline_s = time.monotonic() + within_s
        # Also what a round has just seen and not brought yet.
        self.take_in(await asyncio.to_thread(lambda: self._look.look(anew=True)))
        sending = self._sending
        while sending is not None and not sending.done():
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0 and not (self._patient and self._waits_for_scheduler):
                self.refused = reason("checkpoint.slow")
                break
            hurry = asyncio.ensure_future(self._hurry.wait())
            try:
                waited_s = left_s if left_s > 0 else _RETRY_S
                await asyncio.wait(
                    {sending} if self._hurry.is_set() else {sending, hurry},
                    timeout=waited_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                hurry.cancel()
        return self.saved

    def hurry(self) -> None:
        """The machine is wanted: an ``end`` that waits patiently does so for AFTER_NOTICE_S at most from now."""
        if self._patient:
            self._patient = False
            self._deadline_s = min(self._deadline_s, time.monotonic() + AFTER_NOTICE_S)
            self._hurry.set()

    def stop(self) -> None:
        """Nothing more is looked for or sent."""
        self._over = True
        self._saves.forget(self)
        if self._sending is not None:
            self._sending.cancel()
            self._saves.reader.later(self._look.close)
        else:
            self._look.close()

    async def _send_all(self) -> None:
        """The newest, then what has become the newest meanwhile."""
        while self._wanted is not None:
            self._known, self._wanted = self._wanted, None
            await self._send(self._known)

    async def _send(self, step: int) -> None:
        saves, attempt = self._saves, self._attempt
        while True:
            pause_s = _RETRY_S
            try:
                checkpoint = await send_checkpoint(
                    saves.link,
                    self._look,
                    step,
                    limit_bytes=limit_bytes_for(attempt.spec.requirements),
                    pace=saves.pace,
                    reader=saves.reader,
                )
            except Refused as refusal:
                self._refuse(reason("checkpoint.refused", step=step, because=[refusal.cause]))
                return
            except StorageFull:
                self._refuse(reason("checkpoint.storage_full", step=step))
                pause_s = _FULL_RETRY_S
            except Unavailable as error:
                _log.warning(
                    "checkpoint step-%d of %s waits for the scheduler: %s", step, attempt.ref, error.message
                )
                self._waits_for_scheduler = True
            except IdleError as error:
                self._refuse(reason("checkpoint.not_sent", step=step, detail=error.message[:500]))
                return
            else:
                break
            await asyncio.sleep(pause_s)
            if self._wanted is not None:
                return  # there is a newer one by now
        self._waits_for_scheduler = False
        self.saved = checkpoint
        ref = attempt.ref
        saves.outbox.saved(
            SavedCheckpoint(
                job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, checkpoint=checkpoint
            )
        )
        if self.refused is not None:
            self.refused = None
            self._say()

    def _refuse(self, why: Reason) -> None:
        if why != self.refused:
            _log.info("%s: %s", self._attempt.ref, render(why))
            self.refused = why
            self._say()

    def _say(self) -> None:
        ref = self._attempt.ref
        self._saves.outbox.note(
            ProgressNote(
                job_id=ref.job_id,
                task_index=ref.task_index,
                epoch=ref.epoch,
                progress=self._progress,
                refused=self.refused,
            )
        )
