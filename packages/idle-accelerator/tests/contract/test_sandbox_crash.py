"""What happens to guests when the agent dies without a word, tried on a process that plays the agent."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sandbox_guests import FAMILY, Family, alive, all_end, environment, eventually, stopped, write_actor

from idle_accelerator.agent.sandbox import GuestRecord, kill_leftovers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the kernel does this for job objects")

AGENT = """
import asyncio, json, sys
from dataclasses import asdict
from pathlib import Path
from idle_accelerator.agent.sandbox import GuestSpec, open_sandbox

async def main():
    how, actor, workspace, freeze, source, env = json.loads(sys.argv[1])
    sandbox = open_sandbox()
    spec = GuestSpec(argv=(sys.executable, "-I", actor), workspace=Path(workspace), env=env, stdin="pipe",
                     stdout="null", stderr="null")
    guest = await (sandbox.start_forked if how == "forked" else sandbox.start)(spec)
    guest.stdin.write(json.dumps(source).encode() + b"\\n")
    loop = asyncio.get_running_loop()
    print(json.dumps(asdict(guest.record)), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    if freeze:
        guest.freeze()
    print("done", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    await guest.kill()
    print("killed", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


class Agent:
    """A process that starts one guest with a family of descendants."""

    def __init__(
        self,
        folder: Path,
        how: str,
        *,
        freeze: bool = False,
        main: str = "count(0)",
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.family = Family(folder)
        orders = [how, str(write_actor(folder)), str(folder), freeze, FAMILY + main, environment()]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", AGENT, json.dumps(orders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.record = GuestRecord(**json.loads(self._hear()))

    async def ready(self) -> None:
        await eventually(lambda: all(self.family.numbers()[1:]), "all descendants count")

    def go_on(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._hear().strip()

    def helpers(self, name: str) -> list[int]:
        return [
            child.pid
            for child in psutil.Process(self.process.pid).children()
            if any(argument.endswith(name) for argument in child.cmdline())
        ]

    def kill9(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill9()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        kill_leftovers([self.record])

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(params=["started", "forked"])
def start_agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def start(**options: object) -> Agent:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        agents.append(Agent(folder, request.param, **options))  # pyright: ignore[reportArgumentType]
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


@pytest.mark.parametrize("freeze", [False, True])
async def test_when_the_agent_is_killed_whole_trees_die_with_it_frozen_or_not(
    start_agent: Callable[..., Agent], freeze: bool
) -> None:
    agent = start_agent(freeze=freeze)
    await agent.ready()
    assert agent.go_on() == "done"
    helpers = agent.helpers("keeper.py") + agent.helpers("template.py")
    agent.kill9()
    await all_end([agent.record.pid, *agent.family.pids()[1:], *helpers])


async def test_a_stop_by_the_terminal_or_service_does_not_end_the_keeper_before_the_agent(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent()
    await agent.ready()
    (keeper,) = agent.helpers("keeper.py")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(keeper, number)
    await asyncio.sleep(0.05)
    assert alive(keeper)
    agent.kill9()
    await all_end([agent.record.pid, *agent.family.pids()[1:]])


async def test_leftovers_of_an_agent_whose_keeper_died_too_are_killed_at_the_next_start(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent()
    await agent.ready()
    await eventually(lambda: all(agent.family.numbers()), "the main process counts")
    for keeper in agent.helpers("keeper.py"):
        os.kill(keeper, signal.SIGKILL)
    agent.kill9()
    pids = agent.family.pids()
    assert all(alive(pid) for pid in pids)
    assert kill_leftovers([agent.record]) == len(pids)
    assert not [pid for pid in pids if alive(pid)]
    assert kill_leftovers([agent.record]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere orphans are found by what their parents were")
async def test_leftovers_are_found_by_their_brand_when_the_main_process_has_gone(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent()
    await agent.ready()
    for keeper in agent.helpers("keeper.py"):
        os.kill(keeper, signal.SIGKILL)
    agent.kill9()
    os.kill(agent.record.pid, signal.SIGKILL)
    await all_end([agent.record.pid])
    kill_leftovers([agent.record])
    assert not [pid for pid in agent.family.pids() if alive(pid)]


async def test_a_process_that_got_the_pid_later_is_left_alone(start_agent: Callable[..., Agent]) -> None:
    agent = start_agent()
    await agent.ready()
    stranger = subprocess.Popen(
        [sys.executable, "-Ic", "import time; time.sleep(3600)"], start_new_session=True
    )
    try:
        assert kill_leftovers([replace(agent.record, pid=stranger.pid, brand="")]) == 0
        boot, _, tick = agent.record.started.rpartition(":")
        if boot:
            other_boot = replace(agent.record, started=f"{boot[::-1]}:{tick}")
            assert kill_leftovers([other_boot]) == 0
        assert alive(stranger.pid)
        assert all(alive(pid) for pid in agent.family.pids()[1:])
    finally:
        stranger.kill()
        stranger.wait()


async def test_leftovers_of_one_agent_do_not_touch_those_of_another(
    start_agent: Callable[..., Agent],
) -> None:
    goes, stays = start_agent(), start_agent()
    await goes.ready()
    await stays.ready()
    goes.kill9()
    kill_leftovers([goes.record])
    await all_end(goes.family.pids()[1:])
    assert all(alive(pid) for pid in stays.family.pids()[1:])
    assert alive(stays.process.pid)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="for a plain user all tests here are without privilege",
)
@pytest.mark.parametrize("freeze", [False, True])
async def test_no_privilege_is_needed(start_agent: Callable[..., Agent], freeze: bool) -> None:
    agent = start_agent(
        freeze=freeze, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    )
    await agent.ready()
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{agent.process.pid}/status").read_text()
    assert psutil.Process(agent.record.pid).nice() == 19
    autogroup = Path(f"/proc/{agent.record.pid}/autogroup")
    if autogroup.exists():
        # One write in 0.1 s is allowed to all of the machine.
        await eventually(lambda: autogroup.read_text().endswith("nice 19\n"), "its session is lowered")
    assert agent.go_on() == "done"
    if freeze:
        for pid in agent.family.pids()[1:]:
            await eventually(lambda pid=pid: stopped(pid), f"{pid} stands still")
    assert agent.go_on() == "killed"
    assert not [pid for pid in agent.family.pids() if alive(pid)]
