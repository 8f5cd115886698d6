"""How a function's process ends: closed, told to vacate, killed, crashed, hostile."""
# What stands for a user's function is written as users write:
# ruff: noqa: PTH110, PTH116, PTH208, PTH211

import asyncio
import contextlib
import gc
import os
import signal
import stat
import sys
import time
from pathlib import Path

import cloudpickle
import psutil
import pytest
from sandbox_guests import eventually
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
    print_and_wait,
    sandbox_fixture,
    start_fixture,
    until_death,
)

from idle_accelerator.agent.sandbox.process import ProcessSandbox
from idle_accelerator.agent.workloads import function
from idle_accelerator.agent.workloads.function import HostDied
from idle_accelerator.wire import codec

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.asyncio(loop_scope="module")


def _end(kind):
    if kind == "exit":
        os._exit(3)
    if kind == "exit 0":
        os._exit(0)
    if kind == "crash":
        import faulthandler

        os.write(1, b"last words")
        faulthandler._sigsegv()
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "close everything":
        os.closerange(3, 1024)
    return kind


@pytest.mark.parametrize("kind", ["exit", "exit 0", "crash", "kill", "close everything"])
async def test_a_process_that_ends_in_a_call_is_told_with_who_ran_and_loses_no_finished_call(
    start: Starter, kind: str
):
    host = await start(_end)
    kinds = ["fine", "fine", "fine", kind, "fine"]
    host.send([call_of(one, index=number) for number, one in enumerate(kinds)])
    heard = await until_death(host)
    assert [one.index for one in heard.returned] == [0, 1, 2]
    death = heard.death
    assert death is not None
    assert death.blamed is not None
    assert death.blamed.index == 3
    assert [one.index for one in host.pending] == [3, 4]
    expected = {"exit": 3, "exit 0": 0, "close everything": 70}
    if kind in expected:
        assert death.exit.exit_code == expected[kind]
    else:
        assert death.exit.signal == (signal.SIGSEGV if kind == "crash" else signal.SIGKILL)
    if kind == "crash":
        assert heard.text(index=3) == b"last words"
        assert b"Segmentation fault" in heard.text("stderr", 3)
    with pytest.raises(HostDied):
        await host.receive()


async def test_a_killed_process_gives_up_what_it_had_finished_and_blames_nobody(
    start: Starter, tmp_path: Path
):
    host = await start(print_and_wait)
    (tmp_path / "first").touch()
    host.send([call_of("", str(tmp_path / "first")), call_of("", str(tmp_path / "never"), index=1)])
    await hear(host, 1)
    await host.kill()
    heard = await until_death(host)
    assert heard.death is not None
    assert heard.death.blamed is None
    assert [one.index for one in host.pending] == [1]


async def test_closing_lets_queued_calls_finish(start: Starter):
    host = await start(lambda x: x)
    host.send([call_of(number, index=number) for number in range(50)])
    host.close()
    heard = await until_death(host)
    assert len(heard.returned) == 50
    assert heard.death is not None
    assert heard.death.exit.exit_code == 0
    assert heard.death.blamed is None


async def test_a_process_that_does_not_end_when_closed_is_killed(start: Starter, monkeypatch):
    def work():
        real = os._exit
        os._exit = lambda status: time.sleep(1000) if status == 0 else real(status)

    monkeypatch.setattr(function, "_CLOSE_S", 0.2)
    host = await start(work)
    await call(host)
    host.close()
    death = (await until_death(host)).death
    assert death is not None
    assert death.exit.signal == signal.SIGKILL


async def test_notice_lets_the_running_call_finish_and_begins_no_other(start: Starter):
    def work():
        print("running")
        while not os.path.exists(os.environ["IDLE_VACATE_FILE"]):
            time.sleep(0.01)
        return "saved"

    host = await start(work)
    host.send([call_of(index=number) for number in range(3)])
    await next_events(host)
    host.notify_vacate()
    heard = await until_death(host)
    assert [codec.decode(one.result) for one in heard.returned] == ["saved"]
    assert heard.death is not None
    assert heard.death.exit.exit_code == 0
    assert heard.death.blamed is None
    assert [one.index for one in host.pending] == [1, 2]


async def test_the_signal_alone_makes_the_vacate_file_appear(start: Starter):
    def work():
        os.kill(0, signal.SIGTERM)
        while not os.path.exists(os.environ["IDLE_VACATE_FILE"]):
            time.sleep(0.01)
        return "seen"

    host = await start(work)
    host.send([call_of(index=number) for number in range(2)])
    heard = await until_death(host)
    assert [codec.decode(one.result) for one in heard.returned] == ["seen"]
    assert heard.death is not None
    assert heard.death.blamed is None


async def test_the_signal_alone_ends_a_process_that_has_nothing_to_do(start: Starter):
    # Many, since the signal meets the process on its way into the wait now and then.
    hosts = [await start(lambda: None) for _ in range(20)]
    for host in hosts:
        await call(host)
        host.guest.notify_vacate()
    for host in hosts:
        death = (await until_death(host)).death
        assert death is not None
        assert death.exit.exit_code == 0
        assert death.blamed is None


async def test_notice_ends_a_process_that_has_nothing_to_do(start: Starter):
    host = await start(lambda: None)
    host.notify_vacate()
    assert (await until_death(host)).death is not None


