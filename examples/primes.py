r"""Primes below 16,000,000, counted by a C program that runs as WebAssembly: on any system, and on machines that take nothing else.

    .venv/bin/pip install ziglang
    .venv/bin/python examples/primes.py              on Windows: .venv\Scripts\python examples\primes.py

zig (100 MB) builds primes.c; with `primes.py FILE.wasm` your own build is used instead. Start a pool first: python3 run.py up. Your own machine is in use
while you sit at it; to lend it all the same: python3 run.py idlectl lend --for 10m."""

import subprocess
import sys
import tempfile
from pathlib import Path

from idle_accelerator import Client

TASKS = 16
SOURCE = Path(__file__).with_name("primes.c")


def build(folder: Path) -> Path:
    """The module, built by zig's C compiler for WASI."""
    module = folder / "primes.wasm"
    compiler = [sys.executable, "-m", "ziglang", "cc", "--target=wasm32-wasi", "-O2"]
    done = subprocess.run([*compiler, str(SOURCE), "-o", str(module)], check=False)
    if done.returncode != 0:
        sys.exit(
            "primes.c was not built. Install zig (pip install ziglang), or give your own build: primes.py FILE.wasm"
        )
    return module


with tempfile.TemporaryDirectory() as folder, Client() as client:
    module = Path(sys.argv[1]) if len(sys.argv) > 1 else build(Path(folder))
    job = client.submit([], wasm=module, array=TASKS, memory="64M", timeout="10m", name="primes")
    print(f"submitted {job.id}; waiting for {TASKS} tasks ...", flush=True)
    found = 0
    for done, task in enumerate(job.as_finished(), start=1):
        if task.state != "SUCCEEDED":
            sys.exit(f"task {task.index}: {task.reason.sentence if task.reason else task.state}")
        found += int(job.logs(task=task.index))
        print(f"  {done:2} of {TASKS} on {task.node_name}: {found:,} primes so far", flush=True)
