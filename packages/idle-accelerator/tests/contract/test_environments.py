"""Environments made by the real uv from wheels of an index on the loopback: what they hold, what they cost, and what they never do."""

import asyncio
import hashlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sandbox_guests import alive, bubblewrap, environment, eventually, sandbox_of
from wheel_index import PASSWORD, Link, WheelIndex, serve, source, uv_or_skip, wheel
from workload_hosts import Starter, call, until_death

from idle_accelerator.agent.environments import (
    EnvironmentLimits,
    EnvironmentRefused,
    Environments,
    EnvironmentTrouble,
    Held,
)
from idle_accelerator.agent.environments.shelf import Shelf
from idle_accelerator.agent.environments.uv import find_interpreters
from idle_accelerator.agent.sandbox import Guest, GuestSpec, Sandbox, open_sandbox
from idle_accelerator.agent.workloads.contract import in_environment
from idle_accelerator.wire.environments import Environment

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of links and mode bits")
GREET = wheel(
    "greet",
    "1.0",
    {"greet.py": "WORD = 'hello'\n", "greet-1.0.data/scripts/greet": "#!python\nprint('hello')\n"},
)


class Shop:
    """Environments of one agent, and whom they told of."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.began: list[Guest] = []
        self.ended: list[Guest] = []
        self.moved: list[int] = []
        self.made = self.open(**limits)

    def open(self, *, unlocked: bool = False, **limits: Any) -> Environments:
        """As the next agent over the same folder would."""
        made = Environments(
            Shelf(self.folder),
            uv_or_skip(),
            find_interpreters(),
            sandbox=open_sandbox(),
            unlocked=unlocked,
            limits=EnvironmentLimits(**limits),
        )
        made.open()
        made.attend(began=self.began.append, ended=self.ended.append, moved=self.moved.append)
        return made

    def left(self) -> list[str]:
        """Of makings."""
        return [path.name for path in (self.folder / "making").iterdir()]

    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "made").iterdir())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WheelIndex]:
    """An index that uv of this test takes for the owner's, by the owner's settings alone."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    served, end = serve()
    monkeypatch.setenv("UV_DEFAULT_INDEX", served.url)
    yield served
    end()


@pytest.fixture
async def shop(index: WheelIndex, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path / "environments")
    yield shop
    await shop.made.close()


def wanted(*lines: str) -> Environment:
    return Environment(requirements="\n".join(lines))


def modes(folder: Path) -> set[str]:
    """Names of what may be written to by anybody."""
    found = [folder, *folder.rglob("*")]
    return {str(path) for path in found if not path.is_symlink() and path.stat().st_mode & 0o222}


async def run(sandbox: Sandbox, held: Held, workspace: Path, *argv: str) -> tuple[int | None, str, str]:
    """A guest in the environment: exit code, output, errors."""
    workspace.mkdir(exist_ok=True)
    env = in_environment(environment(), held.folder, held.programs)
    guest = await sandbox.start(GuestSpec(argv=argv, workspace=workspace, env=env, read_only=held.read_only))
    assert guest.stdout is not None
    assert guest.stderr is not None
    said, complained = await asyncio.gather(guest.stdout.read(), guest.stderr.read())
    return (await guest.wait()).exit_code, said.decode(), complained.decode()


