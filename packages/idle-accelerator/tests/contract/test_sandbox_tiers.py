"""Tiers ``landlock`` and ``container``: what is left out of them is noticed, and what a crash leaves is removed."""

import base64
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sandbox_guests import container, landlock

from idle_accelerator.agent.sandbox import GuestSpec

if sys.platform != "linux":
    pytest.skip("these tiers are for Linux", allow_module_level=True)

from idle_accelerator.agent.sandbox import probe, seccomp, ways
from idle_accelerator.agent.sandbox.container import ContainerSandbox
from idle_accelerator.agent.sandbox.landlock import LandlockSandbox

_OTHER_FILTERS = {
    shares: base64.b64encode(seccomp.assemble(seccomp.machine() or "x86_64", shares=shares)).decode()
    for shares in ("nothing", "machine")
}


class Weakened(LandlockSandbox):
    """With something else in the plan of its starter."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        super().__init__()
        self._changes = changes

    def _plan(self, spec: GuestSpec) -> dict[str, object]:
        return {**super()._plan(spec), **self._changes}


@pytest.mark.parametrize(
    ("line", "attempt", "changes"),
    [
        ("net", "loopback", {"filter": _OTHER_FILTERS["nothing"], "ports": 0}),
        ("fs", "change_rights", {"filter": _OTHER_FILTERS["machine"]}),
        ("fs", "read_agent_data", {"rules": ()}),
        ("pidns", "send_signal", {"scopes": 0}),
        ("kill", "shed_mark", {"filter": _OTHER_FILTERS["nothing"]}),
    ],
    ids=["sockets", "modes of files", "no rules", "signals", "the mark"],
)
async def test_what_is_left_out_of_landlock_is_noticed_and_named(
    line: str, attempt: str, changes: Mapping[str, Any], tmp_path: Path
) -> None:
    landlock()  # skips where there is none
    found = await probe.probe(Weakened(changes), tmp_path)
    assert attempt in ways.failing(found)[line]


async def test_a_guest_has_the_tools_that_ordinary_programs_need(tmp_path: Path) -> None:
    sandbox = landlock()
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    script = (
        "set -e; mkdir a; touch a/b; mv a/b c; ln c d; ln -s c e; cat /proc/meminfo | head -1 >/dev/null; echo x > /dev/null;"
        f" {sys.executable} -c 'import asyncio, subprocess; asyncio.run(asyncio.sleep(0));"
        " import cloudpickle, idle_accelerator.agent.workloads.frames;"
        ' print(subprocess.check_output(["echo", "ran"]))\'; echo done > /dev/stdout'
    )
    guest = await sandbox.start(
        GuestSpec(argv=("/bin/sh", "-c", script), workspace=workspace, env={"PATH": "/usr/bin:/bin"})
    )
    assert guest.stdout is not None
    assert guest.stderr is not None
    said, wrong = await guest.stdout.read(), await guest.stderr.read()
    assert (await guest.wait()).exit_code == 0, wrong
    assert said.split() == [b"b'ran\\n'", b"done"]
    await sandbox.close()


async def test_containers_of_an_agent_that_crashed_are_removed_and_those_of_others_are_not(
    tmp_path: Path,
) -> None:
    sandbox = container(tmp_path)
    assert isinstance(sandbox, ContainerSandbox)
    (tmp_path / "other").mkdir()
    other = ContainerSandbox(sandbox.program, None, data_dir=tmp_path / "other")
    made: list[str] = []
    for each in (sandbox, other):
        workspace = tmp_path / f"work-{len(made)}"
        workspace.mkdir()
        spec = GuestSpec(argv=("/bin/true",), workspace=workspace, env={})
        plan = tmp_path / f"plan-{len(made)}"
        plan.write_text("{}")
        run = list(each._arguments(spec, f"idle-test-{tmp_path.name}-{len(made)}", plan))
        run[run.index("run")] = "create"
        subprocess.run([each.program, *run], check=True, capture_output=True)
        made.append(f"idle-test-{tmp_path.name}-{len(made)}")
    sandbox.remove_leftovers()
    there = [
        subprocess.run([sandbox.program, "container", "exists", name], check=False).returncode == 0
        for name in made
    ]
    other.remove_leftovers()
    assert there == [False, True]
