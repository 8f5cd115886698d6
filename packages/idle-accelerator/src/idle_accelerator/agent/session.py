"""The one conversation with the scheduler, from the agent's side. What it says and means is in wire.exchange."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable
from typing import Protocol

from idle_accelerator.agent.link import Link
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.errors import Forbidden, IdleError, NotFound, StorageFull, Unauthorized, Unavailable
from idle_accelerator.wire.exchange import ExchangeAnswer, ExchangeRequest
from idle_accelerator.wire.nodes import Isolation, NodeFacts, Offer

_log = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 8.0
"""Between tries while the scheduler is away; less than the 30 s that a restarted one waits for its nodes."""
DEFAULT_POLL_S = 3.0
POLLS_S = {"in_use": 10.0, "settling": 10.0}
"""Reasons tell how long ago the owner was active: while that changes, it is told anew this often."""
AFTER_LEASES_S = 0.02
"""The shortest tasks end within this: then one request tells that and asks for more."""
AFTER_ORDERS_S = 0.25
"""An order is repeated in every answer until it is carried out, which takes its time."""
RETRIED = (Unavailable, StorageFull)
LAST_WORD_S = 5.0


class Hands(Protocol):
    """Who does the work: the runner."""

    def offer(self) -> Offer: ...
    def known_jobs(self) -> tuple[str, ...]: ...
    def take_in(self, answer: ExchangeAnswer) -> None:
        """Leases and orders."""
        ...


class Session:
    """Keeps the conversation going until it is stopped, over dead networks and restarted schedulers.

    There is at most one request that waits for work and one that brings news; news overtakes the waiting one, which the
    scheduler then answers at once.
    """

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        hands: Hands,
        *,
        node_id: str,
        facts: NodeFacts,
        on_connected: Callable[[bool], None],
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._hands = hands
        self._node_id = node_id
        self._facts = facts
        self._on_connected = on_connected
        self._incarnation = secrets.token_hex(8)
        self._seq = 0
        self._introduced = False
        self._poll_s = DEFAULT_POLL_S
        self._breath_s = 0.0
        self._offer_changed = asyncio.Event()
        self._last_offer: Offer | None = None

    def offer_may_have_changed(self) -> None:
        """The owner came or went, or something began or ended: tell the scheduler soon, if it is true."""
        self._offer_changed.set()

    def tell_facts(self, isolation: Isolation) -> None:
        """The machine has turned out to hold something else than it said."""
        self._facts = self._facts.model_copy(update={"isolation": isolation})
        self._introduced = False

    async def run(self) -> None:
        """Until cancelled. Raises Unauthorized, Forbidden or NotFound when the scheduler does not know this node (any more)."""
        waiting: asyncio.Task[None] | None = None
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                try:
                    free = waiting is None or waiting.done()
                    # With nothing else in hand, the request that tells the end of the last asks for more as well.
                    together = free and self._introduced and self._outbox.all_ended
                    if self._outbox.news.is_set() and not together:
                        await self._exchange(wait_s=0.0)
                    elif waiting is None or waiting.done():
                        finished, waiting = waiting, None
                        if finished is not None:
                            await finished
                        if self._breath_s and await self._news_within(self._breath_s):
                            continue
                        # The first request must not wait: it brings what an earlier agent left, and the facts.
                        wait_s = self._poll_s if self._introduced else 0.0
                        waiting = asyncio.create_task(self._exchange(wait_s=wait_s), name="waiting exchange")
                        await asyncio.sleep(0)  # it takes the news along, if there is any
                    else:
                        await self._until_news(waiting)
                    pause_s = FIRST_PAUSE_S
                except RETRIED as error:
                    self._on_connected(False)
                    _log.warning("%s Trying again in %.1f s.", error.message, pause_s)
                    await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311  # spreads agents, hides nothing
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _news_within(self, seconds: float) -> bool:
        self._breath_s = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._outbox.news.wait()
        return self._outbox.news.is_set()

    async def _until_news(self, waiting: asyncio.Task[None]) -> None:
        """Until there is something to tell, or the waiting request is answered."""
        news = asyncio.create_task(self._outbox.news.wait())
        changed = asyncio.create_task(self._offer_changed.wait())
        try:
            await asyncio.wait({waiting, news, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            changed.cancel()
        if self._offer_changed.is_set():
            self._offer_changed.clear()
            if not waiting.done() and _worth_telling(self._hands.offer()) != _worth_telling(self._last_offer):
                self._outbox.news.set()

    async def _exchange(self, *, wait_s: float) -> None:
        batch = self._outbox.take()
        self._seq += 1
        self._last_offer = self._hands.offer()
        told = self._facts
        has_news = batch.has_news
        can_wait = wait_s > 0 and (not has_news or self._outbox.tells_all(batch))
        request = ExchangeRequest(
            incarnation=self._incarnation,
            seq=self._seq,
            wait_s=min(wait_s, POLLS_S.get(self._last_offer.lending, wait_s)) if can_wait else 0.0,
            news_can_wait=has_news and can_wait,
            facts=None if self._introduced else told,
            offer=self._last_offer,
            holding=self._outbox.holding(),
            known_jobs=self._hands.known_jobs(),
            reports=batch.reports,
            logs=batch.logs,
            checkpoints=batch.checkpoints,
            progress=batch.progress,
        )
        try:
            answer = await self._link.exchange(self._node_id, request)
        except BaseException:
            if has_news:
                self._outbox.news.set()
            raise
        self._introduced = told is self._facts
        self._on_connected(True)
        self._outbox.acknowledge(batch)
        self._poll_s = answer.poll_s
        self._breath_s = AFTER_LEASES_S if answer.grants else AFTER_ORDERS_S if answer.orders else 0.0
        self._hands.take_in(answer)

    async def say_goodbye(self, offer: Offer) -> None:
        """Hand in what is left, and say that the machine is gone; gives up after LAST_WORD_S. Nothing is lost by that."""
        with contextlib.suppress(TimeoutError, IdleError):
            async with asyncio.timeout(LAST_WORD_S):
                for _ in range(100):
                    batch = self._outbox.take()
                    self._seq += 1
                    request = ExchangeRequest(
                        incarnation=self._incarnation,
                        seq=self._seq,
                        offer=offer,
                        holding=self._outbox.holding(),
                        reports=batch.reports,
                        logs=batch.logs,
                        checkpoints=batch.checkpoints,
                    )
                    await self._link.exchange(self._node_id, request)
                    self._outbox.acknowledge(batch)
                    if self._outbox.is_empty:
                        return


def _worth_telling(offer: Offer | None) -> Offer | None:
    """The offer without what may wait for the next request: which processes are warm."""
    return None if offer is None else offer.model_copy(update={"warm": ()})


UNKNOWN_NODE = (Unauthorized, Forbidden, NotFound)
"""What the scheduler answers to a node that it does not know."""
