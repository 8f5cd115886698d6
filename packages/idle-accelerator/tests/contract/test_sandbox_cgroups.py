"""Linux: each guest's whole tree lives in control groups of its own, which go with it; and what holds where there are none."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from sandbox_guests import (
    MEMBERS,
    PATIENCE_S,
    Family,
    Stage,
    alive,
    all_end,
    descendants,
    environment,
    eventually,
    hear,
    in_frozen_group,
    stopped,
    tell,
    write_actor,
)

from idle_accelerator.agent.sandbox import kill_leftovers
from idle_accelerator.agent.sandbox.process import ProcessSandbox

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)

from idle_accelerator.agent.host import Launch, SpawnFailed, cgroups, linux, probing
from idle_sense.platform.cgroups import membership_of, mounts_in

MOUNTS = Path("/proc/self/mountinfo")
WAYS = ["started", "forked"]
STAYS = "tell('here'); sys.stdin.readline()"


@pytest.fixture(params=["as found", "version 1"])
def homes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> cgroups.Homes:
    """Those of this program: as they are, and as where the kernel or its settings are old."""
    found = probing.found()
    if request.param == "version 1":
        every = probing.hierarchies(mounts_in(MOUNTS.read_bytes()), membership_of(os.getpid()))
        old = probing.try_out([each for each in every if each.version == 1])
        if old.places.tree is None or found.places.version == 1:
            pytest.skip("version 1 alone does not serve here, or is what was found")
        monkeypatch.setattr(probing, "found", lambda: old)
        made = cgroups.Homes(old.places)
        monkeypatch.setattr(probing, "homes", lambda: made)
    elif found.places.tree is None:
        pytest.skip(f"no control groups here: {found.mechanisms[0].lacking}")
    return probing.homes()


@contextlib.asynccontextmanager
async def opened(way: str, folder: Path) -> AsyncIterator[Stage]:
    workspace = folder / "workspace"
    workspace.mkdir()
    stage = Stage(ProcessSandbox(), workspace, write_actor(folder), forked=way == "forked")
    try:
        yield stage
    finally:
        await stage.close()


@pytest.fixture(params=WAYS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path, homes: cgroups.Homes) -> AsyncIterator[Stage]:
    assert homes.places.tree is not None
    async with opened(request.param, tmp_path) as stage:
        yield stage
    assert not groups(homes)


@pytest.fixture(params=WAYS)
async def stage_without(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Where nothing of it serves."""
    none = dataclasses.replace(probing.found(), places=cgroups.Places())
    monkeypatch.setattr(probing, "found", lambda: none)
    nowhere = cgroups.Homes(cgroups.Places())
    monkeypatch.setattr(probing, "homes", lambda: nowhere)
    async with opened(request.param, tmp_path) as stage:
        yield stage


def groups(homes: cgroups.Homes) -> list[str]:
    """All groups that stand in this program's homes."""
    found: list[str] = []
    for home in homes.places.all():
        with contextlib.suppress(FileNotFoundError):
            found += [entry.path for entry in os.scandir(home) if entry.is_dir()]
    return found


def home_folders_of(pid: int) -> list[str]:
    """Homes of another program."""
    return [
        entry.path
        for parent in probing.parents()
        for entry in os.scandir(parent)
        if entry.name.startswith(cgroups.HOME_PREFIX) and entry.name.split("-")[3] == str(pid)
    ]


def lines_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()


async def test_from_its_first_instruction_a_guest_is_in_its_group(stage: Stage) -> None:
    """Its own first look says so, also for the program that a shell replaces at once."""
    guest = await stage.act("tell(open('/proc/self/cgroup').read()); sys.stdin.readline()")
    told = str(await hear(guest))
    assert guest.record.group
    assert guest.record.group.endswith(f"/{guest.record.brand}")
    assert any(line.endswith(f"/{guest.record.brand}") for line in told.splitlines())
    await guest.kill()
    if not stage.forked:
        guest = await stage.start(argv=("cat", "/proc/self/cgroup"))
        assert guest.stdout is not None
        assert f"/{guest.record.brand}\n".encode() in await guest.stdout.read()


