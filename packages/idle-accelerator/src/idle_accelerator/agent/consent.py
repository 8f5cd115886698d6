"""What the owner lends beside processors, memory and disk, by consent: a network and graphics cards. Settled before any guest runs."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from idle_accelerator.agent import devices
from idle_accelerator.agent.devices import Card, Devices
from idle_accelerator.agent.network import consent
from idle_accelerator.agent.network.types import Ways
from idle_accelerator.agent.sandbox import Guest, Sandbox
from idle_accelerator.wire.network import NetworkOffer
from idle_accelerator.wire.nodes import Isolation
from idle_accelerator.wire.units import format_size


@dataclass(frozen=True, kw_only=True)
class Consent:
    """As far as this machine can keep to it."""

    network: NetworkOffer
    cards: tuple[Card, ...]
    isolation: Isolation
    """With what the consent makes of its lines ``net`` and ``gpu``."""
    bytes_per_s: float | None

    @property
    def gpu_names(self) -> tuple[str, ...]:
        return tuple(card.name for card in self.cards)

    def sentences(self) -> tuple[str, ...]:
        """For the owner; nothing of what nobody was allowed."""
        said: list[str] = []
        if self.network.kind in ("proxy", "open"):
            limit = "" if self.bytes_per_s is None else f", at most {format_size(self.bytes_per_s)}/s each"
            said.append(f"network of guests: {self.network}{limit}")
        if self.cards and self.isolation.tier != "process":
            said.append(f"graphics cards of guests: {', '.join(self.gpu_names)}")
        return tuple(said)

    def check(self, sandbox: Sandbox, folder: Path) -> None:
        """Whether the sandbox holds with it, tried now. Raises NoSandbox. See ``network.trial.check``."""
        if sys.platform == "linux" and self.network.kind in ("proxy", "open"):
            from idle_accelerator.agent.network import trial  # noqa: PLC0415  # a file for Linux

            trial.check(sandbox, self.network, folder)

    def open_devices(self) -> Devices:
        """The book of cards."""
        return Devices(self.cards, apart=self.isolation.tier != "process")

    def open_ways(
        self,
        folder: Path,
        *,
        on_moved: Callable[[int], None],
        on_began: Callable[[Guest], None],
        on_ended: Callable[[Guest], None],
    ) -> Ways | None:
        """See ``network.office.Office``; None where no guest gets a network from the agent."""
        if sys.platform == "linux" and self.network.kind in ("proxy", "open"):
            from idle_accelerator.agent.network.office import Office  # noqa: PLC0415  # a file for Linux

            return Office(
                self.network,
                folder=folder,
                bytes_per_s=self.bytes_per_s,
                on_moved=on_moved,
                on_began=on_began,
                on_ended=on_ended,
            )
        return None


def agree(
    *,
    network: str,
    allow_hosts: Sequence[str],
    bytes_per_s: float | None,
    gpus: int | str | None,
    isolation: Isolation,
) -> Consent:
    """Raises InvalidInput for what cannot be, or what guests of this tier cannot be given."""
    lent = consent.as_lent(consent.check(network, allow_hosts), isolation)
    cards = devices.lent(gpus, devices.cards(), tier=isolation.tier)
    said = consent.said_of(lent, isolation)
    if cards and isolation.tier != "process":
        line = f"by the owner's consent, for tasks that ask: {', '.join(card.name for card in cards)}"
        said = said.model_copy(update={"gpu": line[:200]})
    return Consent(network=lent, cards=cards, isolation=said, bytes_per_s=bytes_per_s)
