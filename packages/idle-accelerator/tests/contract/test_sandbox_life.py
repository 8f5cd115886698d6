"""What every sandbox promises of a guest's life, tried on real processes, for both ways to start one."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from sandbox_guests import (
    WAYS,
    Stage,
    alive,
    all_end,
    descendants,
    environment,
    eventually,
    hear,
    open_descriptors,
    open_stage,
    pids_outside,
    stopped,
    tell,
    zombies,
)

from idle_accelerator.agent.sandbox import GuestUsage, SpawnFailed, open_sandbox

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of sessions and signals")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(params=WAYS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = open_stage(request.param, tmp_path)
    yield stage
    await stage.close()


@pytest.mark.parametrize("code", [0, 1, 85, 255])
async def test_the_exit_code_is_that_of_the_program(stage: Stage, code: int) -> None:
    guest = await stage.act(f"sys.exit({code})")
    end = await guest.wait()
    assert (end.exit_code, end.signal) == (code, None)


@posix_only
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
async def test_an_end_by_a_signal_names_the_signal(stage: Stage, name: str) -> None:
    number = signal.Signals[name]
    guest = await stage.act(f"os.kill(os.getpid(), signal.{name})")
    end = await guest.wait()
    assert (end.exit_code, end.signal) == (None, number)


async def test_an_unhandled_exception_ends_in_one_with_its_traceback_on_stderr(stage: Stage) -> None:
    guest = await stage.act("raise ValueError('of the guest')")
    assert guest.stderr is not None
    assert b"ValueError: of the guest" in await guest.stderr.read()
    assert (await guest.wait()).exit_code == 1


async def test_three_pipes_carry_large_input_and_output_without_loss(stage: Stage) -> None:
    guest = await stage.act(
        "raw = sys.stdin.buffer.read()\nsys.stdout.buffer.write(raw[::-1]); sys.stderr.write(str(len(raw)))\n"
    )
    assert guest.stdin is not None
    assert guest.stdout is not None
    assert guest.stderr is not None
    sent = os.urandom(3_000_000)
    guest.stdin.write(sent)
    guest.stdin.write_eof()
    out, err = await asyncio.gather(guest.stdout.read(), guest.stderr.read())
    assert out == sent[::-1]
    assert err == b"3000000"
    assert (await guest.wait()).exit_code == 0


async def test_what_stands_in_its_input_from_the_start_comes_before_what_is_written_later(
    stage: Stage,
) -> None:
    first = b"first" * 200
    guest = await stage.start(
        first_input=json.dumps("tell(sys.stdin.buffer.read().decode())").encode() + b"\n" + first
    )
    assert guest.stdin is not None
    guest.stdin.write(b", then")
    guest.stdin.write_eof()
    assert await hear(guest) == first.decode() + ", then"


async def test_a_guest_that_ends_without_reading_its_first_input_is_no_failure(stage: Stage) -> None:
    guest = await stage.start(argv=("true",), first_input=b"unread")
    assert (await guest.wait()).exit_code == 0


async def test_output_written_before_the_end_can_be_read_after_it(stage: Stage) -> None:
    guest = await stage.act("tell('last words')")
    await guest.wait()
    assert await hear(guest) == "last words"


async def test_null_streams_are_empty_and_swallow(stage: Stage) -> None:
    guest = await stage.start(stdin="null", stdout="null", stderr="null")
    assert (guest.stdin, guest.stdout, guest.stderr) == (None, None, None)
    assert (await guest.wait()).exit_code == 9


async def test_a_guest_whose_input_ends_unread_does_not_disturb_its_writer(stage: Stage) -> None:
    guest = await stage.act("os.close(0)")
    await guest.wait()
    assert guest.stdin is not None
    guest.stdin.write(b"too late")


async def test_the_environment_is_complete_and_nothing_is_inherited(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDLE_KEY", "the agent's secret")
    given = {**environment(), "IDLE_TASK_INDEX": "3", "GREETING": "grüß dich\n", "EMPTY": ""}
    guest = await stage.act("tell(dict(os.environ))", env=given)
    seen = await hear(guest)
    assert isinstance(seen, dict)
    assert {name: seen.get(name) for name in given} == given
    assert {name for name in seen if name.startswith("IDLE_")} <= {"IDLE_TASK_INDEX", "IDLE_GUEST_BRAND"}
    if sys.platform == "linux":
        if stage.sandbox.tier == "bubblewrap":
            assert seen.pop("PWD") == str(stage.workspace)  # bwrap says where it put the program
        assert seen == given


async def test_it_works_in_its_workspace(stage: Stage) -> None:
    guest = await stage.act("tell(os.getcwd())")
    assert await hear(guest) == str(stage.workspace)


@posix_only
async def test_its_files_are_private_and_its_session_its_own(stage: Stage) -> None:
    stage.needs_plain_processes("a guest has other pids within than without")
    guest = await stage.act("open('made', 'w').close(); tell(os.getpid(), os.getsid(0), os.getpgrp())")
    assert await hear(guest) == [guest.pid] * 3
    await guest.wait()
    assert (stage.workspace / "made").stat().st_mode & 0o777 == 0o600


@posix_only
async def test_it_inherits_no_open_file_but_its_three_streams(stage: Stage) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        guest = await stage.act(
            "def is_open(number):\n"
            "    try: os.fstat(number)\n"
            "    except OSError: return False\n"
            "    return True\n"
            "tell([number for number in range(1024) if is_open(number)])\n"
        )
        assert await hear(guest) == [0, 1, 2]
    finally:
        os.close(reading)
        os.close(writing)


@linux_only
@pytest.mark.parametrize("nice", [True, False])
async def test_it_and_its_children_have_the_lowest_priority_unless_told_otherwise(
    stage: Stage, nice: bool
) -> None:
    guest = await stage.act(
        "child = subprocess.Popen([sys.executable, '-Ic', 'import sys; sys.stdin.read()'], stdin=subprocess.PIPE)\n"
        "tell(child.pid)\n"
        "sys.stdin.read()\n",
        nice=nice,
    )
    child = await hear(guest)
    assert isinstance(child, int)
    own = psutil.Process()
    within = pids_outside(guest)
    for pid in (guest.pid, within.get(child, child)):
        process = psutil.Process(pid)
        assert process.nice() == (19 if nice else own.nice())
        expected = psutil.IOPRIO_CLASS_IDLE if nice else own.ionice().ioclass
        assert process.ionice().ioclass == expected


@pytest.mark.parametrize("program", ["no-such-program-here", "./no-such-program-here"])
async def test_a_missing_program_is_named(stage: Stage, program: str) -> None:
    with pytest.raises(SpawnFailed) as caught:
        await stage.start(argv=(program, "--flag"))
    assert caught.value.missing_program == program
    assert caught.value.field == "command"
    assert program in caught.value.message
    assert caught.value.hint


@posix_only
async def test_a_program_that_may_not_be_run_is_told_from_a_missing_one(stage: Stage) -> None:
    (stage.workspace / "notes").write_text("no program")
    (stage.workspace / "script").write_text("#!/no/such/interpreter\n")
    (stage.workspace / "script").chmod(0o700)
    for program, words in (("./notes", "may not be run"), ("./script", "interpreter")):
        with pytest.raises(SpawnFailed) as caught:
            await stage.start(argv=(program,))
        assert caught.value.missing_program is None
        assert words in caught.value.message


async def test_a_missing_workspace_is_named(stage: Stage) -> None:
    with pytest.raises(SpawnFailed) as caught:
        await stage.start(workspace=stage.workspace / "gone")
    assert caught.value.field == "workspace"


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ()},
        {"argv": (sys.executable, "-c", "pass\0")},
        {"env": {"A=B": "1"}},
        {"env": {"A": "1\0"}},
        {"argv": (sys.executable, "x" * 40_000_000)},
    ],
    ids=["no command", "NUL in an argument", "= in a name", "NUL in a value", "too long"],
)
async def test_what_no_system_can_start_is_a_clear_error_and_leaves_nothing(
    stage: Stage, changes: dict[str, object]
) -> None:
    before = open_descriptors()
    with pytest.raises(SpawnFailed) as caught:
        await stage.start(**changes)
    assert caught.value.hint
    assert not descendants()
    assert open_descriptors() == before


async def test_waiting_is_for_many_and_again_after_the_end(stage: Stage) -> None:
    guest = await stage.act("sys.exit(4)")
    ends = await asyncio.gather(guest.wait(), guest.wait(), guest.wait())
    assert {end.exit_code for end in ends} == {4}
    assert await guest.wait() == ends[0]


async def test_a_cancelled_wait_leaves_the_guest_running(stage: Stage) -> None:
    guest = await stage.act("tell('here'); sys.stdin.readline(); sys.exit(5)")
    await hear(guest)
    waiting = asyncio.create_task(guest.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert alive(guest.pid)
    tell(guest, "go")
    assert (await guest.wait()).exit_code == 5


async def test_after_the_end_every_call_is_harmless(stage: Stage) -> None:
    guest = await stage.act("sys.exit(0)")
    await guest.wait()
    guest.freeze()
    guest.thaw()
    guest.notify_vacate()
    await guest.kill()
    await guest.kill()
    assert guest.usage() == GuestUsage(cpu_s=0.0, rss_bytes=0, processes=0)


@posix_only
async def test_the_notice_to_vacate_is_a_sigterm_that_a_frozen_guest_hears_when_thawed(stage: Stage) -> None:
    guest = await stage.act(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))\ntell('ready')\nwhile True: time.sleep(60)\n"
    )
    await hear(guest)
    guest.freeze()
    await eventually(lambda: stopped(guest.pid), "it stands still")
    guest.notify_vacate()
    assert stopped(guest.pid)
    guest.thaw()
    assert (await guest.wait()).exit_code == 85


async def test_usage_counts_children_that_have_ended(stage: Stage) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    guest = await stage.act(
        f"subprocess.run([sys.executable, '-Ic', {burn!r}])\ntell('burnt')\nsys.stdin.readline()\n"
    )
    await hear(guest)
    usage = guest.usage()
    assert usage.cpu_s >= 0.28
    assert usage.rss_bytes > 1_000_000
    assert usage.processes == 1
    tell(guest, "go")
    end = await guest.wait()
    assert end.cpu_s is not None
    assert end.cpu_s >= 0.28
    assert end.max_rss_bytes is not None
    assert end.max_rss_bytes > 1_000_000


def makes_a_reserve() -> bool:
    """It holds files meanwhile that it closes in the end."""
    return any(task.get_name().startswith("reserve of ") for task in asyncio.all_tasks())


async def test_two_hundred_short_guests_leave_no_process_and_no_open_file(stage: Stage) -> None:
    for _ in range(2):
        await (await stage.act("pass")).wait()
    await eventually(lambda: not makes_a_reserve(), "the next reserve is made")
    before, dead_before = open_descriptors(), zombies()
    for _ in range(25):
        guests = await asyncio.gather(*(stage.act("tell('one more')") for _ in range(8)))
        ends = await asyncio.gather(*(guest.wait() for guest in guests))
        assert {end.exit_code for end in ends} == {0}
    assert not descendants()
    assert zombies() <= dead_before
    # The pipes' ends are closed by the loop when it has seen them end.
    await eventually(lambda: not makes_a_reserve() and open_descriptors() <= before, "the pipes are closed")


async def test_many_guests_at_once_do_not_mix(stage: Stage) -> None:
    guests = await asyncio.gather(*(stage.act(f"tell({index})") for index in range(60)))
    heard = await asyncio.gather(*(hear(guest) for guest in guests))
    assert heard == list(range(60))
    assert len({guest.record.brand for guest in guests}) == 60


async def test_a_cancelled_start_leaves_nothing(stage: Stage) -> None:
    await (await stage.act("pass")).wait()
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004):
        starting = asyncio.create_task(stage.start())
        await asyncio.sleep(delay_s)
        if not starting.cancel():  # it was quicker; then the guest is ours
            await (await starting).kill()
        else:
            await asyncio.gather(starting, return_exceptions=True)
            if not starting.cancelled():
                await starting.result().kill()
        assert not descendants()


async def test_closing_leaves_guests_alone_and_can_be_followed_by_a_start(stage: Stage) -> None:
    first = await stage.act("tell('first'); sys.stdin.readline(); sys.exit(1)")
    await hear(first)
    await stage.sandbox.close()
    second = await stage.act("tell('second'); sys.stdin.readline(); sys.exit(2)")
    await hear(second)
    assert alive(first.pid)
    for guest, code in ((first, 1), (second, 2)):
        tell(guest, "go")
        assert (await guest.wait()).exit_code == code
    await all_end([first.pid, second.pid])


async def test_the_sandbox_says_what_it_is() -> None:
    sandbox = open_sandbox()
    assert sandbox.tier == "process"
    assert sandbox.verified == ("native" if sys.platform == "linux" else "signature-only")
