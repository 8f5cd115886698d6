"""Who may speak to the scheduler.

Bound to loopback, it needs no key: whoever can reach it sits at the machine. A web page in that person's browser can reach
it too, by DNS rebinding or a cross-site request, so Host and Origin must name loopback. Bound anywhere else, every
request needs the key that the first start made.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from idle_accelerator.errors import Forbidden, Unauthorized

KEY_PREFIX = "idle_"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def token_hash(secret: str) -> str:
    """What is kept of a key or token. They are 256 random bits, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def load_or_make_key(path: Path) -> str:
    """The scheduler's key, from a file that only its owner can read. Never empty: an empty file gets a new key."""
    known = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if known:
        return known
    secret = new_secret()
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return secret


def is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


class KnownTokens:
    """Tokens of nodes that were found in the store lately: each exchange carries one.

    An entry is believed for KNOWN_FOR_S, since another process may remove a node; this one calls ``forget``.
    """

    KNOWN_FOR_S: ClassVar[float] = 10.0
    _LIMIT: ClassVar[int] = 10_000

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[str, float]] = {}

    def get(self, hashed: str, *, now: float) -> str | None:
        """The node's id, if it is known."""
        node_id, until = self._nodes.get(hashed, ("", 0.0))
        return node_id if now < until else None

    def keep(self, hashed: str, node_id: str, *, now: float) -> None:
        if len(self._nodes) >= self._LIMIT:
            self._nodes.clear()
        self._nodes[hashed] = (node_id, now + self.KNOWN_FOR_S)

    def forget(self, node_id: str) -> None:
        self._nodes = {hashed: entry for hashed, entry in self._nodes.items() if entry[0] != node_id}


class Gate:
    """Decides whether a request may pass. ``key_hash`` is None on loopback."""

    def __init__(self, *, key_hash: str | None, allowed_hosts: Iterable[str] = ()) -> None:
        self._key_hash = key_hash
        self._allowed = _LOOPBACK_NAMES | {host.lower() for host in allowed_hosts}

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Without a key, Host and Origin are all that tells the user's own program from a web page. Raises Forbidden."""
        if self._key_hash is not None:
            return
        host = _host_of("//" + headers.get("host", ""))
        if host not in self._allowed:
            raise Forbidden(
                f"this scheduler answers to loopback names only, not to {host!r}.",
                field="Host",
                hint="Use http://127.0.0.1, or start the scheduler with --host to let other machines in.",
            )
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) not in self._allowed:
            raise Forbidden("requests from other web sites are refused.", field="Origin")

    def is_user(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the key, or needs none."""
        if self._key_hash is None:
            return True
        secret = bearer(headers)
        return secret is not None and hmac.compare_digest(token_hash(secret), self._key_hash)

    def check_user(self, headers: Mapping[str, str]) -> None:
        """Raises Unauthorized without the key."""
        if not self.is_user(headers):
            given = "this key is not the scheduler's." if bearer(headers) else "this scheduler needs a key."
            raise Unauthorized(
                given,
                field="Authorization",
                hint="Give it with --key or IDLE_KEY; it stands in scheduler.key in the scheduler's data directory.",
            )


@lru_cache(maxsize=256)
def _host_of(url: str) -> str:
    """Cached: nearly all requests name the same one."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
