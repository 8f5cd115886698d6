"""The proxy of guests: a program of its own, so that their bytes delay nothing of the agent's. Standard library alone, for Linux.

Run as ``python -I proxy.py FD``: FD is a Unix socket to the agent, which carries one JSON object a message. ``open`` (with a guest's
network namespace as an open file), ``hold``, ``go`` and ``close`` come in; ``opened`` or ``failed``, ``moved`` and ``refused`` go out. It
ends when that line does.

A guest gets what its job asks for and the owner lends, and of that only public hosts: names are resolved here, once, and what they lead to is
looked at before it is connected to by its address, so that a name cannot lead to one address while it is looked at and to another
afterwards (DNS rebinding). Tunnels carry TLS, which is not opened.
"""

import json
import os
import socket
import sys
from pathlib import Path

from idle_accelerator.agent.network import namespace

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")


def fork_opener() -> socket.socket:
    """The line to a small process that makes listening sockets. To be called before there is any thread, and before much is loaded."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        here.close()
        try:
            namespace.serve(there)
        finally:
            os._exit(0)
    there.close()
    return here


def main() -> int:
    line = socket.socket(fileno=int(sys.argv[1]))
    opener = fork_opener()
    # Loaded after the fork: the process beside this one stays small, and its forks quick.
    import asyncio  # noqa: PLC0415

    from idle_accelerator.agent.network.doors import Doors  # noqa: PLC0415

    return asyncio.run(Doors(line, opener).serve())


def command(descriptor: int) -> tuple[str, ...]:
    """What starts it."""
    return (sys.executable, "-I", str(Path(__file__)), str(descriptor))


def encode(**message: object) -> bytes:
    """One message."""
    return json.dumps(message, separators=(",", ":")).encode()


if __name__ == "__main__":
    sys.exit(main())
