"""The web page: its own process, which speaks to the scheduler through the SDK alone.

This module imports nothing heavy, so that whoever starts the page need not load it.
"""

import ipaddress
import sys
from pathlib import Path

from idle_accelerator.errors import InvalidInput

UPLOAD_LIMIT_MIB = 200
"""Of one input file on the submit page; the page holds uploads in memory. Larger ones go by ``idlectl submit --input``."""

_LIGHT = {"primaryColor": "#0f766e", "linkColor": "#0f766e"}
_DARK = {"primaryColor": "#2dd4bf", "linkColor": "#5eead4"}


def command(*, port: int, address: str = "127.0.0.1") -> list[str]:
    """The argument vector that starts the page. Its scheduler is in IDLE_SCHEDULER and IDLE_KEY.

    Raises InvalidInput for an address beyond loopback: the page has no log-in of its own, so whoever can open it
    acts with its key.
    """
    if not _is_loopback(address):
        raise InvalidInput(
            f"the page has no log-in of its own, so it serves on loopback only, not on {address!r}.",
            field="address",
            hint=f"Keep 127.0.0.1 and reach it from elsewhere by: ssh -L {port}:127.0.0.1:{port} HOST",
        )
    options = {
        "server.port": str(port),
        "server.address": address,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": str(UPLOAD_LIMIT_MIB),
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "runner.magicEnabled": "false",
        **{f"theme.light.{name}": value for name, value in _LIGHT.items()},
        **{f"theme.dark.{name}": value for name, value in _DARK.items()},
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # Against DNS rebinding: a web site whose name turns into a loopback address sends its own name as Host.
    flags += [f"--server.allowedHosts={host}" for host in ("localhost", "127.0.0.1", "::1")]
    return [sys.executable, "-m", "streamlit", "run", str(Path(__file__).with_name("app.py")), *flags]


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
