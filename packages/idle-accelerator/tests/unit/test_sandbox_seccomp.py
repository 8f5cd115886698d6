"""The filter of system calls, run by an interpreter of the few instructions that it uses."""

import errno
import re
import struct
from pathlib import Path

import pytest

from idle_accelerator.agent.sandbox import seccomp

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW = 0x7FFF0000
_NEWER_THAN_HEADERS = 450
"""Of calls with such numbers older headers know nothing."""
_HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
_TABLES = {**seccomp.REFUSED, **seccomp.ABSENT, **seccomp.LOOKED_AT}
_SHARING = {**seccomp.SHARED, **seccomp.OF_OWNERS, **seccomp.SELF_ALONE, "utimensat": seccomp.SET_TIMES}
both = pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])


def answer(
    architecture: str,
    number: int,
    *arguments: int,
    audit: int | None = None,
    shares: seccomp.Shares = "nothing",
) -> int:
    """What the kernel would do: 0 to allow, else the errno."""
    program = list(struct.iter_unpack("=HBBI", seccomp.assemble(architecture, shares=shares)))
    values = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, _AUDIT[architecture] if audit is None else audit, 0, *values)
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return 0 if value == _ALLOW else value & 0xFFFF
        else:
            met = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += yes if met else no


def number(architecture: str, name: str) -> int:
    found = _TABLES[name][list(_AUDIT).index(architecture)]
    assert found is not None
    return found


@both
def test_what_leads_out_of_a_sandbox_is_refused_and_the_usual_calls_are_not(architecture: str) -> None:
    column = list(_AUDIT).index(architecture)
    for row in seccomp.REFUSED.values():
        if row[column] is not None:
            assert answer(architecture, row[column] or 0) == errno.EPERM
    for row in seccomp.ABSENT.values():
        assert answer(architecture, row[column] or 0) == errno.ENOSYS
    named = {row[column] for row in _TABLES.values()}
    for usual in range(450):
        if usual not in named:
            assert answer(architecture, usual) == 0


def test_no_call_that_is_known_to_lead_out_is_forgotten() -> None:
    refused = {"ptrace", "bpf", "userfaultfd", "keyctl", "add_key", "request_key", "setns", "perf_event_open"}
    refused |= {
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsmount",
        "mount_setattr",
    }
    refused |= {"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"}
    refused |= {"open_by_handle_at", "process_vm_readv", "process_vm_writev", "pidfd_getfd"}
    assert refused <= set(seccomp.REFUSED)
    assert {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"} == set(seccomp.ABSENT)


@both
def test_new_namespaces_are_refused_and_threads_and_children_are_not(architecture: str) -> None:
    clone, unshare = number(architecture, "clone"), number(architecture, "unshare")
    for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x02000000, 0x04000000, 0x08000000):
        assert answer(architecture, clone, flag | 17) == errno.EPERM
        assert answer(architecture, unshare, flag) == errno.EPERM
    thread = 0x003D0F00
    assert answer(architecture, clone, thread) == 0
    assert answer(architecture, clone, 17) == 0
    assert answer(architecture, unshare, 0x400) == 0


@both
def test_sockets_are_of_the_families_that_a_network_namespace_holds(architecture: str) -> None:
    socket = number(architecture, "socket")
    assert [answer(architecture, socket, family) for family in (1, 2, 10, 16)] == [0] * 4
    for family in (0, 3, 17, 38, 40, 44):
        assert answer(architecture, socket, family) == errno.EAFNOSUPPORT


@both
def test_nothing_is_typed_into_a_terminal_and_other_requests_pass(architecture: str) -> None:
    ioctl = number(architecture, "ioctl")
    assert answer(architecture, ioctl, 0, 0x5412) == errno.EPERM
    assert answer(architecture, ioctl, 0, 0x541C) == errno.EPERM
    # The kernel takes the lower half of the request alone.
    assert answer(architecture, ioctl, 0, 0x1_0000_5412) == errno.EPERM
    assert answer(architecture, ioctl, 0, 0x5413) == 0


