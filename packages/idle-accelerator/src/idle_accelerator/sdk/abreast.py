"""Several calls at once, but not all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


async def abreast(call: Callable[[X], Awaitable[Y]], items: Iterable[X], *, at_once: int) -> list[Y]:
    """What ``call`` gives for each item, in their order. The first error ends the others and is raised as it is."""
    gate = asyncio.Semaphore(at_once)

    async def pass_gate(item: X) -> Y:
        async with gate:
            return await call(item)

    tasks = [asyncio.ensure_future(pass_gate(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
