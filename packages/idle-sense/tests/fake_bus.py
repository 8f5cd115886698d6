"""A real message bus of the test's own, services on it that do as they are told, and servers that misbehave."""

import contextlib
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    message_bus,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import open_dbus_connection

Answer = tuple[str, tuple[Any, ...]]
Reply = Callable[[Message], Answer | None]
"""From a question to signature and body of its answer; None: it stays without."""


class Daemon:
    """dbus-daemon at a path of the test's own; may be stopped, and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("dbus-daemon") is None:
            pytest.skip(
                "dbus-daemon is not installed; `python3 run.py test` installs it (Debian: dbus-daemon)"
            )
        self.path = folder / "bus"
        self.address = f"unix:path={self.path}"
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                "dbus-daemon",
                "--session",
                "--nofork",
                "--nopidfile",
                f"--address={self.address}",
                "--print-address",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), "dbus-daemon ended before it served"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


class Service:
    """A service on a bus. ``replies`` by member; a member that it lacks is answered with an error."""

    def __init__(self, address: str, name: str, replies: dict[str, Reply]) -> None:
        self.replies = replies
        self.asked: list[str] = []
        self._name = name
        self._outgoing: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._connection = open_dbus_connection(address)
        self._connection.send_and_get_reply(message_bus.RequestName(name))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def emit(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        to: str = "",
    ) -> None:
        message = new_signal(DBusAddress(path, interface=interface), member, signature or None, body)
        if to:
            message.header.fields[HeaderFields.destination] = to
        self._outgoing.put(message)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=30)
        self._connection.close()

    def _serve(self) -> None:
        # Whoever tests a bus that ends pulls it away from under us.
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._connection.send(self._outgoing.get_nowait())
                try:
                    message = self._connection.receive(timeout=0.005)
                except TimeoutError:
                    continue
                if message.header.message_type is MessageType.method_call:
                    self._answer(message)

    def _answer(self, message: Message) -> None:
        member = message.header.fields[HeaderFields.member]
        self.asked.append(member)
        reply = self.replies.get(member)
        if reply is None:
            self._connection.send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))
            return
        answer = reply(message)
        if answer is not None:
            self._connection.send(new_method_return(message, answer[0] or None, answer[1]))


class Misbehaving:
    """A server at a Unix socket that does with each connection what it is told."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None] = lambda _connection: None) -> None:
        self.path = str(path)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._serve = serve
        self.held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.held.append(connection)
                # Whom it serves may have had enough and left.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._serve(connection)

    def close(self) -> None:
        for one in (self._listener, *self.held):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(timeout=10)


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Waits for the condition, generously."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.005)
