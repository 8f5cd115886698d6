"""The hostile program: it tries what a guest must not be able to do, and says what happened.

Run as ``python -I hostile.py PLAN``, where PLAN is JSON: what to try, and where the bait lies. One line of JSON comes
back: the name of each attempt with [outcome, detail], where the outcome is ``works``, ``refused`` or ``impossible`` (there is nothing
to try it with). What an attempt makes, it removes. A script of the standard library alone, for Linux.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_ARM: Final = platform.machine() in ("aarch64", "arm64")
_BPF: Final = 280 if _ARM else 321
_IO_URING_SETUP: Final = 425
_KEYCTL: Final = 219 if _ARM else 250
_USERFAULTFD: Final = 282 if _ARM else 323
_PERF_EVENT_OPEN: Final = 241 if _ARM else 298
_NEW_USER: Final = 0x10000000
_NEW_MOUNTS: Final = 0x00020000
_PRIVATE: Final = 1 << 18 | 1 << 14
_ATTACH: Final = 16
_DETACH: Final = 17
_NO_NEW_PRIVILEGES: Final = 39
_TIOCSTI: Final = 0x5412
_CONNECT_S: Final = 0.3
_METADATA: Final = ("169.254.169.254", 80)
_NAME_SERVER: Final = ("192.0.2.53", 53)
_MANY_FILES: Final = 3000
_DEVICES: Final = ("nvidia0", "nvidiactl", "dri/renderD128", "dri/card0", "kfd")
_SETUID: Final = ("su", "mount", "passwd", "newgrp", "sudo")
_libc = ctypes.CDLL(None, use_errno=True)


class ImpossibleError(Exception):
    """There is nothing here to try it with."""


class RefusedError(Exception):
    """It did not work, though no call failed."""


def _call(number: int, *arguments: Any) -> int:
    """A system call. Raises OSError."""
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# The owner's files.


def read_home(plan: dict[str, Any]) -> str:
    """Read something of the owner's home directory."""
    if not plan["home"]:
        raise ImpossibleError("there is nothing in it")
    for name in plan["home"]:
        with contextlib.suppress(OSError):
            if Path(name).is_dir():
                list(Path(name).iterdir())
            else:
                with Path(name).open("rb") as file:
                    file.read(1)
            return name
    raise RefusedError("none of its entries can be read")


def read_agent_data(plan: dict[str, Any]) -> str:
    """Read a file beside the agent's token, in its data directory."""
    return Path(plan["secret_file"]).read_text(encoding="utf-8")[:4]


def write_root(plan: dict[str, Any]) -> str:
    """Make a file in /."""
    return _make_file("/", plan)


def write_usr(plan: dict[str, Any]) -> str:
    """Make a file in /usr."""
    return _make_file("/usr", plan)


def write_etc(plan: dict[str, Any]) -> str:
    """Make a file in /etc."""
    return _make_file("/etc", plan)


def write_dev(plan: dict[str, Any]) -> str:
    """Make a file in /dev, which takes the machine's memory."""
    return _make_file("/dev", plan)


def _make_file(folder: str, plan: dict[str, Any]) -> str:
    path = Path(folder) / f".idle-{plan['marker'][:16]}"
    with path.open("x"):
        pass
    path.unlink()
    return f"a file in {folder}"


def write_sysctl(_plan: dict[str, Any]) -> str:
    """Set a value of the kernel's: where it writes cores, by which root runs any program. It is set to what it is."""
    path = Path("/proc/sys/kernel/core_pattern")
    path.write_bytes(path.read_bytes())
    return str(path)


def look_at_file(plan: dict[str, Any]) -> str:
    """Ask how large a file of the owner's is, and when it was changed."""
    return f"{os.stat(plan['secret_file']).st_size} bytes"  # noqa: PTH116  # the call itself


def change_rights(plan: dict[str, Any]) -> str:
    """Change who may read a file of the owner's. It is set to what it is."""
    Path(plan["secret_file"]).chmod(plan["secret_mode"])
    return "chmod"


def change_times(plan: dict[str, Any]) -> str:
    """Set when a file of the owner's was changed."""
    os.utime(plan["secret_file"], (0, 0))
    return "utimensat"


def touch_file(plan: dict[str, Any]) -> str:
    """Have a file of the owner's seem to have been changed now."""
    os.utime(plan["secret_file"])
    return "utimensat"


