"""What the long-running commands share: their log's format, and clear words for a port that is taken."""

import errno
import gc
import logging
import socket
import sys
from pathlib import Path

from idle_accelerator.errors import Conflict, InvalidInput

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def log_to_stderr(*, verbose: bool = False) -> None:
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=_FORMAT, stream=sys.stderr)
    # One line a request tells nobody anything.
    for chatty in ("httpx2", "httpcore2", "asyncio", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def check_port(host: str, port: int, *, flag: str, hint: str) -> None:
    """Raises Conflict when another program listens there, InvalidInput when this one may not."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"{host!r} is no address of this machine.",
            field="--host",
            hint="Use 127.0.0.1, or 0.0.0.0 for all.",
        ) from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        if sys.platform != "win32":
            # As the server binds: a port that is merely cooling down is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _port_error(error, host, port, flag=flag, hint=hint) from error


def _port_error(error: OSError, host: str, port: int, *, flag: str, hint: str) -> Conflict | InvalidInput:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"port {port} on {host} is taken by another program.", field=flag, hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        return InvalidInput(
            f"this user may not listen on port {port}.",
            field=flag,
            hint="Ports from 1024 on need no privilege.",
        )
    return InvalidInput(
        f"{host} cannot be listened on: {error.strerror}.",
        field="--host",
        hint="Use an address of this machine: 127.0.0.1, or 0.0.0.0 for all.",
    )


def reachable_host(host: str) -> str:
    """The address by which this machine itself reaches a server that listens on ``host``, ready for a URL."""
    if host in ("", "0.0.0.0"):  # noqa: S104  # compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def address_for_others(host: str) -> str:
    """The address by which other machines most likely reach this one. Nothing is sent to find it."""
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104  # as above
        return reachable_host(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # TEST-NET-1 (RFC 5737): only picks the interface with the default route
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def check_extra(module: str, *, extra: str) -> None:
    """Raises InvalidInput when a part of the installation is missing."""
    import importlib.util  # noqa: PLC0415  # two commands need it

    if importlib.util.find_spec(module) is None:
        raise InvalidInput(
            f"the part {extra!r} of idle-accelerator is not installed here.",
            hint=f"Install it: pip install 'idle-accelerator[{extra}]'",
        )


def make_data_dir(path: Path) -> Path:
    """The directory, made if it was missing, for this user alone. Raises InvalidInput when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be made: {error.strerror}.",
            field="--data-dir",
            hint="Name a directory you may write.",
        ) from error
    return path.resolve()


_COLLECT_AFTER = (50_000, 20, 100)


def settle_in() -> None:
    """Called when all is imported. What stands then is no garbage ever, and what comes is searched for it more rarely: with
    Python's own thresholds a sixth of the CPU of many small tasks goes into looking through what lives anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
