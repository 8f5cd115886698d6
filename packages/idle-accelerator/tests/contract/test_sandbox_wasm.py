"""WebAssembly as the only sandbox, and within the others: what a hostile module gets done, and how modules live and end."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sandbox_guests import PATIENCE_S, bubblewrap, environment, eventually

from idle_accelerator.agent.sandbox import (
    Guest,
    GuestExit,
    GuestSpec,
    Sandbox,
    SpawnFailed,
    open_sandbox,
    ways,
)
from idle_accelerator.agent.sandbox import wasm_hostile as hostile
from idle_accelerator.agent.sandbox import wasm_trial as trial
from idle_accelerator.agent.sandbox.wasm import PROGRAM, WasmSandbox
from idle_accelerator.agent.workloads import wasm, wasm_guest
from idle_accelerator.agent.workloads.contract import give_notice, task_environment
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Requirements, Wasm

SMALL_BYTES = 32 * 1024 * 1024
MARKER = "c0ffee" * 4
TIERS: dict[str, Callable[[], Sandbox]] = {"wasm": WasmSandbox, "process": open_sandbox}
if sys.platform == "linux":
    TIERS["bubblewrap"] = bubblewrap


@pytest.fixture(params=TIERS)
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    opened = TIERS[request.param]()
    yield opened
    await opened.close()


@pytest.fixture
async def alone() -> AsyncIterator[WasmSandbox]:
    opened = WasmSandbox()
    yield opened
    await opened.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


async def launch(
    sandbox: Sandbox,
    workspace: Path,
    text: str | bytes,
    *arguments: str,
    env: dict[str, str] | None = None,
    memory_bytes: int = SMALL_BYTES,
    timeout_s: float | None = None,
) -> Guest:
    """A module in its workspace, started as the agent does."""
    module = await trial.compiled(text) if isinstance(text, str) else text
    (workspace / "app.wasm").write_bytes(module)
    whole = task_environment(
        ref=AttemptRef("j1", 0, 1),
        task_count=1,
        threads=1,
        workspace=workspace,
        grace_s=5,
        extra=env or {},
    )
    started = wasm.launch(
        Wasm(module="app.wasm", arguments=arguments),
        Requirements(memory_bytes=memory_bytes),
        workspace=workspace,
        env=whole,
        asked_env=env or {},
        timeout_s=timeout_s,
    )
    guest = await sandbox.start(started.spec)
    started.tell(guest)
    return guest


async def ended(guest: Guest) -> tuple[GuestExit, bytes, str]:
    assert guest.stdout is not None
    assert guest.stderr is not None
    out, err = await asyncio.gather(guest.stdout.read(), guest.stderr.read())
    return await guest.wait(), out, err.decode()


def program(body: str, *, imports: str = "", data: str = "") -> str:
    return f"""(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) {imports}
  (memory (export "memory") 1) {data} (func (export "_start") {body}))"""


# What a hostile module gets done.


def open_control(top: Path) -> trial.WasmSeen:
    """The same module, given too much: the folder above its workspace, all files of the machine, another folder besides, and
    the environment of the process around it."""
    workspace = top / "workspace"
    workspace.mkdir(parents=True)
    secret = top / hostile.SECRET
    secret.write_text(MARKER)
    (workspace / hostile.LINK).symlink_to(f"../{hostile.SECRET}")
    module = asyncio.run(trial.compiled(hostile.hostile(secret.as_posix(), prefix="workspace/")))
    (top / "h.wasm").write_bytes(module)
    script = f"""
import os, runpy, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
import wasm_guest
def view(setup):
    wasi = wasm_guest.WasiConfig()
    wasi.inherit_stdout(); wasi.inherit_stderr(); wasi.inherit_env()
    for folder, name in ((".", "."), ("/", "/"), (".", "/besides")):
        wasi.preopen_dir(folder, name)
    return wasi