def watch_file(plan: dict[str, Any]) -> str:
    """Be told of what happens to a file of the owner's."""
    line = _checked(_libc.inotify_init1(0))
    try:
        _checked(_libc.inotify_add_watch(line, os.fsencode(plan["secret_file"]), 0x2))
    finally:
        os.close(line)
    return "inotify"


def mount(_plan: dict[str, Any]) -> str:
    """Mount a file system."""

    def attempt() -> str:
        with contextlib.suppress(OSError):
            _checked(_libc.unshare(_NEW_MOUNTS))
            _checked(_libc.mount(None, b"/", None, _PRIVATE, None))
        _checked(_libc.mount(b"none", bytes(Path.cwd()), b"tmpfs", 0, None))
        _libc.umount2(bytes(Path.cwd()), 2)
        return "a tmpfs"

    return _in_child(attempt)


def mknod(_plan: dict[str, Any]) -> str:
    """Make a device that is the machine's memory or disk."""
    os.mknod("device", 0o20600, os.makedev(1, 3))
    Path("device").unlink()
    return "a character device"


def setuid(_plan: dict[str, Any]) -> str:
    """Become root by a program that has the set-user-id bit."""
    folders = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
    for path in (Path(folder) / name for name in _SETUID for folder in folders):
        with contextlib.suppress(OSError):
            if not path.stat().st_mode & 0o4000:
                continue
            if os.statvfs(path).f_flag & os.ST_NOSUID:
                raise RefusedError(f"{path} lies on a file system without such rights")
            if _libc.prctl(_NO_NEW_PRIVILEGES, 0, 0, 0, 0) == 1:
                raise RefusedError("no program gets new privileges")
            return str(path)
    raise ImpossibleError("there is no such program")


def user_namespace(_plan: dict[str, Any]) -> str:
    """Make a user namespace, in which it has all capabilities."""

    def attempt() -> str:
        _checked(_libc.unshare(_NEW_USER))
        return "unshare"

    return _in_child(attempt)


# Other machines, and the owner's own services.


def loopback(plan: dict[str, Any]) -> str:
    """Connect to a port on which a program of this machine listens."""
    with socket.create_connection(("127.0.0.1", plan["port"]), timeout=_CONNECT_S):
        return f"port {plan['port']}"


def metadata(_plan: dict[str, Any]) -> str:
    """Connect to the address at which clouds keep a machine's secrets."""
    return _reach(_METADATA)


def internet(_plan: dict[str, Any]) -> str:
    """Send a packet to a name server. (It has a way, which is asked; nothing is sent.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.connect(_NAME_SERVER)
        return f"from {line.getsockname()[0]}"


def _reach(address: tuple[str, int]) -> str:
    try:
        with socket.create_connection(address, timeout=_CONNECT_S):
            return address[0]
    except TimeoutError:
        raise RefusedError("no answer") from None


def abstract_socket(plan: dict[str, Any]) -> str:
    """Connect to an abstract Unix socket, which no file system hides."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_CONNECT_S)
        line.connect(f"\0{plan['marker']}")
        return "connected"


def send_datagram(plan: dict[str, Any]) -> str:
    """Write to a datagram socket of the owner's from one of a pair, which needs no call that makes sockets."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", f"\0{plan['marker']}-datagrams")
    return "a byte"


# The owner's processes.


def see_processes(plan: dict[str, Any]) -> str:
    """See a process of the owner's in /proc."""
    for name in _pids():
        with contextlib.suppress(OSError):
            if plan["marker"].encode() in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                return f"process {name}"
    raise RefusedError("it is not there")


def read_environments(plan: dict[str, Any]) -> str:
    """Find a secret of the owner's in /proc/*/environ, /proc/1/environ among them."""
    for name in _pids():
        with contextlib.suppress(OSError):
            if plan["marker"].encode() in Path(f"/proc/{name}/environ").read_bytes():
                return f"that of process {name}"
    raise RefusedError("no environment has it")


def trace(plan: dict[str, Any]) -> str:
    """Take a process of the owner's over with ptrace."""
    _checked(_libc.ptrace(_ATTACH, plan["pid"], None, None))
    with contextlib.suppress(ChildProcessError):
        os.waitpid(plan["pid"], 0)
    _libc.ptrace(_DETACH, plan["pid"], None, None)
    return f"process {plan['pid']}"


