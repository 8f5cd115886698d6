"""Who is logged in where, as login programs note it in /run/utmp (utmp(5)), for machines without logind.

Some distributions no longer keep this file, and musl's never did: then nobody is told, and that is no failure.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

UTMP = "/run/utmp"
_USER_PROCESS = 7
_MOST_BYTES = 1 << 20

_HEAD = struct.Struct("=h2xi32s4s32s256s")
"""type, process, line, id, user, host: the same in both layouts."""
SIZES = (384, 400)
"""Of one record: where glibc keeps 32-bit times for the sake of old programs (x86, 32-bit ARM), and where it does not
(64-bit ARM, RISC-V): there ``ut_session`` and ``ut_tv`` are long, and the record ends on a multiple of 8."""


@dataclass(frozen=True, kw_only=True)
class Login:
    user: str
    line: str
    """Without ``/dev/``: ``pts/3``, ``tty1``."""
    host: str
    """The machine it came from; ``:0`` and the like for terminal windows of a desktop; empty: a console."""
    pid: int

    @property
    def remote(self) -> bool:
        """From another machine. ``tmux(4711).%0`` and ``:pts/2:S.0`` (screen) are windows of a terminal multiplexer."""
        return bool(self.host) and not self.host.startswith((":", "tmux(", "screen"))


def logins(path: str = UTMP, proc: str = "/proc") -> tuple[Login, ...]:
    """Logins whose process is alive: a crash leaves records behind. Empty where there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - in the loop
            raw = file.read(_MOST_BYTES)
    except OSError:
        return ()
    return tuple(login for login in parsed(raw) if os.path.exists(f"{proc}/{login.pid}"))  # noqa: PTH110


def parsed(raw: bytes) -> tuple[Login, ...]:
    """The logins in the bytes of a utmp file, whichever layout they have; empty for what is none."""
    for size in SIZES:
        records = list(_records(raw, size))
        if raw and len(raw) % size == 0 and all(_plausible(record) for record in records):
            return tuple(
                Login(user=_text(user), line=_text(line), host=_text(host), pid=pid)
                for kind, pid, line, _, user, host in records
                if kind == _USER_PROCESS and pid > 0 and line.strip(b"\0")
            )
    return ()


def _records(raw: bytes, size: int) -> Iterator[tuple[int, int, bytes, bytes, bytes, bytes]]:
    for offset in range(0, len(raw) - size + 1, size):
        yield _HEAD.unpack_from(raw, offset)


def _plausible(record: tuple[int, int, bytes, bytes, bytes, bytes]) -> bool:
    kind, pid, line, _, _, _ = record
    return 0 <= kind <= 9 and pid >= 0 and _text(line).isprintable()


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