wasm_guest.view = view
wasm_guest.main()
"""
    setup = {
        "module": "h.wasm",
        "arguments": [],
        "env": {},
        "memory_bytes": 2 * SMALL_BYTES,
        "whole_bytes": 2 * SMALL_BYTES + wasm.RUNTIME_BYTES,
        "timeout_s": None,
    }
    told = json.dumps(setup).encode()
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=len(told).to_bytes(4, "little") + told,
        cwd=top,
        env={**environment(), "IDLE_PROBE": MARKER},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return trial.read_report(done.stdout, MARKER)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> trial.WasmSeen:
    return open_control(tmp_path_factory.mktemp("control") / "top")


NO_CONTROL = {"sockets"}
"""wasmtime's Python interface has no way to give a module a socket."""


@pytest.mark.skipif(sys.platform == "win32", reason="the control opens the root directory of POSIX")
@pytest.mark.parametrize("name", [item.name for item in hostile.ATTEMPTS if item.name not in NO_CONTROL])
def test_a_module_that_is_given_too_much_gets_it_done(name: str, control: trial.WasmSeen) -> None:
    assert name == "environment" or name in control.numbers, control
    assert trial.worked(control, name, memory_bytes=SMALL_BYTES), control


async def test_in_every_tier_a_module_gets_none_of_it_done(sandbox: Sandbox, tmp_path: Path) -> None:
    seen = await trial.attempt_all(sandbox, tmp_path)
    assert set(seen.numbers) == {item.name for item in hostile.ATTEMPTS} - {"environment"}, "all were made"
    assert trial.breaches(seen) == {}
    assert list(tmp_path.iterdir()) == []


async def test_the_probe_finds_all_lines_held_and_leaves_nothing(alone: WasmSandbox, tmp_path: Path) -> None:
    found = await trial.probe(alone, tmp_path)
    assert ways.failing(found) == {}
    assert found.tier == "wasm"
    assert found.probed_at is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("fs", 'wasi.preopen_dir(".", name)', 'wasi.preopen_dir("/", name)'),
        ("pidns", 'wasi.env = list(setup["env"].items())', "wasi.inherit_env()"),
        ("mem", 'memory_size=setup["memory_bytes"]', "memory_size=1 << 32"),
        ("freeze", "        engine.increment_epoch()", "        pass"),
    ],
    ids=["all files", "the environment around", "no limit of memory", "no clock"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="opens the root directory of POSIX")