def send_signal(plan: dict[str, Any]) -> str:
    """Kill a process of the owner's."""
    os.kill(plan["pid"], signal.SIGKILL)
    return f"process {plan['pid']}"


def slow_down(plan: dict[str, Any]) -> str:
    """Give a process of the owner's the lowest priority."""
    os.setpriority(os.PRIO_PROCESS, plan["pid"], 19)
    return f"process {plan['pid']}"


def limit_others(plan: dict[str, Any]) -> str:
    """Set a limit of a process of the owner's. It is set to what it is."""
    resource.prlimit(
        plan["pid"], resource.RLIMIT_NOFILE, resource.prlimit(plan["pid"], resource.RLIMIT_NOFILE)
    )
    return f"process {plan['pid']}"


def shared_memory(plan: dict[str, Any]) -> str:
    """Read memory that programs of the owner's share (System V)."""
    _libc.shmat.restype = ctypes.c_void_p
    if _libc.shmat(plan["segment"], None, 0o10000) in (None, ctypes.c_void_p(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return f"segment {plan['segment']}"


def keyring(_plan: dict[str, Any]) -> str:
    """Reach the keys that the kernel keeps for the owner."""
    return f"keyring {_call(_KEYCTL, 0, -4, 1)}"


def _pids() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


# System calls that no task needs.


def bpf(_plan: dict[str, Any]) -> str:
    """Load something into the kernel's virtual machine: a map, here."""
    attributes = ctypes.create_string_buffer(struct.pack("=IIIII", 2, 4, 8, 1, 0), 64)
    os.close(_call(_BPF, 0, attributes, 64))
    return "a map"


def io_uring(_plan: dict[str, Any]) -> str:
    """Make an io_uring, which filters of system calls do not see through."""
    os.close(_call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(120)))
    return "a ring"


def userfaultfd(_plan: dict[str, Any]) -> str:
    """Make a userfaultfd, which makes races in the kernel winnable."""
    os.close(_call(_USERFAULTFD, 1))
    return "a descriptor"


def perf_events(_plan: dict[str, Any]) -> str:
    """Watch the processor's counters."""
    attributes = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 64, 0), 64)
    attributes[40] = 0x60  # not the kernel's own work, nor the hypervisor's
    os.close(_call(_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0))
    return "a counter"


def type_into_terminal(_plan: dict[str, Any]) -> str:
    """Type a line into the terminal from which the agent was started."""

    def attempt() -> str:
        os.setsid()
        _, terminal = os.openpty()
        fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY: makes it this session's
        fcntl.ioctl(terminal, _TIOCSTI, b"x")
        return "a letter"

    return _in_child(attempt)


# Memory, disk, priority.


def fill_tmp(plan: dict[str, Any]) -> str:
    """Take more room in /tmp than it is to have."""
    return _fill("/tmp", plan)  # noqa: S108  # what is tried


def fill_shm(plan: dict[str, Any]) -> str:
    """Take more room in /dev/shm than it is to have."""
    return _fill("/dev/shm", plan)  # noqa: S108  # as above


def _fill(folder: str, plan: dict[str, Any]) -> str:
    path = Path(folder) / f"idle-{plan['marker'][:16]}"
    wanted = plan["memory_files_bytes"] + 4096
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, wanted)
        return f"{wanted} bytes"
    finally:
        path.unlink(missing_ok=True)


def many_files(plan: dict[str, Any]) -> str:
    """Make thousands of empty files in /tmp: each takes kernel memory that no size of it counts."""
    folder = Path("/tmp") / f"idle-{plan['marker'][:16]}"  # noqa: S108  # as above
    folder.mkdir()
    made = 0
    try:
        for made in range(_MANY_FILES):
            os.close(os.open(folder / str(made), os.O_CREAT | os.O_WRONLY, 0o600))
        return f"{_MANY_FILES} files"
    finally:
        for number in range(made + 1):
            (folder / str(number)).unlink(missing_ok=True)
        folder.rmdir()


def raise_priority(_plan: dict[str, Any]) -> str:
    """Run before the owner's programs."""

    def attempt() -> str:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        return "nice -10"

    return _in_child(attempt)


