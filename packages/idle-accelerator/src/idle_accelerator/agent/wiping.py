"""Removing what a task left, whatever it is: by descriptors, so that nothing is removed but what lies in the folder.

Folders are entered one by one and never through links or mounts; what lies deep is first moved up, so that neither descriptors nor
memory grow with depth. Work is done in steps that keep nothing open between them: each begins at the top again, where less is left.
"""

import contextlib
import ctypes
import errno
import os
import platform
import secrets
import shutil
import stat
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Final, Literal

DEEP: Final = 32
"""Folders below each other that are entered at once."""
GIVE_UP_AFTER: Final = 1000
"""Names of one folder that cannot be removed: the rest is not tried."""
_OURS: Final = "idle-moved-up-"
State = Literal["gone", "more", "stuck"]


class _Enough(Exception):
    """The step has removed as much as it may, or there is too much that it cannot."""


class Wiping:
    """Removes one file or folder, step by step. Each step may run in another thread, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        """Why something is left, in words; of the last step."""
        self.left_bytes = 0
        """What is left takes so much of the disk, as far as the last step has seen it."""
        self._left = 0
        self._failures = 0

    def step(self, names: int) -> State:
        """Removes about so many names. "gone" was verified; "stuck" may be tried again later."""
        self.problem, self.left_bytes, self._failures, self._left = "", 0, 0, names
        try:
            if sys.platform == "win32":
                _remove_by_path(self.path)
            else:
                self._remove_from(self.path.parent, self.path.name)
        except _Enough:
            return "stuck" if self._failures > GIVE_UP_AFTER else "more"
        except OSError as error:
            self.problem = self.problem or f"{error.filename or self.path}: {error.strerror or error}"
        if not os.path.lexists(self.path):
            return "gone"
        self.problem = self.problem or f"{self.path} is still there after it was removed"
        return "stuck"

    if sys.platform != "win32":

        def _remove_from(self, folder: Path, name: str) -> None:
            parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    self._remove_folder(parent, name, None, 0)
                else:
                    self._remove_file(parent, name)
            except FileNotFoundError:
                return
            finally:
                os.close(parent)

        def _empty_and_remove(self, parent: int, name: str, top: int | None, depth: int) -> bool:
            """Whether the folder is gone, or at least something in it. Raises OSError when it cannot be entered."""
            folder = _enter(parent, name)
            before = self._failures, self.left_bytes
            did = False
            try:
                # Again while it helps: some file systems pass names over while others are removed, and what was moved up comes last.
                while self._empty(folder, folder if top is None else top, depth + 1):
                    did = True
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=parent)
                        return True
                    self._failures, self.left_bytes = before  # The last pass tells.
                if not _rmdir_empty(parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError as error:
                self._failed(parent, name, error)
                return did
            finally:
                os.close(folder)
            return True

        def _empty(self, folder: int, top: int, depth: int) -> bool:
            """Whether anything was removed or moved up."""
            did = False
            with os.scandir(folder) as entries:
                for entry in entries:
                    if self._left <= 0:
                        raise _Enough
                    if entry.is_dir(follow_symlinks=False):
                        went = self._remove_folder(folder, entry.name, top, depth)
                    else:
                        went = self._remove_file(folder, entry.name)
                    if went:
                        self._left -= 1
                        did = True
            return did

        def _remove_file(self, folder: int, name: str) -> bool:
            try:
                _unlink(folder, name)
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno == errno.EISDIR:  # It was a file a moment ago; the next pass sees the folder.
                    return True
                self._failed(folder, name, error)
                return False
            return True

        def _remove_folder(self, parent: int, name: str, top: int | None, depth: int) -> bool:
            """``top``: the folder that is wiped, to which deep ones are moved up; None for itself."""
            try:
                if top is not None and _rmdir_empty(parent, name):
                    return True
                if top is not None and depth >= DEEP:
                    _move_up(parent, name, top)
                    return True
                return self._empty_and_remove(parent, name, top, depth)
            except FileNotFoundError:
                return True
            except OSError as error:
                self._failed(parent, name, error)
                return False

        def _failed(self, folder: int, name: str, error: OSError) -> None:
            self._failures += 1
            # A folder that is not empty says no more than what was said of its content.
            if not self.problem:
                self.problem = (
                    f"{os.fsencode(name).decode(errors='backslashreplace')!r}: {error.strerror or error}"
                )
            with contextlib.suppress(OSError):
                self.left_bytes += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
            if self._failures > GIVE_UP_AFTER:
                raise _Enough


def rename_away(path: Path, to: Path) -> None:
    """Also where the folder was made immutable. Raises OSError."""
    try:
        path.rename(to)
    except PermissionError:
        if sys.platform == "win32":
            raise
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _unlock(parent, path.name)
            os.rename(path.name, to, src_dir_fd=parent)
        finally:
            os.close(parent)


def _remove_by_path(path: Path) -> None:
    """Windows. Signature-only. Junctions and links are removed, not followed."""

    def allow_and_retry(remove: object, name: str, problem: object) -> None:
        del problem
        Path(name).chmod(stat.S_IRWXU)
        if callable(remove):
            remove(name)

    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=allow_and_retry)
    else:
        shutil.rmtree(path, onerror=allow_and_retry)


if sys.platform != "win32":
    from idle_accelerator.agent.folders.posix import open_below

    _FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    def _unlink(folder: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=folder)
        except PermissionError:
            # macOS says this of folders as well, which the next pass sees as such.
            _allow(folder)
            _unlock(folder, name)
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _unmount(folder, name)
            os.unlink(name, dir_fd=folder)

    def _rmdir_empty(parent: int, name: str) -> bool:
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return True
        except PermissionError:
            _allow(parent)
            _unlock(parent, name)
            return False
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EXDEV):
                _unmount(parent, name)
            elif error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _enter(parent: int, name: str) -> int:
        try:
            return open_below(parent, name, _FOLDER)
        except PermissionError:
            _allow(parent)
            _allow_below(parent, name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _unmount(parent, name)
        return open_below(parent, name, _FOLDER)

    def _move_up(parent: int, name: str, top: int) -> None:
        to = _OURS + secrets.token_hex(8)
        try:
            os.rename(name, to, src_dir_fd=parent, dst_dir_fd=top)
        except PermissionError:
            # A folder that comes to another place is written to: its ``..``.
            _allow(parent)
            _unlock(parent, name)
            _allow_below(parent, name)
            os.rename(name, to, src_dir_fd=parent, dst_dir_fd=top)

    def _allow(folder: int) -> None:
        """All rights to an open folder for its owner, whatever was taken away."""
        _clear_flags(folder)
        os.fchmod(folder, stat.S_IRWXU)

    def _allow_below(parent: int, name: str) -> None:
        """The same for one that cannot be opened. No link is followed."""
        if os.chmod in os.supports_follow_symlinks:
            os.chmod(name, stat.S_IRWXU, dir_fd=parent, follow_symlinks=False)
            return
        path_only = getattr(os, "O_PATH", os.O_RDONLY)
        found = open_below(parent, name, _FOLDER | path_only)
        try:
            # What is open is changed, by way of its name in /proc: fchmod does not take such a descriptor.
            os.chmod(f"/proc/self/fd/{found}", stat.S_IRWXU)  # noqa: PTH101  # a descriptor, no path
        finally:
            os.close(found)

    def _unlock(folder: int, name: str) -> None:
        """Take away what keeps even root from removing a file or folder: immutable, append-only. Only root may."""
        if os.geteuid() != 0 or _flag_calls() is None:
            return
        with contextlib.suppress(OSError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return
            found = open_below(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _clear_flags(found)
            finally:
                os.close(found)

    def _clear_flags(descriptor: int) -> None:
        calls = _flag_calls()
        if calls is None or os.geteuid() != 0:
            return
        import fcntl  # noqa: PLC0415  # next to never

        get, put = calls
        # OSError: this file system has no such flags.
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, get, bytes(4)))
            if flags & _KEPT_FLAGS:
                fcntl.ioctl(descriptor, put, struct.pack("i", flags & ~_KEPT_FLAGS))

    _KEPT_FLAGS: Final = 0x10 | 0x20
    """FS_IMMUTABLE_FL, FS_APPEND_FL"""

    @cache
    def _flag_calls() -> tuple[int, int] | None:
        """FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of ioctl(2), where their numbers are known."""
        if sys.platform != "linux" or platform.machine() not in (
            "x86_64",
            "i686",
            "aarch64",
            "armv7l",
            "riscv64",
            "loongarch64",
            "s390x",
        ):
            return None
        return (0x80086601, 0x40086602) if ctypes.sizeof(ctypes.c_long) == 8 else (0x80046601, 0x40046602)

    _MNT_DETACH: Final = 2
    _UMOUNT_NOFOLLOW: Final = 8

    def _unmount(folder: int, name: str) -> None:
        """Takes away what was mounted there; its content is not touched. Raises OSError where that may not be done."""
        if sys.platform != "linux":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        library = ctypes.CDLL(None, use_errno=True)
        # The way to it is the open folder, not a path that somebody could change.
        target = f"/proc/self/fd/{folder}/".encode() + os.fsencode(name)
        if library.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"something is mounted there: {os.strerror(number)}", name)
