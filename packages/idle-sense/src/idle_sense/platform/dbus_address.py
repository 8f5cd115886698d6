"""Where buses of D-Bus are. Known before anything that speaks with one is loaded."""

from collections.abc import Mapping


def session_address(environ: Mapping[str, str], uid: int) -> str:
    """The session bus of this process, else the one that systemd keeps for the user (``/run/user/UID/bus``)."""
    return environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path=/run/user/{uid}/bus"


def system_address(environ: Mapping[str, str]) -> str:
    return environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"


def unix_path(address: str) -> str | None:
    """The path to connect to, a leading NUL for abstract names; None: no Unix socket among them.

    D-Bus Specification, server addresses: ``transport:key=value,key=value;…`` with %XX for what is special.
    """
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        if transport != "unix":
            continue
        for pair in rest.split(","):
            key, _, value = pair.partition("=")
            if key in ("path", "abstract") and value:
                return ("" if key == "path" else "\0") + _unescaped(value)
    return None


def _unescaped(text: str) -> str:
    pieces = text.split("%")
    try:
        return pieces[0] + "".join(chr(int(piece[:2], 16)) + piece[2:] for piece in pieces[1:])
    except ValueError:
        return text
