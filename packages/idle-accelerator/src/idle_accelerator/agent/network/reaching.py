"""Where a name leads to, and whether a guest may go there; the connection is made to what was looked at. Standard library alone."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Final

from idle_accelerator.wire.hosts import Address, HostPattern, address_of, is_public

RESOLVE_S: Final = 10.0
CONNECT_S: Final = 10.0
_TRIED: Final = 4
"""Of the addresses of one name."""


class RefusedError(Exception):
    """A guest may not go there, or it cannot be reached: the code of a reason, and what it says beside the host."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


async def resolve(name: str, port: int) -> list[Address]:
    """In the order in which they are to be tried. Raises RefusedError where there are none."""
    single = address_of(name)
    if single is not None:
        return [single]
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise RefusedError("network.unreachable", "its name was not resolved in time") from None
    except (OSError, UnicodeError) as error:
        detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RefusedError("network.unreachable", detail) from None
    addresses = [address_of(str(item[4][0])) for item in found]
    return [address for address in dict.fromkeys(addresses) if address is not None]


def permitted(addresses: Sequence[Address], port: int, *, named: Sequence[HostPattern]) -> list[Address]:
    """Those that a guest may go to: public hosts, and what the owner names by its address. Never this machine, unless it is named.

    Raises RefusedError where there are none.
    """
    kept: list[Address] = []
    for address in addresses:
        by_name = any(one.network is not None and one.admits(str(address), port) for one in named)
        if by_name or (is_public(address) and not is_own(address)):
            kept.append(address)
    if addresses and not kept:
        raise RefusedError("network.not_public", str(addresses[0]))
    return kept


def is_own(address: Address) -> bool:
    """Whether it is this machine's: then the kernel would go there from the same address. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # the protocol's number
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect((str(address), 9))
        return str(line.getsockname()[0]) == str(address)
    return False


async def connect(addresses: Sequence[Address], port: int) -> socket.socket:
    """The first that answers. Raises RefusedError."""
    loop = asyncio.get_running_loop()
    detail = "it has no address"
    for address in addresses[:_TRIED]:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # as above
        line = socket.socket(family, socket.SOCK_STREAM)
        line.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(line, (str(address), port))
        except TimeoutError:
            line.close()
            detail = f"{address} does not answer"
        except OSError as error:
            line.close()
            detail = f"{address}: {error.strerror or error}"
        except BaseException:
            line.close()
            raise
        else:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return line
    raise RefusedError("network.unreachable", detail)
