"""What network a task asks for, and what an owner lends: none, named hosts, or all that is public."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from idle_accelerator.wire.hosts import ANY, HostPattern, is_public, lent_host, wanted_host
from idle_accelerator.wire.model import WireModel

MAX_WANTED = 50
MAX_LENT = 200
_TEXT_LIMIT = 300


def _wanted(text: str) -> str:
    return str(wanted_host(text))


def _lent(text: str) -> str:
    return str(lent_host(text))


WantedHost = Annotated[str, Field(max_length=_TEXT_LIMIT), AfterValidator(_wanted)]
LentHost = Annotated[str, Field(max_length=_TEXT_LIMIT), AfterValidator(_lent)]
Lent = Literal["off", "proxy", "open", "unguarded"]


class NetworkWish(WireModel):
    """What a task needs of the network; nothing, unless it says so."""

    hosts: tuple[WantedHost, ...] = Field(
        default=(),
        max_length=MAX_WANTED,
        strict=False,
        description="Such as pypi.org, *.huggingface.co, example.org:8443; port 443 if none is named.",
    )
    open: bool = Field(default=False, description="All public hosts, by any protocol.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.open and self.hosts:
            raise ValueError("an open network and named hosts exclude each other: ask for one of them")
        return self

    @property
    def asks(self) -> bool:
        """Whether it needs any."""
        return self.open or bool(self.hosts)


NO_NETWORK = NetworkWish()


class NetworkOffer(WireModel):
    """What the owner consents to. 'off': none. 'proxy': the hosts that are named, by a proxy. 'open': all that is public, and what
    is named. 'unguarded': guests are plain processes, and reach what their user may."""

    kind: Lent = "off"
    hosts: tuple[LentHost, ...] = Field(default=(), max_length=MAX_LENT, strict=False)

    def lacking(self, wish: NetworkWish) -> tuple[str, ...]:
        """Those of the wished hosts that are not lent."""
        if self.kind == "unguarded":
            return ()
        if self.kind == "off":
            return wish.hosts
        lent = [lent_host(text) for text in self.hosts]
        return tuple(text for text in wish.hosts if not self._leads_to(wanted_host(text), lent))

    def _leads_to(self, wanted: HostPattern, lent: list[HostPattern]) -> bool:
        if self.kind == "open" and (wanted.network is None or is_public(wanted.network.network_address)):
            return True
        return any(one.covers(wanted) for one in lent)

    @property
    def is_open(self) -> bool:
        """Whether a task that asks for an open network gets one."""
        return self.kind in ("open", "unguarded")

    def __str__(self) -> str:
        """In short, for people."""
        words = {
            "off": "off",
            "proxy": "by a proxy to",
            "open": "open",
            "unguarded": "as the agent's own user",
        }
        parts = [words[self.kind], ", ".join("any public host" if one == ANY else one for one in self.hosts)]
        return " ".join(part for part in parts if part)


NO_OFFER = NetworkOffer()
