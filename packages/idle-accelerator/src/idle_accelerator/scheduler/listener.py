"""The socket that the API listens on, with errors that say which option to change."""

import errno
import socket

from idle_accelerator.errors import Conflict, InvalidInput

_TAKEN = frozenset({errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, getattr(errno, "WSAEACCES", errno.EACCES)})


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises Conflict when the port is taken, InvalidInput when it may not be used or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OverflowError as error:
        raise InvalidInput(
            f"{port} is not a port.", field="--port", hint="Ports go from 1 to 65535; 0 takes a free one."
        ) from error
    except OSError as error:
        if error.errno in _TAKEN:
            raise Conflict(
                f"port {port} of {host} is taken.",
                field="--port",
                hint="Stop the program that has it, or choose another with --port.",
            ) from error
        if error.errno in _FORBIDDEN:
            raise InvalidInput(
                f"port {port} may not be used.", field="--port", hint="Choose one above 1023 with --port."
            ) from error
        raise InvalidInput(
            f"cannot listen on {host}: {error.strerror or error}.",
            field="--host",
            hint="Give an address of this machine, 127.0.0.1 for this machine alone or 0.0.0.0 for all of its networks.",
        ) from error
