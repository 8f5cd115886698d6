"""Tier ``appcontainer``: guests in app containers of Windows, less privileged ones, each in a job object with limits.

What a guest may read is what Windows itself needs, the agent's Python, and its workspace, where it also writes. It has no network. It was
never run by who wrote this: see ``verified``. ``portable`` tries it at each start of an agent.
"""

import asyncio
import contextlib
import logging
import secrets
import sys
from pathlib import Path
from typing import Final

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox import portable, view, ways
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, SpawnFailed, Verified

if sys.platform != "win32":
    raise ImportError("This file is for Windows.")

from idle_accelerator.agent.host import lowbox, windows

_log = logging.getLogger(__name__)
CONTAINERS_FILE: Final = "containers.txt"
"""In the data directory: the names of containers that exist, one a line, so that they are found after a crash."""
PROCESSES: Final = 512
"""Of one guest at a time, unless it asks for less."""


class AppContainerSandbox:
    """See ``types.Sandbox``. That it works here is not known before ``portable`` has tried it."""

    tier: str = "appcontainer"
    verified: Verified = "signature-only"

    def __init__(self, data_dir: Path) -> None:
        """Deletes the containers of an agent that crashed, and lets guests read the agent's Python. Raises OSError."""
        self._names = data_dir / CONTAINERS_FILE
        self._live: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        with contextlib.suppress(FileNotFoundError):
            for name in self._names.read_text(encoding="ascii").split():
                if name.startswith(lowbox.PREFIX):
                    lowbox.delete(name)
        self._note()
        self.shown: Final = tuple(dict.fromkeys(path.resolve() for path in view.of_python()))
        for path in self.shown:
            lowbox.grant(path, lowbox.capability(lowbox.CAPABILITY), lowbox.READ)

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        name = f"{lowbox.PREFIX}{secrets.token_hex(8)}"
        self._live.add(name)
        try:
            self._note()
            container = lowbox.Container(name)
        except OSError as error:
            self._live.discard(name)
            raise SpawnFailed(
                f"The app container could not be made: {error.strerror or error}.",
                hint="App containers take Windows 10 or later, and a user with a profile.",
                field=None,
            ) from error
        try:
            lowbox.grant(spec.workspace, container.sid, lowbox.CHANGE)
            for folder in spec.read_only:
                lowbox.grant(folder, lowbox.capability(lowbox.CAPABILITY), lowbox.READ)
            guest = await windows.spawn(
                host.Launch(
                    argv=spec.argv,
                    cwd=spec.workspace,
                    env=spec.env,
                    stdin=spec.stdin,
                    stdout=spec.stdout,
                    stderr=spec.stderr,
                    nice=spec.nice,
                    first_input=spec.first_input,
                    memory_bytes=spec.memory_bytes,
                    processes=min(spec.processes or PROCESSES, PROCESSES),
                ),
                start=lowbox.starter(container, (lowbox.CAPABILITY, *lowbox.SYSTEM_CAPABILITIES)),
                locked=True,
            )
        except OSError as error:
            self._delete(container)
            raise SpawnFailed(
                f"The workspace could not be opened to the container: {error.strerror or error}.",
                hint="See that the data directory lies on a disk with access rights (NTFS).",
                field="workspace",
            ) from error
        except BaseException:
            self._delete(container)
            raise
        task = asyncio.create_task(self._delete_after(guest, container), name=f"container {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return guest

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: Windows forks nothing."""
        return await self.start(spec)

    async def close(self) -> None:
        """Waits until the containers of ended guests are deleted."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def _delete_after(self, guest: Guest, container: lowbox.Container) -> None:
        try:
            await guest.wait()
        finally:
            self._delete(container)

    def _delete(self, container: lowbox.Container) -> None:
        try:
            container.delete()
        except OSError as error:
            _log.warning("%s; it is tried again when the agent starts", error.strerror or error)
            return
        self._live.discard(container.name)
        self._note()

    def _note(self) -> None:
        """Raises OSError."""
        self._names.write_text("".join(f"{name}\n" for name in sorted(self._live)), encoding="ascii")


def find(data_dir: Path) -> portable.Found:
    """Blocks for some seconds; must not be called in a running event loop. Raises NoSandbox when it does not hold."""
    try:
        sandbox = AppContainerSandbox(data_dir)
    except (OSError, AttributeError) as error:  # AttributeError: a Windows whose libraries lack a function
        raise portable.not_here("appcontainer", str(error)) from error
    held = {
        "fs": "app container: of the owner's files none, the workspace alone to write to",
        "net": "app container without a capability for the network",
        "pidns": "app container: processes of the owner's cannot be opened",
        "calls": "app container, less privileged; job object with restrictions of the user interface",
        "mem": ways.memory(),
        "disk": f"{ways.NONE}: a guest may write until the disk is full",
        "freeze": ways.of("freeze"),
        "prio": ways.of("cpu"),
        "kill": ways.of("kill"),
        "gpu": "no devices",
    }
    return portable.find(sandbox, data_dir, held, sandbox.shown)
