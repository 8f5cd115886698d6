"""Wakes whoever waits for news of a job. Missing a call does no harm: waiters look at the store before they wait, and after."""

import asyncio
from collections import defaultdict


class Signals:
    def __init__(self) -> None:
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

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
