"""The agent's side of guests' network: starts the proxy when a guest needs it, and tells it what each may reach."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from idle_accelerator.agent.network import namespace, open_way, proxy
from idle_accelerator.agent.network.types import Way
from idle_accelerator.agent.sandbox import (
    FreezeFailed,
    Guest,
    GuestSpec,
    KillFailed,
    SpawnFailed,
    start_plain,
)
from idle_accelerator.wire.network import NetworkOffer, NetworkWish
from idle_accelerator.wire.reasons import Reason, reason

if sys.platform != "linux":
    raise ImportError("This file is for Linux.")

_log = logging.getLogger(__name__)
LINGER_S: Final = 30.0
"""The proxy stays for so long when no guest needs it."""
OPEN_S: Final = 60.0
"""The proxy works at the priority of guests: an owner who uses all processors lets it wait."""
REFUSALS: Final = 20
"""Of one guest are told."""
_MESSAGE_LIMIT: Final = 64 * 1024
_AS_LOCAL: Final = "localhost,127.0.0.1,::1"


class Office:
    """All calls are made from the event loop's thread."""

    def __init__(
        self,
        lent: NetworkOffer,
        *,
        folder: Path,
        bytes_per_s: float | None,
        on_moved: Callable[[int], None],
        on_began: Callable[[Guest], None],
        on_ended: Callable[[Guest], None],
    ) -> None:
        """``folder`` is a directory of the agent's. ``on_moved`` hears of bytes that went over the network for guests; ``on_began`` and
        ``on_ended`` of programs of the agent's own that work for them: what these use is not the owner's."""
        self._lent = lent
        self._folder = folder
        self._bytes_per_s = bytes_per_s
        self._on_moved = on_moved
        self._on_began = on_began
        self._on_ended = on_ended
        self._proxy: _Proxy | None = None
        self._starting = asyncio.Lock()
        self._lingering: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def way_for(self, wish: NetworkWish, *, job: str) -> Way | None:
        """See ``Ways``."""
        if not wish.asks or self._lent.kind == "unguarded":
            return None
        if wish.open:
            return open_way.OpenWay(
                self,
                folder=self._folder,
                on_moved=self._on_moved,
                on_began=self._on_began,
                on_ended=self._on_ended,
            )
        return ProxyWay(
            self,
            job,
            hosts=wish.hosts,
            lent=self._lent.hosts,
            any_public=self._lent.kind == "open",
            bytes_per_s=self._bytes_per_s,
            names=False,
            closed=(),
        )

    def names(self) -> "ProxyWay":
        """Resolves names for an open guest, and has its routes closed that lead to other than public addresses."""
        return ProxyWay(self, "", names=True, closed=open_way.closed_networks())

    async def proxy(self) -> "_Proxy":
        """The running one, or a new one. Raises SpawnFailed."""
        async with self._starting:
            if self._lingering is not None:
                self._lingering.cancel()
                self._lingering = None
            if self._proxy is None or self._proxy.ended:
                self._proxy = await _Proxy.start(self._folder, on_moved=self._on_moved, on_idle=self._idle)
                self._on_began(self._proxy.guest)
            return self._proxy

    def _idle(self) -> None:
        """The proxy serves nobody."""
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._let_go)

    def _let_go(self) -> None:
        self._lingering = None
        if self._proxy is not None and not self._starting.locked() and self._proxy.is_idle:
            self.wait_for(asyncio.create_task(self._end(self._proxy)))
            self._proxy = None

    def wait_for(self, ending: asyncio.Task[None]) -> None:
        """It is over before ``close`` is."""
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, ending: "_Proxy") -> None:
        await ending.end()
        self._on_ended(ending.guest)

    async def close(self) -> None:
        """On return nothing of it runs."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._proxy is not None:
            await self._end(self._proxy)
            self._proxy = None
        if self._ending:
            await asyncio.wait(list(self._ending))


class _Proxy:
    """The running program, and the line to it."""

    def __init__(
        self,
        guest: Guest,
        line: socket.socket,
        *,
        on_moved: Callable[[int], None],
        on_idle: Callable[[], None],
    ) -> None:
        self.guest: Final = guest
        self.ended = False
        self._line = line
        self._on_moved = on_moved
        self._on_idle = on_idle
        self._ways: dict[int, ProxyWay] = {}
        self._held: set[int] = set()
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._last = 0
        self._frozen = False
        asyncio.get_running_loop().add_reader(line, self.hear)
        self._watching = asyncio.create_task(self._watch(), name="proxy of guests")

    @classmethod
    async def start(
        cls, folder: Path, *, on_moved: Callable[[int], None], on_idle: Callable[[], None]
    ) -> "_Proxy":
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)
        with there:
            try:
                guest = await start_plain(
                    GuestSpec(
                        argv=proxy.command(there.fileno()),
                        workspace=folder,
                        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                        stdout="null",
                        descriptors=(there.fileno(),),
                    )
                )
            except BaseException:
                here.close()
                raise
        return cls(guest, here, on_moved=on_moved, on_idle=on_idle)

    @property
    def is_idle(self) -> bool:
        return not self._ways

    async def open(self, way: "ProxyWay", net: int, terms: dict[str, Any]) -> int:
        """The number of the new door. Raises SpawnFailed."""
        self._last += 1
        number = self._last
        opened = self._opening[number] = asyncio.get_running_loop().create_future()
        self._ways[number] = way
        self._unfreeze()
        try:
            socket.send_fds(self._line, [proxy.encode(do="open", id=number, **terms)], [net])
            async with asyncio.timeout(OPEN_S):
                await opened
        except (OSError, TimeoutError) as error:
            self.close(number)
            raise SpawnFailed(
                f"Its way to the network could not be opened: {str(error) or 'the proxy does not answer'}.",
                hint="See the agent's log.",
                field=None,
            ) from error
        except BaseException:
            self.close(number)
            raise
        finally:
            self._opening.pop(number, None)
        return number

    def hold(self, number: int) -> None:
        """When all stand still, so does the program itself, at once."""
        self._say(do="hold", id=number)
        self._held.add(number)
        if not self._frozen and not self.ended and self._held >= self._ways.keys():
            self._frozen = True
            with contextlib.suppress(FreezeFailed):
                self.guest.freeze()

    def go(self, number: int) -> None:
        self._held.discard(number)
        self._unfreeze()
        self._say(do="go", id=number)

    def close(self, number: int) -> None:
        self._held.discard(number)
        if self._ways.pop(number, None) is not None:
            self._say(do="close", id=number)
            if not self._ways:
                self._unfreeze()
                self._on_idle()

    def _unfreeze(self) -> None:
        if self._frozen:
            self._frozen = False
            self.guest.thaw()

    def _say(self, **message: object) -> None:
        if self.ended:
            return
        try:
            self._line.send(proxy.encode(**message))
        except OSError as error:
            # It has ended, or has not listened for thousands of messages: without it no guest reaches anything.
            _log.warning("the proxy of guests does not listen (%s); it is ended", error)
            self._give_up()

    def hear(self) -> None:
        """All that the program has said so far."""
        while not self.ended:
            try:
                said = self._line.recv(_MESSAGE_LIMIT)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self._give_up()
                return
            self._take_in(json.loads(said))

    def _take_in(self, message: dict[str, Any]) -> None:
        number = message["id"]
        opening = self._opening.get(number)
        match message["is"]:
            case "moved":
                self._on_moved(message["bytes"])
            case "refused":
                if (way := self._ways.get(number)) is not None:
                    way.refused(message["host"], message["code"], message["detail"])
            case "opened":
                if opening is not None and not opening.done():
                    opening.set_result(None)
            case _:
                if opening is not None and not opening.done():
                    opening.set_exception(OSError(message["why"]))

    def _give_up(self) -> None:
        if self.ended:
            return
        self.ended = True
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        for opening in self._opening.values():
            if not opening.done():
                opening.set_exception(OSError("the proxy has ended"))
        self._unfreeze()

    async def _watch(self) -> None:
        """What it says of its own troubles goes to the log."""
        if self.guest.stderr is None:
            return
        with contextlib.suppress(ValueError):  # a line that is too long
            while text := await self.guest.stderr.readline():
                _log.warning("the proxy of guests: %s", text.decode(errors="replace").rstrip()[:500])

    async def end(self) -> None:
        """On return it is gone."""
        self._give_up()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        try:
            await self.guest.kill()
        except KillFailed as error:
            _log.error("%s %s", error.message, error.hint)


class ProxyWay:
    """See ``Way``: named hosts, by the proxy, which listens in the guest's own namespace."""

    settings: Mapping[str, str] = {}

    def __init__(self, office: Office, job: str, **terms: object) -> None:
        """``terms``: see ``doors.Door`` and ``doors.Doors``."""
        self._office = office
        self._job = job
        self._terms: Final = terms
        self._proxy: _Proxy | None = None
        self._number = 0
        self._closed = False
        self._refused: dict[str, Reason] = {}
        self._known: set[str] = set()

    @property
    def env(self) -> Mapping[str, str]:
        place = f"http://127.0.0.1:{namespace.PROXY_PORT}"
        # Some programs read the one spelling, some the other.
        names: dict[str, str] = dict.fromkeys(
            ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), place
        )
        return {**names, **dict.fromkeys(("NO_PROXY", "no_proxy"), _AS_LOCAL)}

    async def attach(self, pid: int) -> None:
        net = open_namespace(pid)
        try:
            self._proxy = await self._office.proxy()
            self._number = await self._proxy.open(self, net, self._terms)
            if self._closed:  # the guest has been killed meanwhile
                self._proxy.close(self._number)
        finally:
            os.close(net)

    def hold(self) -> None:
        if self._proxy is not None and not self._closed:
            self._proxy.hold(self._number)

    def go(self) -> None:
        if self._proxy is not None and not self._closed:
            self._proxy.go(self._number)

    def close(self) -> None:
        if self._proxy is not None and not self._closed:
            self._proxy.hear()
            self._proxy.close(self._number)
        self._closed = True

    def refused(self, host: str, code: str, detail: str) -> None:
        if host in self._known or len(self._known) >= REFUSALS:
            return
        self._known.add(host)
        self._refused[host] = reason(code, host=host[:300], detail=detail[:300])
        _log.info("%s was refused %s (%s %s)", self._job, host, code, detail)

    def refusals(self) -> tuple[Reason, ...]:
        if self._proxy is not None:
            self._proxy.hear()
        told = tuple(self._refused.values())
        self._refused.clear()
        return told


def open_namespace(pid: int) -> int:
    """The network namespace of a process, as an open file. Raises SpawnFailed."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SpawnFailed(
            f"Its network namespace cannot be opened: {error.strerror}.",
            hint="See the agent's log.",
            field=None,
        ) from error
