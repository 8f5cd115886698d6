"""Programs that asked logind to keep the machine awake or its screen on, from the files that logind keeps of them
(``/run/systemd/inhibit``; elogind: the same). A file cannot hang, and tells of all users."""

import os
import re
from dataclasses import dataclass

INHIBIT = "/run/systemd/inhibit"


@dataclass(frozen=True, kw_only=True)
class Inhibitor:
    who: str
    why: str
    pid: int
    uid: int


def idle_inhibitors(folder: str = INHIBIT) -> tuple[Inhibitor, ...]:
    """Those that block idleness; ``delay`` only puts something off for seconds, and what blocks sleep or shutdown alone
    (a package manager, say) does not speak of anybody watching. Empty where there is no logind."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - in the loop
    except OSError:
        return ()
    found: list[Inhibitor] = []
    for name in names:
        if name.endswith(".ref"):
            continue
        try:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - in the loop
                text = file.read(65536)
        except OSError:
            # It ended between the listing and the look.
            continue
        inhibitor = parsed(text)
        if inhibitor is not None:
            found.append(inhibitor)
    return tuple(found)


def parsed(text: str) -> Inhibitor | None:
    """What one file says; None where it does not block idleness."""
    values = {key: _unquoted(value) for key, _, value in (line.partition("=") for line in text.splitlines())}
    if "idle" not in values.get("WHAT", "").split(":") or not values.get("MODE", "block").startswith("block"):
        return None
    return Inhibitor(
        who=_unescaped(values.get("WHO", "")) or "a program without name",
        why=_unescaped(values.get("WHY", "")),
        pid=_number(values.get("PID", "")),
        uid=_number(values.get("UID", "")),
    )


def _unquoted(text: str) -> str:
    """Newer versions quote what is special, as a shell would."""
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _unescaped(text: str) -> str:
    r"""systemd's ``cescape``: ``\x20`` and octal ``\040`` for what is special, a backslash doubled by the file's own quoting."""
    raw = text.replace("\\\\", "\\").encode("utf-8", "surrogateescape")
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda found: bytes([int(found[1], 16)]), raw)
    raw = re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), raw)
    return re.sub(rb"\\(.)", rb"\1", raw).decode("utf-8", "replace")
