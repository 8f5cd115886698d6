"""What every sandbox promises of a guest's whole process tree: stopped, continued and killed as one."""

import asyncio
import mmap
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from sandbox_guests import (
    MEMBERS,
    WAYS,
    Family,
    Stage,
    alive,
    descendants,
    eventually,
    hear,
    open_stage,
    pids_outside,
    stopped,
    tell,
    zombies,
)

from idle_accelerator.agent.sandbox import FreezeFailed

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of sessions and signals")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(params=WAYS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = open_stage(request.param, tmp_path)
    yield stage
    await stage.close()


@posix_only
async def test_freeze_stops_what_left_group_and_session_and_thaw_continues_it(stage: Stage) -> None:
    family = Family(stage.workspace)
    guest = await family.start(stage, nice=True)
    await eventually(lambda: all(family.numbers()), "the main process counts")
    assert guest.usage().processes == MEMBERS
    for _ in range(3):
        guest.freeze()
        guest.freeze()
        frozen_at = family.numbers()
        await asyncio.sleep(0.05)
        assert family.numbers() == frozen_at
        for pid in family.pids():
            await eventually(lambda pid=pid: stopped(pid), f"{pid} stands still")
        assert family.numbers() == frozen_at
        guest.thaw()
        guest.thaw()
        for slot in range(MEMBERS):
            await eventually(
                lambda slot=slot, before=frozen_at[slot]: family.numbers()[slot] > before,
                f"the one in slot {slot} goes on",
            )


@posix_only
@pytest.mark.parametrize("frozen", [False, True])
async def test_kill_returns_when_nothing_of_the_tree_lives_frozen_or_not(stage: Stage, frozen: bool) -> None:
    family = Family(stage.workspace)
    guest = await family.start(stage)
    if frozen:
        guest.freeze()
    await guest.kill()
    assert not [pid for pid in family.pids() if alive(pid)]
    end = await guest.wait()
    assert (end.exit_code, end.signal) == (None, 9)
    assert not descendants()


@posix_only
async def test_nothing_outlives_the_main_process(stage: Stage) -> None:
    family = Family(stage.workspace)
    guest = await family.start(stage, main="sys.stdin.readline(); os._exit(3)")
    tell(guest, "go")
    assert (await guest.wait()).exit_code == 3
    assert not [pid for pid in family.pids()[1:] if alive(pid)]
    assert not descendants()


