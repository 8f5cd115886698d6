"""What the owner lends of the network, read from settings, and how it is said."""

import sys
from collections.abc import Sequence
from typing import Final

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.hosts import lent_host
from idle_accelerator.wire.network import MAX_LENT, NetworkOffer
from idle_accelerator.wire.nodes import Isolation

CHOICES: Final = ("off", "proxy", "open")
FLAG: Final = "--network"
HOST_FLAG: Final = "--allow-host"
OPEN_BY: Final = "slirp4netns"
_LINE_LIMIT: Final = 200


def check(kind: str, hosts: Sequence[str]) -> NetworkOffer:
    """Raises InvalidInput."""
    if kind not in CHOICES:
        raise InvalidInput(f"{kind!r} is no choice.", field=FLAG, hint=f"Use one of: {', '.join(CHOICES)}.")
    if kind == "off" and hosts:
        raise InvalidInput(
            "hosts are allowed, but no network is lent.", field=HOST_FLAG, hint=f"Add {FLAG} proxy."
        )
    if kind == "proxy" and not hosts:
        raise InvalidInput(
            "a proxy that leads nowhere is no network.",
            field=HOST_FLAG,
            hint=f"Name hosts, such as {HOST_FLAG} pypi.org, or {HOST_FLAG} '*' for every public one.",
        )
    if len(hosts) > MAX_LENT:
        raise InvalidInput(
            f"more than {MAX_LENT} hosts.", field=HOST_FLAG, hint="Name domains: '*.example.org'."
        )
    texts: list[str] = []
    for text in hosts:
        try:
            texts.append(str(lent_host(text)))
        except ValueError as error:
            raise InvalidInput(
                f"{text!r}: {error}.",
                field=HOST_FLAG,
                hint="For example: pypi.org, '*.huggingface.co', example.org:8443, 192.168.1.7:8000.",
            ) from None
    return NetworkOffer(
        kind="proxy" if kind == "proxy" else "open" if kind == "open" else "off", hosts=tuple(texts)
    )


def as_lent(consent: NetworkOffer, isolation: Isolation) -> NetworkOffer:
    """What tasks get of the network in this tier. Raises InvalidInput for what the tier cannot keep to."""
    if isolation.tier == "process":
        return NetworkOffer(kind="unguarded")
    if consent.kind == "off":
        return consent
    if isolation.tier != "bubblewrap":
        raise InvalidInput(
            f"guests of the tier {isolation.tier} have no network.",
            field=FLAG,
            hint=f"Leave it out, or say {FLAG} off.",
        )
    if consent.kind == "open" and sys.platform == "linux":
        from idle_accelerator.agent.network import open_way  # noqa: PLC0415  # a file for Linux

        open_way.check()
    return consent


def said_of(lent: NetworkOffer, isolation: Isolation) -> Isolation:
    """The isolation with what the owner's consent makes of its line ``net``."""
    if lent.kind == "proxy":
        line = f"network namespace; by the owner's consent, for tasks that name hosts, {lent}"
    elif lent.kind == "open":
        line = (
            f"network namespace; open by the owner's consent to tasks that ask, by {OPEN_BY}:"
            " public addresses, not this machine nor its own network"
        )
    else:
        return isolation
    return isolation.model_copy(update={"net": line[:_LINE_LIMIT]})
