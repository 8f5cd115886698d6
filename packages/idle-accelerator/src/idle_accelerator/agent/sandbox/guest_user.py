"""Whom guests are to the kernel where root runs the agent: a user of their own, who owns nothing but their workspaces."""

import contextlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idle_accelerator.agent.sandbox.types import NoSandbox

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

import grp
import pwd

NAME: Final = "idle-guest"
VARIABLE: Final = "IDLE_GUEST_USER"
"""Names another one; a number is taken as well, of which no account has to know."""
MAKE: Final = f"sudo useradd --system --no-create-home --shell /usr/sbin/nologin {NAME}"
_PASS: Final = 0o710
_STREAMS: Final = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class GuestUser:
    """A user without any rights of the owner's."""

    name: str
    uid: int
    gid: int


def find() -> GuestUser | None:
    """None where the agent is no root: guests are then its own user. Raises NoSandbox where there is nobody to be."""
    if os.geteuid() != 0:
        return None
    wanted = os.environ.get(VARIABLE) or NAME
    found = _numbered(int(wanted)) if wanted.isdecimal() else _named(wanted)
    if found is None:
        raise NoSandbox(
            f"The agent runs as root, and there is no user {wanted!r} that its guests could be: root's guests pass for root"
            " wherever the kernel looks at files.",
            failing="fs",
            hint=f"Make the user: {MAKE}; or run the agent as a user of its own",
        )
    if found.uid == 0 or found.gid == 0:
        raise NoSandbox(
            f"{VARIABLE} names root, or somebody of its group.",
            failing="fs",
            hint=f"Name a user who may do nothing: {MAKE}",
        )
    return found


def _named(name: str) -> GuestUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return GuestUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)


def _numbered(uid: int) -> GuestUser:
    return GuestUser(name=str(uid), uid=uid, gid=uid)


def hand_over(workspace: Path, user: GuestUser) -> None:
    """Make all of a workspace its own. What a link points to is not touched. Raises OSError."""
    os.chown(workspace, user.uid, user.gid, follow_symlinks=False)
    for folder, folders, files in os.walk(workspace):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), user.uid, user.gid, follow_symlinks=False)  # noqa: PTH118  # many


def hand_over_streams(pid: int, user: GuestUser) -> None:
    """Its three streams, so that it can open /dev/stdout, which asks who made the pipe."""
    for number in _STREAMS:
        path = f"/proc/{pid}/fd/{number}"
        with contextlib.suppress(OSError):  # closed, or it has ended
            if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116  # as above
                os.chown(path, user.uid, user.gid)


def let_pass(workspace: Path, data_dir: Path, user: GuestUser) -> None:
    """Open the folders of the agent's above a workspace to this user's group, to pass through and no more. Raises OSError."""
    for folder in workspace.parents:
        if not folder.is_relative_to(data_dir):
            return
        found = folder.stat()
        if found.st_gid != user.gid or not found.st_mode & stat.S_IXGRP:
            os.chown(folder, -1, user.gid)
            folder.chmod(_PASS)


def closed_to(path: Path, user: GuestUser) -> Path | None:
    """The first folder on the way to this one through which the user may not pass; None when there is none."""
    groups = {user.gid, *(entry.gr_gid for entry in grp.getgrall() if user.name in entry.gr_mem)}
    for folder in reversed((path, *path.parents)):
        found = folder.stat()
        bit = (
            stat.S_IXUSR
            if found.st_uid == user.uid
            else stat.S_IXGRP
            if found.st_gid in groups
            else stat.S_IXOTH
        )
        if not found.st_mode & bit:
            return folder
    return None
