"""Which sandbox an agent uses, and that it says why, or refuses to start and says what would mend it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from idle_accelerator.agent import devices, fingerprint
from idle_accelerator.agent.consent import agree
from idle_accelerator.agent.sandbox import NoSandbox, choice, ways
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.nodes import Isolation, NodeFacts

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
FAR = "https://pool.example.org:8000"
HELD = Isolation(
    tier="bubblewrap",
    **dict.fromkeys(ways.LINES, "by something"),
)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``only(SCRIPT)``: the one program on PATH is this bwrap; none without a script."""

    def put(script: str | None) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if script is not None:
            (folder / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bwrap").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def says(*, options: str = "--size --disable-userns", then: str) -> str:
    return f'case "$1" in --help) echo "{options}"; exit 0;; --version) echo "bubblewrap 0.9.0"; exit 0;; esac\n{then}'


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8000", "http://127.9.9.9"]
)
def test_a_scheduler_on_this_machine_is_ones_own_pool(url: str, tmp_path: Path) -> None:
    chosen = choice.choose("auto", scheduler_url=url, data_dir=tmp_path)
    assert chosen.sandbox.tier == chosen.isolation.tier == "process"
    assert "your own" in chosen.sentences[0]
    assert chosen.isolation.fs.startswith("none")
    assert ways.failing(chosen.isolation) == {}


@pytest.mark.parametrize(
    "url", [FAR, "http://10.0.0.1:8000", "http://127.0.0.1.example.org", "http://[fe80::1]"]
)
def test_any_other_scheduler_is_not(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "strongest", lambda _: "the strongest")
    assert choice.choose("auto", scheduler_url=url, data_dir=tmp_path) == "the strongest"


def test_a_pool_on_this_machine_that_took_a_key_is_not_ones_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "strongest", lambda _: "the strongest")
    url = "http://127.0.0.1:8000"
    assert choice.choose("auto", scheduler_url=url, data_dir=tmp_path, keyed=True) == "the strongest"
    assert choice.choose("process", scheduler_url=url, data_dir=tmp_path, keyed=True) != "the strongest"


def test_plain_processes_for_strangers_are_taken_at_the_owners_word_alone(tmp_path: Path) -> None:
    chosen = choice.choose("process", scheduler_url=FAR, data_dir=tmp_path)
    assert chosen.sandbox.tier == "process"
    assert "you asked for it" in chosen.sentences[0]


def test_what_is_no_sandbox_is_named() -> None:
    with pytest.raises(InvalidInput, match="docker") as caught:
        choice.check("docker")
    assert caught.value.field == "--sandbox"


@linux_only
@pytest.mark.parametrize("wanted", ["auto", "bubblewrap"])
def test_without_bubblewrap_the_agent_is_refused_with_what_mends_it(wanted, tmp_path, only) -> None:
    only(None)
    with pytest.raises(NoSandbox) as caught:
        choice.choose(wanted, scheduler_url=FAR, data_dir=tmp_path)
    assert caught.value.failing == "tier"
    assert "apt install bubblewrap" in (caught.value.hint or "")
    assert "--sandbox process" in (caught.value.hint or "")


@linux_only
@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("bwrap: setting up uid map: Permission denied", "user namespaces"),
        ("bwrap: No permissions to create new namespace", "user namespaces"),
        ("bwrap: pivot_root: Invalid argument", "chroot"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "container"),
    ],
)
def test_bubblewrap_that_is_there_and_makes_no_sandbox_is_found_out_by_running_it(
    said, mend, tmp_path, only, monkeypatch
) -> None:
    from idle_accelerator.agent.sandbox import trial

    setting = tmp_path / "setting"
    setting.write_text("1\n" if mend == "user namespaces" else "0\n")
    monkeypatch.setattr(trial, "_FORBIDDING", ((str(setting), "1", "AppArmor forbids user namespaces"),))
    only(says(then=f'echo "{said}" >&2; exit 1'))
    with pytest.raises(NoSandbox) as caught:
        choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert caught.value.failing == "tier"
    assert said.removeprefix("bwrap: ") in caught.value.message
    assert mend in (caught.value.hint or "")
    assert not (tmp_path / trial.CACHE_FILE).exists(), "a failure is tried again at the next start"


