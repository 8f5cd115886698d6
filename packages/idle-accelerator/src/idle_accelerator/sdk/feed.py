"""Waiting for a job's tasks to finish: long polls that outlast a restart of the scheduler."""

import asyncio
import math
from collections.abc import Sequence

from idle_accelerator.errors import InvalidInput, ResultTimeout, Unavailable
from idle_accelerator.sdk.transport import Transport
from idle_accelerator.wire.jobs import ResultPage, TaskResult
from idle_accelerator.wire.states import TERMINAL_JOB_STATES

HELD_S = 25.0
_PAGE = 2000
_BEYOND_ALL = 2**31
_PAUSE_PER_TASK_S = 0.0001
_LONGEST_PAUSE_S = 0.05
"""Between two pages, so that results gather instead of coming one a request. The fewer are left, the shorter."""


class Deadline:
    """When a wait ends; never, if ``timeout`` is None. Made in the event loop."""

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and (isinstance(timeout, bool) or math.isnan(timeout) or timeout < 0):
            raise InvalidInput(
                f"{timeout!r} is not a time to wait.",
                field="timeout",
                hint="Give seconds, or None for no limit.",
            )
        self.timeout_s = math.inf if timeout is None else float(timeout)
        self._ends_at = asyncio.get_running_loop().time() + self.timeout_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())


async def poll(
    transport: Transport, job_id: str, deadline: Deadline, *, after: int, limit: int
) -> ResultPage:
    """One long poll for results. Raises ResultTimeout when the deadline passes while the scheduler does not answer."""
    left_s = deadline.left_s
    held_s = min(HELD_S, left_s)
    try:
        answer = await transport.get(
            f"/v1/jobs/{job_id}/results",
            params={"after": after, "limit": limit, "wait_s": round(held_s, 3)},
            held_s=held_s,
            patience_s=min(transport.wait_patience_s, left_s),
        )
    except Unavailable as error:
        if left_s < transport.wait_patience_s and deadline.left_s <= 0:
            raise timed_out(job_id, deadline, hint=error.message) from error
        raise
    return answer.read(ResultPage)


async def wait_until_over(transport: Transport, job_id: str, deadline: Deadline) -> None:
    """Raises ResultTimeout, NotFound, Unavailable."""
    while True:
        page = await poll(transport, job_id, deadline, after=_BEYOND_ALL, limit=1)
        if page.job_state in TERMINAL_JOB_STATES:
            return
        if deadline.left_s <= 0:
            raise timed_out(job_id, deadline)


def timed_out(job_id: str, deadline: Deadline, *, hint: str | None = None) -> ResultTimeout:
    return ResultTimeout(
        f"job {job_id} had not finished after {deadline.timeout_s:g} s; it goes on.",
        hint=hint or f"Wait longer, see why it waits with idlectl job {job_id}, or cancel it.",
    )


class ResultFeed:
    """A job's results in the order in which its tasks finish. A cancelled ``next_results`` loses nothing."""

    def __init__(self, transport: Transport, job_id: str) -> None:
        self._transport = transport
        self._job_id = job_id
        self._after = 0
        self._received = 0
        self._over = False
        self._not_before = 0.0

    async def next_results(self, deadline: Deadline) -> Sequence[TaskResult]:
        """At least one; none when all have been given. Raises ResultTimeout, NotFound, Unavailable."""
        loop = asyncio.get_running_loop()
        while not self._over:
            pause_s = min(self._not_before - loop.time(), deadline.left_s)
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            page = await poll(self._transport, self._job_id, deadline, after=self._after, limit=_PAGE)
            self._after = page.next_after
            self._received += len(page.results)
            left = page.counts.total - self._received
            over = page.job_state in TERMINAL_JOB_STATES
            self._over = over and (left <= 0 or not page.results)
            if not over:
                self._not_before = loop.time() + min(left * _PAUSE_PER_TASK_S, _LONGEST_PAUSE_S)
            if page.results:
                return page.results
            if not self._over and deadline.left_s <= 0:
                raise timed_out(self._job_id, deadline)
        return ()
