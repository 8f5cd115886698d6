"""What a call finds around it, what it prints, and what it may not spoil for the next."""
# What stands for a user's function is written as users write:
# ruff: noqa: PTH101, PTH103, PTH109, PTH118, PTH123, PTH208, PTH211

import os
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import psutil
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
    print_and_wait,
    sandbox_fixture,
    start_fixture,
    until_death,
)

from idle_accelerator.agent.workloads import frames, places
from idle_accelerator.agent.workloads.function import Output
from idle_accelerator.agent.workloads.stored_result import StoredResult
from idle_accelerator.wire import codec

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_a_call_prints_comes_before_its_return_and_is_counted_from_zero(start: Starter):
    def work(x):
        print(f"out {x}")
        print(f"err {x}", file=sys.stderr)
        os.system("echo from a child")

    host = await start(work)
    host.send([call_of(number, index=number) for number in range(3)])
    order: list[tuple[str, int]] = []
    heard = Heard()
    while len(heard.returned) < 3:
        for event in await next_events(host):
            order.append((type(event).__name__, event.index))
            (heard.outputs if isinstance(event, Output) else heard.returned).append(event)
    for number in range(3):
        assert heard.text(index=number) == f"out {number}\nfrom a child\n".encode()
        assert heard.text("stderr", number) == f"err {number}\n".encode()
        assert {one.offset for one in heard.outputs if one.index == number} == {0}
        assert max(i for i, one in enumerate(order) if one == ("Output", number)) < order.index(
            ("Returned", number)
        )


async def test_output_that_is_no_text_arrives_as_it_is(start: Starter):
    host = await start(lambda: os.write(1, b"\xff\x00\xfe") and print("\udcff", end=""))
    assert (await call(host)).text() == b"\xff\x00\xfe\xff"


async def test_a_flood_of_output_keeps_its_end_and_tells_the_gap(start: Starter):
    host = await start(lambda: os.write(1, b"x" * 8_000_000 + b"the end"))
    outputs = (await call(host)).outputs
    assert all(len(one.data) <= frames.OUTPUT_LIMIT_BYTES for one in outputs)
    assert sum(len(one.data) for one in outputs) <= 3 * frames.KEPT_OUTPUT_BYTES
    assert outputs[-1].offset + len(outputs[-1].data) == 8_000_007
    assert outputs[-1].data.endswith(b"the end")
    assert (host.workspace / places.OURS / places.STDOUT).stat().st_size == 0
    assert [(one.offset, one.data[-7:]) for one in (await call(host)).outputs][-1][1] == b"the end"


async def test_output_of_a_running_call_does_not_wait_for_its_end(start: Starter, tmp_path: Path):
    host = await start(print_and_wait)
    host.send([call_of("so far", str(tmp_path / "go"))])
    (event,) = await next_events(host)
    assert isinstance(event, Output)
    assert event.data == b"so far\n"
    (tmp_path / "go").touch()
    assert (await hear(host, 1)).value == "so far"


async def test_a_finished_call_does_not_wait_for_the_next(start: Starter, tmp_path: Path):
    host = await start(print_and_wait)
    (tmp_path / "first").touch()
    host.send([call_of("", str(tmp_path / "first")), call_of("", str(tmp_path / "second"), index=1)])
    heard = await hear(host, 1)
    assert heard.returned[0].index == 0
    assert [one.index for one in host.pending] == [1]
    (tmp_path / "second").touch()
    await hear(host, 1)


async def test_standard_input_is_empty(start: Starter):
    host = await start(input)
    assert (await call(host)).error.type_name == "EOFError"
    assert (await call(host)).error.type_name == "EOFError"


async def test_each_call_finds_its_identity_and_its_folder(start: Starter):
    def work(spoil):
        seen = {name: value for name, value in os.environ.items() if name.startswith("IDLE_")}
        seen["cwd"] = os.getcwd()
        if spoil:
            os.environ["IDLE_TASK_INDEX"] = "77"
            del os.environ["IDLE_JOB_ID"]
            os.chdir("/")
            sys.setrecursionlimit(60)
        return seen

    host = await start(work)
    first = (await call(host, True, index=2, epoch=3)).value
    assert first["IDLE_JOB_ID"] == JOB
    assert (first["IDLE_TASK_INDEX"], first["IDLE_TASK_COUNT"], first["IDLE_ATTEMPT"]) == ("2", "9", "3")
    assert first["cwd"] == str(host.workspace)
    second = (await call(host, False, index=4, epoch=1)).value
    assert second == {**first, "IDLE_TASK_INDEX": "4", "IDLE_ATTEMPT": "1"}


