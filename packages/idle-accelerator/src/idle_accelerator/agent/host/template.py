"""The template: a small Python process that has loaded one program and forks it on request.

Starting Python and importing what a guest needs takes 40 ms and more; forking a process that has done so takes two.
The template never runs anything of a guest: it only loads the program, and waits. Each request brings the guest's three
streams, working directory, environment and brand. The template forks twice, so that the guest loses its parent
and becomes a child of the agent (a child subreaper, see ``linux``), which then treats it as one that it started itself.

A script of the standard library alone: ``python -I template.py DESCRIPTOR PROGRAM``, where a socket comes as the
open descriptor. It ends when the socket does, that is, with the agent.
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
from typing import Any, Final, NoReturn

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

READY: Final = b"\1"
"""What the template sends when it has loaded the program."""
REQUEST: Final = struct.Struct("!I")
"""Length of the JSON that follows; the descriptors of the streams 0, 1, 2 come along with it."""
ANSWER: Final = struct.Struct("!ii")
"""The guest's pid, or 0, and the errno of the failure."""
_STREAMS: Final = 3
_UNKNOWN_ERRNO: Final = 255


def _load(path: str) -> ModuleType:
    spec = spec_from_file_location("guest_program", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python program")
    program = module_from_spec(spec)
    sys.modules["guest_program"] = program
    spec.loader.exec_module(program)
    return program


def _serve(channel: socket.socket) -> dict[str, Any]:
    """Answer requests until the agent is gone. Returns in guests only: what the guest is to be."""
    pid_cell = mmap.mmap(-1, 4)
    own = os.getpid()
    while True:
        head, descriptors, _, _ = socket.recv_fds(channel, REQUEST.size, _STREAMS)
        if len(head) < REQUEST.size:
            os._exit(0)
        (size,) = REQUEST.unpack(head)
        request = json.loads(_receive(channel, size))
        pid_cell[:] = bytes(4)
        middle = _fork()
        if middle == 0:
            _middle(own, channel, descriptors, request, pid_cell)
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        failure = -middle if middle < 0 else os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1])
        # Only now is the guest the agent's child.
        channel.sendall(ANSWER.pack(int.from_bytes(pid_cell[:], "big"), failure))


def _receive(channel: socket.socket, size: int) -> bytes:
    raw = bytearray()
    while len(raw) < size:
        piece = channel.recv(size - len(raw))
        if not piece:
            os._exit(0)
        raw += piece
    return bytes(raw)


def _fork() -> int:
    """As os.fork, with the errno as a negative number where that raises."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or _UNKNOWN_ERRNO)


def _middle(
    template: int,
    channel: socket.socket,
    descriptors: list[int],
    request: dict[str, Any],
    pid_cell: mmap.mmap,
) -> None:
    """The process between template and guest. Returns in the guest only."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        resource.setrlimit(resource.RLIMIT_RTTIME, (int(request["brand"]), hard))
        if os.getppid() != template:
            # It was killed in this moment, before the brand: the agent may have looked for remains already.
            os._exit(_UNKNOWN_ERRNO)
        os.chdir(request["cwd"])
        os.umask(0o077)
        # The received ones lie above 2, as the template's own three are open.
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        channel.detach()
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # pathlib is slower
            if int(name) >= _STREAMS:
                with contextlib.suppress(OSError):  # the one of the listing itself is closed already
                    os.close(int(name))
        in_session, beginning = os.pipe()
        guest = os.fork()
        if guest == 0:
            os.setsid()
        os.close(beginning)
        if guest:
            os.read(in_session, 1)  # until the guest has closed its end too
        os.close(in_session)
    except BaseException as error:  # noqa: BLE001  # whatever it is, no second template may go on from here
        os._exit(getattr(error, "errno", None) or _UNKNOWN_ERRNO)
    if guest:
        pid_cell[:] = guest.to_bytes(4, "big")
        os._exit(0)


def _become(request: dict[str, Any], program: ModuleType) -> NoReturn:
    """What ``python -I PROGRAM`` would be."""
    os.environ.clear()
    os.environ.update(request["env"])
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
    gc.collect()
    gc.freeze()  # so that the first collection in a guest does not copy every page
    _channel.sendall(READY)
    _become(_serve(_channel), _program)
