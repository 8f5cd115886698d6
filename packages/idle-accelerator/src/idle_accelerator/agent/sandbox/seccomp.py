"""The filter of system calls that guests run under: classic BPF (seccomp(2)), put together here without any library.

It allows all but what helps a program out of a sandbox, or what no task needs: an allow-list would break the next version of
somebody's C library. Namespaces and lost capabilities already stand in the way of most of it; the filter is the second wall.
"""

import errno
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER_AT: Final = 0  # offsets in struct seccomp_data
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_X32_BIT: Final = 0x40000000

_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}

NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET."""
_NEW_TIME: Final = 0x80
"""CLONE_NEWTIME; in clone(2) this bit belongs to the signal's number."""
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_FAMILIES: Final = (1, 2, 10, 16)
"""Unix, IPv4, IPv6 and netlink. Others, such as AF_VSOCK, know nothing of network namespaces."""
_PERSONALITIES: Final = (0, 0xFFFFFFFF)
"""The usual one, and the question which one it is."""

REFUSED: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
}
"""Answered with EPERM: number on x86_64 and on aarch64, None where that has no such call."""
ABSENT: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "clone3": (435, 435),  # its flags lie in memory, where a filter cannot look
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""Answered with ENOSYS: programs then take the older way."""
LOOKED_AT: Final[Mapping[str, tuple[int, int]]] = {
    "clone": (56, 220),
    "unshare": (272, 97),
    "socket": (41, 198),
    "ioctl": (16, 29),
    "personality": (135, 92),
}
"""Allowed or refused by their arguments."""


SHARED: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "inotify_add_watch": (254, 27),
    "socket": (41, 198),
}
"""Answered with EPERM where guests share the owner's namespaces: what reaches programs of the owner's, or tells of their doings."""
OF_OWNERS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
"""The same where guests are the owner's own user: what changes a file without opening it to write, which Landlock does not see."""
SET_TIMES: Final = (280, 88)
"""utimensat: refused there too, but for the present moment, which touch(1) sets."""
SELF_ALONE: Final[Mapping[str, tuple[int, int]]] = {
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "socketpair": (53, 199),
}
"""Allowed to a guest that shares the owner's namespaces for itself alone."""
_MARK: Final = 15
"""RLIMIT_RTTIME, by which ``host.linux`` tells whose an orphan is."""
_STREAM_PAIRS: Final = tuple(kind | flags for kind in (1, 5) for flags in (0, 0o4000, 0o2000000, 0o2004000))
"""SOCK_STREAM and SOCK_SEQPACKET with SOCK_NONBLOCK and SOCK_CLOEXEC: pairs that are connected for good. One of datagrams could be
used to write to a socket of the owner's."""

Shares = Literal["nothing", "machine", "user"]
"""What guests have in common with the owner: namespaces of their own · the machine, under a user of their own · the user as well."""


def machine() -> str | None:
    """The architecture by the name that this module gives it; None where there is no filter for it."""
    name = platform.machine().lower()
    name = _ALIASES.get(name, name)
    return name if name in _AUDIT else None


def assemble(architecture: str, *, shares: Shares = "nothing") -> bytes:
    """The filter as an array of ``struct sock_filter``, in this machine's byte order.

    Raises KeyError for an architecture other than x86_64 and aarch64.
    """
    column = list(_AUDIT).index(architecture)
    parts = [
        _op(_LOAD, _ARCHITECTURE_AT),
        _op(_JUMP_EQUAL, _AUDIT[architecture], yes=1, no=0),
        # 32-bit programs, by int 0x80 for example: their calls have other numbers.
        _refuse(errno.ENOSYS),
        _op(_LOAD, _NUMBER_AT),
    ]
    if architecture == "x86_64":
        parts += [_op(_JUMP_AT_LEAST, _X32_BIT, yes=0, no=1), _refuse(errno.ENOSYS)]
    parts += _each((row[column] for row in REFUSED.values()), errno.EPERM)
    parts += _each((row[column] for row in ABSENT.values()), errno.ENOSYS)
    if shares != "nothing":
        parts += _each((row[column] for row in SHARED.values()), errno.EPERM)
        for name, body in _for_itself():
            parts += [_op(_JUMP_EQUAL, SELF_ALONE[name][column], yes=0, no=len(body)), *body]
    if shares == "user":
        parts += _each((row[column] for row in OF_OWNERS.values()), errno.EPERM)
        body = _nothing(2)
        parts += [_op(_JUMP_EQUAL, SET_TIMES[column], yes=0, no=len(body)), *body]
    for name, body in (
        ("clone", _flags(NEW_NAMESPACES)),
        ("unshare", _flags(NEW_NAMESPACES | _NEW_TIME)),
        ("socket", _only(_FAMILIES, errno.EAFNOSUPPORT)),
        ("personality", _only(_PERSONALITIES, errno.EPERM)),
        ("ioctl", _but(_TIOCSTI, _TIOCLINUX)),
    ):
        parts += [_op(_JUMP_EQUAL, LOOKED_AT[name][column], yes=0, no=len(body)), *body]
    parts.append(_op(_RETURN, _ALLOW))
    return b"".join(parts)