async def test_a_guest_of_the_lowest_priority_is_in_the_group_that_weighs_least(
    stage: Stage, homes: cgroups.Homes
) -> None:
    if homes.places.cpu is None:
        pytest.skip("no hierarchy of version 1 weighs processors here")
    nice = await stage.act(STAYS, nice=True)
    other = await stage.act(STAYS, nice=False)
    await hear(nice)
    await hear(other)
    name = Path(homes.places.cpu).name
    assert any(line.endswith(f"/{name}") for line in lines_of(nice.pid))
    assert not any(line.endswith(f"/{name}") for line in lines_of(other.pid))
    idle = Path(homes.places.cpu, "cpu.idle")
    if idle.exists():
        nice.begin_freeze()
        assert idle.read_text() == "0\n"  # else what is to stand still would wait behind the owner's programs
        nice.freeze()
        assert idle.read_text() == "1\n"


async def test_all_of_a_tree_that_forks_all_the_time_is_frozen_and_killed(stage: Stage) -> None:
    guest = await stage.act(
        "made = open('made', 'wb', buffering=0)\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        while True:\n"
        "            if os.fork():\n"
        "                os._exit(0)\n"
        "            os.setsid()\n"
        "            made.write(b'.')\n"
        "tell('begun'); time.sleep(3600)\n"
    )
    await hear(guest)
    made = stage.workspace / "made"
    await eventually(lambda: made.stat().st_size > 50, "generations follow")
    group = cgroups.Group.found(guest.record.group)
    for _ in range(3):
        guest.freeze()
        assert group.is_frozen()
        count, pids = made.stat().st_size, group.pids()
        await asyncio.sleep(0.05)
        assert (made.stat().st_size, group.pids()) == (count, pids)
        guest.thaw()
        await eventually(lambda count=count: made.stat().st_size > count, "they go on")
    await guest.kill()
    assert not descendants()
    assert not Path(guest.record.group).exists()


async def test_what_a_frozen_guest_had_open_goes_on_after_the_thaw(stage: Stage) -> None:
    guest = await stage.act(
        "import socket\n"
        "ours, theirs = socket.socketpair()\n"
        "file = open('kept', 'w+'); file.write('first, ')\n"
        "tell('ready')\n"
        "for line in sys.stdin:\n"
        "    ours.send(line.encode()); file.write(theirs.recv(100).decode()); file.flush()\n"
        "    tell(open('kept').read())\n"
    )
    await hear(guest)
    guest.freeze()
    tell(guest, "second")
    assert guest.stdout is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await guest.stdout.readline()
    guest.thaw()
    async with asyncio.timeout(PATIENCE_S):
        assert await hear(guest) == 'first, "second"\n'


async def test_what_has_left_the_group_is_frozen_thawed_and_killed_all_the_same(
    stage: Stage, homes: cgroups.Homes
) -> None:
    guest = await stage.act(
        "if os.fork() == 0:\n    while True: pass\nchild = subprocess.Popen(['sleep', '3600'])\ntell(child.pid); time.sleep(3600)\n"
    )
    child = await hear(guest)
    assert isinstance(child, int)
    assert homes.places.tree is not None
    cgroups.write(f"{Path(homes.places.tree).parent}/{cgroups.MEMBERS}", str(child))
    assert child not in cgroups.Group.found(guest.record.group).pids()
    guest.freeze()
    assert in_frozen_group(guest.pid)
    await eventually(lambda: stopped(child) and not in_frozen_group(child), "a signal has stopped it")
    guest.thaw()
    await eventually(lambda: not stopped(child), "it goes on")
    guest.freeze()
    await guest.kill()
    assert not alive(child)
    assert not descendants()


async def test_what_has_lost_its_brand_is_found_by_its_group(stage: Stage) -> None:
    guest = await stage.act(
        "if os.fork() == 0:\n"
        "    if os.fork(): os._exit(0)\n"
        "    resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, resource.getrlimit(resource.RLIMIT_RTTIME)[1]))\n"
        "    os.setsid(); tell(os.getpid()); time.sleep(3600)\n"
        "os.wait(); sys.stdin.readline()\n"
    )
    orphan = await hear(guest)
    assert isinstance(orphan, int)
    await guest.kill()
    assert not alive(orphan)
    assert not psutil.pid_exists(orphan)