@pytest.fixture(params=["process", "bubblewrap", "landlock", "container"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    chosen = sandbox_of(request.param, tmp_path)
    yield chosen
    await chosen.close()


async def test_a_program_finds_the_packages_and_their_scripts(
    shop: Shop, index: WheelIndex, sandbox: Sandbox, tmp_path: Path
) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    code, said, complained = await run(
        sandbox, held, tmp_path / "work", "python", "-c", "import greet, sys; print(greet.WORD, sys.prefix)"
    )
    assert (code, said, complained) == (0, f"hello {held.folder}\n", "")
    assert await run(sandbox, held, tmp_path / "work", "greet") == (0, "hello\n", "")


async def test_the_second_time_it_is_there_and_nothing_is_started_or_asked(
    shop: Shop, index: WheelIndex
) -> None:
    line = index.add(GREET)
    first = await shop.made.hold(wanted(line))
    shop.made.release(first)
    begun, asked = len(shop.began), len(index.asked)
    assert begun == len(shop.ended) > 0
    again = await shop.made.hold(
        wanted("# as before", line.replace("greet==", " Greet == ") + "  # the same")
    )
    assert again == first
    assert (len(shop.began), len(index.asked)) == (begun, asked)
    assert shop.left() == []
    next_agent = shop.open()
    assert await next_agent.hold(wanted(line)) == first
    assert len(shop.began) == begun


async def test_a_wheel_that_is_here_is_not_fetched_for_another_environment(
    shop: Shop, index: WheelIndex
) -> None:
    greet, other = index.add(GREET), index.add(wheel("other", "1.0", {"other.py": ""}))
    one = await shop.made.hold(wanted(greet))
    both = await shop.made.hold(wanted(greet, other))
    assert one.folder != both.folder
    fetched = [path for path in index.downloads() if "greet" in path]
    assert len(fetched) == 1
    if sys.platform == "linux":
        files = [next(held.folder.rglob("greet.py")) for held in (one, both)]
        assert files[0].samefile(files[1]), "linked, not copied"


async def test_many_who_need_the_same_wait_for_one_making(shop: Shop, index: WheelIndex) -> None:
    line = index.add(GREET)
    held = await asyncio.gather(*(shop.made.hold(wanted(line)) for _ in range(8)))
    assert len(set(held)) == 1
    assert len(index.downloads()) == 1


@posix_only
async def test_nothing_in_it_may_be_written_to(shop: Shop, index: WheelIndex) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    assert modes(held.folder) == set()


async def test_a_guest_in_a_sandbox_cannot_write_to_it(shop: Shop, index: WheelIndex, tmp_path: Path) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    attempt = """
import errno, greet, os, pathlib, sys
folder = pathlib.Path(sys.prefix)
def attempts():
    yield lambda: pathlib.Path(greet.__file__).write_text("WORD = 'evil'")
    yield lambda: os.chmod(greet.__file__, 0o777)
    yield lambda: os.unlink(greet.__file__)
    yield lambda: (folder / "new").write_text("")
    yield lambda: os.link(greet.__file__, folder / "linked")
    yield lambda: os.rename(folder / "bin", folder / "gone")
    yield lambda: os.symlink("/tmp", folder / "way")
for attempt in attempts():
    try:
        attempt()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    tier = bubblewrap()
    code, said, complained = await run(tier, held, tmp_path / "work", "python", "-c", attempt)
    await tier.close()
    assert (code, complained) == (0, "")
    assert set(said.split()) <= {"EROFS", "EXDEV"}, said
    assert len(said.split()) == 7
    assert next(held.folder.rglob("greet.py")).read_text() == "WORD = 'hello'\n"


async def test_a_guest_in_a_sandbox_sees_no_other_environment_nor_the_cache(
    shop: Shop, index: WheelIndex, tmp_path: Path
) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    await shop.made.hold(wanted(index.add(wheel("secret", "1.0", {"secret.py": ""}))))
    tier = bubblewrap()
    look = "import os, sys; print(os.listdir(os.path.dirname(sys.prefix)), os.listdir(os.path.dirname(os.path.dirname(sys.prefix))))"
    _, said, _ = await run(tier, held, tmp_path / "work", "python", "-c", look)
    await tier.close()
    assert said == f"[{held.folder.name!r}] ['made']\n"


async def test_a_file_that_is_not_the_one_of_the_hash_is_refused(shop: Shop, index: WheelIndex) -> None:
    index.add(GREET)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(EnvironmentRefused, match="Hash mismatch") as caught:
        await shop.made.hold(wanted(f"greet==1.0 --hash=sha256:{other}"))
    assert caught.value.why.code == "task.environment_refused"
    assert (shop.left(), shop.kept()) == ([], [])


async def test_a_requirement_of_a_requirement_that_has_no_hash_is_refused(
    shop: Shop, index: WheelIndex
) -> None:
    index.add(GREET)
    line = index.add(wheel("polite", "1.0", {"polite.py": ""}, requires="greet"))
    with pytest.raises(EnvironmentRefused, match="greet"):
        await shop.made.hold(wanted(line))


async def test_names_without_hashes_are_for_ones_own_pool(shop: Shop, index: WheelIndex) -> None:
    index.add(GREET)
    asked = len(index.asked)
    with pytest.raises(EnvironmentRefused, match="hashes"):
        await shop.made.hold(wanted("greet"))
    assert len(index.asked) == asked
    own = shop.open(unlocked=True)
    held = await own.hold(wanted("greet"))
    assert next(held.folder.rglob("greet.py")).is_file()


@pytest.mark.parametrize("locked", [True, False])
async def test_what_comes_as_source_alone_is_refused_and_its_build_never_runs(
    shop: Shop, index: WheelIndex, tmp_path: Path, locked: bool
) -> None:
    mark = tmp_path / "ran"
    pinned = index.add(source("built", "1.0", f"open({str(mark)!r}, 'w').write('ran')\n"))
    made = shop.made if locked else shop.open(unlocked=True)
    with pytest.raises(EnvironmentRefused, match="built"):
        await made.hold(wanted(pinned if locked else "built"))
    assert not mark.exists()
    assert [path for path in index.downloads() if "tar.gz" in path] == []


async def test_nothing_of_a_package_runs_while_it_is_installed(
    shop: Shop, index: WheelIndex, sandbox: Sandbox, tmp_path: Path
) -> None:
    mark = tmp_path / "work" / "ran"
    loud = f"import pathlib; pathlib.Path({str(mark)!r}).write_text('ran')\n"
    mark.parent.mkdir()
    files = {
        "loud.pth": loud,
        "sitecustomize.py": loud,
        "usercustomize.py": loud,
        "loud.py": loud,
        "compileall.py": loud,
    }
    held = await shop.made.hold(wanted(index.add(wheel("loud", "1.0", files))))
    assert not mark.exists()
    assert list(held.folder.rglob("__pycache__/loud.*.pyc")), "compiled beforehand"
    await run(sandbox, held, tmp_path / "work", "python", "-c", "0")
    assert mark.read_text() == "ran", "the bait works: it runs in the guest"


HOSTILE = {
    "parent folders": {"../../../../../../../../escaped": "x", "../../../../escaped": "x"},
    "an absolute path": {"{outside}/escaped": "x"},
    "a link to a file": {"linked": Link(to="{outside}/bait")},
    "a folder that is a link": {"way": Link(to="{outside}"), "way/escaped": "x"},
    "data above the environment": {
        "evil-1.0.data/data/../../escaped": "x",
        "evil-1.0.data/data/etc/../../../escaped": "x",
    },
    "scripts above the environment": {"evil-1.0.data/scripts/../../../escaped": "#!python\n"},
}


@posix_only
@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_wheel_puts_nothing_outside(
    shop: Shop, index: WheelIndex, tmp_path: Path, files: dict[str, str | Link]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "bait").write_text("of the owner")

    def placed(text: str) -> str:
        return text.replace("{outside}", str(outside))

    content = {
        placed(name): Link(to=placed(file.to)) if isinstance(file, Link) else file
        for name, file in files.items()
    }
    line = index.add(wheel("evil", "1.0", {"evil.py": "", **content}))
    before = {path for path in tmp_path.rglob("*") if shop.folder not in path.parents}
    try:
        held = await shop.made.hold(wanted(line))
    except EnvironmentRefused:
        assert shop.kept() == []
    else:
        found = list(held.folder.rglob("*"))
        assert [
            path for path in found if path.is_symlink() and not path.name.startswith(("python", "lib64"))
        ] == []
        assert "of the owner" not in {path.read_text(errors="replace") for path in found if path.is_file()}
    assert {path for path in tmp_path.rglob("*") if shop.folder not in path.parents} == before
    assert not list(shop.folder.parent.glob("escaped"))
    assert not [path for path in shop.folder.rglob("escaped") if "making" in path.parts]
    assert (outside / "bait").stat().st_mode & stat.S_IWUSR
    assert shop.left() == []


@posix_only
@pytest.mark.parametrize(
    "files",
    [
        {"evil-1.0.data/data/pyvenv.cfg": "home = /evil\n"},
        {"evil-1.0.data/data/bin/python": "#!/bin/sh\n"},
        {"evil-1.0.data/scripts/python3": "#!/bin/sh\n"},
        {"evil-1.0.data/data/bin/python3.99": "#!/bin/sh\n"},
    ],
)
async def test_a_package_that_brings_a_python_of_its_own_is_refused(
    shop: Shop, index: WheelIndex, files: dict[str, str]
) -> None:
    with pytest.raises(EnvironmentRefused):
        await shop.made.hold(wanted(index.add(wheel("evil", "1.0", files))))
    assert (shop.left(), shop.kept()) == ([], [])


async def test_one_that_grows_too_large_is_ended_and_leaves_nothing(
    index: WheelIndex, tmp_path: Path
) -> None:
    limit = 8 * 1024 * 1024
    shop = Shop(tmp_path / "environments", size_bytes=limit)
    huge = {f"bomb{number}.bin": bytes(8 * 1024 * 1024) for number in range(4)}
    with pytest.raises(EnvironmentRefused) as caught:
        await shop.made.hold(wanted(index.add(wheel("bomb", "1.0", huge))))
    assert caught.value.why.code == "task.environment_too_large"
    assert (shop.left(), shop.kept()) == ([], [])
    assert all(not alive(guest.pid) for guest in shop.began)
    await shop.made.close()


async def test_one_that_takes_too_long_is_ended_and_leaves_nothing(index: WheelIndex, tmp_path: Path) -> None:
    shop = Shop(tmp_path / "environments", time_s=1.0)
    line = index.add(GREET)
    index.slow.set()
    with pytest.raises(EnvironmentRefused) as caught:
        await shop.made.hold(wanted(line))
    assert caught.value.why.code == "task.environment_slow"
    assert (shop.left(), shop.kept()) == ([], [])
    assert all(not alive(guest.pid) for guest in shop.began)
    await shop.made.close()


async def begun(shop: Shop, index: WheelIndex, line: str) -> "asyncio.Task[Held]":
    """A making that has asked for its wheel and does not get all of it."""
    index.slow.set()
    holding = asyncio.create_task(shop.made.hold(wanted(line)))
    await eventually(lambda: bool(index.downloads()), "uv fetches the wheel")
    return holding


async def test_a_making_that_nobody_waits_for_any_more_is_ended_at_once_and_leaves_nothing(
    shop: Shop, index: WheelIndex
) -> None:
    line = index.add(GREET)
    first = await begun(shop, index, line)
    second = asyncio.create_task(shop.made.hold(wanted(line)))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert alive(shop.began[-1].pid), "the second still waits"
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await eventually(lambda: not any(alive(guest.pid) for guest in shop.began), "uv is dead")
    await eventually(lambda: shop.left() == [], "nothing is left")
    assert shop.kept() == []
    assert len(shop.ended) == len(shop.began)
    index.slow.clear()
    held = await shop.made.hold(wanted(line))
    assert next(held.folder.rglob("greet.py")).is_file()


async def test_one_is_made_at_a_time(shop: Shop, index: WheelIndex) -> None:
    other = index.add(wheel("other", "1.0", {"other.py": ""}))
    first = await begun(shop, index, index.add(GREET))
    second = asyncio.create_task(shop.made.hold(wanted(other)))
    await asyncio.sleep(0.3)
    assert len(shop.left()) == 1
    assert not [path for path in index.asked if "other" in path]
    index.slow.clear()
    assert (await first).folder != (await second).folder


async def test_what_an_agent_was_making_when_it_was_killed_is_gone_after_the_next_start(
    shop: Shop, index: WheelIndex
) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    place = Shelf(shop.folder).new_place()
    (place / "half").mkdir()
    (place / "half" / "file").write_text("x")
    (place / "half").chmod(0o500)
    assert shop.left() == [place.name]
    shop.open()
    assert shop.left() == []
    assert held.folder.is_dir()


async def test_the_least_recently_used_go_when_there_is_no_room_and_one_in_use_never_does(
    index: WheelIndex, tmp_path: Path
) -> None:
    size = 3 * 1024 * 1024
    shop = Shop(tmp_path / "environments", kept_bytes=size * 9 // 2)
    lines = [
        index.add(wheel(f"big{number}", "1.0", {f"big{number}.bin": os.urandom(size)})) for number in range(5)
    ]
    used = await shop.made.hold(wanted(lines[0]))
    keys: list[str] = []
    for number, line in enumerate(lines[1:4], 1):
        held = await shop.made.hold(wanted(line))
        keys.append(held.key)
        shop.made.release(held)
        os.utime(held.folder, (number, number))
    os.utime(used.folder, (0, 0))
    await shop.made.hold(wanted(lines[4]))
    assert used.folder.is_dir(), "older, but in use"
    assert keys[0] not in shop.kept(), "the oldest went"
    assert set(keys[1:]) <= set(shop.kept()), "and no other, as its wheel went with it"
    assert Shelf(shop.folder).used_bytes() <= size * 9 // 2
    assert 0 <= Shelf(shop.folder).used_bytes() - shop.made.grown_bytes < 1024 * 1024, "counted as disk"
    fetched = len(index.downloads())
    await shop.made.hold(wanted(lines[1]))
    assert len(index.downloads()) == fetched + 1, "it was removed from uv's cache too, and is fetched again"
    await shop.made.close()


async def test_an_index_that_is_away_or_broken_is_this_machines_trouble(
    shop: Shop, index: WheelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = index.add(GREET)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    index.status = 503
    with pytest.raises(EnvironmentTrouble) as caught:
        await shop.made.hold(wanted(line))
    assert caught.value.why.code == "agent.environment_failed"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple/")
    with pytest.raises(EnvironmentTrouble):
        await shop.made.hold(wanted(line))
    index.status = 200
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    await shop.made.hold(wanted(line))


@pytest.mark.parametrize("version", ["9.9", "1.0"])
async def test_what_the_index_does_not_have_is_the_jobs_own_fault(
    shop: Shop, index: WheelIndex, version: str
) -> None:
    index.add(wheel("greet", "2.0", {"greet.py": ""}))
    digest = hashlib.sha256(b"").hexdigest()
    with pytest.raises(EnvironmentRefused, match="greet"):
        await shop.made.hold(wanted(f"greet=={version} --hash=sha256:{digest}"))
    with pytest.raises(EnvironmentRefused, match="nowhere"):
        await shop.made.hold(wanted(f"nowhere=={version} --hash=sha256:{digest}"))


async def test_what_cannot_be_made_is_not_tried_for_each_task_anew(shop: Shop, index: WheelIndex) -> None:
    environment = wanted(f"nowhere==1.0 --hash=sha256:{hashlib.sha256(b'').hexdigest()}")
    with pytest.raises(EnvironmentRefused) as first:
        await shop.made.hold(environment)
    begun, asked = len(shop.began), len(index.asked)
    for _ in range(100):
        with pytest.raises(EnvironmentRefused) as again:
            await shop.made.hold(environment)
        assert (again.value.message, again.value.why) == (first.value.message, first.value.why)
    assert (len(shop.began), len(index.asked)) == (begun, asked)
    await shop.made.hold(wanted(index.add(GREET)))


async def test_a_wheel_for_another_system_is_refused_with_its_name(shop: Shop, index: WheelIndex) -> None:
    name, content = wheel("alien", "1.0", {"alien.py": ""})
    line = index.add((name.replace("py3-none-any", "cp399-cp399-plan9_mips"), content))
    with pytest.raises(EnvironmentRefused, match="alien"):
        await shop.made.hold(wanted(line))


async def test_the_owners_password_for_the_index_is_used_and_shown_to_nobody(
    index: WheelIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    line = index.add(GREET)
    index.needs_password = True
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    config = tmp_path / "config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'cache-dir = "/nonexistent"\n[[index]]\nname = "mine"\nurl = "{index.url}"\ndefault = true\n'
    )
    shop = Shop(tmp_path / "environments")
    held = await shop.made.hold(wanted(line))
    told: list[str] = []
    for broken in (404, 500):
        index.status = broken
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        with pytest.raises((EnvironmentRefused, EnvironmentTrouble)) as caught:
            await shop.made.hold(wanted(index.add(wheel("late", f"{broken}.0", {"late.py": ""}))))
        told += [str(caught.value), str(caught.value.why)]
    await shop.made.close()
    written = [
        path for path in shop.folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert [path for path in written if held.folder in path.parents] == []
    assert PASSWORD not in "".join(told) + caplog.text


async def test_builds_run_at_the_lowest_priority_and_are_told_of(shop: Shop, index: WheelIndex) -> None:
    holding = await begun(shop, index, index.add(GREET))
    process = psutil.Process(shop.began[-1].pid)
    if sys.platform != "win32":
        assert process.nice() == 19
    index.slow.clear()
    await holding
    assert len(shop.began) == len(shop.ended) == 3, "made, filled, compiled"
    assert sum(shop.moved) > 0


async def test_functions_run_by_the_environments_python_with_nothing_of_the_agents(
    shop: Shop, index: WheelIndex, sandbox: Sandbox, tmp_path: Path
) -> None:
    held = await shop.made.hold(wanted(index.add(GREET)))
    start = Starter(sandbox, tmp_path)

    def look() -> list[Any]:
        import importlib.util
        import sys

        import greet  # pyright: ignore[reportMissingImports]

        hidden = ("pydantic", "psutil", "idle_sense", "httpx2")
        return [greet.WORD, sys.prefix, [name for name in hidden if importlib.util.find_spec(name)]]

    host = await start(look, environment=held)
    assert (await call(host)).value == ["hello", str(held.folder), []]
    await host.kill()
    await until_death(host)


async def test_an_environment_of_another_python_is_made_where_there_is_one(
    shop: Shop, index: WheelIndex, sandbox: Sandbox, tmp_path: Path
) -> None:
    others = shop.made.facts.pythons[1:]
    if not others:
        pytest.skip("there is one version of Python alone on this machine")
    line = index.add(GREET)
    held = await shop.made.hold(Environment(requirements=line, python=others[0]))
    code, said, complained = await run(
        sandbox,
        held,
        tmp_path / "work",
        "python",
        "-c",
        "import greet, sys; print('%d.%d' % sys.version_info[:2])",
    )
    assert (code, said, complained) == (0, f"{others[0]}\n", "")


async def test_a_python_that_is_not_here_is_refused(shop: Shop, index: WheelIndex) -> None:
    with pytest.raises(EnvironmentRefused, match=r"3\.999"):
        await shop.made.hold(Environment(requirements=index.add(GREET), python="3.999"))
