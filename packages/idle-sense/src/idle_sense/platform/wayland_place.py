"""Where a Wayland desktop is: known before anything that speaks with one is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    name: str
    """Of the seat: ``Wayland session 3 of ada``."""
    user: str
    folder: str
    """Its user's runtime folder, ``/run/user/1000``, where sockets are."""
    socket: str = ""
    """The one socket that is meant; empty: any in the folder."""