async def test_a_call_may_close_or_replace_the_standard_streams(start: Starter):
    def work(kind):
        print("before", kind)
        if kind == "descriptors":
            os.closerange(0, 10)
        elif kind == "close":
            sys.stdout.close()
            sys.stderr.close()
        elif kind == "replace":
            import io

            sys.stdout = io.StringIO()
            sys.stderr = None
            print("nowhere")
        return kind

    host = await start(work)
    for kind in ("descriptors", "close", "replace", "none"):
        heard = await call(host, kind)
        assert heard.value == kind
        assert heard.text() == f"before {kind}\n".encode()


async def test_timers_and_tracers_of_a_call_do_not_reach_the_next(start: Starter):
    def work(first):
        if first:
            signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("late")))
            signal.alarm(3600)
            sys.settrace(lambda *_: None)
            sys.setprofile(lambda *_: None)
        return signal.getitimer(signal.ITIMER_REAL)[0], sys.gettrace() is None, sys.getprofile() is None

    host = await start(work)
    await call(host, True)
    assert (await call(host, False)).value == (0.0, True, True)


async def test_a_fork_that_comes_back_from_the_function_is_no_second_answer(start: Starter):
    def work(end):
        pid = os.fork()
        if pid == 0:
            print("child")
            if end == "raise":
                raise ValueError("in the child")
            if end == "exit":
                sys.exit(7)
            return "child"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    host = await start(work)
    for end, status in (("return", 0), ("raise", 1), ("exit", 7)):
        heard = await call(host, end)
        assert heard.value == status
        assert heard.text() == b"child\n"
        assert (b"ValueError: in the child" in heard.text("stderr")) == (end == "raise")
    assert (await call(host, "return")).value == 0


async def test_child_processes_of_a_function_can_be_terminated(start: Starter):
    def work():
        import multiprocessing

        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        child.start()
        child.terminate()
        child.join()
        return child.exitcode

    host = await start(work)
    assert (await call(host)).value == -signal.SIGTERM


async def test_what_a_call_leaves_running_lives_no_longer_than_the_process(start: Starter):
    def work():
        import subprocess
        import threading

        threading.Thread(target=time.sleep, args=(1000,)).start()
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    host = await start(work)
    left = (await call(host)).value
    assert psutil.pid_exists(left)
    host.close()
    death = (await until_death(host)).death
    assert death is not None
    assert death.exit.exit_code == 0
    assert not psutil.pid_exists(left)


async def test_the_users_main_module_is_not_the_guest_program(start: Starter):
    def work():
        import __main__

        return [name for name in vars(__main__) if not name.startswith("__")]

    host = await start(work)
    assert (await call(host)).value == []


def _litter(deep):
    seen = sorted(os.path.relpath(os.path.join(at, name)) for at, _, names in os.walk(".") for name in names)
    temporary = os.listdir(os.environ["TMPDIR"])
    import tempfile

    tempfile.mkstemp()
    os.makedirs("made/deeper/still")
    for place in (".", "inputs", "made/deeper", os.environ["IDLE_CHECKPOINT_DIR"]):
        with open(os.path.join(place, f"left{deep}"), "w") as file:
            file.write("x")
    os.symlink("/", "root")
    os.chmod("made/deeper", 0o500)
    return [name for name in seen if not name.startswith(".idle")], temporary


async def test_the_next_call_finds_the_folder_as_the_first_did_when_asked_for(start: Starter):
    host = await start(_litter, clean_cwd=True, files=["data.csv", "inputs/a", "inputs/b"])
    for number in range(3):
        names, temporary = (await call(host, number)).value
        assert names == ["data.csv", "inputs/a", "inputs/b"]
        assert temporary == []
    assert Path("/").is_dir()


async def test_what_a_call_writes_stays_unless_cleaning_is_asked_for(start: Starter):
    host = await start(_litter)
    await call(host, 0)
    assert (host.workspace / "left0").read_text() == "x"


async def test_a_call_that_removes_our_folder_does_not_harm_the_next(start: Starter):
    def work():
        import shutil
        import tempfile

        tempfile.mkstemp()
        print("still here")
        shutil.rmtree(".idle")
        return b"x" * 1_000_000

    host = await start(work, clean_cwd=True)
    for _ in range(2):
        heard = await call(host)
        assert heard.text() == b"still here\n"
        stored = heard.returned[0].result
        assert isinstance(stored, StoredResult)
        with stored.open() as file:
            assert len(codec.decode(file.readall())) == 1_000_000
