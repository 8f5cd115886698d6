"""The owner's share holds for all guests together, however many processes they have: the kernel gives them no more."""

import sys
import time
from pathlib import Path

import pytest
from agent_process import until

if sys.platform != "linux":
    pytest.skip("quotas of processors are Linux's", allow_module_level=True)

from idle_accelerator.agent import host
from idle_accelerator.agent.host import probing

SHARE = 0.3
BUSY = "import os\nfor _ in range(3):\n    if os.fork() == 0: break\nwhile True: pass"


def folder() -> Path:
    places = probing.found().places
    home = places.tree if "cpu" in places.controllers else places.cpu
    how = {each.purpose: each for each in host.mechanisms()}["share"]
    if home is None or not how.how:
        pytest.skip(f"needs a quota of processors for groups: {how.lacking}")
    return Path(home)


def throttled(home: Path) -> int:
    """How often the kernel had to hold them back."""
    if not home.is_dir():
        return 0
    words = dict(line.split() for line in (home / "cpu.stat").read_text(encoding="ascii").splitlines())
    return int(words["nr_throttled"])


async def test_all_guests_together_get_no_more_than_the_share() -> None:
    home = folder()
    before = throttled(home)
    assert host.cap_cpus(SHARE)
    launch = host.Launch(
        argv=(sys.executable, "-ISc", BUSY), cwd=Path("/"), env={}, stdout="null", stderr="null"
    )
    guests = [await host.spawn(launch), await host.spawn(launch)]
    try:
        until(lambda: throttled(home) > before, what="they want more than they may have")
        before_s, began_s = sum(guest.usage().cpu_s for guest in guests), time.monotonic()
        until(lambda: throttled(home) > before + 20, what="they are held back again and again")
        used_s = sum(guest.usage().cpu_s for guest in guests) - before_s
        assert used_s <= SHARE * (time.monotonic() - began_s) + 0.2
        for guest in guests:
            guest.freeze()
            guest.thaw()
        assert host.cap_cpus(None)
        times = throttled(home)
        until(lambda: sum(guest.usage().cpu_s for guest in guests) > before_s + 1.0, what="they go on")
        assert throttled(home) == times, "without a share nobody is held back"
    finally:
        host.cap_cpus(None)
        for guest in guests:
            await guest.kill()


async def test_a_share_outlives_a_home_that_was_made_anew() -> None:
    home = folder()
    until(lambda: (probing.homes().close(), not home.exists())[1], what="nothing else uses it now")
    assert host.cap_cpus(SHARE)
    try:
        guest = await host.spawn(
            host.Launch(
                argv=(sys.executable, "-ISc", BUSY), cwd=Path("/"), env={}, stdout="null", stderr="null"
            )
        )
        until(lambda: throttled(home) > 0, what="a guest that begins later is held back too")
        await guest.kill()
    finally:
        host.cap_cpus(None)