async def test_what_is_left_out_is_noticed_and_named(
    line: str, old: str, new: str, alone: WasmSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PROGRAM.read_text()
    assert old in text
    weak = tmp_path / "weak.py"
    weak.write_text(text.replace(old, new))
    argv = (sys.executable, "-I", str(weak))
    monkeypatch.setattr(wasm, "ARGV", argv)
    monkeypatch.setattr("idle_accelerator.agent.sandbox.wasm.ARGV", argv)
    monkeypatch.setattr(trial, "LIMIT_S", 8.0 if line == "freeze" else 60.0)
    data = tmp_path / "data"
    data.mkdir()
    assert line in ways.failing(await trial.probe(alone, data))


async def test_nothing_but_a_module_starts_where_modules_are_the_only_sandbox(
    alone: WasmSandbox, workspace: Path
) -> None:
    spec = GuestSpec(argv=(sys.executable, "-c", "pass"), workspace=workspace, env=environment())
    for start in (alone.start, alone.start_forked):
        with pytest.raises(SpawnFailed, match="WebAssembly alone"):
            await start(spec)


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
async def test_a_jobs_environment_reaches_the_module_and_not_the_process_around_it(
    alone: WasmSandbox, workspace: Path
) -> None:
    preloaded = {"LD_PRELOAD": str(workspace / "evil.so"), "PYTHONPATH": str(workspace)}
    show = hostile.hostile("/nowhere")
    end, out, err = await ended(await launch(alone, workspace, show, env=preloaded))
    assert end.exit_code == 0, err
    assert b"LD_PRELOAD=" in out
    assert "preloaded" not in err
    control = subprocess.run(
        [shutil.which("true") or "true"], env=preloaded, capture_output=True, check=False
    )
    assert b"cannot be preloaded" in control.stderr, "the linker would have said so"


async def test_a_module_sees_its_workspace_as_the_root_and_nothing_tells_where_that_lies(
    alone: WasmSandbox, workspace: Path
) -> None:
    end, out, err = await ended(
        await launch(alone, workspace, hostile.hostile("/nowhere"), env={"OWN": "word", "PATH": "/mine"})
    )
    assert end.exit_code == 0, err
    seen = dict(item.partition(b"=")[::2] for item in out.partition(b"\n")[0].split(b"\0") if item)
    assert seen[b"OWN"] == b"word"
    assert seen[b"PATH"] == b"/mine"
    assert seen[b"HOME"] == b"/"
    assert seen[b"IDLE_CHECKPOINT_DIR"] == b"/.idle/checkpoint"
    assert seen[b"IDLE_VACATE_FILE"] == b"/.idle/vacate"
    assert str(workspace).encode() not in out
    if "PATH" in os.environ:
        assert os.environ["PATH"].encode() not in out


async def test_endless_output_is_bounded_by_its_reader_and_ends_with_the_kill(
    alone: WasmSandbox, workspace: Path
) -> None:
    guest = await launch(alone, workspace, hostile.FLOOD)
    assert guest.stdout is not None
    got = 0
    while got < 8_000_000:
        got += len(await guest.stdout.read(256 * 1024))
    rss_bytes = guest.usage().rss_bytes
    assert rss_bytes < SMALL_BYTES + wasm.RUNTIME_BYTES, "what is not read is not kept"
    await guest.kill()


# How modules end.


async def test_the_exit_status_is_that_of_the_module(sandbox: Sandbox, workspace: Path) -> None:
    for code in (0, 3, 85, 125):
        end, _, err = await ended(
            await launch(sandbox, workspace, program(f"(call $exit (i32.const {code}))"))
        )
        assert (end.exit_code, end.signal) == (code, None), err
        assert wasm.end_reason(end.exit_code) is None


async def test_a_module_that_returns_has_succeeded(alone: WasmSandbox, workspace: Path) -> None:
    end, out, err = await ended(await launch(alone, workspace, program("(nop)")))
    assert (end.exit_code, out, err) == (0, b"", "")


@pytest.mark.parametrize(
    ("body", "detail", "said"),
    [
        ("unreachable", "'unreachable' executed", "unreachable"),
        ("(drop (i32.load (i32.const 70000)))", "out of bounds memory", "out of bounds memory"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero", "divide by zero"),
        ("(call 1)", "call stack exhausted", "call stack exhausted"),
    ],
    ids=["unreachable", "memory", "division", "recursion"],
)
async def test_a_trap_is_named_and_told_on_stderr(
    body: str, detail: str, said: str, sandbox: Sandbox, workspace: Path
) -> None:
    end, _, err = await ended(await launch(sandbox, workspace, program(body)))
    why = wasm.end_reason(end.exit_code)
    assert why is not None, err
    assert why.code == "task.trap"
    assert detail in str(why.params["detail"])
    assert said in err


async def test_a_status_that_is_no_modules_is_a_trap_too(alone: WasmSandbox, workspace: Path) -> None:
    end, _, err = await ended(await launch(alone, workspace, program("(call $exit (i32.const 210))")))
    assert end.exit_code == wasm.UNKNOWN_TRAP_STATUS
    assert "exit status" in err


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (b"#!/bin/sh\necho no", "no WebAssembly"),
        (b"\0asm\x0d\0\1\0", "component"),
        (b"\0asm\1\0\0\0\xff\xff", "cannot be run"),
        ("(module (func))", "_start"),
        (hostile.FORK, "proc_fork"),
        ('(module (memory 1000) (func (export "_start")))', "memory"),
    ],
    ids=["a script", "a component", "broken", "a library", "asks for what is not there", "starts too large"],
)
async def test_what_is_no_module_that_can_be_run_is_said_on_stderr(
    module: str | bytes, said: str, alone: WasmSandbox, workspace: Path
) -> None:
    end, _, err = await ended(await launch(alone, workspace, module))
    assert end.exit_code == wasm.UNUSABLE_STATUS
    assert said in err
    why = wasm.end_reason(end.exit_code)
    assert why is not None
    assert why.code == "task.wasm_unusable"


