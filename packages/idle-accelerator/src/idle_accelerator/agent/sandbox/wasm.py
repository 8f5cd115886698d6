"""Tier ``wasm``: WebAssembly by wasmtime, for machines that have no sandbox for other programs.

A module has no instruction by which it could reach what it was not given: no system calls, no addresses but those of its own memory.
What is claimed for it, and how it is tried, stands in ``wasm_trial``. In the other tiers modules run inside of these as well.
"""

import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Final

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox.process import ProcessSandbox
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, SpawnFailed, Verified
from idle_accelerator.wire.nodes import ONLY_WASM

PACKAGE: Final = "wasmtime"
PROGRAM: Final = Path(__file__).parents[1] / "workloads" / "wasm_guest.py"
ARGV: Final = (sys.executable, "-I", str(PROGRAM))
"""The process around a module, which is told by its standard input what to run (``workloads.wasm``)."""


@cache
def version() -> str:
    """Name and version of what runs modules on this machine, such as ``wasmtime 50.0.1``; empty where nothing does."""
    if importlib.util.find_spec(PACKAGE) is None:
        return ""
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        return PACKAGE


class WasmSandbox:
    """See ``types.Sandbox``. It starts the process around a module, and refuses every other program."""

    tier: str = ONLY_WASM
    verified: Verified = host.VERIFIED

    def __init__(self) -> None:
        self._process = ProcessSandbox()

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        if spec.argv != ARGV:
            raise SpawnFailed(
                "This machine runs WebAssembly alone: it has no sandbox that would keep another program apart from its owner.",
                hint="Build the program for wasm32-wasip1 and submit it with --wasm, or send it to another machine.",
                field="command",
            )
        return await self._process.start(spec)

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: what is forked runs Python functions, which are refused here."""
        return await self.start(spec)

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        await self._process.close()