async def test_a_function_may_have_its_own_handler_for_the_notice(start: Starter):
    def work():
        class Notice(Exception):
            pass

        def leave(*_):
            raise Notice("leaving")

        signal.signal(signal.SIGTERM, leave)
        print("ready")
        time.sleep(1000)

    host = await start(work)
    host.send([call_of()])
    await next_events(host)
    host.notify_vacate()
    assert (await hear(host, 1)).error.text == "leaving"


async def test_a_frozen_process_goes_on_where_it_was(start: Starter, tmp_path: Path):
    host = await start(print_and_wait)
    host.send([call_of("x", str(tmp_path / "go"))])
    await next_events(host)
    host.guest.freeze()
    (tmp_path / "go").touch()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(host.receive(), 0.2)
    host.guest.thaw()
    assert (await hear(host, 1)).value == "x"


def _is_restocking(sandbox: ProcessSandbox) -> bool:
    """Whether the sandbox is about to put a process, and a socket to it, in reserve."""
    kept = () if sandbox._forker is None else sandbox._forker._templates.values()
    return any(template._restocking is not None for template in kept)


async def test_a_host_that_nobody_listens_to_any_more_leaves_nothing_behind(start: Starter):
    def state():
        gc.collect()
        tasks = sum("calls for" in task.get_name() for task in asyncio.all_tasks())
        return tasks, len(os.listdir("/dev/fd"))

    await call(await start(lambda: 1), index=0)
    await eventually(lambda: not _is_restocking(start.sandbox), "the next reserve is made")
    before = state()
    for _ in range(3):
        host = await start(lambda: 1)
        host.send([call_of()])
        start.hosts.remove(host)
        await host.guest.kill()
        del host
    async with asyncio.timeout(LIMIT_S):
        while state() != before:
            await asyncio.sleep(0.01)


async def test_a_program_that_cannot_start_says_why(start: Starter, monkeypatch, tmp_path: Path):
    program = tmp_path / "broken.py"
    program.write_text("raise SystemError('this installation is broken')\n")
    monkeypatch.setattr(function, "PROGRAM", program)
    host = await start(b"N.", sandbox=ColdSandbox(start.sandbox))
    host.send([call_of()])
    death = (await until_death(host)).death
    assert death is not None
    assert "this installation is broken" in str(death)
    assert death.blamed is not None


async def test_an_agent_that_stops_listening_loses_nothing(start: Starter):
    host = await start(lambda x: x)
    host.send([call_of(number, index=number) for number in range(300)])
    seen: list[int] = []
    while len(seen) < 300:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                seen += [event.index for event in await host.receive()]
    assert seen == list(range(300))


def _attack(kind):
    import struct

    def pipes():
        for number in range(3, 1024):
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    yield number

    def shout(raw):
        for number in pipes():
            with contextlib.suppress(OSError):
                os.write(number, raw)

    if kind == "huge":
        shout(struct.pack("<IB", 0xFFFFFFFF, 16))
    elif kind == "unknown":
        shout(struct.pack("<IB", 0, 200))
    elif kind == "short":
        shout(struct.pack("<IB", 3, 16) + b"abc")
    elif kind == "other":
        shout(struct.pack("<IBIIdB", 17, 16, 5, 1, 0.0, 1))
    elif kind == "pickle":
        shout(struct.pack("<IBIIdB", 17, 16, 0, 1, 0.0, 2))
    elif kind == "file":
        os.symlink("/etc/passwd", ".idle/results/0.1")
        size = os.stat("/etc/passwd").st_size
        shout(struct.pack("<IBIIdBQ", 25, 17, 0, 1, 0.0, 1, size))
    elif kind == "deaf":
        for number in pipes():
            os.close(number)
    elif kind == "flood":
        piece = struct.pack("<IBIIBQQ", 25 + 65536, 20, 0, 1, 1, 0, 0) + b"x" * 65536
        while True:
            shout(piece)
    time.sleep(1000)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("huge", "announced a frame of 4294967295 bytes"),
        ("unknown", "unknown kind 200"),
        ("short", "too short"),
        ("other", "task 5, attempt 1, which was not its turn"),
        ("pickle", "another form than data"),
        ("file", "not what it said"),
        ("deaf", "closed its pipe"),
        ("flood", "goes backwards"),
    ],
)
async def test_nonsense_on_the_pipe_ends_the_process_with_a_clear_reason(
    start: Starter, kind: str, said: str
):
    host = await start(_attack)
    host.send([call_of(kind)])
    heard = await until_death(host)
    assert heard.returned == []
    assert heard.death is not None
    assert said in str(heard.death)
    assert heard.death.blamed is not None
    assert not psutil.pid_exists(host.guest.pid)


async def test_calls_that_wait_in_a_full_pipe_do_not_block_the_agent(start: Starter, tmp_path: Path):
    def work(path, _ballast):
        while not os.path.exists(path):
            time.sleep(0.01)

    host = await start(work)
    go = str(tmp_path / "go")
    began = time.monotonic()
    host.send([call_of(go, b"x" * 500_000, index=number) for number in range(20)])
    for _ in range(50):
        await asyncio.sleep(0)
    assert time.monotonic() - began < LIMIT_S / 2
    assert len(host.pending) == 20
    (tmp_path / "go").touch()
    assert len((await hear(host, 20)).returned) == 20
