"""Hosts that a task may reach, as patterns: ``pypi.org``, ``*.huggingface.co``, ``example.org:8443``, ``192.168.1.7``. Standard library alone.

A pattern without a port means port 443. ``*.huggingface.co`` stands for every name below ``huggingface.co``, and not for that name itself.
An owner may also write ``*`` (every public host) and addresses of private networks, alone or as ``192.168.1.0/24``.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

DEFAULT_PORT: Final = 443
ANY: Final = "*"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME_LIMIT = 253
_PORTS = 65_535
_WHOLE_COUNTRIES = frozenset(
    {"ac", "co", "com", "edu", "go", "gob", "gov", "gouv", "mil", "ne", "net", "or", "org"}
)
"""Under a country's domain these are no one's own: ``*.co.uk`` would be half a country."""
_COUNTRY_LETTERS = 2

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPattern:
    """One host or many, at one port."""

    name: str
    """In lower case. ``*``, ``*.domain``, a name, or the text of ``network``."""
    port: int
    network: Network | None = None
    """Set where the pattern is an address, or a network of them."""

    def __str__(self) -> str:
        name = self.name
        if self.network is not None and self.network.version == 6:  # the protocol's number
            name = f"[{name}]"
        return name if self.port == DEFAULT_PORT else f"{name}:{self.port}"

    def admits(self, name: str, port: int) -> bool:
        """Whether a task that asks for this host (``check_name``, or the text of an address) at this port is meant."""
        if port != self.port:
            return False
        address = address_of(name)
        if self.network is not None:
            return address is not None and address in self.network
        if self.name == ANY:
            return address is None or is_public(address)
        if self.name.startswith("*."):
            return address is None and name.endswith(self.name[1:])
        return name == self.name

    def covers(self, wanted: "HostPattern") -> bool:
        """Whether all that ``wanted`` admits is admitted by this one."""
        if wanted.network is None and wanted.name.startswith("*"):
            if self.port != wanted.port or self.network is not None:
                return False
            return self.name in (ANY, wanted.name) or (
                self.name.startswith("*.") and wanted.name.endswith(self.name[1:])
            )
        if wanted.network is not None and wanted.network.num_addresses > 1:
            return (
                self.port == wanted.port
                and self.network is not None
                and _within(wanted.network, self.network)
            )
        return self.admits(wanted.name, wanted.port)


def wanted_host(text: str) -> HostPattern:
    """What a job asks for. Raises ValueError, saying why, for what no job may ask for."""
    pattern = _parse(text)
    if pattern.name == ANY:
        raise ValueError("'*' names no host: name each, or ask for an open network")
    if pattern.network is not None:
        if pattern.network.num_addresses > 1:
            raise ValueError("a job names single addresses, not networks")
        address = pattern.network.network_address
        if address.is_loopback or address.is_unspecified:
            raise ValueError("that address is the task itself: it needs no network for it")
        if address.is_link_local or address.is_multicast:
            raise ValueError(
                "addresses of a single cable, or of many machines at once, are not reached from a task"
            )
    return pattern


def lent_host(text: str) -> HostPattern:
    """What an owner allows. Raises ValueError, saying why."""
    pattern = _parse(text)
    if pattern.network is not None and (pattern.network.is_multicast or pattern.network.is_unspecified):
        raise ValueError("that is no address of a single machine")
    return pattern


def check_name(text: str) -> str:
    """A host name as patterns have it, in lower case, or an address's canonical text.

    Raises ValueError; also for ``127.1``, ``0x7f000001`` and the like, which some resolvers take for addresses.
    """
    address = address_of(text)
    if address is not None:
        return str(address)
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not name.isascii():
        raise ValueError("write the name in ASCII, as xn--…")
    if len(name) > _NAME_LIMIT or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("that is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("that is neither a host name nor an address in its usual form")
    return name


def address_of(text: str) -> Address | None:
    """The address that this is the text of; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # The part after % names a cable of this machine.
    return None if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None else address


SPECIAL_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
"""What the registry of special-purpose addresses (RFC 6890) has, and multicast: none of it is a public host."""
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6: Final = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""Of the public range: tunnels, which lead to other addresses than they show, and examples."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether it is a host of the public internet. An IPv4 address inside of an IPv6 one is looked at itself (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in SPECIAL_4)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _SPECIAL_6)


def _parse(text: str) -> HostPattern:
    name, port = _split(text.strip())
    if name == ANY:
        return HostPattern(name=ANY, port=port)
    network = _network(name)
    if network is not None:
        single = network.num_addresses == 1
        return HostPattern(
            name=str(network.network_address if single else network), port=port, network=network
        )
    if name.startswith("*."):
        below = check_name(name[2:])
        labels = below.split(".")
        if len(labels) < 2 or (  # a domain and what it is in
            len(labels) == 2 and len(labels[-1]) == _COUNTRY_LETTERS and labels[0] in _WHOLE_COUNTRIES
        ):
            raise ValueError(f"'*.{below}' would be a whole top-level domain: name the domain that is meant")
        return HostPattern(name=f"*.{below}", port=port)
    if "*" in name:
        raise ValueError("a '*' stands for the whole first part only, as in '*.example.org'")
    return HostPattern(name=check_name(name), port=port)


def _split(text: str) -> tuple[str, int]:
    """The name without brackets, and the port. Raises ValueError."""
    if "://" in text or "@" in text:
        raise ValueError("a host is wanted, not a URL: for example pypi.org, or example.org:8443")
    name, port = text, ""
    if text.startswith("["):
        name, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address stands in brackets, as in [2001:db8::1]:443")
        port = rest[1:]
        if rest == ":":
            raise ValueError("there is no port after the ':'")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
        if not port:
            raise ValueError("there is no port after the ':'")
    if not name:
        raise ValueError("there is no host")
    if not port:
        return name, DEFAULT_PORT
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= _PORTS):
        raise ValueError(f"{port!r} is no port: it is a number from 1 to {_PORTS}")
    return name, int(port)


def _network(name: str) -> Network | None:
    """Raises ValueError for a network with bits where its hosts are."""
    if "/" in name:
        try:
            return ipaddress.ip_network(name)
        except ValueError:
            raise ValueError(
                "a network is written as 192.168.1.0/24, with zeros for its hosts; a host has no path"
            ) from None
    address = address_of(name)
    return None if address is None else ipaddress.ip_network(str(address))


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)
