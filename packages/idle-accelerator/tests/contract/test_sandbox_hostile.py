"""What a hostile guest gets done: without any sandbox, in tier ``process``, and in every tier that is to keep guests apart."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import psutil
import pytest
from sandbox_guests import bubblewrap, sandbox_of

from idle_accelerator.agent.sandbox import GuestSpec, SpawnFailed, mechanisms, open_sandbox
from idle_accelerator.agent.sandbox.attempts import ATTEMPTS, Attempt, Seen, expected

if sys.platform != "linux":
    pytest.skip("the hostile program is for Linux", allow_module_level=True)

from idle_accelerator.agent.sandbox import hostile, probe, ways
from idle_accelerator.agent.sandbox.bubblewrap import BubblewrapSandbox

_SMALL_BYTES = 8 * 1024 * 1024
_MIGHTY = 1 << 21 | 1 << 19 | 1 << 23 | 1 << 27
"""The capabilities SYS_ADMIN, SYS_PTRACE, SYS_NICE and MKNOD."""


def is_mighty() -> bool:
    """Whether this is a root to whom nothing is forbidden, unlike that of a container."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and int(line.split()[1], 16) & _MIGHTY == _MIGHTY


MUST_WORK = [
    attempt for attempt in ATTEMPTS if attempt.needs == "nothing" or (attempt.needs == "root" and is_mighty())
]
"""Outside of every sandbox, on any machine."""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """The control: no sandbox at all."""
    folder = tmp_path_factory.mktemp("control")
    workspace = folder / "workspace"
    workspace.mkdir()
    with probe.bait(folder, workspace, memory_files_bytes=_SMALL_BYTES) as laid:
        done = subprocess.run(
            [sys.executable, "-I", str(probe.PROGRAM), laid.plan],
            cwd=workspace,
            capture_output=True,
            check=True,
            timeout=60,
        )
        seen = probe.read_report(done.stdout)
        assert laid.left_behind(), "the daemon lives on"
        assert laid.victim.wait(timeout=60) == -9, "the victim was killed"
    psutil.Process(int(seen["outlive"].detail.split()[-1])).kill()
    return seen


@pytest.fixture(scope="module")
def as_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("process")

    async def run() -> dict[str, Seen]:
        sandbox = open_sandbox()
        try:
            return await probe.attempt_all(sandbox, folder, memory_files_bytes=_SMALL_BYTES)
        finally:
            await sandbox.close()

    return asyncio.run(run())


@pytest.fixture
async def sandbox() -> AsyncIterator[BubblewrapSandbox]:
    made = weakened()
    yield made
    await made.close()


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "container"])
def inside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[probe.Tried, Mapping[str, Seen]]:
    folder = tmp_path_factory.mktemp("inside")
    made = cast("probe.Tried", sandbox_of(request.param, folder))

    async def run() -> dict[str, Seen]:
        try:
            return await probe.attempt_all(
                made, folder, memory_files_bytes=made.memory_files_bytes, passed_over=made.shown
            )
        finally:
            await made.close()

    return made, asyncio.run(run())


def test_the_table_and_the_program_know_the_same_attempts() -> None:
    assert [attempt.name for attempt in ATTEMPTS] == list(hostile.ATTEMPTS)


@pytest.mark.parametrize("attempt", MUST_WORK, ids=lambda attempt: attempt.name)
def test_without_a_sandbox_it_works(attempt: Attempt, without: Mapping[str, Seen]) -> None:
    assert without[attempt.name].outcome == "works", without[attempt.name]


@pytest.mark.parametrize("attempt", MUST_WORK, ids=lambda attempt: attempt.name)
def test_in_tier_process_it_is_as_the_table_says(attempt: Attempt, as_process: Mapping[str, Seen]) -> None:
    assert as_process[attempt.name].outcome == attempt.process, as_process[attempt.name]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_in_a_tier_it_is_as_the_table_says(
    attempt: Attempt, inside: tuple[probe.Tried, Mapping[str, Seen]]
) -> None:
    sandbox, all_seen = inside
    seen = all_seen[attempt.name]
    if attempt.name in sandbox.conceded:
        assert seen.outcome == "works", seen
    elif expected(attempt, sandbox.tier) == "refused":
        assert seen.outcome in ("refused", "impossible"), seen
    else:
        assert seen.outcome == expected(attempt, sandbox.tier), seen


