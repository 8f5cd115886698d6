"""What the rest of the agent knows of guests' network."""

from collections.abc import Mapping
from typing import Protocol

from idle_accelerator.agent.sandbox.types import GuestNetwork
from idle_accelerator.wire.network import NetworkWish
from idle_accelerator.wire.reasons import Reason


class Way(GuestNetwork, Protocol):
    """One guest's network, from before its start to its end."""

    @property
    def env(self) -> Mapping[str, str]:
        """What its environment has to say."""
        ...

    def refusals(self) -> tuple[Reason, ...]:
        """What it was refused since this was asked last."""
        ...


class Ways(Protocol):
    """Where guests' ways come from."""

    def way_for(self, wish: NetworkWish, *, job: str) -> Way | None:
        """None where there is nothing to be done: for a task that asks for none, and for a plain process, which reaches what its user may."""
        ...

    async def close(self) -> None:
        """On return nothing of it runs."""
        ...
