"""A function's warm process: values, results and exceptions."""

import asyncio
import mmap
import os
import signal
import sys
from pathlib import Path

import cloudpickle
import pytest
from workload_hosts import (  # noqa: F401  # fixtures are used by name
    JOB,
    LIMIT_S,
    ColdSandbox,
    Heard,
    Starter,
    call,
    call_of,
    hear,
    next_events,
    sandbox_fixture,
    start_fixture,
    until_death,
)

from idle_accelerator.agent.workloads import frames
from idle_accelerator.agent.workloads.function import Call
from idle_accelerator.agent.workloads.stored_result import StoredResult
from idle_accelerator.errors import TooLarge
from idle_accelerator.wire import codec

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("cold", [False, True])
async def test_calls_return_their_values_in_the_order_in_which_they_were_sent(start: Starter, cold: bool):
    host = await start(lambda x, plus=0: x + plus, sandbox=ColdSandbox(start.sandbox) if cold else None)
    host.send([call_of(number, plus=1, index=number, epoch=number + 5) for number in range(500)])
    assert len(host.pending) == 500
    heard = await hear(host, 500)
    assert [(one.index, one.epoch) for one in heard.returned] == [(n, n + 5) for n in range(500)]
    assert [codec.decode(one.result) for one in heard.returned] == [n + 1 for n in range(500)]
    assert all(one.encoding == "data" and one.wall_s >= 0 for one in heard.returned)
    assert host.pending == ()


