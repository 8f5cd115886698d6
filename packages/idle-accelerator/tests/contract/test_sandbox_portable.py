"""The hostile program for systems that are not Linux, tried where it can be: without a sandbox it works, in bubblewrap it does not."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from sandbox_guests import bubblewrap

from idle_accelerator.agent.sandbox import hostile_portable, open_sandbox, portable, ways
from idle_accelerator.agent.sandbox.attempts import Seen

LUCK = {"metadata", "internet", "read_home", "write_home"}
"""Depend on the machine's network and on what lies in its home directory."""
OWN_THERE = {"write_temporary", "listen", "write_home", "write_agent_data"}
"""In bubblewrap a guest has a network and a /tmp of its own, in which the folders of this test lie."""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Seen]:
    async def run() -> dict[str, Seen]:
        sandbox = open_sandbox()
        try:
            return await portable.attempt_all(sandbox, tmp_path_factory.mktemp("data"))
        finally:
            await sandbox.close()

    return asyncio.run(run())


def test_the_table_and_the_program_know_the_same_attempts() -> None:
    assert [*portable.LINES, *portable.MUST_WORK] == list(hostile_portable.ATTEMPTS)


@pytest.mark.parametrize("name", [name for name in hostile_portable.ATTEMPTS if name not in LUCK])
def test_without_a_sandbox_it_works(name: str, without: Mapping[str, Seen]) -> None:
    assert without[name].outcome == "works", without[name]


def test_a_plain_process_fails_all_lines_that_a_sandbox_would_hold(without: Mapping[str, Seen]) -> None:
    assert set(portable.breaches(without)) == {"fs", "net", "pidns"}


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
async def test_in_a_sandbox_it_is_refused_and_what_any_task_does_works(tmp_path: Path) -> None:
    sandbox = bubblewrap()
    try:
        seen = await portable.attempt_all(sandbox, tmp_path, getattr(sandbox, "shown", ()))
    finally:
        await sandbox.close()
    for name in portable.LINES:
        if name not in OWN_THERE:
            assert seen[name].outcome in ("refused", "impossible"), (name, seen[name])
    for name in portable.MUST_WORK:
        assert seen[name].outcome == "works", seen[name]
    assert list(tmp_path.iterdir()) == []


async def test_the_probe_names_what_does_not_hold(tmp_path: Path) -> None:
    held = dict.fromkeys(ways.LINES, "by something")
    found = await portable.probe(open_sandbox(), tmp_path, held)
    assert set(ways.failing(found)) == {"fs", "net", "pidns"}
    assert "read_agent_data works" in found.fs
    assert found.freeze == "by something", "it was frozen and thawed"
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_in_which_nothing_works_fails_too() -> None:
    refused = dict.fromkeys(hostile_portable.ATTEMPTS, Seen(outcome="refused", detail="EPERM"))
    assert set(portable.breaches(refused)) == {"calls"}
    assert set(portable.breaches({})) == {"fs", "net", "pidns", "calls"}


def test_the_victim_of_a_control_run_dies(tmp_path: Path) -> None:
    with portable.bait(tmp_path) as laid:
        subprocess.run(
            [sys.executable, "-I", str(portable.PROGRAM), laid.plan],
            cwd=tmp_path,
            capture_output=True,
            check=True,
            timeout=60,
        )
        laid.victim.wait(timeout=60)
