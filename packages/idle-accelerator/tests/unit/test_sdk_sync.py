"""The blocking facade: works beside a running event loop, is interrupted at once, ends cleanly, keeps its signatures."""

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import pytest

from idle_accelerator.errors import IdleError
from idle_accelerator.sdk.client import AsyncClient, AsyncJobHandle, Client, JobHandle
from idle_accelerator.sdk.sync import Facade, Portal, Stream, blocking, blocking_property, opening

T = TypeVar("T")


class AsyncCounter(Generic[T]):
    def __init__(self, values: Sequence[T]) -> None:
        self._values = list(values)
        self.closed = False

    async def first(self, skip: int = 0) -> T:
        """Docs of first."""
        await asyncio.sleep(0)
        return self._values[skip]

    async def size(self) -> int:
        return len(self._values)

    async def fail(self) -> None:
        raise ValueError("as it was")

    async def for_ever(self) -> None:
        await asyncio.Event().wait()

    def all(self) -> Stream[T]:
        return Stream(self._take_two)

    async def _take_two(self) -> Sequence[T]:
        taken, self._values = self._values[:2], self._values[2:]
        return taken

    async def close(self) -> None:
        self.closed = True


class Counter(Facade[AsyncCounter[T]], Generic[T]):
    first = blocking(AsyncCounter[T].first)
    size = blocking_property(AsyncCounter[T].size)
    fail = blocking(AsyncCounter[T].fail)
    for_ever = blocking(AsyncCounter[T].for_ever)
    all = opening(AsyncCounter[T].all)


@pytest.fixture
def counter() -> Any:
    portal = Portal()
    yield Counter(AsyncCounter([1, 2, 3, 4, 5]), portal)
    portal.close()


def test_calls_properties_errors_and_streams_come_through(counter: Counter[int]) -> None:
    assert counter.first(skip=1) == 2
    assert counter.size == 5
    with pytest.raises(ValueError, match="as it was"):
        counter.fail()
    assert list(counter.all()) == [1, 2, 3, 4, 5]


async def test_it_works_inside_a_running_event_loop(counter: Counter[int]) -> None:
    assert counter.first() == 1
    assert list(counter.all()) == [1, 2, 3, 4, 5]


def test_many_threads_may_use_one(counter: Counter[int]) -> None:
    said: list[int] = []
    threads = [threading.Thread(target=lambda: said.append(counter.first())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert said == [1] * 20


def test_a_stream_that_was_interrupted_goes_on_where_it_was() -> None:
    async def story() -> list[int]:
        gate = asyncio.Event()
        batches = [[1, 2], [3]]

        async def fetch() -> Sequence[int]:
            await gate.wait()
            return batches.pop(0) if batches else ()

        stream = Stream(fetch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        gate.set()
        return [item async for item in stream]

    assert asyncio.run(story()) == [1, 2, 3]


def test_after_close_every_call_says_so_and_closing_twice_is_fine(counter: Counter[int]) -> None:
    counter.portal.close()
    counter.portal.close()
    with pytest.raises(IdleError, match="closed"):
        counter.first()


def test_a_call_that_waits_while_another_thread_closes_ends_with_an_error(counter: Counter[int]) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            counter.for_ever()
        except IdleError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    counter.portal.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(raised) == 1


def test_what_is_dropped_without_close_ends_its_thread_and_closes_its_core() -> None:
    core = AsyncCounter([1])
    portal = Portal()
    portal.on_close(core.close)
    thread = portal._thread
    gone = weakref.ref(portal)
    counter = Counter(core, portal)
    assert counter.first() == 1
    del counter, portal
    gc.collect()
    thread.join(20)
    assert gone() is None
    assert not thread.is_alive()
    assert core.closed


def test_a_blocking_call_from_its_own_thread_is_refused_instead_of_hanging(counter: Counter[int]) -> None:
    async def inside() -> None:
        counter.first()

    with pytest.raises(IdleError, match="wait for itself"):
        counter.portal.call(inside())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_after_a_fork_the_child_gets_an_error_instead_of_hanging() -> None:
    program = """
import os, sys
from idle_accelerator import Client
from idle_accelerator.errors import IdleError
client = Client("http://127.0.0.1:1", patience_s=0)
if os.fork() == 0:
    try:
        client.health()
    except IdleError as error:
        client.close()
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.strip() == "7", ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a process alone otherwise there")
def test_ctrl_c_interrupts_a_wait_at_once_and_the_client_goes_on() -> None:
    program = """
import asyncio, threading
from idle_accelerator.sdk.sync import Portal
portal = Portal()
ended = threading.Event()
async def for_ever():
    print("waiting", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()
async def one():
    return 1
try:
    portal.call(for_ever())
except KeyboardInterrupt:
    print("interrupted", ended.wait(20), portal.call(one()), flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert said == "interrupted True 1\n"
    assert process.returncode == 0


def test_a_program_that_never_closes_its_client_ends_by_itself() -> None:
    program = "from idle_accelerator import Client; client = Client('http://127.0.0.1:1'); print('end')"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (ran.stdout, ran.stderr) == ("end\n", "")


@pytest.mark.parametrize(("facade", "core"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_the_facade_offers_all_of_its_core_with_the_same_signatures(facade: type, core: type) -> None:
    names = [name for name in vars(core) if not name.startswith("_") and name not in ("facade", "close")]
    assert names
    for name in names:
        assert name in vars(facade), f"{facade.__name__} lacks {name}"
        if callable(getattr(facade, name)):
            assert inspect.signature(getattr(facade, name)) == inspect.signature(getattr(core, name))
            assert getattr(facade, name).__doc__ == getattr(core, name).__doc__


def test_importing_the_package_costs_nothing_until_the_client_is_named() -> None:
    program = (
        "import sys, idle_accelerator; heavy = ('pydantic', 'httpx2', 'cloudpickle');"
        "print([name for name in heavy if name in sys.modules]); idle_accelerator.Client;"
        "print([name for name in heavy if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "['pydantic', 'httpx2', 'cloudpickle']"]
