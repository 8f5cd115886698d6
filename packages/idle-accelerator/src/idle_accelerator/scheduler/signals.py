"""Wakes whoever waits for news of a job. Missing a call does no harm: waiters look at the store before they wait, and after."""

import asyncio
import contextlib
from collections import defaultdict

_SILENT_LIMIT = 10_000


async def called(signal: asyncio.Future[None], *, within_s: float) -> None:
    """Until the call, or the time is over. Goes on in the very next turn of the loop, before what arrives meanwhile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await signal


class Signals:
    def __init__(self) -> None:
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._silent: dict[str, None] = {}
        self._closed = False

    def begin(self, topic: str) -> None:
        """The topic is new: nothing has happened to it yet."""
        if len(self._silent) >= _SILENT_LIMIT:
            del self._silent[next(iter(self._silent))]
        self._silent[topic] = None

    def is_silent(self, topic: str) -> bool:
        """Whether it is known that the topic was never called since it began."""
        return topic in self._silent

    def listen(self, topic: str) -> asyncio.Future[None]:
        """A future that ends with the topic's next call. Give it back to ``forget``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(None)
        else:
            self._waiters[topic].add(future)
        return future

    def forget(self, topic: str, future: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(topic)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[topic]

    def call(self, topic: str) -> None:
        self._silent.pop(topic, None)
        for future in self._waiters.pop(topic, set()):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Ends every wait, now and later: the scheduler is stopping."""
        self._closed = True
        for topic in list(self._waiters):
            self.call(topic)

    @property
    def closed(self) -> bool:
        return self._closed
