"""Which sound devices run, and for which process: ALSA's world-readable files under /proc/asound (the kernel's
Documentation/sound/designs/procfile.rst). They tell of every user's programs, whatever sound server there is; a Bluetooth
headset is no ALSA device and is not there.
"""

import os
import re
from typing import NamedTuple

ASOUND = "/proc/asound"


class Stream(NamedTuple):
    device: str
    """``card0 pcm0c``."""
    capture: bool
    """It records; else it plays."""
    pid: int
    """Of the thread that opened it; 0: it cannot be seen from here."""


class Cards:
    """Reads the states of all streams. Their files are looked for anew now and then: cards come and go."""

    def __init__(self, folder: str = ASOUND) -> None:
        self._folder = folder
        self._files: list[tuple[str, str, bool]] = []

    @property
    def here(self) -> bool:
        """Whether there is any, or it is hidden: then reading says so."""
        try:
            return bool(_names(self._folder, r"card\d+"))
        except PermissionError:
            return True

    def look_around(self) -> None:
        """Finds all streams. Raises PermissionError where they are hidden from this user."""
        found: list[tuple[str, str, bool]] = []
        for card in _names(self._folder, r"card\d+"):
            for device in _names(f"{self._folder}/{card}", r"pcm\d+[cp]"):
                folder = f"{self._folder}/{card}/{device}"
                found += [
                    (f"{folder}/{stream}/status", f"{card} {device}", device.endswith("c"))
                    for stream in _names(folder, r"sub\d+")
                ]
        self._files = found

    @property
    def number(self) -> int:
        """How many streams there are."""
        return len(self._files)

    def running(self) -> tuple[Stream, ...]:
        """Streams in use now. Raises PermissionError as ``look_around``."""
        found: list[Stream] = []
        for path, device, capture in self._files:
            try:
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - in the loop
                    raw = file.read(1024)
            except PermissionError:
                raise
            except OSError:
                # The card was unplugged.
                continue
            pid = owner(raw)
            if pid is not None:
                found.append(Stream(device, capture, pid))
        return tuple(found)


def owner(status: bytes) -> int | None:
    """The process that a stream runs for; None: it does not run (``closed``, or a state in which no sound moves).

    A stream that waits to be drained, or lost samples (XRUN), is in use as well.
    """
    state = re.search(rb"^state:\s*(\w+)", status, re.MULTILINE)
    if state is None or state[1] not in (b"RUNNING", b"DRAINING", b"XRUN"):
        return None
    pid = re.search(rb"^owner_pid\s*:\s*(\d+)", status, re.MULTILINE)
    return 0 if pid is None else int(pid[1])


def _names(folder: str, pattern: str) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - in the loop
    except PermissionError:
        raise
    except OSError:
        return []
    return sorted(name for name in names if re.fullmatch(pattern, name))
