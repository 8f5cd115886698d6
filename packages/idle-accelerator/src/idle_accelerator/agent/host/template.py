"""The template: a small Python process that has loaded one program and forks it on request.

Starting Python and importing what a guest needs takes 40 ms and more; forking a process that has done so takes two, and
even these are spent beforehand: the agent has the template make *reserves*, guests to be that have loaded
the program and wait for their launch. The template forks twice, so that a reserve loses its parent and becomes a
child of the agent (a child subreaper, see ``linux``), which then treats it as one that it started itself. It
carries a brand of its own from before its first instruction. Its launch brings the guest's three streams, working
directory and environment; until then nothing of a guest has come near it, and the template never sees any.

A program may have a function ``rehearse`` beside ``main``: it is called in the template, and again in each reserve, which is to copy
the pages that a guest would write to. It must leave nothing that ``main`` could see.

Without a program to load it serves plain starts: its reserves become the program that the launch names, by execve(2).

Each reserve is in its control groups from its first instruction. In version 2 it is born there (clone3(2)), in version 1 the process between
template and reserve moves there first, for which the kernel lets it wait some milliseconds.

A script of the standard library alone: ``python -I template.py DESCRIPTOR [PROGRAM]``, where a socket comes as the
open descriptor. It ends when the socket does, that is, with the agent; so does each reserve, by a socket of its own.
"""

import contextlib
import ctypes
import fcntl
import gc
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Final, NoReturn

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

READY: Final = b"\1"
"""What the template sends when it has loaded the program."""
MAKE: Final = struct.Struct("!Q?")
"""To the template: the brand of a reserve to make, and whether there is a control group that it can be born in. The descriptor of its
socket comes along with it; then that of the group, if so, and of the file cgroup.procs of each group that it belongs in."""
MADE: Final = struct.Struct("!iii")
"""From the template: the reserve's pid, or 0, and the errno of the failure; and that of its entering the groups."""
LAUNCH: Final = struct.Struct("!I")
"""To the reserve: length of the JSON that follows; the descriptors of its files come along with it: of the streams 0, 1, 2, then others."""
TAKEN: Final = struct.Struct("!i")
"""From the reserve: 0, and it has begun; else the errno of the failure, and it has ended. One that is to become another program says 0
when it is about to, and then the errno of its failure, or nothing more."""
MOST_FILES: Final = 64
"""Of one launch."""
_STREAMS: Final = 3
_MOST_GROUPS: Final = 8
_CLONE3: Final = 435
"""Number of the system call clone3(2), on all architectures."""
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
_PIECE_BYTES: Final = 64 * 1024
_UNKNOWN_ERRNO: Final = 255


def _load(path: str) -> ModuleType:
    spec = spec_from_file_location("guest_program", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python program")
    program = module_from_spec(spec)
    sys.modules["guest_program"] = program
    spec.loader.exec_module(program)
    return program


def _rehearse(program: ModuleType | None) -> None:
    """Have it touch what it will touch as a guest, if it knows how to."""
    if program is not None and hasattr(program, "rehearse"):
        program.rehearse()


def _serve(channel: socket.socket) -> socket.socket:
    """Make reserves until the agent is gone. Returns in reserves only: the socket on which the launch comes."""
    cells = mmap.mmap(-1, 8)
    own = os.getpid()
    while True:
        raw, descriptors, _, _ = socket.recv_fds(channel, MAKE.size, 2 + _MOST_GROUPS)
        if len(raw) < MAKE.size:
            os._exit(0)
        brand, can_be_born_in = MAKE.unpack(raw)
        line, *groups = descriptors
        cells[:] = bytes(8)
        born_in = groups.pop(0) if can_be_born_in else None
        middle = 0 if born_in is None else _fork_into(born_in)
        if born_in is None or middle < 0:
            middle, born_in = _fork(), None
        if middle == 0:
            _middle(own, channel, line, brand, cells, groups if born_in is None else groups[1:])
            return socket.socket(fileno=line)
        for descriptor in descriptors:
            os.close(descriptor)
        failure = -middle if middle < 0 else os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1])
        # Only now is the reserve the agent's child.
        pid, outside = (int.from_bytes(cells[at : at + 4], "big") for at in (0, 4))
        channel.sendall(MADE.pack(pid, failure, outside))


