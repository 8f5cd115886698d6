"""An open network for a guest, by slirp4netns(1): its own namespace, in which every packet goes through a program of the agent's user.

The guest shares nothing with the machine's network: no port of its loopback, no abstract socket. Routes in its namespace, which it has no right
to change, lead neither to this machine nor to private networks, the one on which the owner's other machines are among them. Names are
resolved by the proxy's program, which passes queries on: slirp4netns would lead to every port of a resolver that listens on this machine.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from idle_accelerator.agent.network.consent import OPEN_BY as PROGRAM
from idle_accelerator.agent.network.namespace import is_own_user
from idle_accelerator.agent.sandbox import (
    FreezeFailed,
    Guest,
    GuestSpec,
    KillFailed,
    SpawnFailed,
    start_plain,
)
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.hosts import SPECIAL_4, address_of, is_public
from idle_accelerator.wire.reasons import Reason

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

if TYPE_CHECKING:
    from idle_accelerator.agent.network.office import Office

_log = logging.getLogger(__name__)
_NEEDED: Final = ("--disable-host-loopback", "--disable-dns", "--userns-path", "--netns-type")
_ASK_S: Final = 5.0
_READY_S: Final = 60.0
_INNER: Final = "10.0.2.0/24"
_GATEWAY: Final = "10.0.2.2"
"""The second address of --cidr. It stands for this machine, to which --disable-host-loopback closes it."""
_LOOK_EVERY_S: Final = 0.001
_COUNT_EVERY_S: Final = 0.25
_DEVICE: Final = "tap0"
_GET_OWNER: Final = 0xB701
"""NS_GET_USERNS of ioctl_ns(2)."""


def check() -> None:
    """Raises InvalidInput where it is not to be had."""
    advice = f"Install it (Debian and Ubuntu: sudo apt install {PROGRAM}), or allow hosts: --network proxy --allow-host HOST"
    program = shutil.which(PROGRAM)
    if program is None:
        raise InvalidInput(
            f"an open network apart from your own takes {PROGRAM}, which is not here.",
            field="--network",
            hint=advice,
        )
    try:
        said = subprocess.run(
            [program, "--help"], capture_output=True, timeout=_ASK_S, check=False
        ).stdout.decode()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidInput(f"{program} cannot be run: {error}.", field="--network", hint=advice) from error
    if lacking := [option for option in _NEEDED if option not in said]:
        raise InvalidInput(
            f"{program} is too old: it lacks {', '.join(lacking)}.", field="--network", hint=advice
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise InvalidInput(
            "/dev/net/tun may not be opened here, which an open network takes.",
            field="--network",
            hint="Load the kernel's module (sudo modprobe tun), or allow hosts: --network proxy --allow-host HOST",
        )


def closed_networks() -> tuple[str, ...]:
    """What no open guest reaches: all that is not public, and this machine's own addresses; of its own little network the gateway alone,
    since slirp4netns carries the rest to where the machine's network has those addresses."""
    own = {
        str(address)
        for listed in psutil.net_if_addrs().values()
        for item in listed
        if (address := address_of(item.address)) is not None and address.version == 4 and is_public(address)
    }
    inner = ipaddress.IPv4Network(_INNER).address_exclude(ipaddress.IPv4Network(f"{_GATEWAY}/32"))
    return (*map(str, SPECIAL_4), *map(str, inner), *(f"{address}/32" for address in sorted(own)))