@posix_only
async def test_the_trees_of_two_guests_are_told_apart(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    first, second = Family(stage.workspace), None
    stays = await first.start(stage)
    stage.workspace = tmp_path / "second"
    second = Family(stage.workspace)
    goes = await second.start(stage)
    goes.freeze()
    await goes.kill()
    assert not [pid for pid in second.pids() if alive(pid)]
    before = first.numbers()
    await eventually(
        lambda: all(new > old for new, old in zip(first.numbers()[1:], before[1:], strict=True)),
        "the other guest's tree goes on",
    )
    assert not any(stopped(pid) for pid in first.pids())
    assert stays.usage().processes == MEMBERS


async def test_children_of_children_are_stopped_and_killed_on_every_system(stage: Stage) -> None:
    nested = "import subprocess, sys, time\n"
    nested += "child = subprocess.Popen([sys.executable, '-Ic', 'import time; time.sleep(3600)'])\n"
    nested += "print(child.pid, flush=True); time.sleep(3600)\n"
    guest = await stage.act(
        f"child = subprocess.Popen([sys.executable, '-Ic', {nested!r}], stdout=subprocess.PIPE)\n"
        "tell(child.pid, int(child.stdout.readline()))\n"
        "time.sleep(3600)\n"
    )
    heard = await hear(guest)
    assert isinstance(heard, list)
    within = pids_outside(guest)
    pids = [within.get(pid, pid) for pid in heard]
    guest.freeze()
    for pid in (guest.pid, *pids):
        await eventually(lambda pid=pid: stopped(pid), f"{pid} stands still")
    guest.thaw()
    for pid in (guest.pid, *pids):
        await eventually(lambda pid=pid: not stopped(pid), f"{pid} goes on")
    guest.freeze()
    await guest.kill()
    assert not [pid for pid in (guest.pid, *pids) if alive(pid)]


@posix_only
@pytest.mark.alone
@pytest.mark.parametrize("step", ["", "os.setsid()", "os.setpgid(0, 0)"], ids=["group", "sessions", "groups"])
async def test_a_tree_that_forks_and_dies_all_the_time_is_frozen_or_refused_and_always_killed(
    stage: Stage, step: str
) -> None:
    guest = await stage.act(
        "for _ in range(6):\n"  # six chains, each generation forks the next and ends
        "    if os.fork() == 0:\n"
        "        for _ in range(50_000):\n"
        "            if os.fork(): os._exit(0)\n"
        f"            {step or 'pass'}\n"
        "        time.sleep(3600)\n"
        "tell('begun')\n"  # a look would not do: each process is gone before it is read
        "time.sleep(3600)\n"
    )
    await hear(guest)
    frozen = True
    try:
        guest.freeze()
    except FreezeFailed:
        frozen = False
    for pid in descendants() if frozen else ():
        await eventually(lambda pid=pid: stopped(pid) or not alive(pid), f"{pid} stands still")
    await guest.kill()
    assert not descendants()


@posix_only
async def test_a_bounded_fork_bomb_is_frozen_and_killed(stage: Stage) -> None:
    guest = await stage.act(
        "tell('off')\n"
        "for level in range(7):\n"  # 128 busy processes
        "    os.fork()\n"
        "while True: pass\n"
    )
    await hear(guest)
    await eventually(lambda: guest.usage().processes > 40, "it has grown")
    guest.freeze()
    for pid in descendants():
        await eventually(lambda pid=pid: stopped(pid), f"{pid} stands still")
    # Forks that the kernel had begun are finished now; their children were born with the stop pending.
    count = guest.usage().processes
    await asyncio.sleep(0.05)
    assert guest.usage().processes == count
    assert all(stopped(pid) for pid in descendants())
    await guest.kill()
    assert not descendants()


@linux_only
async def test_a_process_whose_main_thread_has_ended_is_frozen_and_killed_too(stage: Stage) -> None:
    stage.needs_plain_processes("the guest's first process is bwrap, which does not end so")
    guest = await stage.act(
        "raw = open('counters', 'w+b'); raw.truncate(4096); counters = mmap.mmap(raw.fileno(), 4096)\n"
        "def count():\n"
        "    number = 0\n"
        "    while True:\n"
        "        number += 1\n"
        "        counters[:8] = number.to_bytes(8, 'little')\n"
        "threading.Thread(target=count, daemon=True).start()\n"
        "tell('ready')\n"
        "ctypes.CDLL(None).pthread_exit.argtypes = [ctypes.c_void_p]\n"
        "number = {'x86_64': 60}.get(os.uname().machine, 93)\n"
        "ctypes.CDLL(None).syscall(number, 0)\n"  # exit(2) of this thread alone
    )
    await hear(guest)
    await eventually(lambda: psutil.Process(guest.pid).status() == psutil.STATUS_ZOMBIE, "it looks dead")
    raw = (stage.workspace / "counters").open("rb")
    with raw, mmap.mmap(raw.fileno(), 4096, access=mmap.ACCESS_READ) as counters:
        await eventually(lambda: counters[:8] != bytes(8), "it counts nevertheless")
        assert guest.usage().processes == 1
        guest.freeze()
        await asyncio.sleep(0.02)
        before = counters[:8]
        await asyncio.sleep(0.05)
        assert counters[:8] == before
        guest.thaw()
        await eventually(lambda: counters[:8] != before, "it goes on")
    await guest.kill()
    assert not Path(f"/proc/{guest.pid}").exists()


@linux_only
async def test_time_of_orphans_counts_and_they_do_not_pile_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idle_accelerator.agent.host import linux

    monkeypatch.setattr(linux, "_UPKEEP_EVERY_S", 0.05)
    before = zombies()
    guest = await stage.act(
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.setsid()\n"
        "        while time.process_time() < 0.1: pass\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "tell('done')\n"
        "sys.stdin.readline()\n"
    )
    await hear(guest)
    await eventually(lambda: guest.usage().processes == 1, "the orphans end")
    await eventually(lambda: zombies() <= before, "they are collected")
    assert guest.usage().cpu_s >= 0.28
    tell(guest, "go")
    end = await guest.wait()
    assert end.cpu_s is not None
    assert end.cpu_s >= 0.28


@linux_only
async def test_a_session_made_later_gets_the_lowest_weight_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idle_accelerator.agent.host import linux

    monkeypatch.setattr(linux, "_UPKEEP_EVERY_S", 0.05)
    guest = await stage.act(
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.setsid(); tell('in its session'); time.sleep(3600)\n"
        "tell(child); time.sleep(3600)\n",
        nice=True,
    )
    heard = [await hear(guest), await hear(guest)]
    (child,) = [value for value in heard if isinstance(value, int)]
    child = pids_outside(guest).get(child, child)
    groups = [Path(f"/proc/{pid}/autogroup") for pid in (guest.pid, child)]
    if not groups[0].exists():
        pytest.skip("this kernel has no autogroups")
    for group in groups:
        await eventually(lambda group=group: group.read_text().endswith("nice 19\n"), f"{group} is lowered")
    assert groups[0].read_text() != groups[1].read_text()
