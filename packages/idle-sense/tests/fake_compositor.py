"""A Wayland compositor that has nothing but seats and a way to tell idleness, and does as tests tell it."""

import contextlib
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_ORDER = "="


def words(*numbers: int) -> bytes:
    return struct.pack(f"{_ORDER}{len(numbers)}I", *numbers)


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return words(len(data)) + data + bytes(-len(data) % 4)


def message(target: int, opcode: int, body: bytes = b"") -> bytes:
    return words(target, (8 + len(body)) << 16 | opcode) + body


@dataclass
class _Notification:
    object: int
    quiet_s: float
    minds_inhibitors: bool
    since_s: float
    idle: bool = False


@dataclass
class _Client:
    connection: socket.socket
    received: bytes = b""
    registry: int = 0
    notifier: int = 0
    seats: dict[int, int] = field(default_factory=dict)
    """Objects by the names of their globals."""
    notifications: list[_Notification] = field(default_factory=list)
    used_ids: set[int] = field(default_factory=lambda: {1})


class Compositor:
    """``protocol``: what tells idleness; empty: nothing does. Closes with ``stop``, and may be started again."""

    def __init__(
        self, path: Path, *, protocol: str = "ext_idle_notifier_v1", version: int = 2, seats: int = 1
    ) -> None:
        self.path = path
        self.globals: dict[int, tuple[str, int]] = {1: ("wl_compositor", 5), 2: ("wl_shm", 1)}
        if protocol:
            self.globals[3] = (protocol, version)
        self.globals |= {10 + number: ("wl_seat", 7) for number in range(seats)}
        self.violations: list[str] = []
        """What a real compositor would have ended the connection for."""
        self.hanging = threading.Event()
        self._lock = threading.RLock()
        self._used_at_s = time.monotonic()
        self._inhibited = False
        self._clients: list[_Client] = []
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._closing.clear()
        self.hanging.clear()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As a crash: the socket's file stays."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None

    @property
    def clients(self) -> int:
        return len(self._clients)

    def use(self) -> None:
        """Somebody touches a key."""
        with self._lock:
            self._used_at_s = time.monotonic()
            for client, one in self._notifications():
                one.since_s = self._used_at_s
                self._set(client, one, idle=False)

    def inhibit(self, *, inhibited: bool) -> None:
        """A program keeps the screen on, or no more."""
        with self._lock:
            self._inhibited = inhibited
            for client, one in self._notifications():
                if one.minds_inhibitors:
                    one.since_s = time.monotonic()
                    self._set(client, one, idle=False)

    def remove_global(self, name: int) -> None:
        with self._lock:
            del self.globals[name]
            for client in self._clients:
                self._send(client, message(client.registry, 1, words(name)))

    def add_global(self, name: int, interface: str, version: int) -> None:
        with self._lock:
            self.globals[name] = (interface, version)
            for client in self._clients:
                self._send(
                    client, message(client.registry, 0, words(name) + text(interface) + words(version))
                )

    def say(self, data: bytes) -> None:
        with self._lock:
            for client in self._clients:
                self._send(client, data)

    def _notifications(self) -> list[tuple[_Client, _Notification]]:
        return [(client, one) for client in self._clients for one in client.notifications]

    def _set(self, client: _Client, one: _Notification, *, idle: bool) -> None:
        if one.idle != idle:
            one.idle = idle
            self._send(client, message(one.object, 0 if idle else 1))

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closing.is_set():
                ready = selector.select(0.005)
                if self.hanging.is_set():
                    time.sleep(0.005)
                    continue
                with self._lock:
                    for key, _ in ready:
                        if key.fileobj is self._listener:
                            connection, _ = self._listener.accept()
                            client = _Client(connection)
                            self._clients.append(client)
                            selector.register(connection, selectors.EVENT_READ, client)
                        elif not self._read(key.data):
                            selector.unregister(key.fileobj)
                            self._clients.remove(key.data)
                            key.data.connection.close()
                    self._tick()
            with self._lock:
                for client in self._clients:
                    client.connection.close()
                self._clients.clear()
                self._listener.close()

    def _tick(self) -> None:
        now_s = time.monotonic()
        for client, one in self._notifications():
            held = one.minds_inhibitors and self._inhibited
            if not held and now_s - one.since_s >= one.quiet_s:
                self._set(client, one, idle=True)

    def _read(self, client: _Client) -> bool:
        try:
            data = client.connection.recv(65536)
        except OSError:
            return False
        if not data:
            return False
        client.received += data
        while len(client.received) >= 8:
            target, word = struct.unpack_from("=II", client.received)
            if len(client.received) < word >> 16:
                break
            body, client.received = client.received[8 : word >> 16], client.received[word >> 16 :]
            self._answer(client, target, word & 0xFFFF, body)
        return True

    def _answer(self, client: _Client, target: int, opcode: int, body: bytes) -> None:
        numbers = struct.unpack(f"={len(body) // 4}I", body)
        if target == 1:
            self._take_id(client, numbers[0])
            if opcode == 1:
                client.registry = numbers[0]
                for name, (interface, version) in self.globals.items():
                    self._send(
                        client, message(client.registry, 0, words(name) + text(interface) + words(version))
                    )
            else:
                client.used_ids.discard(numbers[0])
                self._send(client, message(numbers[0], 0, words(0)) + message(1, 1, words(numbers[0])))
        elif target == client.registry:
            name, made = numbers[0], numbers[-1]
            self._take_id(client, made)
            interface, version = self.globals.get(name, ("gone", 0))
            if numbers[-2] > version:
                self.violations.append(f"{interface} bound with version {numbers[-2]}")
            if interface == "wl_seat":
                client.seats[name] = made
            else:
                client.notifier = made
        elif target == client.notifier:
            self._notify(client, opcode, numbers)
        else:
            client.notifications = [one for one in client.notifications if one.object != target]
            client.used_ids.discard(target)
            self._send(client, message(1, 1, words(target)))

    def _notify(self, client: _Client, opcode: int, numbers: tuple[int, ...]) -> None:
        interface, version = self.globals[3]
        kwin = interface == "org_kde_kwin_idle"
        made, first, second = numbers
        quiet_ms, seat = (second, first) if kwin else (first, second)
        self._take_id(client, made)
        if seat not in client.seats.values():
            self.violations.append(f"{seat} is no seat")
        if opcode not in ((0,) if kwin else (1, 2)) or (opcode == 2 and version < 2):
            self.violations.append(f"request {opcode} of version {version}")
        client.notifications.append(
            _Notification(
                made, quiet_ms / 1000, minds_inhibitors=kwin or opcode == 1, since_s=time.monotonic()
            )
        )

    def _take_id(self, client: _Client, made: int) -> None:
        if made in client.used_ids or made > max(client.used_ids) + 3:
            self.violations.append(f"new object {made}, where {sorted(client.used_ids)} are in use")
        client.used_ids.add(made)

    def _send(self, client: _Client, data: bytes) -> None:
        with contextlib.suppress(OSError):
            client.connection.sendall(data)