async def test_an_endless_module_is_interrupted_even_where_nobody_kills_it(
    alone: WasmSandbox, workspace: Path
) -> None:
    end, _, _ = await ended(await launch(alone, workspace, hostile.ENDLESS, timeout_s=0.5 - wasm.SLACK_S))
    why = wasm.end_reason(end.exit_code)
    assert why is not None
    assert "timeout" in str(why.params["detail"])


async def test_an_endless_module_without_a_timeout_is_killed(sandbox: Sandbox, workspace: Path) -> None:
    guest = await launch(sandbox, workspace, hostile.ENDLESS)
    await eventually(lambda: guest.usage().cpu_s > 0.2, what="it is busy")
    await guest.kill()
    assert (await guest.wait()).signal == 9


async def test_a_module_is_not_ended_by_the_notice_and_finds_the_file_that_says_it(
    sandbox: Sandbox, workspace: Path
) -> None:
    look = """(import "wasi_snapshot_preview1" "path_open"
      (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"""
    data = '(data (i32.const 64) ".idle/vacate") (data (i32.const 100) "up\\n")'
    body = """(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 3))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (loop $again
        (br_if $again (call $open (i32.const 4) (i32.const 0) (i32.const 64) (i32.const 12) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32))))
      (call $exit (i32.const 85))"""
    guest = await launch(sandbox, workspace, program(body, imports=look, data=data))
    assert guest.stdout is not None
    assert await guest.stdout.readline() == b"up\n"
    give_notice(workspace)
    guest.notify_vacate()
    async with asyncio.timeout(PATIENCE_S):
        assert (await guest.wait()).exit_code == 85


async def test_more_arguments_than_fit_into_a_pipe_arrive(sandbox: Sandbox, workspace: Path) -> None:
    sizes = '(import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))'
    body = """(drop (call $sizes (i32.const 0) (i32.const 4)))
      (if (i32.and (i32.eq (i32.load (i32.const 0)) (i32.const 3)) (i32.gt_u (i32.load (i32.const 4)) (i32.const 200000)))
        (then (call $exit (i32.const 42))))"""
    guest = await launch(
        sandbox, workspace, program(body, imports=sizes), "a" * 100_000, "ü" * 50_001, memory_bytes=0
    )
    end, _, err = await ended(guest)
    assert end.exit_code == 42, err


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts so on Linux alone")
async def test_memory_beside_the_modules_own_is_bounded_where_no_control_group_does(
    alone: WasmSandbox, workspace: Path
) -> None:
    guest = await launch(alone, workspace, hostile.ENDLESS)
    await eventually(lambda: guest.usage().cpu_s > 0.1, what="it runs")
    limits = Path(f"/proc/{guest.pid}/limits").read_text().splitlines()
    data = next(line for line in limits if line.startswith("Max data size"))
    assert int(data.split()[3]) == SMALL_BYTES + wasm.RUNTIME_BYTES
    await guest.kill()


def test_the_agent_and_the_guest_program_mean_the_same_by_a_status() -> None:
    assert wasm.UNUSABLE_STATUS == wasm_guest.UNUSABLE_STATUS
    assert wasm.TRAP_STATUS == wasm_guest.TRAP_STATUS
    assert wasm.UNKNOWN_TRAP_STATUS == wasm_guest.UNKNOWN_TRAP_STATUS
    from wasmtime import TrapCode

    assert TrapCode.INTERRUPT.value == 10
    assert {TrapCode(number).name for number in wasm.TRAPS} >= {"UNREACHABLE", "STACK_OVERFLOW"}
