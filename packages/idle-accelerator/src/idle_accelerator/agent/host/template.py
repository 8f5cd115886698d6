"""The template: a small Python process that has loaded one program and forks it on request.

Starting Python and importing what a guest needs takes 40 ms and more; forking a process that has done so takes two, and
even these are spent beforehand: the agent has the template make *reserves*, guests to be that have loaded
the program and wait for their launch. The template forks twice, so that a reserve loses its parent and becomes a
child of the agent (a child subreaper, see ``linux``), which then treats it as one that it started itself. It
carries a brand of its own from before its first instruction. Its launch brings the guest's three streams, working
directory and environment; until then nothing of a guest has come near it, and the template never sees any.

A program may have a function ``rehearse`` beside ``main``: it is called in the template, and again in each reserve, which is to copy
the pages that a guest would write to. It must leave nothing that ``main`` could see.

A script of the standard library alone: ``python -I template.py DESCRIPTOR PROGRAM``, where a socket comes as the
open descriptor. It ends when the socket does, that is, with the agent; so does each reserve, by a socket of its own.
"""

import contextlib
import gc
import json
import mmap
import os
import resource
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
MAKE: Final = struct.Struct("!Q")
"""To the template: the brand of a reserve to make; the descriptor of its socket comes along with it."""
MADE: Final = struct.Struct("!ii")
"""From the template: the reserve's pid, or 0, and the errno of the failure."""
LAUNCH: Final = struct.Struct("!I")
"""To the reserve: length of the JSON that follows; the descriptors of the streams 0, 1, 2 come along with it."""
TAKEN: Final = struct.Struct("!i")
"""From the reserve: 0, and it has begun; else the errno of the failure, and it has ended."""
_STREAMS: Final = 3
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


def _rehearse(program: ModuleType) -> None:
    """Have it touch what it will touch as a guest, if it knows how to."""
    if hasattr(program, "rehearse"):
        program.rehearse()


def _serve(channel: socket.socket) -> socket.socket:
    """Make reserves until the agent is gone. Returns in reserves only: the socket on which the launch comes."""
    pid_cell = mmap.mmap(-1, 4)
    own = os.getpid()
    while True:
        raw, descriptors, _, _ = socket.recv_fds(channel, MAKE.size, 1)
        if len(raw) < MAKE.size:
            os._exit(0)
        (brand,) = MAKE.unpack(raw)
        (line,) = descriptors
        pid_cell[:] = bytes(4)
        middle = _fork()
        if middle == 0:
            _middle(own, channel, line, brand, pid_cell)
            return socket.socket(fileno=line)
        os.close(line)
        failure = -middle if middle < 0 else os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1])
        # Only now is the reserve the agent's child.
        channel.sendall(MADE.pack(int.from_bytes(pid_cell[:], "big"), failure))


def _fork() -> int:
    """As os.fork, with the errno as a negative number where that raises."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or _UNKNOWN_ERRNO)


def _middle(template: int, channel: socket.socket, line: int, brand: int, pid_cell: mmap.mmap) -> None:
    """The process between template and reserve. Returns in the reserve only."""
    try:
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
        pid_cell[:] = reserve.to_bytes(4, "big")
        os._exit(0)


def _wait(line: socket.socket, program: ModuleType) -> dict[str, str]:
    """The reserve's life until its launch, or the agent's end. Returns the guest's environment."""
    try:
        # The pages that these write to are copied now, not when somebody waits.
        json.loads('{"cwd": "/", "env": {"NAME": "value"}}')
        _rehearse(program)
        raw, descriptors, _, _ = socket.recv_fds(line, _PIECE_BYTES, _STREAMS)
        text = bytearray(raw)
        while len(text) < LAUNCH.size or len(text) < LAUNCH.size + LAUNCH.unpack_from(text)[0]:
            if not raw:
                os._exit(0)
            raw = line.recv(_PIECE_BYTES)
            text += raw
        launch = json.loads(text[LAUNCH.size :])
        os.chdir(launch["cwd"])
        # The received ones lie above 2, as the template's own three are open.
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        line.sendall(TAKEN.pack(0))
        line.close()
    except BaseException as error:  # noqa: BLE001  # as above
        with contextlib.suppress(OSError):
            line.sendall(TAKEN.pack(getattr(error, "errno", None) or _UNKNOWN_ERRNO))
        os._exit(_UNKNOWN_ERRNO)
    return launch["env"]


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
    _program = _load(sys.argv[2])
    _channel = socket.socket(fileno=int(sys.argv[1]))
    sys.stdout.flush()
    _rehearse(_program)
    gc.collect()
    gc.freeze()  # so that the first collection in a guest does not copy every page
    _channel.sendall(READY)
    _become(_wait(_serve(_channel), _program), _program)