@linux_only
def test_bubblewrap_that_cannot_limit_memory_is_too_old(tmp_path, only) -> None:
    only(says(options="--disable-userns", then="exit 1"))
    with pytest.raises(NoSandbox, match="too old") as caught:
        choice.choose("bubblewrap", scheduler_url=FAR, data_dir=tmp_path)
    assert caught.value.failing == "disk"


@linux_only
def test_a_line_that_does_not_hold_refuses_the_agent_and_is_named(tmp_path, only, monkeypatch) -> None:
    from idle_accelerator.agent.sandbox import trial

    async def probe(*_: object) -> Isolation:
        return HELD.model_copy(update={"net": "fails: loopback works (port 1)"})

    monkeypatch.setattr(trial.probe, "probe", probe)
    only(says(then="exit 1"))
    with pytest.raises(NoSandbox, match="loopback works") as caught:
        choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert caught.value.failing == "net"


@linux_only
def test_what_held_is_remembered_until_anything_that_it_depends_on_changes(
    tmp_path, only, monkeypatch
) -> None:
    from idle_accelerator.agent.sandbox import trial

    tried: list[int] = []

    async def probe(*_: object) -> Isolation:
        tried.append(1)
        return HELD

    monkeypatch.setattr(trial.probe, "probe", probe)
    only(says(then="exit 1"))
    for _ in range(2):
        assert choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path).isolation == HELD
    assert len(tried) == 1
    with (tmp_path / "bin" / "bwrap").open("a") as file:
        file.write("# another build\n")
    choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert len(tried) == 2
    monkeypatch.setattr(trial.platform, "release", lambda: "99.0")
    choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert len(tried) == 3
    chosen = choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert len(tried) == 3
    assert chosen.recheck is not None
    assert asyncio.run(chosen.recheck()) is None, "nothing has changed since"
    assert len(tried) == 3
    driver = tmp_path / "driver"
    driver.write_text("NVRM version: 2\n")
    monkeypatch.setattr(trial, "_NVIDIA", driver)
    assert asyncio.run(chosen.recheck()) == HELD, "a driver was changed while the agent ran"
    tried.pop()
    (tmp_path / trial.CACHE_FILE).write_text("{")
    choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert len(tried) == 4


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_systems_without_a_tier_refuse_strangers_and_say_so(system, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(NoSandbox, match="no sandbox keeps guests apart") as caught:
        choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert "--sandbox process" in (caught.value.hint or "")


@linux_only
def test_the_agent_of_a_strangers_pool_does_not_start_where_nothing_holds(
    tmp_path, only, monkeypatch
) -> None:
    only(None)
    monkeypatch.setenv("IDLE_DATA_DIR", str(tmp_path / "data"))
    done = subprocess.run(
        [sys.executable, "-m", "idle_accelerator.cli", "agent", "--scheduler", FAR, "--key", "idle_x"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "There is no bubblewrap on this machine" in done.stderr
    assert "--sandbox process" in done.stderr


def test_a_sandbox_without_devices_lends_no_graphics_card(tmp_path, monkeypatch) -> None:
    card = devices.Card(maker="nvidia", index=0, name="A card", nodes=(), shared=())
    monkeypatch.setattr(devices, "cards", lambda: (card,))

    def gpus(isolation: Isolation) -> int:
        consent = agree(network="off", allow_hosts=(), bytes_per_s=None, gpus=None, isolation=isolation)
        facts = fingerprint.fingerprint(
            data_dir=tmp_path,
            name="n",
            cpus=None,
            memory_bytes=None,
            disk_bytes=None,
            labels={},
            isolation=isolation,
            idleness=(),
            gpu_names=consent.gpu_names,
        )
        assert facts.sandbox_tier == isolation.tier
        return facts.resources.gpus

    assert gpus(HELD) == 0
    assert gpus(ways.of_process()) == 1


def test_facts_of_agents_that_do_not_say_what_they_hold_still_read() -> None:
    facts = NodeFacts.model_validate_json(
        '{"name":"n","os":"linux","arch":"x86_64","python":"3.11","resources":{},"sandbox_tier":"process"}'
    )
    assert facts.isolation is None
    told = facts.model_copy(update={"isolation": HELD})
    assert NodeFacts.model_validate_json(told.model_dump_json()) == told


@linux_only
def test_what_does_not_hold_after_a_change_ends_the_agents_tier(tmp_path, only, monkeypatch) -> None:
    from idle_accelerator.agent.sandbox import trial

    held = [HELD, HELD.model_copy(update={"net": "fails: loopback works (port 1)"})]

    async def probe(*_: object) -> Isolation:
        return held.pop(0)

    monkeypatch.setattr(trial.probe, "probe", probe)
    only(says(then="exit 1"))
    chosen = choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert chosen.recheck is not None
    (tmp_path / "bin" / "bwrap").write_text((tmp_path / "bin" / "bwrap").read_text() + "# another build\n")
    with pytest.raises(NoSandbox, match="loopback works"):
        asyncio.run(chosen.recheck())
    assert trial._read(tmp_path / trial.CACHE_FILE) == {}, "and is not remembered as holding"


@linux_only
@pytest.mark.parametrize("tier", ["landlock", "container"])
def test_weaker_tiers_are_taken_at_the_owners_word_alone(tier, tmp_path, only) -> None:
    from idle_accelerator.agent.sandbox.tiers import TIERS

    assert not next(item for item in TIERS if item.name == tier).automatic
    only(None)
    with pytest.raises(NoSandbox) as caught:
        choice.choose("auto", scheduler_url=FAR, data_dir=tmp_path)
    assert f"--sandbox {tier}" in (caught.value.hint or ""), "it is offered"
    assert "bubblewrap" in caught.value.message


@linux_only
@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_root_needs_somebody_else_for_its_guests_to_be(tier, tmp_path, only, monkeypatch) -> None:
    from idle_accelerator.agent.sandbox import guest_user

    monkeypatch.setattr(guest_user.os, "geteuid", lambda: 0)
    only(says(then="exit 1"))
    monkeypatch.setenv(guest_user.VARIABLE, "nobody-of-that-name")
    with pytest.raises(NoSandbox) as caught:
        choice.choose(tier, scheduler_url=FAR, data_dir=tmp_path)
    assert caught.value.failing == "fs"
    assert "useradd" in (caught.value.hint or "")
    monkeypatch.setenv(guest_user.VARIABLE, "0")
    with pytest.raises(NoSandbox, match="names root"):
        choice.choose(tier, scheduler_url=FAR, data_dir=tmp_path)


@linux_only
def test_an_old_landlock_is_refused_and_one_without_signals_says_so() -> None:
    from idle_accelerator.agent.sandbox.landlock import LandlockSandbox

    for version, said in ((0, "There is no Landlock"), (2, "Landlock 2 of this kernel is too old")):
        with pytest.raises(NoSandbox, match=said):
            LandlockSandbox(known=version)
    assert LandlockSandbox(known=5).claims()["pidns"].startswith("none")
    assert not LandlockSandbox(known=6).claims()["pidns"].startswith("none")


@linux_only
def test_an_image_that_is_not_there_is_named_with_the_command_that_fetches_it(
    tmp_path, only, monkeypatch
) -> None:
    from idle_accelerator.agent.sandbox import guest_user

    monkeypatch.setenv(guest_user.VARIABLE, "61999")
    only(None)
    for name, script in (("podman", 'test "$1" != image || exit 1'), ("crun", "echo crun 1")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with pytest.raises(NoSandbox, match="an agent fetches none") as caught:
        choice.choose(
            "container", scheduler_url=FAR, data_dir=tmp_path, container_image="docker.io/library/python:3.12"
        )
    assert caught.value.hint == "Fetch it as the agent's user: podman pull docker.io/library/python:3.12"


def test_without_a_hard_limit_on_memory_a_quarter_is_the_most(monkeypatch) -> None:
    monkeypatch.setattr(ways, "of", lambda _: "")
    assert ways.most_memory_bytes() == ways.psutil.virtual_memory().total // 4
    monkeypatch.setattr(ways, "of", lambda _: "memory.max")
    assert ways.most_memory_bytes() is None
    assert ways.of_process().most_memory_bytes is None, "one's own tasks may ask for what they like"
