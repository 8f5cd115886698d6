"""Whether a sandbox holds when its guests have the network that the owner lends: tried at the agent's start, as the sandbox itself is.

The hostile program runs with such a network; and a guest asks the proxy for a port of this machine's loopback by a name that leads there, which its
job names and the owner, for the trial, lends.
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from idle_accelerator.agent.network import namespace, office
from idle_accelerator.agent.network.types import Way
from idle_accelerator.agent.sandbox import (
    Guest,
    GuestSpec,
    NoSandbox,
    Sandbox,
    SpawnFailed,
    bubblewrap,
    probe,
)
from idle_accelerator.agent.sandbox.attempts import ATTEMPTS
from idle_accelerator.agent.sandbox.types import Verified
from idle_accelerator.wire.network import NetworkOffer, NetworkWish

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

LIMIT_S: Final = 240.0
_ASK: Final = f"""
import socket, sys
with socket.create_connection(("127.0.0.1", {namespace.PROXY_PORT}), timeout=30) as line:
    line.sendall(f"CONNECT {{sys.argv[1]}} HTTP/1.1\\r\\n\\r\\n".encode())
    print(line.recv(100).split()[1].decode())
"""
_REFUSED: Final = (b"403", b"502")
"""Refused; or, on a machine that does not know the name, not found."""
_NAME: Final = "localhost"


class Attached:
    """A sandbox each of whose guests gets a way of its own."""

    def __init__(self, sandbox: Sandbox, make: Callable[[], Way]) -> None:
        self._sandbox = sandbox
        self._make = make
        self.tier = sandbox.tier
        self.verified: Verified = sandbox.verified

    async def start(self, spec: GuestSpec) -> Guest:
        way = self._make()
        return await self._sandbox.start(replace(spec, network=way, env={**spec.env, **way.env}))

    async def start_forked(self, spec: GuestSpec) -> Guest:
        return await self.start(spec)

    async def close(self) -> None:
        await self._sandbox.close()


def check(sandbox: Sandbox, lent: NetworkOffer, folder: Path) -> None:
    """Blocks for a second or two; must not be called in a running event loop. Raises NoSandbox.

    ``folder`` is the agent's own; nothing stays in it.
    """
    if not isinstance(sandbox, bubblewrap.BubblewrapSandbox):
        return
    try:
        troubles = asyncio.run(_try(sandbox, lent, folder))
    except (SpawnFailed, ValueError, TimeoutError) as error:
        troubles = [str(error) or f"it was not tried within {LIMIT_S:.0f} s"]
    if troubles:
        raise NoSandbox(
            f"With the network that you lend the sandbox does not hold: {'; '.join(troubles)}.",
            failing="net",
            hint="Lend none: --network off",
        )


async def _try(sandbox: bubblewrap.BubblewrapSandbox, lent: NetworkOffer, folder: Path) -> list[str]:
    wish = NetworkWish(open=True) if lent.kind == "open" else NetworkWish(hosts=("example.org",))
    opened = open_office(lent, folder)
    try:
        async with asyncio.timeout(LIMIT_S):
            troubles = await _hostile(sandbox, opened, wish, folder)
            if not await _refuses_loopback(sandbox, folder):
                troubles.append("the proxy leads to this machine's loopback")
    finally:
        await opened.close()
        await sandbox.close()  # its helpers belong to this event loop, and the agent runs in another
    return troubles


async def _hostile(
    sandbox: bubblewrap.BubblewrapSandbox, opened: office.Office, wish: NetworkWish, folder: Path
) -> list[str]:
    seen = await probe.attempt_all(
        Attached(sandbox, lambda: _way(opened, wish)),
        folder,
        memory_files_bytes=sandbox.memory_files_bytes,
        passed_over=sandbox.shown,
    )
    about_it = {attempt.name for attempt in ATTEMPTS if attempt.field == "net"}
    return [
        f"{name} works ({found.detail})"
        for name, found in seen.items()
        if name in about_it and found.outcome == "works"
    ]


async def _refuses_loopback(sandbox: bubblewrap.BubblewrapSandbox, folder: Path) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as bait, tempfile.TemporaryDirectory(dir=folder) as name:
        host = f"{_NAME}:{bait.getsockname()[1]}"
        opened = open_office(NetworkOffer(kind="proxy", hosts=(host,)), folder)
        try:
            guest = await Attached(sandbox, lambda: _way(opened, NetworkWish(hosts=(host,)))).start(
                GuestSpec(
                    argv=(sys.executable, "-I", "-c", _ASK, host),
                    workspace=Path(name),
                    env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                )
            )
            try:
                said = b"" if guest.stdout is None else await guest.stdout.read()
                await guest.wait()
            finally:
                await asyncio.shield(guest.kill())
        finally:
            await opened.close()
    return said.strip() in _REFUSED


def open_office(lent: NetworkOffer, folder: Path) -> office.Office:
    return office.Office(
        lent,
        folder=folder,
        bytes_per_s=None,
        on_moved=lambda _count: None,
        on_began=lambda _guest: None,
        on_ended=lambda _guest: None,
    )


def _way(opened: office.Office, wish: NetworkWish) -> Way:
    way = opened.way_for(wish, job="trial")
    if way is None:
        raise ValueError("a guest got no way to the network")
    return way
