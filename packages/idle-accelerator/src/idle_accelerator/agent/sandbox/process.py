"""Tier ``process``: a plain subprocess, no isolation."""

from typing import Final

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, Verified


class ProcessSandbox:
    """Guests as plain subprocesses of the agent, in a session of their own and at the lowest priority."""

    tier: Final = "process"
    verified: Verified = host.VERIFIED

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        return await host.spawn(
            host.Launch(
                argv=spec.argv,
                cwd=spec.workspace,
                env=spec.env,
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                nice=spec.nice,
            )
        )
