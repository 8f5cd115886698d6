"""WebAssembly tasks, the agent's side: what process is started for one, what it is told, and what its exit status means."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from idle_accelerator.agent.sandbox import FIRST_INPUT_LIMIT_BYTES, Guest, GuestSpec
from idle_accelerator.agent.sandbox.wasm import ARGV
from idle_accelerator.wire.jobs import Requirements, Wasm
from idle_accelerator.wire.reasons import Reason, reason

DEFAULT_MEMORY_BYTES: Final = 1024**3
"""Of a module whose job asks for none."""
RUNTIME_BYTES: Final = 256 * 1024 * 1024
"""Beside the module's own memory, for Python, wasmtime and the compilation."""
SLACK_S: Final = 5.0
"""The agent itself ends a task after its timeout; so much later the module is interrupted where that failed."""
UNUSABLE_STATUS: Final = 126
UNKNOWN_TRAP_STATUS: Final = 199
TRAP_STATUS: Final = 200
"""The three are wasm_guest's, which imports wasmtime and so is not imported here; a test holds them equal."""
TRAPS: Final = {
    0: "call stack exhausted",
    1: "out of bounds memory access",
    2: "misaligned memory access",
    3: "undefined element: out of bounds table access",
    4: "uninitialized element",
    5: "indirect call type mismatch",
    6: "integer overflow",
    7: "integer divide by zero",
    8: "invalid conversion to integer",
    9: "'unreachable' executed, as programs do that give up",
    10: "interrupted after its timeout",
}
"""wasmtime's numbers of what a program without newer features can run into."""
_HOST_NEEDS: Final = ("LANG", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR")
_THREADS: Final = "RAYON_NUM_THREADS"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A guest to start, and the part of what it is told that its first input has no room for."""

    spec: GuestSpec
    rest: bytes

    def tell(self, guest: Guest) -> None:
        """Raises nothing: a guest that ends before it has heard all tells so by its end."""
        if guest.stdin is not None:
            guest.stdin.write(self.rest)
            guest.stdin.close()


def launch(
    workload: Wasm,
    requirements: Requirements,
    *,
    workspace: Path,
    env: Mapping[str, str],
    asked_env: Mapping[str, str],
    timeout_s: float | None,
    around: Mapping[str, str] | None = None,
) -> Launch:
    """``env`` is the task's whole environment (``contract``), of which ``asked_env`` is what the job itself asks for.
    ``around`` is more for the environment of the process around the module: the agent's word, never a job's."""
    memory_bytes = requirements.memory_bytes or DEFAULT_MEMORY_BYTES
    whole_bytes = memory_bytes + RUNTIME_BYTES
    setup = {
        "module": workload.module,
        "arguments": workload.arguments,
        "env": seen_inside(env, asked_env, workspace),
        "memory_bytes": memory_bytes,
        "whole_bytes": whole_bytes,
        "timeout_s": None if timeout_s is None else timeout_s + SLACK_S,
    }
    text = json.dumps(setup).encode()
    told = len(text).to_bytes(4, "little") + text
    spec = GuestSpec(
        argv=ARGV,
        workspace=workspace,
        env=host_environment(env) | dict(around or {}),
        stdin="pipe",
        first_input=told[:FIRST_INPUT_LIMIT_BYTES],
        memory_bytes=whole_bytes,
    )
    return Launch(spec=spec, rest=told[FIRST_INPUT_LIMIT_BYTES:])


def host_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Of the process around the module: nothing that a job says gets into it, as the linker and Python would listen."""
    needed = {name: os.environ[name] for name in _HOST_NEEDS if name in os.environ}
    threads = env.get("IDLE_THREADS", "1")
    return needed | {_THREADS: threads}


def seen_inside(env: Mapping[str, str], asked: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """The task's environment as the module is to see it: its workspace is ``/``, and nothing tells where that lies."""
    inside: dict[str, str] = {}
    for name, value in env.items():
        if name in asked:
            inside[name] = value
        elif name != "PATH" and name not in _HOST_NEEDS:
            inside[name] = _path_inside(value, workspace)
    return inside


def _path_inside(value: str, workspace: Path) -> str:
    path = Path(value)
    if not path.is_absolute() or not path.is_relative_to(workspace):
        return value
    return str(PurePosixPath("/", *path.relative_to(workspace).parts))


def end_reason(exit_code: int | None) -> Reason | None:
    """Why a module did not end by itself; None where it did, or was ended by a signal."""
    if exit_code is None or exit_code < UNUSABLE_STATUS:
        return None
    if exit_code == UNUSABLE_STATUS:
        return reason("task.wasm_unusable")
    if exit_code == UNKNOWN_TRAP_STATUS:
        return reason("task.trap", detail="its output says more")
    if exit_code >= TRAP_STATUS:
        number = exit_code - TRAP_STATUS
        return reason("task.trap", detail=TRAPS.get(number, f"wasmtime's trap {number}"))
    return None