def _each(numbers: Iterable[int | None], code: int) -> Iterator[bytes]:
    for number in numbers:
        if number is not None:
            yield _op(_JUMP_EQUAL, number, yes=0, no=1)
            yield _refuse(code)


def _for_itself() -> Iterator[tuple[str, list[bytes]]]:
    """By the first arguments: 0 stands for the process itself."""
    for name in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        yield name, _only((0,), errno.EPERM)
    not_the_mark = [_op(_JUMP_EQUAL, _MARK, yes=0, no=1), _refuse(errno.EPERM)]
    yield "setrlimit", [_load_argument(0), *not_the_mark, _op(_RETURN, _ALLOW)]
    yield "prlimit64", [*_check(0, (0,)), _load_argument(1), *not_the_mark, _op(_RETURN, _ALLOW)]
    yield "setpriority", [*_check(0, (0,)), *_only((0,), errno.EPERM, argument=1)]
    yield "ioprio_set", [*_check(0, (1,)), *_only((0,), errno.EPERM, argument=1)]
    yield "socketpair", [*_check(0, (1,)), *_only(_STREAM_PAIRS, errno.EPERM, argument=1)]


def _nothing(argument: int) -> list[bytes]:
    """A pointer that is NULL: both halves."""
    upper = _op(_LOAD, _ARGUMENTS_AT + 8 * argument + 4)
    return [
        *(_load_argument(argument), _op(_JUMP_EQUAL, 0, yes=0, no=3)),
        *(upper, _op(_JUMP_EQUAL, 0, yes=0, no=1)),
        *(_op(_RETURN, _ALLOW), _refuse(errno.EPERM)),
    ]


def _check(argument: int, allowed: tuple[int, ...]) -> list[bytes]:
    """Goes on behind it when the argument is one of these; refuses otherwise."""
    body = [_load_argument(argument)]
    for index, value in enumerate(allowed):
        body.append(_op(_JUMP_EQUAL, value, yes=len(allowed) - index, no=0))
    return [*body, _refuse(errno.EPERM)]


def _flags(forbidden: int) -> list[bytes]:
    return [
        _load_argument(0),
        _op(_JUMP_ANY_BIT, forbidden, yes=0, no=1),
        _refuse(errno.EPERM),
        _op(_RETURN, _ALLOW),
    ]


def _only(allowed: tuple[int, ...], code: int, *, argument: int = 0) -> list[bytes]:
    """The argument's lower half, which is all that the kernel takes of an int."""
    body = [_load_argument(argument)]
    for index, value in enumerate(allowed):
        body.append(_op(_JUMP_EQUAL, value, yes=len(allowed) - index, no=0))
    return [*body, _refuse(code), _op(_RETURN, _ALLOW)]


def _but(*refused: int) -> list[bytes]:
    body = [_load_argument(1)]
    for value in refused:
        body += [_op(_JUMP_EQUAL, value, yes=0, no=1), _refuse(errno.EPERM)]
    return [*body, _op(_RETURN, _ALLOW)]


def _load_argument(index: int) -> bytes:
    # Both architectures are little-endian: the lower half comes first.
    return _op(_LOAD, _ARGUMENTS_AT + 8 * index)


def _refuse(code: int) -> bytes:
    return _op(_RETURN, _ERRNO | code)


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; ``yes`` and ``no`` are how many to skip."""
    return _INSTRUCTION.pack(code, yes, no, value)