def weakened(
    *, without: tuple[str, ...] = (), then: tuple[str, ...] = (), **fields: object
) -> BubblewrapSandbox:
    """A sandbox from which something was left out, or in which something stands in its place."""
    made = bubblewrap()
    assert isinstance(made, BubblewrapSandbox)
    arguments = list(made._fixed)
    if without:
        places = [at for at in range(len(arguments)) if tuple(arguments[at : at + len(without)]) == without]
        arguments[places[0] : places[0] + len(without)] = then
    made._fixed = tuple(arguments)  # pyright: ignore[reportAttributeAccessIssue]
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("net", {"without": ("--unshare-net",)}),
        ("pidns", {"without": ("--proc", "/proc"), "then": ("--ro-bind", "/proc", "/proc")}),
        ("calls", {"_filter": None}),
        ("disk", {"memory_files_bytes": _SMALL_BYTES}),
        ("disk", {"_limits": {}}),
    ],
    ids=["network shared", "processes shared", "no filter", "larger than it says", "no limits"],
)
async def test_what_is_left_out_of_the_sandbox_is_noticed_and_named(
    line: str, changes: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    found = await probe.probe(weakened(**changes), tmp_path)
    assert line in ways.failing(found)


async def test_what_holds_is_said_by_mechanism_and_nothing_of_the_probe_stays(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    found = await probe.probe(sandbox, tmp_path)
    assert ways.failing(found) == {}
    assert found.tier == "bubblewrap"
    assert found.probed_at is not None
    assert "network namespace" in found.net
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not is_mighty(), reason="only root may write there outside, too")
async def test_a_writable_proc_is_noticed_where_root_runs_the_agent(tmp_path: Path) -> None:
    whole = bubblewrap()
    assert isinstance(whole, BubblewrapSandbox)
    options = subprocess.run([whole.program, "--help"], capture_output=True, text=True, check=True).stdout
    as_root = BubblewrapSandbox(whole.program, options)
    fixed = list(as_root._fixed)
    place = next(at for at in range(len(fixed)) if fixed[at : at + 2] == ["--remount-ro", "/proc"])
    as_root._fixed = (*fixed[:place], *fixed[place + 2 :])
    found = await probe.probe(as_root, tmp_path)
    assert "write_sysctl" in ways.failing(found)["fs"]


async def shell(
    sandbox: BubblewrapSandbox, workspace: Path, script: str, **limits: int
) -> tuple[str, int | None]:
    """What a guest printed, and the signal that ended it."""
    workspace.mkdir(exist_ok=True)
    guest = await sandbox.start(
        GuestSpec(
            argv=("/bin/sh", "-c", script), workspace=workspace, env={"PATH": "/usr/bin:/bin"}, **limits
        )
    )
    assert guest.stdout is not None
    said = await guest.stdout.read()
    return said.decode(), (await guest.wait()).signal


async def test_a_data_directory_inside_of_what_is_shown_is_empty_to_guests(
    sandbox: BubblewrapSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    (data / "work").mkdir(parents=True)
    (data / "identity.json").write_text("secret")
    options = subprocess.run([sandbox.program, "--help"], capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shows_it = BubblewrapSandbox(sandbox.program, options, hidden=data)
    said, _ = await shell(
        shows_it, data / "work" / "own", f"ls {tmp_path} {data}; touch {data}/x || echo kept"
    )
    await shows_it.close()
    assert "data" in said, "the folder above is shown"
    assert "identity.json" not in said
    assert "kept" in said


async def test_command_lines_and_the_environment_of_the_first_process_tell_nothing(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    said, _ = await shell(
        sandbox,
        tmp_path / "w",
        "tr '\\0' '\\n' < /proc/1/environ; tr '\\0' '\\n' < /proc/1/cmdline | head -3",
    )
    assert said.splitlines()[1:2] == ["--args"], "the environment before it is empty"


async def test_a_guest_that_asks_for_more_memory_than_it_may_have_is_killed(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    if not any(found.purpose == "memory" and found.how for found in mechanisms()):
        pytest.skip("nothing limits memory on this machine")
    workspace = tmp_path / "w"
    workspace.mkdir()
    guest = await sandbox.start(
        GuestSpec(
            argv=(sys.executable, "-c", "print(len(bytearray(400 << 20)))"),
            workspace=workspace,
            env={"PATH": "/usr/bin"},
            memory_bytes=100 << 20,
        )
    )
    ended = await guest.wait()
    assert (ended.signal, ended.out_of_memory) == (9, True)
    assert guest.stdout is not None
    assert await guest.stdout.read() == b""


async def test_a_fork_bomb_stays_within_its_limit(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    if not any(found.purpose == "processes" and found.how for found in mechanisms()):
        pytest.skip("nothing limits the number of processes on this machine")
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done 2>/dev/null; echo all"
    said, _ = await shell(sandbox, tmp_path / "w", script, processes=5)
    assert "all" not in said


async def test_limits_of_each_process_are_set_and_those_of_the_owner_are_not_touched(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)
    said, _ = await shell(sandbox, tmp_path / "w", "cat /proc/self/limits")
    limits = {line[:26].strip(): line[26:].split()[:2] for line in said.splitlines()[1:]}
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][1]) <= 16_384
    if os.getuid() != 0 and int(os.uname().release.split(".")[0]) >= 6:
        assert int(limits["Max processes"][1]) <= 4096
    assert before == (resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))


async def test_peak_memory_is_that_of_the_program_inside(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    guest = await sandbox.start(
        GuestSpec(
            argv=(sys.executable, "-c", "bytearray(200 << 20)"), workspace=workspace, env={"PATH": "/usr/bin"}
        )
    )
    ended = await guest.wait()
    assert ended.max_rss_bytes is not None
    assert ended.max_rss_bytes > 200 << 20


async def test_a_notice_given_in_the_moment_of_the_start_arrives(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    for _ in range(5):
        guest = await sandbox.start(
            GuestSpec(argv=("/bin/sleep", "600"), workspace=workspace, env={"PATH": "/usr/bin"})
        )
        guest.notify_vacate()
        assert (await guest.wait()).signal == 15


async def test_where_bwrap_cannot_make_a_sandbox_the_start_says_what_it_said(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    absent = ("--ro-bind", str(tmp_path / "absent"), "/absent")
    sandbox._fixed = (*sandbox._fixed, *absent)  # pyright: ignore[reportAttributeAccessIssue]
    workspace = tmp_path / "w"
    workspace.mkdir()
    with pytest.raises(SpawnFailed, match="absent") as caught:
        await sandbox.start(GuestSpec(argv=("/bin/true",), workspace=workspace, env={"PATH": "/usr/bin"}))
    assert caught.value.missing_program is None
    with contextlib.suppress(psutil.Error):
        assert not [child for child in psutil.Process().children() if child.name() == "bwrap"]
