"""One thread that reads and hashes for all attempts, at the lowest priority that the system has for a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from idle_accelerator.agent.sandbox import lower_this_thread

T = TypeVar("T")
HELD_LIMIT = 128
"""Files of checkpoints that all attempts together hold open, so that a task may remove them while they are sent."""


class QuietReader:
    """Jobs are done one after the other; a job is of a few MiB, so that attempts take turns."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._held = 0

    async def run(self, job: Callable[[], T]) -> T:
        """What the job gives, or raises. When the caller is cancelled, a job that has begun goes on to its end."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                max_workers=1, thread_name_prefix="checkpoint-reader", initializer=lower_this_thread
            )
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def later(self, job: Callable[[], None]) -> None:
        """After all that was asked for before."""
        if self._thread is None:
            job()
        else:
            self._thread.submit(job)

    def may_hold(self) -> bool:
        """Called in the thread: whether one more file may stay open; ``let_go`` gives the place back."""
        if self._held >= HELD_LIMIT:
            return False
        self._held += 1
        return True

    def let_go(self) -> None:
        self._held -= 1

    async def close(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