@both
def test_the_personality_stays_the_usual_one(architecture: str) -> None:
    personality = number(architecture, "personality")
    assert answer(architecture, personality, 0) == 0
    assert answer(architecture, personality, 0xFFFFFFFF) == 0
    assert answer(architecture, personality, 0x0040000) == errno.EPERM


@both
def test_calls_of_another_architecture_are_unknown(architecture: str) -> None:
    assert answer(architecture, 1, audit=0x40000003) == errno.ENOSYS


def test_calls_by_the_x32_numbers_are_unknown() -> None:
    assert answer("x86_64", 0x40000000 | 1) == errno.ENOSYS


@both
def test_who_shares_the_machine_with_the_owner_has_no_socket_and_no_memory_of_others(
    architecture: str,
) -> None:
    column = list(_AUDIT).index(architecture)
    for name, row in seccomp.SHARED.items():
        assert answer(architecture, row[column] or 0, 1, shares="machine") == errno.EPERM, name
        if name != "socket":
            assert answer(architecture, row[column] or 0, 1) == 0, "of its own, where it has namespaces"


@both
def test_the_owners_files_keep_their_modes_where_guests_are_the_owner(architecture: str) -> None:
    column = list(_AUDIT).index(architecture)
    for row in seccomp.OF_OWNERS.values():
        if row[column] is not None:
            assert answer(architecture, row[column] or 0, shares="user") == errno.EPERM
            assert answer(architecture, row[column] or 0, shares="machine") == 0
    times = seccomp.SET_TIMES[column]
    assert answer(architecture, times, 3, 0x1000, 0, shares="user") == 0, (
        "the present moment, as touch sets it"
    )
    for pointer in (0x7FFF_0000_0000, 0x1000, 0x1_0000_0000):
        assert answer(architecture, times, 3, 0x1000, pointer, shares="user") == errno.EPERM


@both
def test_priorities_and_limits_are_set_for_oneself_alone(architecture: str) -> None:
    column = list(_AUDIT).index(architecture)

    def asked(name: str, *arguments: int) -> int:
        return answer(architecture, seccomp.SELF_ALONE[name][column], *arguments, shares="user")

    for name in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        assert (asked(name, 0), asked(name, 4711)) == (0, errno.EPERM)
    assert (asked("setpriority", 0, 0, 5), asked("setpriority", 0, 4711, 5)) == (0, errno.EPERM)
    assert asked("setpriority", 2, 0, 5) == errno.EPERM, "all of a user's"
    assert (asked("ioprio_set", 1, 0), asked("ioprio_set", 1, 4711)) == (0, errno.EPERM)
    assert (asked("prlimit64", 0, 7), asked("prlimit64", 4711, 7)) == (0, errno.EPERM)
    assert (asked("prlimit64", 0, 15), asked("setrlimit", 15), asked("setrlimit", 7)) == (
        *(errno.EPERM, errno.EPERM),
        0,
    ), "the mark stays"


@both
def test_pairs_of_sockets_are_streams(architecture: str) -> None:
    number = seccomp.SELF_ALONE["socketpair"][list(_AUDIT).index(architecture)]
    for kind in (1, 5, 1 | 0o2000000, 1 | 0o4000, 5 | 0o2004000):
        assert answer(architecture, number, 1, kind, shares="user") == 0
    for family, kind in ((1, 2), (1, 2 | 0o2000000), (2, 1), (1, 3)):
        assert answer(architecture, number, family, kind, shares="user") == errno.EPERM


@both
def test_numbers_are_those_of_the_kernels_headers(architecture: str) -> None:
    header = _HEADERS[architecture]
    if not header.exists():
        pytest.skip(f"{header} comes with linux-libc-dev")
    pattern = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)")
    known = {
        found[1]: int(found[2]) for found in map(pattern.match, header.read_text().splitlines()) if found
    }
    column = list(_AUDIT).index(architecture)
    for name, row in (_TABLES | _SHARING).items():
        if name in known or (row[column] or 0) < _NEWER_THAN_HEADERS:
            assert known.get(name) == row[column], name