async def test_groups_that_a_guest_made_itself_go_with_it(stage: Stage) -> None:
    guest = await stage.act("tell('here'); time.sleep(3600)")
    await hear(guest)
    below = Path(guest.record.group, "own", "deeper")
    below.mkdir(parents=True)
    cgroups.write(f"{below}/{cgroups.MEMBERS}", str(guest.pid))
    guest.freeze()
    assert cgroups.Group.found(guest.record.group).pids() == {guest.pid}
    await guest.kill()
    assert not Path(guest.record.group).exists()


async def test_a_thousand_short_guests_leave_no_group(tmp_path: Path, homes: cgroups.Homes) -> None:
    async with opened("started", tmp_path) as stage:
        for _ in range(50):
            guests = [await stage.sandbox.start(stage.spec(argv=("true",))) for _ in range(20)]
            assert {end.exit_code for end in await asyncio.gather(*(guest.wait() for guest in guests))} == {0}
            brands = {guest.record.brand for guest in guests}
            assert not [path for path in groups(homes) if Path(path).name in brands]
    assert not groups(homes)


async def test_a_plain_start_is_moved_into_its_group_with_all_that_it_forked(
    tmp_path: Path, homes: cgroups.Homes
) -> None:
    """As when a template cannot serve."""
    assert homes.places.tree is not None
    script = "sleep 3600 & sleep 3600 & sleep 3600 & echo begun; wait"
    launch = Launch(argv=("sh", "-c", script), cwd=tmp_path, env=environment())
    guest = await linux.spawn(launch)
    try:
        assert guest.stdout is not None
        assert await guest.stdout.readline() == b"begun\n"
        await eventually(lambda: guest.usage().processes == 4, "all sleep")
        assert cgroups.Group.found(guest.record.group).pids() == descendants()
    finally:
        await guest.kill()
    assert not Path(guest.record.group).exists()


async def test_a_program_that_does_not_start_leaves_no_group(stage: Stage, homes: cgroups.Homes) -> None:
    for _ in range(3):
        with pytest.raises(SpawnFailed):
            await stage.start(argv=("./no-such-program",))
    reserved = {Path(path).name for path in groups(homes)}
    assert len(reserved) <= 1  # one reserve for the next


@pytest.mark.parametrize("limited", [True, False])
async def test_a_guest_that_takes_more_memory_than_it_may_is_killed_whole(
    stage: Stage, homes: cgroups.Homes, monkeypatch: pytest.MonkeyPatch, limited: bool
) -> None:
    if homes.places.memory is None and "memory" not in homes.places.controllers:
        pytest.skip("memory cannot be limited here")
    monkeypatch.setattr(linux, "_UPKEEP_EVERY_S", 0.05)
    guest = await stage.act(
        "if os.fork() == 0: time.sleep(3600)\n"
        "if os.fork() == 0:\n"
        "    held = bytearray(200 << 20)\n"
        "    for at in range(0, len(held), 4096): held[at] = 1\n"
        "    tell('has it'); time.sleep(3600)\n"
        "time.sleep(3600)\n",
        memory_bytes=64 << 20 if limited else None,
    )
    if limited:
        async with asyncio.timeout(PATIENCE_S):
            ended = await guest.wait()
        assert (ended.signal, ended.out_of_memory) == (signal.SIGKILL, True)
        assert not descendants()
    else:
        assert await hear(guest) == "has it"
        await guest.kill()
        assert not (await guest.wait()).out_of_memory, "it was killed for another reason"


async def test_a_guest_has_no_more_processes_than_it_may(stage: Stage, homes: cgroups.Homes) -> None:
    if homes.places.pids is None and "pids" not in homes.places.controllers:
        pytest.skip("processes cannot be limited here")
    bomb = (
        "made = 0\n"
        "try:\n"
        "    while made < 30:\n"
        "        if os.fork() == 0: time.sleep(3600)\n"
        "        made += 1\n"
        "except BlockingIOError: pass\n"
        "tell(made); time.sleep(3600)\n"
    )
    assert await hear(await stage.act(bomb, processes=10)) == 9
    assert await hear(await stage.act(bomb)) == 30