async def test_a_function_finds_a_process_that_has_rehearsed_as_it_finds_a_new_one(start: Starter):
    def look():
        import faulthandler
        import gc
        import threading

        streams = (sys.stdin, sys.stdout, sys.stderr)
        return {
            "argv": sys.argv,
            "folder": sorted(str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*")),
            "variables": sorted(os.environ.items()),
            "descriptors": sorted(map(str, Path("/proc/self/fd").iterdir()))
            if sys.platform == "linux"
            else [],
            "handlers": [
                str(signal.getsignal(one)).split(" of ")[0] for one in sorted(signal.valid_signals())
            ],
            "limits": [sys.getrecursionlimit(), faulthandler.is_enabled(), gc.isenabled()],
            "threads": threading.active_count(),
            "streams": [
                [one.encoding, one.errors, one.line_buffering, one.fileno(), one.closed] for one in streams
            ],
            "same": [streams == (sys.__stdin__, sys.__stdout__, sys.__stderr__)],
            "main": sorted(vars(sys.modules["__main__"])),
        }

    forked = (await call(await start(look))).value
    cold = (await call(await start(look, sandbox=ColdSandbox(start.sandbox)))).value
    for found in (forked, cold):
        # The names of the two workspaces differ in one digit.
        found["variables"] = [
            [name, value.translate({ord(d): "#" for d in "0123456789"})] for name, value in found["variables"]
        ]
    assert forked == cold


async def test_what_a_call_leaves_in_memory_is_there_for_the_next(start: Starter):
    seen: list[int] = []
    host = await start(lambda x: (seen.append(x), list(seen))[1])
    await call(host, 1)
    assert (await call(host, 2)).value == [1, 2]


async def test_a_coroutine_function_is_run_to_its_end(start: Starter):
    async def work(x):

        await asyncio.sleep(0)
        return x * 2

    host = await start(work)
    assert (await call(host, 4)).value == 8
    assert (await call(host, 5)).value == 10


async def test_large_arguments_and_large_results_travel_whole(start: Starter):
    host = await start(lambda raw: raw[::-1])
    raw = os.urandom(5_000_000)
    host.send([call_of(raw, index=3, epoch=2), call_of(b"abc", index=4)])
    large, small = (await hear(host, 2)).returned
    assert isinstance(large.result, StoredResult)
    with large.result.open() as file:
        assert codec.decode(file.readall()) == raw[::-1]
    assert codec.decode(small.result) == b"cba"


async def test_the_function_may_be_mapped_from_a_file(start: Starter, tmp_path: Path):
    for ballast in (b"", os.urandom(300_000)):
        path = tmp_path / str(len(ballast))
        path.write_bytes(cloudpickle.dumps(lambda ballast=ballast: len(ballast)))
        with path.open("rb") as file:
            host = await start(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        assert (await call(host)).value == len(ballast)


async def test_arguments_over_the_limit_are_refused_and_nothing_is_sent(start: Starter, monkeypatch):
    monkeypatch.setattr(frames, "SENT_LIMIT_BYTES", 1000)
    host = await start(b"N.")
    with pytest.raises(TooLarge) as caught:
        host.send([call_of(1), call_of(b"x" * 2000)])
    assert caught.value.field == "arguments"
    assert host.pending == ()


async def test_a_value_that_is_no_plain_data_is_refused_with_where_it_is_and_what_to_do(start: Starter):
    host = await start(lambda: {"a": [1, object()]})
    (returned,) = (await call(host)).returned
    assert returned.result is None
    assert returned.error is None
    assert returned.refused is not None
    assert "result" in returned.refused
    assert "[1]" in returned.refused
    assert "results='pickle'" in returned.refused or 'results="pickle"' in returned.refused


async def test_a_value_that_fails_while_it_is_read_is_refused(start: Starter):
    def evil():
        from dataclasses import dataclass

        @dataclass
        class Evil:
            x: int = 1

            def __getattribute__(self, name):
                raise RuntimeError("do not look")

        return Evil()

    host = await start(evil)
    (returned,) = (await call(host)).returned
    assert returned.error is None
    assert returned.refused is not None
    (again,) = (await call(host)).returned
    assert again.refused == returned.refused


async def test_pickled_results_come_back_as_the_class_of_the_script(start: Starter):
    class Point:
        def __init__(self, x):
            self.x = x

    host = await start(Point, results="pickle")
    (returned,) = (await call(host, 7)).returned
    assert returned.encoding == "pickle"
    value = cloudpickle.loads(returned.result)
    assert isinstance(value, Point)
    assert value.x == 7


async def test_a_result_that_cannot_be_pickled_is_refused(start: Starter):
    def lock():
        import threading

        return threading.Lock()

    host = await start(lock, results="pickle")
    (returned,) = (await call(host)).returned
    assert returned.refused is not None
    assert "pickle" in returned.refused


async def test_a_module_that_the_node_lacks_is_an_error_that_says_so(start: Starter):
    host = await start(b"cno_such_module_here\nwork\n.")
    error = (await call(host)).error
    assert error.type_name == "ModuleNotFoundError"
    assert "no_such_module_here" in error.text
    assert "Install it on the node" in error.text
    assert (await call(host)).error.type_name == "ModuleNotFoundError"


async def test_arguments_that_cannot_be_opened_are_an_error_of_that_call_alone(start: Starter):
    host = await start(lambda: 1)
    host.send([Call(index=0, epoch=1, arguments=b"garbage"), call_of(index=1)])
    bad, good = (await hear(host, 2)).returned
    assert bad.error is not None
    assert "arguments" in bad.error.text
    assert codec.decode(good.result) == 1


async def test_the_traceback_begins_at_the_users_function_and_keeps_causes(start: Starter):
    def inner():
        raise ValueError("deep")

    def work():
        try:
            inner()
        except ValueError as error:
            raise RuntimeError("outer") from error

    host = await start(work)
    error = (await call(host)).error
    assert (error.type_name, error.text) == ("RuntimeError", "outer")
    assert "ValueError: deep" in error.traceback_text
    assert "The above exception was the direct cause" in error.traceback_text
    assert "function_guest" not in error.traceback_text
    assert "in inner" in error.traceback_text
    assert error.traceback_text.rstrip().endswith("RuntimeError: outer")


async def test_the_traceback_of_a_coroutine_begins_at_the_users_function(start: Starter):
    async def work():
        raise KeyError("k")

    host = await start(work)
    error = (await call(host)).error
    assert error.type_name == "KeyError"
    assert "in work" in error.traceback_text
    assert "asyncio" not in error.traceback_text


def _fail(kind):
    import threading

    class Own(BaseException):
        pass

    class Dumb(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    class Stateful(Exception):
        def __init__(self):
            super().__init__("held")
            self.lock = threading.Lock()
            self.frame = sys._getframe()

    def recurse(n):
        return recurse(n + 1)

    def ping(n):
        return pong(n)

    def pong(n):
        return ping(n)

    if kind == "exit":
        sys.exit(85)
    if kind == "exit-text":
        sys.exit("because")
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "generator":
        raise GeneratorExit
    if kind == "own":
        raise Own("mine")
    if kind == "dumb":
        raise Dumb
    if kind == "stateful":
        raise Stateful
    if kind == "memory":
        raise MemoryError("none left")
    if kind == "recursion":
        recurse(0)
    if kind == "mutual":
        sys.setrecursionlimit(20_000)
        ping(0)
    if kind == "group":
        raise ExceptionGroup("many", [ValueError("a"), ExceptionGroup("in", [TypeError("b")])])
    if kind == "long":
        raise ValueError("x" * 1_000_000)
    if kind == "surrogate":
        raise ValueError("\ud800 lone")
    if kind == "note":
        error = ValueError("noted")
        error.add_note("see here")
        raise error
    return "fine"


@pytest.mark.parametrize(
    ("kind", "type_name", "text"),
    [
        ("exit", "SystemExit", "85"),
        ("exit-text", "SystemExit", "because"),
        ("interrupt", "KeyboardInterrupt", ""),
        ("generator", "GeneratorExit", ""),
        ("own", "Own", "mine"),
        ("dumb", "Dumb", "(its text could not be made): RuntimeError"),
        ("stateful", "Stateful", "held"),
        ("memory", "MemoryError", "none left"),
        ("recursion", "RecursionError", "maximum recursion depth exceeded"),
        ("mutual", "RecursionError", "maximum recursion depth exceeded"),
        ("group", "ExceptionGroup", "many (2 sub-exceptions)"),
        ("long", "ValueError", "xxx"),
        ("surrogate", "ValueError", "\\ud800 lone"),
        ("note", "ValueError", "noted"),
    ],
)
async def test_whatever_a_function_raises_is_data_and_the_process_goes_on(
    start: Starter, kind: str, type_name: str, text: str
):
    host = await start(_fail)
    heard = await call(host, kind)
    error = heard.error
    assert error.type_name.rpartition(".")[2] == type_name
    assert error.text.startswith(text)
    assert len(error.text) <= frames.TEXT_LIMIT
    assert len(error.traceback_text) <= frames.TRACEBACK_LIMIT
    assert "in _fail" in error.traceback_text or kind == "mutual"
    assert heard.returned[0].exit_code == (85 if kind == "exit" else None)
    assert (await call(host, "")).value == "fine"


async def test_a_group_of_exceptions_is_shown_with_its_members(start: Starter):
    host = await start(_fail)
    shown = (await call(host, "group")).error.traceback_text
    assert "ValueError: a" in shown
    assert "TypeError: b" in shown


async def test_a_long_text_keeps_its_end_and_says_what_is_left_out(start: Starter):
    def work():
        raise ValueError("begin" + "x" * 1_000_000 + "end")

    host = await start(work)
    text = (await call(host)).error.text
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters left out" in text


async def test_a_lowered_recursion_limit_does_not_spoil_the_traceback(start: Starter):
    def work():
        sys.setrecursionlimit(60)
        raise ValueError("shown")

    host = await start(work)
    assert "ValueError: shown" in (await call(host)).error.traceback_text


async def test_a_full_disk_refuses_a_large_result_and_says_so(start: Starter):
    def work(size):
        import resource

        # What a full disk looks like to a single file, without one.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
        return b"x" * size

    host = await start(work)
    (returned,) = (await call(host, 1_000_000)).returned
    assert returned.refused is not None
    assert "could not be written on the node" in returned.refused
    assert list((host.workspace / ".idle" / "results").iterdir()) == []
    assert (await call(host, 10)).value == b"x" * 10


async def test_a_process_short_of_memory_says_so_and_goes_on(start: Starter):
    def work(size):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 1024**2, resource.RLIM_INFINITY))
        return len(bytearray(size))

    if sys.platform != "linux":
        pytest.skip("reads /proc")
    host = await start(work)
    assert (await call(host, 1 << 32)).error.type_name == "MemoryError"
    assert (await call(host, 100)).value == 100
