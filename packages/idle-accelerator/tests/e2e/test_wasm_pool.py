"""WebAssembly on a real pool: the same module on a plain node, in a sandbox, and on a node that takes nothing else."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess
from sandbox_guests import bubblewrap

from idle_accelerator import Client
from idle_accelerator.errors import IdleError, TaskFailed

WAIT_S = 120.0
LENT = ("--policy", "server", "--lend-for", "1h", "--cpus", "2", "--grace", "0", "--sandbox")
# The sum of the numbers up to IDLE_TASK_INDEX's digit, as one letter: computed, written to a file of the workspace, and printed.
SUM = r"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 400) "sum.txt")
  (func (export "_start") (local $left i32) (local $sum i32)
    (drop (call $args (i32.const 100) (i32.const 200)))
    (local.set $left (i32.sub (i32.load8_u (i32.load (i32.const 104))) (i32.const 48)))
    (loop $more
      (local.set $sum (i32.add (local.get $sum) (local.get $left)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (i32.gt_s (local.get $left) (i32.const 0))))
    (i32.store8 (i32.const 32) (i32.add (i32.const 65) (local.get $sum)))
    (i32.store (i32.const 0) (i32.const 32)) (i32.store (i32.const 4) (i32.const 1))
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 400) (i32.const 7) (i32.const 1)
      (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 300)))
    (drop (call $write (i32.load (i32.const 300)) (i32.const 0) (i32.const 1) (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    from wasmtime import wat2wasm

    path = tmp_path / "sum.wasm"
    path.write_bytes(wat2wasm(SUM))
    return path


@pytest.fixture(params=["process", "bubblewrap", "wasm"])
def agent(
    request: pytest.FixtureRequest,
    scheduler_process: SchedulerProcess,
    start_agent: Callable[..., AgentProcess],
) -> AgentProcess:
    if request.param == "bubblewrap":
        bubblewrap()
    return start_agent(scheduler_process.url, *LENT, request.param)


@pytest.fixture
def client(scheduler_process: SchedulerProcess) -> Iterator[Client]:
    with Client(scheduler_process.url) as opened:
        yield opened


def test_a_module_computes_and_its_files_come_back(
    client: Client, agent: AgentProcess, module: Path, tmp_path: Path
) -> None:
    job = client.submit(["5"], wasm=module, outputs=["sum.txt"], memory="16M", timeout=60)
    result = job.result(timeout=WAIT_S)
    assert result.stdout == b"P"
    (got,) = job.download(tmp_path / "got")
    assert got.read_text() == "P"
    assert job.status.kind == "wasm"
    (node,) = client.nodes()
    assert node.facts.wasm.startswith("wasmtime ")


def test_a_trap_is_the_reason_of_the_failure(client: Client, agent: AgentProcess, tmp_path: Path) -> None:
    from wasmtime import wat2wasm

    path = tmp_path / "trap.wasm"
    path.write_bytes(wat2wasm('(module (memory (export "memory") 1) (func (export "_start") unreachable))'))
    with pytest.raises(TaskFailed) as caught:
        client.submit([], wasm=path).result(timeout=WAIT_S)
    assert "trap" in caught.value.message


def test_a_node_that_takes_modules_alone_refuses_all_else_and_says_so(
    client: Client,
    scheduler_process: SchedulerProcess,
    start_agent: Callable[..., AgentProcess],
    module: Path,
) -> None:
    agent = start_agent(scheduler_process.url, *LENT, "wasm")
    assert "takes WebAssembly alone" in agent.log()
    job = client.submit([sys.executable, "-c", "print('never')"])

    def reasons() -> str:
        return " ".join(item.sentence for item in client.job(job.id).status.waiting)

    until(lambda: "runs WebAssembly alone" in reasons(), what="the reason is said")
    assert client.submit(["3"], wasm=module).result(timeout=WAIT_S).stdout == b"G"
    assert "runs WebAssembly alone" in reasons(), "it still waits"
    job.cancel()
    (node,) = client.nodes()
    assert node.facts.sandbox_tier == "wasm"
    assert node.facts.isolation is not None
    assert node.facts.isolation.net == "WASI: no sockets"


def test_the_command_line_takes_a_module_as_a_program(
    scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess], module: Path
) -> None:
    start_agent(scheduler_process.url, *LENT, "process")

    def idlectl(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "idle_accelerator.cli", *arguments, "--scheduler", scheduler_process.url],
            cwd=module.parent,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    for words in (("--wasm", "sum.wasm", "--wait", "--", "4"), ("--wait", "--", "sum.wasm", "4")):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "idle_accelerator.cli",
                "submit",
                "--scheduler",
                scheduler_process.url,
                *words,
            ],
            cwd=module.parent,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "K"), done.stderr
    listed = idlectl("jobs")
    assert "sum.wasm 4" in listed.stdout


def test_what_is_no_module_is_refused_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(b"\0asm\x0d\0\1\0")
    with pytest.raises(IdleError, match="component") as caught:
        client.submit([], wasm=path)
    assert caught.value.field == "wasm"