def _fork() -> int:
    """As os.fork, with the errno as a negative number where that raises."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or _UNKNOWN_ERRNO)


def _fork_into(group: int) -> int:
    """As ``_fork``, for a child that is born in a control group of version 2. The C library does not know of this child, which must not
    do more than fork properly."""
    arguments = struct.pack("11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    # A library whose calls keep the interpreter's lock: the child has no other thread that could hold it.
    pid = ctypes.PyDLL(None, use_errno=True).syscall(_CLONE3, arguments, len(arguments))
    return pid if pid >= 0 else -(ctypes.get_errno() or _UNKNOWN_ERRNO)


def _middle(
    template: int, channel: socket.socket, line: int, brand: int, cells: mmap.mmap, groups: list[int]
) -> None:
    """The process between template and reserve, which enters these groups by their files. Returns in the reserve only."""
    try:
        for group in groups:
            try:
                os.write(group, b"0")
            except OSError as error:
                cells[4:] = (error.errno or _UNKNOWN_ERRNO).to_bytes(4, "big")
        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        resource.setrlimit(resource.RLIMIT_RTTIME, (brand, hard))
        if os.getppid() != template:
            # It was killed in this moment, before the brand: the agent may have looked for remains already.
            os._exit(_UNKNOWN_ERRNO)
        os.umask(0o077)
        channel.detach()
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # pathlib is slower
            if int(name) >= _STREAMS and int(name) != line:
                with contextlib.suppress(OSError):  # the one of the listing itself is closed already
                    os.close(int(name))
        in_session, beginning = os.pipe()
        reserve = os.fork()
        if reserve == 0:
            os.setsid()
        os.close(beginning)
        if reserve:
            os.read(in_session, 1)  # until the reserve has closed its end too
        os.close(in_session)
    except BaseException as error:  # noqa: BLE001  # whatever it is, no second template may go on from here
        os._exit(getattr(error, "errno", None) or _UNKNOWN_ERRNO)
    if reserve:
        cells[:4] = reserve.to_bytes(4, "big")
        os._exit(0)


def _wait(line: socket.socket, program: ModuleType | None) -> dict[str, str]:
    """The reserve's life until its launch, or the agent's end. Returns the guest's environment, unless it became another program."""
    try:
        # The pages that these write to are copied now, not when somebody waits.
        json.loads('{"cwd": "/", "env": {"NAME": "value"}}')
        _rehearse(program)
        raw, descriptors, _, _ = socket.recv_fds(line, _PIECE_BYTES, MOST_FILES)
        text = bytearray(raw)
        while len(text) < LAUNCH.size or len(text) < LAUNCH.size + LAUNCH.unpack_from(text)[0]:
            if not raw:
                os._exit(0)
            raw = line.recv(_PIECE_BYTES)
            text += raw
        launch = json.loads(text[LAUNCH.size :])
        os.chdir(launch["cwd"])
        line = _take_files(line, descriptors, launch["files"])
        line.sendall(TAKEN.pack(0))
        if program is None:
            _exec(launch["argv"], launch["env"])
        line.close()
    except BaseException as error:  # noqa: BLE001  # as above
        with contextlib.suppress(OSError):
            line.sendall(TAKEN.pack(getattr(error, "errno", None) or _UNKNOWN_ERRNO))
        os._exit(_UNKNOWN_ERRNO)
    return launch["env"]


def _take_files(line: socket.socket, received: list[int], numbers: list[int]) -> socket.socket:
    """Give the received files these numbers. Returns the line, which may have had one of them."""
    above = max(numbers) + 1
    line = socket.socket(fileno=fcntl.fcntl(line.detach(), fcntl.F_DUPFD_CLOEXEC, above))
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in received]
    os.closerange(_STREAMS, above)
    for descriptor, number in zip(aside, numbers, strict=True):
        os.dup2(descriptor, number)
    os.closerange(above, line.fileno())
    os.closerange(line.fileno() + 1, max(aside) + 1)
    return line


def _exec(argv: list[str], env: dict[str, str]) -> NoReturn:
    # Python ignores these, and what is ignored stays so in the next program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(argv[0], argv, env)  # noqa: S606


def _become(env: dict[str, str], program: ModuleType) -> NoReturn:
    """What ``python -I PROGRAM`` would be."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = [str(program.__file__)]
    program.__name__ = "__main__"
    program.__package__ = None
    program.__spec__ = None  # as a script's; multiprocessing would look for a module of that name
    sys.modules["__main__"] = program
    raise SystemExit(program.main())


if __name__ == "__main__":
    _program = _load(sys.argv[2]) if len(sys.argv) > 2 else None
    _channel = socket.socket(fileno=int(sys.argv[1]))
    sys.stdout.flush()
    _rehearse(_program)
    gc.collect()
    gc.freeze()  # so that the first collection in a guest does not copy every page
    _channel.sendall(READY)
    _env = _wait(_serve(_channel), _program)
    if _program is not None:
        _become(_env, _program)
