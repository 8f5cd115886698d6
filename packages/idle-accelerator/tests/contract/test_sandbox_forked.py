"""Linux: what holds for guests that a template forks, beyond what holds for every guest."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from sandbox_guests import (
    Stage,
    alive,
    all_end,
    descendants,
    environment,
    eventually,
    hear,
    open_descriptors,
    reserves,
    templates,
    was_forked,
    write_actor,
)

from idle_accelerator.agent.sandbox import kill_leftovers, open_sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere start_forked is start")

SELF = """
tell({
    'argv': sys.argv, 'flags': list(sys.flags), 'path': sys.path, 'name': __name__, 'file': __file__,
    'main': sys.modules['__main__'].__dict__ is globals(), 'spec': repr(__spec__), 'package': __package__,
    'handlers': [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    'mask': [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    'streams': [[s.encoding, s.errors, s.line_buffering, s.fileno(), s.seekable()] for s in (sys.stdin, sys.stdout, sys.stderr)],
    'locale': list(locale.setlocale(locale.LC_ALL).split()), 'collects': gc.isenabled(),
    'threads': threading.active_count(), 'prefix': sys.prefix, 'zone': time.tzname, 'coding': sys.getfilesystemencoding(),
    'limits': [resource.getrlimit(number) for number in range(15)],
})
"""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    stage = Stage(open_sandbox(), workspace, write_actor(tmp_path), forked=True)
    yield stage
    await stage.close()
    assert not templates()
    assert not reserves()


async def stocked() -> psutil.Process:
    """The one reserve, when it has been made and its template is at rest."""
    await eventually(
        lambda: len(reserves()) == 1 and not any(each.children() for each in templates()), "a reserve is made"
    )
    (reserve,) = reserves()
    return reserve


async def test_a_forked_guest_finds_itself_as_a_started_one_does(stage: Stage) -> None:
    zone = {**environment(), "TZ": "Asia/Shanghai"}
    forked = await hear(await stage.act(SELF, env=zone))
    stage.forked = False
    started = await hear(await stage.act(SELF, env=zone))
    assert forked == started


async def test_guests_share_nothing_but_the_loaded_program(stage: Stage) -> None:
    first = await stage.act(
        "SEEN.append(1); import random; tell(SEEN, random.random()); sys.stdin.readline()"
    )
    second = await stage.act(
        "SEEN.append(2); import random; tell(SEEN, random.random()); sys.stdin.readline()"
    )
    told = [await hear(first), await hear(second)]
    assert [seen for seen, _ in told] == [[1], [2]]  # pyright: ignore[reportGeneralTypeIssues]
    assert told[0][1] != told[1][1]  # pyright: ignore[reportIndexIssue]
    assert was_forked(first.pid)
    assert was_forked(second.pid)
    assert len(templates()) == 1


async def test_a_program_rehearses_in_the_template_and_once_more_in_each_reserve(
    stage: Stage, tmp_path: Path
) -> None:
    with (tmp_path / "actor.py").open("a", encoding="utf-8") as actor:
        actor.write("\nREHEARSED = []\ndef rehearse(): REHEARSED.append(os.getpid())\n")
    for _ in range(2):
        guest = await stage.act("tell(REHEARSED, os.getpid()); sys.stdin.readline()")
        (template,) = templates()
        assert await hear(guest) == [[template.pid, guest.pid], guest.pid]
        await stocked()


async def test_it_is_a_child_of_the_agent_and_the_template_has_none(stage: Stage) -> None:
    guest = await stage.act("tell(os.getppid()); sys.stdin.readline()")
    assert await hear(guest) == os.getpid()
    await stocked()
    (template,) = templates()
    assert template.children() == []
    assert template.num_fds() == 4


async def test_exit_handlers_and_threads_of_the_guest_are_waited_for(stage: Stage) -> None:
    guest = await stage.act(
        "import atexit\n"
        "atexit.register(tell, 'handler')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), tell('thread'))).start()\n"
    )
    assert [await hear(guest), await hear(guest)] == ["thread", "handler"]
    assert (await guest.wait()).exit_code == 0


async def test_processes_of_multiprocessing_work_in_it(stage: Stage) -> None:
    guest = await stage.act(
        "import math, multiprocessing\n"
        "with multiprocessing.get_context('spawn').Pool(2) as pool: tell(pool.map(math.factorial, [3, 4]))\n"
    )
    assert await hear(guest) == [6, 24]


@pytest.mark.parametrize("in_stock", [True, False])
async def test_a_template_that_was_killed_is_replaced(stage: Stage, in_stock: bool) -> None:
    await (await stage.act("pass")).wait()
    reserve = await stocked()
    (first,) = templates()
    first.kill()
    if not in_stock:
        reserve.kill()
    guest = await stage.act("tell('here'); sys.stdin.readline()")
    assert await hear(guest) == "here"
    assert was_forked(guest.pid)
    assert (guest.pid == reserve.pid) is in_stock
    await stocked()
    (second,) = templates()
    assert second.pid != first.pid


async def test_a_template_that_hangs_is_given_up_and_nothing_of_it_remains(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await (await stage.act("pass")).wait()
    reserve = await stocked()
    before = open_descriptors()
    reserve.kill()
    (hung,) = templates()
    hung.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("idle_accelerator.agent.host.reserve.ANSWER_LIMIT_S", 0.05)
    with caplog.at_level(logging.WARNING):
        guest = await stage.act("tell('plain')")
    assert "without its template" in caplog.text
    assert await hear(guest) == "plain"
    assert (await guest.wait()).exit_code == 0
    assert not alive(hung.pid)
    await eventually(lambda: open_descriptors() < before, "its socket and the pipes are closed")
    assert not descendants()
    monkeypatch.undo()
    again = await stage.act("tell('again'); sys.stdin.readline()")
    assert await hear(again) == "again"
    assert was_forked(again.pid)


@pytest.mark.parametrize("in_stock", [True, False])
async def test_a_template_that_is_killed_at_any_moment_costs_no_guest(stage: Stage, in_stock: bool) -> None:
    await (await stage.act("pass")).wait()
    for delay_s in (0.0, 0.0003, 0.0006, 0.0009, 0.0012, 0.0016, 0.002):
        reserve = await stocked()
        (template,) = templates()
        if not in_stock:
            reserve.kill()
        starting = asyncio.create_task(stage.act("tell('here'); sys.stdin.readline()"))
        await asyncio.sleep(delay_s)
        template.kill()
        guest = await starting
        assert await hear(guest) == "here"
        await guest.kill()
        await eventually(lambda: not descendants(), "nothing of it remains")
        await (await stage.act("pass")).wait()


async def test_a_program_that_does_not_load_fails_as_a_started_one_does(stage: Stage, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('at import')")
    guest = await stage.start(argv=(sys.executable, "-I", str(broken)))
    assert guest.stderr is not None
    assert b"RuntimeError: at import" in await guest.stderr.read()
    assert (await guest.wait()).exit_code == 1
    assert not templates()


@pytest.mark.parametrize(
    "changes",
    [{"env": {**environment(), "LD_BIND_NOW": "1"}}, {"argv": (sys.executable, "-c", "input()")}],
    ids=["read by the loader", "another command"],
)
async def test_what_a_fork_cannot_give_is_started(stage: Stage, changes: dict[str, object]) -> None:
    guest = await stage.start(**changes)
    assert not was_forked(guest.pid)
    assert not templates()


async def test_each_locale_has_its_template(stage: Stage) -> None:
    for lang, encoding in (("C.UTF-8", "utf-8"), ("C", "utf-8"), ("C.UTF-8", "utf-8")):
        guest = await stage.act(
            "tell(sys.stdout.encoding, locale.setlocale(locale.LC_CTYPE)); sys.stdin.readline()",
            env={**environment(), "LANG": lang},
        )
        heard = await hear(guest)
        stage.forked = False
        assert heard == await hear(
            await stage.act(
                "tell(sys.stdout.encoding, locale.setlocale(locale.LC_CTYPE)); sys.stdin.readline()",
                env={**environment(), "LANG": lang},
            )
        )
        stage.forked = True
        assert isinstance(heard, list)
        assert heard[0] == encoding
    loaded = [each for each in templates() if each.cmdline()[-1].endswith("actor.py")]
    assert len(loaded) == 2


async def test_closing_ends_the_template(stage: Stage) -> None:
    await (await stage.act("pass")).wait()
    (template,) = templates()
    await stage.sandbox.close()
    assert not alive(template.pid)
    await all_end([template.pid])
    assert not templates()
    assert not reserves()


async def test_the_reserve_becomes_the_next_guest_and_another_is_made(stage: Stage) -> None:
    assert not reserves()
    first = await stage.act("tell(resource.getrlimit(resource.RLIMIT_RTTIME)[0]); sys.stdin.readline()")
    reserve = await stocked()
    second = await stage.act("tell(resource.getrlimit(resource.RLIMIT_RTTIME)[0]); sys.stdin.readline()")
    assert second.pid == reserve.pid
    assert (await stocked()).pid != reserve.pid
    assert [str(await hear(first)), str(await hear(second))] == [first.record.brand, second.record.brand]
    assert first.record.brand != second.record.brand


async def test_a_reserve_is_branded_alone_in_its_session_and_holds_only_its_socket(stage: Stage) -> None:
    guest = await stage.act("sys.stdin.readline()")
    reserve = await stocked()
    brand = reserve.rlimit(psutil.RLIMIT_RTTIME)[0]
    assert brand != psutil.RLIM_INFINITY
    assert str(brand) != guest.record.brand
    assert os.getsid(reserve.pid) == os.getpgid(reserve.pid) == reserve.pid
    assert reserve.num_fds() == 4
    assert reserve.num_threads() == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_reserve_that_was_killed_is_collected_and_costs_no_guest(
    stage: Stage, number: signal.Signals
) -> None:
    await (await stage.act("pass")).wait()
    for wait in (True, False):
        reserve = await stocked()
        reserve.send_signal(number)
        if wait:
            await eventually(lambda pid=reserve.pid: not psutil.pid_exists(pid), "it is collected")
        guest = await stage.act("tell('here'); sys.stdin.readline()")
        assert await hear(guest) == "here"
        assert was_forked(guest.pid)
        await guest.kill()
        await eventually(lambda pid=reserve.pid: not psutil.pid_exists(pid), "it is collected")


async def test_a_reserve_that_hangs_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await (await stage.act("pass")).wait()
    reserve = await stocked()
    reserve.suspend()
    monkeypatch.setattr("idle_accelerator.agent.host.reserve.ANSWER_LIMIT_S", 0.05)
    with caplog.at_level(logging.WARNING):
        guest = await stage.act("tell('plain'); sys.stdin.readline()")
    assert "without its template" in caplog.text
    assert await hear(guest) == "plain"
    assert not psutil.pid_exists(reserve.pid)


async def test_freezing_killing_and_sweeping_guests_leave_the_reserve_alone(stage: Stage) -> None:
    guest = await stage.act("tell('here'); sys.stdin.readline()")
    await hear(guest)
    reserve = await stocked()
    guest.freeze()
    assert reserve.status() == psutil.STATUS_SLEEPING
    assert guest.usage().processes == 1
    guest.thaw()
    kill_leftovers([guest.record])
    await guest.kill()
    assert reserve.status() == psutil.STATUS_SLEEPING
    assert (await stage.act("tell(1); sys.stdin.readline()")).pid == reserve.pid


async def test_what_is_unused_for_a_while_ends_and_comes_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idle_accelerator.agent.host import forker

    before = open_descriptors()
    monkeypatch.setattr(forker, "_REST_AFTER_S", 1.0)
    guest = await stage.act("tell('here'); sys.stdin.readline()")
    await stocked()
    await eventually(lambda: not templates() and not reserves(), "an agent at rest holds no extra processes")
    assert await hear(guest) == "here"
    await guest.kill()
    await eventually(lambda: open_descriptors() <= before + 1, "only the keeper's pipe is left")
    again = await stage.act("tell('again'); sys.stdin.readline()")
    assert await hear(again) == "again"
    assert was_forked(again.pid)