AGENT = """
import asyncio, json, sys
from dataclasses import asdict
from pathlib import Path
from idle_accelerator.agent.sandbox import GuestSpec
from idle_accelerator.agent.sandbox.process import ProcessSandbox

async def main():
    how, actor, workspace, env = json.loads(sys.argv[1])
    sandbox = ProcessSandbox()
    spec = GuestSpec(argv=(sys.executable, "-I", actor), workspace=Path(workspace), env=env, stdin="pipe")
    guest = await (sandbox.start_forked if how == "forked" else sandbox.start)(spec)
    guest.freeze()
    print(json.dumps(asdict(guest.record)), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture(params=WAYS)
def crashed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """An agent that was killed with its keeper while a guest of it was frozen: its pid, and the guest's record."""
    if probing.found().places.tree is None:
        pytest.skip("no control groups here")
    orders = [request.param, str(write_actor(tmp_path)), str(tmp_path), environment()]
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, json.dumps(orders)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        record = json.loads(process.stdout.readline())
        for child in psutil.Process(process.pid).children():
            if any(part.endswith("keeper.py") for part in child.cmdline()):
                child.kill()
        process.kill()
        process.wait()
        yield process.pid, record
    kill_leftovers([linux.GuestRecord(**record)])


async def test_the_next_start_removes_the_groups_of_an_agent_that_was_killed(
    crashed: tuple[int, dict[str, object]],
) -> None:
    pid, values = crashed
    record = linux.GuestRecord(**values)  # pyright: ignore[reportArgumentType]
    assert cgroups.Group.found(record.group).pids() == {record.pid}
    assert home_folders_of(pid)
    assert kill_leftovers([record]) == 1
    await all_end([record.pid])
    await eventually(lambda: kill_leftovers([]) == 0 and not home_folders_of(pid), "its reserves end, too")


async def test_groups_are_left_alone_that_a_record_names_wrongly(
    crashed: tuple[int, dict[str, object]],
) -> None:
    pid, values = crashed
    record = linux.GuestRecord(**values)  # pyright: ignore[reportArgumentType]
    for wrong in (
        dataclasses.replace(record, pid=1, brand="1"),
        dataclasses.replace(record, started=f"another-boot:{record.started.rpartition(':')[2]}"),
        dataclasses.replace(
            record, pid=1, brand=Path(record.group).parent.name, group=str(Path(record.group).parent)
        ),
    ):
        assert kill_leftovers([wrong]) == 0
        assert cgroups.Group.found(record.group).pids() == {record.pid}
    assert home_folders_of(pid)


def test_a_group_that_a_living_program_has_just_made_is_left_alone(homes: cgroups.Homes) -> None:
    """It is empty until its guest is there."""
    made = homes.make("4711", nice=False, limited=True)
    assert made is not None
    kill_leftovers([])
    assert all(Path(folder).exists() for folder in made.folders)
    homes.discard(made)
    assert not groups(homes)


async def test_without_groups_whole_trees_are_frozen_thawed_and_killed(stage_without: Stage) -> None:
    family = Family(stage_without.workspace)
    guest = await family.start(stage_without)
    await eventually(lambda: all(family.numbers()), "the main process counts")
    assert (guest.record.group, guest.cgroup) == ("", None)
    assert guest.usage().processes == MEMBERS
    guest.begin_freeze()
    guest.freeze()
    at = family.numbers()
    await asyncio.sleep(0.05)
    assert family.numbers() == at
    for pid in family.pids():
        await eventually(lambda pid=pid: stopped(pid), f"{pid} is stopped")
        assert not in_frozen_group(pid)
    guest.thaw()
    await eventually(
        lambda: all(new > old for new, old in zip(family.numbers(), at, strict=True)), "all go on"
    )
    await guest.kill()
    assert not [pid for pid in family.pids() if alive(pid)]
    assert not descendants()


async def test_without_groups_a_guest_with_limits_starts_and_ends(stage_without: Stage) -> None:
    guest = await stage_without.act("tell('here'); sys.exit(3)", memory_bytes=1 << 30, processes=5)
    assert await hear(guest) == "here"
    assert (await guest.wait()).exit_code == 3