class OpenWay:
    """See ``Way``."""

    env: Mapping[str, str] = {}
    settings: Mapping[str, str] = {
        "/etc/resolv.conf": "nameserver 127.0.0.1\noptions edns0\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }

    def __init__(
        self,
        office: "Office",
        *,
        folder: Path,
        on_moved: Callable[[int], None],
        on_began: Callable[[Guest], None],
        on_ended: Callable[[Guest], None],
    ) -> None:
        """See ``Office``."""
        self._office = office
        self._names = office.names()
        self._folder = folder
        self._on_moved = on_moved
        self._on_began = on_began
        self._on_ended = on_ended
        self._stack: Guest | None = None
        self._pid = 0
        self._seen_bytes = 0
        self._counting: asyncio.TimerHandle | None = None
        self._closed = False
        self._ending: asyncio.Task[None] | None = None

    async def attach(self, pid: int) -> None:
        self._pid = pid
        try:
            net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SpawnFailed(
                f"Its network namespace cannot be opened: {error.strerror}.",
                hint="See the agent's log.",
                field=None,
            ) from error
        try:
            await _has_loopback(pid)
            self._stack = await self._start(net)
            self._on_began(self._stack)
            await self._names.attach(pid)
        finally:
            os.close(net)
        if self._closed:  # the guest has been killed meanwhile
            self._end()
            return
        self._count()

    async def _start(self, net: int) -> Guest:
        """On return it carries packets. Raises SpawnFailed."""
        ready, readies = os.pipe()
        with os.fdopen(ready, "rb") as waits:
            try:
                user = fcntl.ioctl(net, _GET_OWNER)
                try:
                    stack = await start_plain(
                        GuestSpec(
                            argv=_command(net, user, readies),
                            workspace=self._folder,
                            env={"PATH": os.environ.get("PATH", os.defpath)},
                            stdout="null",
                            descriptors=(net, user, readies),
                        )
                    )
                finally:
                    os.close(user)
            finally:
                os.close(readies)
            os.set_blocking(waits.fileno(), False)
            if await _readable(waits.fileno()) and waits.read(1) == b"1":
                return stack
        await _kill(stack)
        said = b"" if stack.stderr is None else await stack.stderr.read()
        detail = said.decode(errors="replace").strip().replace("\n", "; ") or "it said nothing"
        raise SpawnFailed(
            f"{PROGRAM} does not carry its packets: {detail[-300:]}.", hint="See the agent's log.", field=None
        )

    def hold(self) -> None:
        self._names.hold()
        if self._stack is not None:
            with contextlib.suppress(FreezeFailed):
                self._stack.freeze()

    def go(self) -> None:
        self._names.go()
        if self._stack is not None:
            self._stack.thaw()

    def close(self) -> None:
        self._names.close()
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        if self._stack is not None and self._ending is None:
            self._ending = asyncio.create_task(self._kill_stack(self._stack), name=f"end of {PROGRAM}")
            self._office.wait_for(self._ending)

    async def _kill_stack(self, stack: Guest) -> None:
        await _kill(stack)
        self._on_ended(stack)

    def refusals(self) -> tuple[Reason, ...]:
        return ()

    def _count(self) -> None:
        """The kernel's count of its device, in which all that it moves is."""
        try:
            with open(f"/proc/{self._pid}/net/dev", encoding="ascii") as file:  # noqa: PTH123  # read four times a second
                numbers = next(
                    (line.split() for line in file if line.strip().startswith(f"{_DEVICE}:")), None
                )
        except OSError:  # it has ended
            return
        if numbers is not None:
            moved = int(numbers[1]) + int(numbers[9])
            self._on_moved(max(0, moved - self._seen_bytes))
            self._seen_bytes = moved
        self._counting = asyncio.get_running_loop().call_later(_COUNT_EVERY_S, self._count)


def _command(net: int, user: int, ready: int) -> tuple[str, ...]:
    # Of root it then keeps no right but one; it cannot do that to itself as an ordinary user, who has none to lose.
    apart = ("--enable-sandbox",) if os.geteuid() == 0 else ()
    return (
        PROGRAM,
        "--configure",
        "--mtu=65520",
        f"--cidr={_INNER}",
        "--disable-host-loopback",
        "--disable-dns",
        "--enable-seccomp",
        *apart,
        f"--ready-fd={ready}",
        *(() if is_own_user(user) else (f"--userns-path=/proc/self/fd/{user}",)),
        "--netns-type=path",
        f"/proc/self/fd/{net}",
        _DEVICE,
    )


async def _has_loopback(pid: int) -> None:
    """bwrap brings the namespace's loopback up, and does not bear that somebody else has done so. Raises SpawnFailed."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _READY_S
    while loop.time() < deadline_s:
        if _loopback_is_up(pid):
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise SpawnFailed(
        f"Its loopback did not come up within {_READY_S:.0f} s.", hint="See the agent's log.", field=None
    )


def _loopback_is_up(pid: int) -> bool:
    """Also True of a process that has ended, which says itself why."""
    try:
        with open(f"/proc/{pid}/net/fib_trie", encoding="ascii") as file:  # noqa: PTH123  # looked at each millisecond
            return "127.0.0.1" in file.read()
    except OSError:
        return True


async def _readable(descriptor: int) -> bool:
    """Whether it becomes so within _READY_S; the end of the other side counts."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    loop.add_reader(descriptor, woken.set)
    try:
        async with asyncio.timeout(_READY_S):
            await woken.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


async def _kill(stack: Guest) -> None:
    try:
        await stack.kill()
    except KillFailed as error:
        _log.error("%s %s", error.message, error.hint)
