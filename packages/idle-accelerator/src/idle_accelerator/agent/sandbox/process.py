"""Tier ``process``: a plain subprocess, no isolation."""

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, Verified


class ProcessSandbox:
    """Guests as plain subprocesses of the agent, in a session of their own and at the lowest priority."""

    tier: str = "process"
    verified: Verified = host.VERIFIED

    def __init__(self) -> None:
        self._forker = host.open_forker()

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        if self._forker is None:
            return await host.spawn(_launch(spec))
        return await self._forker.start(_launch(spec))

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """See ``Sandbox.start_forked``."""
        if self._forker is None:
            return await self.start(spec)
        return await self._forker.spawn(_launch(spec))

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        if self._forker is not None:
            await self._forker.close()


async def start_plain(spec: GuestSpec) -> Guest:
    """A program of the agent's own that works for guests: at their priority, and frozen and killed as they are. Raises SpawnFailed."""
    return await host.spawn(_launch(spec))


def _launch(spec: GuestSpec) -> host.Launch:
    return host.Launch(
        argv=spec.argv,
        cwd=spec.workspace,
        env=spec.env,
        stdin=spec.stdin,
        stdout=spec.stdout,
        stderr=spec.stderr,
        nice=spec.nice,
        first_input=spec.first_input,
        memory_bytes=spec.memory_bytes,
        processes=spec.processes,
        descriptors=spec.descriptors,
    )