def run_in_real_time(_plan: dict[str, Any]) -> str:
    """Run before everything, and never be interrupted."""

    def attempt() -> str:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "SCHED_FIFO"

    return _in_child(attempt)


def raise_group(_plan: dict[str, Any]) -> str:
    """Take its session out of the lowest weight."""
    path = Path("/proc/self/autogroup")
    if not path.exists():
        raise ImpossibleError("this kernel has no such groups")
    try:
        path.write_text("0", encoding="ascii")
    except BlockingIOError:
        raise ImpossibleError("the kernel lets nobody write it so soon again") from None
    return str(path)


def leave_group(_plan: dict[str, Any]) -> str:
    """Leave the control group that weighs and limits it."""

    def attempt() -> str:
        mounts = [
            line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        ]
        places = [line[4] for line in mounts if line[line.index("-") + 1] in ("cgroup", "cgroup2")]
        if not places:
            raise OSError(errno.ENOENT, "no control groups are to be seen")
        failed = OSError(errno.ENOENT, "none")
        for place in places:
            try:
                Path(place, "cgroup.procs").write_text("0", encoding="ascii")
            except OSError as error:
                failed = error
            else:
                return place
        raise failed

    return _in_child(attempt)


def shed_mark(_plan: dict[str, Any]) -> str:
    """Take off the mark by which its orphans are found."""

    def attempt() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, hard))
        return "RLIMIT_RTTIME"

    return _in_child(attempt)


def dump_core(_plan: dict[str, Any]) -> str:
    """Have the kernel write a core, or hand it to a program of root's."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        raise RefusedError("the limit is 0")
    return "a core"


def use_gpu(_plan: dict[str, Any]) -> str:
    """Open a device of a graphics card."""
    seen = False
    for name in _DEVICES:
        with contextlib.suppress(OSError):
            os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
            return name
        seen = seen or Path(f"/dev/{name}").exists()
    if seen:
        raise RefusedError("they may not be opened")
    raise ImpossibleError("there is none to be seen")


def outlive(plan: dict[str, Any]) -> str:
    """Leave a daemon behind: forked twice, in a session of its own. It holds a lock by which it is found to live."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        descriptor = os.open(plan["lock"], os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(writing, str(os.getpid()).encode())
        for number in (0, 1, 2):
            os.close(number)
        time.sleep(plan["outlive_s"])
        os._exit(0)
    os.waitpid(middle, 0)
    return f"process {os.read(reading, 20).decode()}"


def _in_child(attempt: Callable[[], str]) -> str:
    """For what changes the process that does it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = ["works", attempt()]
        except OSError as error:
            said = ["refused", str(error.errno)]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    outcome, detail = json.loads(os.read(reading, 4096))
    os.close(reading)
    os.waitpid(child, 0)
    if outcome == "works":
        return detail
    raise OSError(int(detail), os.strerror(int(detail)))


ATTEMPTS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    attempt.__name__: attempt
    for attempt in (
        read_home,
        read_agent_data,
        write_root,
        write_usr,
        write_etc,
        write_dev,
        write_sysctl,
        look_at_file,
        change_rights,
        change_times,
        touch_file,
        watch_file,
        mount,
        mknod,
        setuid,
        user_namespace,
        loopback,
        metadata,
        internet,
        abstract_socket,
        send_datagram,
        see_processes,
        read_environments,
        trace,
        send_signal,
        slow_down,
        limit_others,
        shared_memory,
        keyring,
        bpf,
        io_uring,
        userfaultfd,
        perf_events,
        type_into_terminal,
        dump_core,
        fill_tmp,
        fill_shm,
        many_files,
        raise_priority,
        run_in_real_time,
        raise_group,
        leave_group,
        use_gpu,
        shed_mark,
        outlive,
    )
}


def main() -> int:
    plan = json.loads(sys.argv[1])
    seen: dict[str, tuple[str, str]] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            seen[name] = ("works", attempt(plan))
        except ImpossibleError as error:
            seen[name] = ("impossible", str(error))
        except RefusedError as error:
            seen[name] = ("refused", str(error))
        except OSError as error:
            # What is not there to be called cannot be misused: that is a refusal too.
            seen[name] = ("refused", errno.errorcode.get(error.errno or 0, "") or str(error))
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
