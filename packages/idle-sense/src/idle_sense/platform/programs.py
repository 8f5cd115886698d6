"""Who a process is, from the few files of proc(5) that any user may read."""

import os
import re
import sys
from typing import NamedTuple

PROC = "/proc"


class Program(NamedTuple):
    pid: int
    """Of the whole process, also where a thread's was asked for."""
    name: str
    """``comm``: 15 letters at most."""
    uid: int


def own_uid() -> int:
    assert sys.platform != "win32"  # noqa: S101 - tells type checkers that users have numbers
    return os.geteuid()


def program(pid: int, proc: str = PROC) -> Program | None:
    """Also by the id of a thread; None: there is none such, or it cannot be seen from here."""
    if pid <= 0:
        return None
    try:
        with open(f"{proc}/{pid}/status", "rb") as file:  # noqa: PTH123 - in the loop
            status = file.read(4096)
    except OSError:
        return None
    name = re.search(rb"^Name:\t(.*)$", status, re.MULTILINE)
    group = re.search(rb"^Tgid:\t(\d+)", status, re.MULTILINE)
    uid = re.search(rb"^Uid:\t(\d+)", status, re.MULTILINE)
    if name is None or group is None or uid is None:
        return None
    return Program(int(group[1]), name[1].decode("utf-8", "replace"), int(uid[1]))


def executable(pid: int, proc: str = PROC) -> str:
    """Name of the file that a process runs; empty where this user may not know."""
    try:
        return os.path.basename(os.readlink(f"{proc}/{pid}/exe"))  # noqa: PTH115, PTH119 - plain strings
    except OSError:
        return ""


class Accounts:
    """Names and home folders of users as /etc/passwd has them: the system's own look-up may ask a server that hangs."""

    def __init__(self, path: str = "/etc/passwd") -> None:
        self._path = path
        self._read_of: tuple[int, int] | None = None
        self._known: dict[int, tuple[str, str]] = {}

    def name(self, uid: int) -> str:
        """``uid 1234`` where the file does not know it."""
        return self._entry(uid)[0] or f"uid {uid}"

    def home(self, uid: int) -> str:
        """Empty where it is not known."""
        return self._entry(uid)[1]

    def _entry(self, uid: int) -> tuple[str, str]:
        if uid not in self._known:
            self._read()
        return self._known.get(uid, ("", ""))

    def _read(self) -> None:
        try:
            facts = os.stat(self._path)  # noqa: PTH116 - plain strings
            stamp = (facts.st_mtime_ns, facts.st_size)
            if stamp == self._read_of:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                lines = file.read(1 << 20).splitlines()
        except OSError:
            return
        self._read_of = stamp
        for line in lines:
            fields = line.split(":")
            if len(fields) >= 7 and fields[2].isdigit():
                self._known.setdefault(int(fields[2]), (fields[0], fields[5]))
