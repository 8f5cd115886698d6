"""The synchronous facade: one mechanism that turns the async core into blocking calls, with its real signatures.

A facade is written as a list of names, and type checkers and editors see what each of them takes and gives::

    class JobHandle(Facade[AsyncJobHandle[T]], Generic[T]):
        cancel = blocking(AsyncJobHandle[T].cancel)

Coroutines run in one background thread per client, so the facade also works where an event loop is running already,
as in Jupyter. What a core method returns is turned into its own facade where it has one (``Faced``).
"""

import asyncio
import functools
import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from idle_accelerator.errors import IdleError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
X = TypeVar("X")
F_co = TypeVar("F_co", covariant=True)
_STOP_S = 5.0
_SLICE_S = 0.1


class Portal:
    """An event loop in a background thread. Ends when closed, or when nothing refers to it any more."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=_run, args=(self._loop, self._closing), name="idle-accelerator-sdk", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread)

    def on_close(self, finish: Callable[[], Awaitable[None]]) -> None:
        """``finish`` is awaited in the loop at its end. It must not refer to this object."""
        self._closing.append(finish)

    def call(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """The coroutine's result. Ctrl-C cancels the coroutine and is raised here at once."""
        problem = self._problem()
        if problem is not None:
            coroutine.close()
            raise problem
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return _outcome(future)
        except CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        if os.getpid() == self._process:
            self._finalizer()
        else:
            self._finalizer.detach()

    def _problem(self) -> IdleError | None:
        if os.getpid() != self._process:
            return IdleError(
                "this client was made before the process forked.",
                code="closed",
                hint="Make a new Client in each process.",
            )
        if not self._finalizer.alive:
            return _closed()
        if threading.current_thread() is self._thread:
            return IdleError(
                "a blocking call inside the client's own thread would wait for itself.",
                code="closed",
                hint="Call it from another thread, or use AsyncClient.",
            )
        return None


def _outcome(future: "Future[R]") -> R:
    if sys.platform == "win32":  # there, waiting without an end cannot be interrupted by Ctrl-C
        while not future.done():
            wait([future], timeout=_SLICE_S)
    return future.result()


def _closed() -> IdleError:
    return IdleError("this client is closed.", code="closed", hint="Make a new Client.")


def _run(loop: asyncio.AbstractEventLoop, closing: Sequence[Callable[[], Awaitable[None]]]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_finish(closing))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _finish(closing: Sequence[Callable[[], Awaitable[None]]]) -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.gather(*(finish() for finish in closing), return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(_STOP_S)


class Facade(Generic[S]):
    """Blocks where its async core awaits."""

    def __init__(self, core: S, portal: Portal) -> None:
        self.core = core
        self.portal = portal


class Faced(ABC, Generic[F_co]):
    """Part of the async core that has a facade of its own."""

    @abstractmethod
    def facade(self, portal: Portal) -> F_co: ...


@overload
def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, Faced[R]]],
) -> Callable[Concatenate[Facade[S], P], R]: ...
@overload
def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Facade[S], P], R]: ...
def blocking(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """The core's coroutine method as a blocking one of its facade."""

    @functools.wraps(method)
    def call(self: Facade[Any], *args: Any, **kwargs: Any) -> Any:
        value = self.portal.call(method(self.core, *args, **kwargs))
        return cast("Faced[Any]", value).facade(self.portal) if isinstance(value, Faced) else value

    return call


def opening(method: Callable[Concatenate[S, P], Faced[R]]) -> Callable[Concatenate[Facade[S], P], R]:
    """The core's plain method that returns a part of the core, as one that returns that part's facade."""

    @functools.wraps(method)
    def call(self: Facade[S], *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self.core, *args, **kwargs).facade(self.portal)

    return call


class blocking_property(Generic[S, R]):  # noqa: N801  # used as a function, as property is
    """The core's coroutine method without arguments, as a property of its facade."""

    def __init__(self, method: Callable[[S], Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Facade[S], owner: type) -> R: ...
    def __get__(self, instance: Facade[S] | None, owner: type) -> Self | R:
        return self if instance is None else instance.portal.call(self._method(instance.core))


class Stream(Faced["BlockingStream[X]"], Generic[X]):
    """An async iterator that is filled a batch at a time; an interrupted one can be gone on with."""

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[X]]]) -> None:
        """``fetch`` gives the next items, at least one; none at the end."""
        self._fetch = fetch
        self._ready: deque[X] = deque()

    async def next_batch(self) -> Sequence[X]:
        """All that is at hand, at least one; empty at the end."""
        if self._ready:
            batch = tuple(self._ready)
            self._ready.clear()
            return batch
        return await self._fetch()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> X:
        if not self._ready:
            self._ready.extend(await self._fetch())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def facade(self, portal: Portal) -> "BlockingStream[X]":
        return BlockingStream(self, portal)


class BlockingStream(Facade[Stream[X]], Iterator[X], Generic[X]):
    """An iterator; crosses to the background thread once per batch, not once per item."""

    def __init__(self, core: Stream[X], portal: Portal) -> None:
        super().__init__(core, portal)
        self._ready: deque[X] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> X:
        if not self._ready:
            self._ready.extend(self.portal.call(self.core.next_batch()))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()
