"""Work inside a guest's network namespace, done from outside: its listening socket, and routes that lead nowhere.

A process joins the user namespace that owns the network namespace, in which its user has all rights as its maker, and then the network
namespace itself (setns(2), user_namespaces(7)). The first of these is for processes with a single thread, and there is no way back: so each
such work is done by a child that ends with it. A program of the standard library alone, for Linux.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Final

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

PROXY_PORT: Final = 3128
"""On the guest's own 127.0.0.1. The namespace is new: nobody else has it."""
_NAMES_PORT: Final = 53
_BACKLOG: Final = 64
_NEW_USER: Final = 0x10000000
_NEW_NET: Final = 0x40000000
_GET_OWNER: Final = 0xB701
"""NS_GET_USERNS of ioctl_ns(2)."""
_FREE_BIND: Final = 15
"""IP_FREEBIND: the address may appear later than the socket."""
_ANSWER_LIMIT: Final = 1000
_REQUEST_LIMIT: Final = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def listening_socket(net: int) -> socket.socket:
    """A TCP socket that listens on 127.0.0.1:PROXY_PORT of the network namespace that ``net`` is an open file of.

    Raises OSError.
    """
    return socket.socket(fileno=_inside(net, _listen)[0])


def names_socket(net: int, closed: Sequence[str]) -> socket.socket:
    """A UDP socket at 127.0.0.1:53 of that namespace, for queries; from now on nothing in it reaches the networks of ``closed``, where no
    more exact route leads there. Raises OSError.
    """

    def work() -> list[socket.socket]:
        _prohibit([ipaddress.IPv4Network(text) for text in closed])
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IP, _FREE_BIND, 1)
        made.bind(("127.0.0.1", _NAMES_PORT))
        return [made]

    return socket.socket(fileno=_inside(net, work)[0])


def _inside(net: int, work: Callable[[], list[socket.socket]]) -> list[int]:
    """The sockets that ``work`` makes inside of the namespace, as descriptors. Raises OSError, also for what happens there."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        child = os.fork()
        if child == 0:
            _do_and_end(net, work, there)
        there.close()
        try:
            said, descriptors, _, _ = socket.recv_fds(here, _ANSWER_LIMIT, 1)
        finally:
            os.waitpid(child, 0)
    if said == b"ok":
        return descriptors
    number, _, text = said.decode(errors="replace").partition(" ")
    raise OSError(int(number) if number.isdecimal() else 0, text or "the child ended without a word")


def _do_and_end(net: int, work: Callable[[], list[socket.socket]], there: socket.socket) -> None:
    """In the child: never returns."""
    try:
        try:
            user = fcntl.ioctl(net, _GET_OWNER)
            if not is_own_user(user):
                _join(user, _NEW_USER)
            _join(net, _NEW_NET)
            made = work()
            socket.send_fds(there, [b"ok"], [one.fileno() for one in made])
        except OSError as error:
            there.send(f"{error.errno or 0} {error.strerror or error}".encode()[:_ANSWER_LIMIT])
    finally:
        os._exit(0)


def is_own_user(namespace: int) -> bool:
    """Whether this is the user namespace that this program is in already: where root runs the agent, guests have no other."""
    own, other = os.stat("/proc/self/ns/user"), os.fstat(namespace)  # noqa: PTH116  # between fork and the end
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


def _join(namespace: int, kind: int) -> None:
    if _libc.setns(namespace, kind) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _listen() -> list[socket.socket]:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_IP, _FREE_BIND, 1)
    made.bind(("127.0.0.1", PROXY_PORT))
    made.listen(_BACKLOG)
    return [made]


_NEW_ROUTE: Final = 24
_ERROR: Final = 2
_FLAGS: Final = 0x1 | 0x4 | 0x400 | 0x100
"""NLM_F_REQUEST, _ACK, _CREATE and _REPLACE."""
_MAIN_TABLE: Final = 254
_BY_BOOT: Final = 3
_EVERYWHERE: Final = 0
_PROHIBIT: Final = 8
"""RTN_PROHIBIT: whoever goes there is told so at once (EACCES)."""
_DESTINATION: Final = 1


def _prohibit(networks: Sequence[ipaddress.IPv4Network]) -> None:
    """By rtnetlink(7). Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as line:
        line.bind((0, 0))
        for number, network in enumerate(networks, start=1):
            address = network.network_address.packed
            route = struct.pack(
                "=BBBBBBBBI",
                socket.AF_INET,
                network.prefixlen,
                0,
                0,
                _MAIN_TABLE,
                _BY_BOOT,
                _EVERYWHERE,
                _PROHIBIT,
                0,
            )
            body = route + struct.pack("=HH", 4 + len(address), _DESTINATION) + address
            line.send(struct.pack("=IHHII", 16 + len(body), _NEW_ROUTE, _FLAGS, number, 0) + body)
            answer = line.recv(4096)
            _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
            code = -struct.unpack_from("=i", answer, 16)[0] if kind == _ERROR else 0
            if code:
                raise OSError(code, os.strerror(code))


def serve(line: socket.socket) -> None:
    """Make sockets as asked, until the line ends: each request is JSON and brings a namespace, each answer a socket or what went wrong.

    To be run in a process that has no thread but this one, and little memory to be copied."""
    while True:
        said, descriptors, _, _ = socket.recv_fds(line, _REQUEST_LIMIT, 1)
        if not descriptors:
            return
        wanted = json.loads(said)
        try:
            net = descriptors[0]
            with names_socket(net, wanted["closed"]) if wanted["names"] else listening_socket(net) as made:
                socket.send_fds(line, [b"ok"], [made.fileno()])
        except OSError as error:
            line.send(f"{error.strerror or error}".encode()[:_ANSWER_LIMIT])
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptors[0])
