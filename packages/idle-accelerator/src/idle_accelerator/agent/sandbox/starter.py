"""Becomes a guest of tier ``landlock`` or ``container``: gives its rights away for good, then the program takes its place.

Run as ``python -I -S starter.py PLAN SAID``. PLAN is the number of an open file, or a path, with JSON in it: what to run and what it
may do, as the tier wrote it. SAID is an open pipe, closed when the program has begun; what goes wrong is written there before. With ``-``
for SAID it is the first process of a pid namespace: it says what goes wrong on stderr, and stays: it hands SIGTERM on,
collects orphans, and ends as the program does, or with 128 and the signal's number. A script of the standard library
alone, for Linux. See landlock(7), seccomp(2), prctl(2), capabilities(7), pid_namespaces(7).
"""

import base64
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, Final

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
"""The same numbers on all architectures."""
_BENEATH: Final = 1
_BENEATH_PATH: Final = struct.Struct("=Qi")
_RULESET: Final = struct.Struct("=QQQ")
_FILE_RIGHTS: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""What can be allowed of a file that is no folder: execute, write, read, truncate, ioctl of devices."""
_SET_NO_NEW_PRIVILEGES: Final = 38
_SET_SECCOMP: Final = 22
_FILTER: Final = 2
_DROP_BOUND: Final = 24
_CAPABILITIES: Final = 64
_CAPABILITY_HEADER: Final = struct.Struct("=Ii")
_CAPABILITY_VERSION: Final = 0x20080522
_NOT_BEGUN: Final = 125
"""podman's own exit status for what it could not start."""
_FAILED: Final = "idle-accelerator: the guest was not started: "
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _checked(result: int, what: str) -> int:
    """Raises OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _restrict_files(plan: dict[str, Any]) -> None:
    attributes = _RULESET.pack(plan["files"], plan["ports"], plan["scopes"])
    rules = _checked(
        _libc.syscall(CREATE_RULESET, attributes, plan["ruleset_bytes"], 0), "landlock_create_ruleset"
    )
    for rights, paths in plan["rules"]:
        for path in paths:
            allowed = rights
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if not os.path.isdir(path):  # noqa: PTH112  # pathlib takes longer to load than all of this
                allowed &= _FILE_RIGHTS
            beneath = _BENEATH_PATH.pack(allowed, place)
            _checked(_libc.syscall(ADD_RULE, rules, _BENEATH, beneath, 0), f"landlock_add_rule of {path}")
            os.close(place)
    _checked(_libc.syscall(RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _become(user: list[int] | None) -> None:
    """That user without any capability, or this one without any."""
    for number in range(_CAPABILITIES):  # those that this kernel does not know are refused, which is as well
        _libc.prctl(_DROP_BOUND, number, 0, 0, 0)
    if user is not None:
        uid, gid = user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header, none = _CAPABILITY_HEADER.pack(_CAPABILITY_VERSION, 0), bytes(24)
    _checked(_libc.capset(header, none), "capset")


def _filter_calls(instructions: bytes) -> None:
    program = _Program(len(instructions) // 8, instructions)
    _checked(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0), "the filter of system calls")


def _become_guest(plan: dict[str, Any]) -> None:
    """Does not return. Raises OSError."""
    for limit, values in plan["limits"]:
        resource.setrlimit(limit, values)
    _checked(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    if plan["rules"]:
        _restrict_files(plan)
    _become(plan["user"])
    if plan["filter"]:
        _filter_calls(base64.b64decode(plan["filter"]))
    os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606  # it is the guest


def _look_after(plan: dict[str, Any]) -> int:
    """As the first process of a pid namespace, which hears no signal that it has no handler for."""
    program = os.fork()
    if program == 0:
        os.setsid()
        try:
            _become_guest(plan)
        except (OSError, ValueError) as error:
            os.write(2, f"{_FAILED}{error}\n".encode())
        os._exit(_NOT_BEGUN)

    def hand_on(number: int, _frame: object) -> None:
        os.killpg(program, number)

    signal.signal(signal.SIGTERM, hand_on)
    while True:
        pid, status = os.wait()
        if pid == program:
            break
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main() -> int:
    given, said = sys.argv[1:]
    with open(int(given) if given.isdecimal() else given, encoding="utf-8") as file:  # noqa: PTH123  # a number, mostly; closes it
        plan = json.load(file)
    if said == "-":
        return _look_after(plan)
    os.set_inheritable(int(said), False)
    try:
        _become_guest(plan)
    except (OSError, ValueError) as error:
        os.write(int(said), str(error).encode())
    return _NOT_BEGUN


if __name__ == "__main__":
    sys.exit(main())
