"""A connection to a D-Bus message bus that never waits longer than it is told to.

jeepney writes and reads the messages; the socket is ours, and never blocks. A question (``Bus.call``) is sent at once and
answered in some later ``Bus.poll``; what was subscribed to arrives there too. A bus that ends, hangs or talks nonsense is
dropped and dialled anew, and subscriptions are made again (D-Bus Specification 0.42: authentication, message bus).

A signal says "look again": any program on the bus can send one that looks like another's. Believe what a call answers.
Questions start no service: who is not there is not asked.
"""

import os
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from idle_sense.platform.acting import acting_as
from idle_sense.platform.dbus_address import unix_path
from idle_sense.platform.dbus_answers import LOST, SILENCE, Call, Name, Signal, Subscription
from idle_sense.platform.dbus_wire import Message, call_bytes, take_message
from idle_sense.platform.local_socket import MOST_BYTES, LocalSocket, ServerGone, ServerProblem

PATIENCE_S = 0.05
"""How long the polls wait for one question, all in all; an answer that takes longer is taken when it has come."""
GIVE_UP_S = 10.0
"""A question that old has failed; if it went to the bus itself, the connection is dropped."""
RETRY_S = 1.0
"""Between attempts to connect."""
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"


class Bus:
    """One connection to one bus. Not for several threads at once. No method raises for what a bus does."""

    def __init__(
        self, address: str, *, as_user: int | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``address``: as D-Bus writes them: ``unix:path=/run/user/1000/bus``, several parted by semicolons.
        ``as_user``: the user whose bus it is, for root, whom session buses do not let in."""
        self.address = address
        self.problem = ""
        """Why it is not ``ready``; empty while all is well, or while nothing was tried."""
        self.refused = False
        """The bus answers, and does not let this user in."""
        self.absent = False
        """Nobody listens at the address."""
        self.generation = 0
        """How many connections there were: whoever left something at a service leaves it anew when this changes."""
        self.unique_name = ""
        self._as_user = as_user
        self._now = now
        self._socket: LocalSocket | None = None
        self._stage = ""
        self._incoming = bytearray()
        self._waiting = bytearray()
        self._calls: dict[int, Call] = {}
        self._hello: Call | None = None
        self._serial = 0
        self._subscriptions: list[Subscription] = []
        self._names: dict[str, Name] = {}
        self._retry_at_s: float | None = None
        self._newest_s = self._dialled_at_s = 0.0

    @property
    def ready(self) -> bool:
        """Connected, and let in."""
        return self._stage == "ready"

    def filenos(self) -> Collection[int]:
        """Readable when ``poll`` would take something."""
        return () if self._socket is None else (self._socket.fileno(),)

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
    ) -> Call:
        """Asks. The answer is there when ``Call.done`` is, after some ``poll``; without a connection it has failed at once."""
        self._connect_if_due()
        call = Call(destination=destination, sent_at_s=self._now())
        if self._socket is None:
            call.error, call.text, call.answered_at_s = LOST, self.problem, call.sent_at_s
            return call
        self._post(call, path, interface, member, signature, body)
        return call

    def tell(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: tuple[Any, ...]
    ) -> None:
        """Calls without wishing an answer; without a connection it is forgotten."""
        if self._stage == "ready":
            self._post(None, path, interface, member, signature, body, destination)

    def subscribe(self, **rule: str) -> Subscription:
        """Signals by the keys of a match rule: ``sender``, ``path``, ``path_namespace``, ``interface``, ``member``, ``arg0``,
        ``arg0namespace``."""
        subscription = Subscription(rule=rule)
        self._subscriptions.append(subscription)
        if self._stage == "ready":
            self._match(subscription)
        return subscription

    def name(self, name: str) -> Name:
        """Follows a well-known name from now on."""
        found = self._names.get(name)
        if found is None:
            changes = self.subscribe(sender=_BUS, interface=_BUS, member="NameOwnerChanged", arg0=name)
            found = self._names[name] = Name(name=name, changes=changes)
            if self._stage == "ready":
                self._ask_owner(found)
        return found

    def poll(self, budget_s: float = 0.0) -> None:
        """Connects, sends, and takes what has come. Waits up to ``budget_s`` for answers to questions that are still young
        (``PATIENCE_S``), and never longer."""
        deadline_s = self._now() + budget_s
        try:
            self._connect_if_due()
            while self._socket is not None:
                self._socket.flush()
                self._receive()
                self._follow_names()
                self._expire()
                wait_s = min(deadline_s, self._newest_s + PATIENCE_S) - self._now()
                if wait_s <= 0 or (not self._calls and self._stage == "ready"):
                    return
                self._socket.wait(wait_s)
        except ServerProblem as error:
            self._drop(error)
        except OSError as error:
            self._drop(ServerProblem(f"the connection broke: {error.strerror or error}"))

    def close(self) -> None:
        """Twice is once. A later ``poll`` connects anew."""
        self._drop(ServerProblem(""))
        self._retry_at_s = None

    def _connect_if_due(self) -> None:
        if self._socket is not None or (self._retry_at_s is not None and self._now() < self._retry_at_s):
            return
        try:
            self._connect()
        except ServerProblem as error:
            self._drop(error)
        except OSError as error:
            self._drop(ServerProblem(f"it cannot be reached: {error.strerror or error}"))

    def _connect(self) -> None:
        assert sys.platform != "win32"  # noqa: S101 - tells type checkers what there is
        path = unix_path(self.address)
        if path is None:
            raise ServerProblem(f"its address {self.address!r} is none of a Unix socket", absent=True)
        uid = os.geteuid() if self._as_user is None else self._as_user
        with acting_as(self._as_user):
            self._socket = LocalSocket(path)
        self._stage = "auth"
        self._newest_s = self._dialled_at_s = self._now()
        self._socket.send(b"\0AUTH EXTERNAL " + str(uid).encode().hex().encode() + b"\r\n")

    def _receive(self) -> None:
        connection = self._socket
        try:
            for piece in () if connection is None else connection.pieces():
                self._incoming += piece
                if self._stage == "auth":
                    self._take_line()
                while self._stage != "auth" and (message := take_message(self._incoming)) is not None:
                    self._take(message)
                if self._socket is not connection:
                    return
        except ServerGone:
            if self._stage == "hello":
                # dbus-daemon takes the name of a user whom it does not serve, and hangs up.
                raise ServerProblem("it does not let this user in", refused=True) from None
            raise

    def _take_line(self) -> None:
        line, ends, rest = bytes(self._incoming).partition(b"\r\n")
        if not ends:
            if len(line) > 8192:
                raise ServerProblem("it speaks another protocol")
            return
        if line.startswith(b"REJECTED"):
            raise ServerProblem("it does not let this user in", refused=True)
        if not line.startswith(b"OK ") or rest:
            raise ServerProblem("it speaks another protocol")
        self._incoming.clear()
        self._send(b"BEGIN\r\n")
        self._stage = "hello"
        self._hello = self._ask_bus("Hello", "", ())

    def _take(self, message: Message) -> None:
        if message.kind in ("method_return", "error"):
            call = self._calls.pop(message.answers, None)
            if call is None:
                # Of a question that was given up: nobody waits for it any more.
                return
            call.answered_at_s = self._now()
            call.body = message.body
            if message.kind == "error":
                call.error = message.member or "an error without name"
                call.text = str(message.body[0]) if message.body else ""
            if call is self._hello and self._stage == "hello":
                self._begin(call)
        elif message.kind == "signal":
            signal = Signal(message.path, message.interface, message.member, message.sender, message.body)
            for subscription in self._subscriptions:
                if subscription.matches(signal):
                    subscription.heard.append(signal)
        # Else somebody's question to us: we serve nothing, and who asks has a bound of their own.

    def _begin(self, hello: Call) -> None:
        if hello.error or not hello.body:
            raise ServerProblem(f"it does not greet: {hello.error} {hello.text}".rstrip())
        self._stage = "ready"
        self.unique_name = str(hello.body[0])
        self.generation += 1
        self.problem, self.refused, self.absent = "", False, False
        for subscription in self._subscriptions:
            self._match(subscription)
        for name in self._names.values():
            self._ask_owner(name)
        # What was asked before there was anybody to ask.
        self._send(self._waiting)
        self._waiting.clear()

    def _match(self, subscription: Subscription) -> None:
        pairs = {"type": "signal", **subscription.rule}
        rule = ",".join("{}='{}'".format(key, value.replace("'", r"'\''")) for key, value in pairs.items())
        self._ask_bus("AddMatch", "s", (rule,))

    def _ask_owner(self, name: Name) -> None:
        name.changes.taken()
        name.known, name.owner = False, ""
        name.call = self._ask_bus("GetNameOwner", "s", (name.name,))

    def _follow_names(self) -> None:
        for name in self._names.values():
            if name.call is not None and name.call.done:
                # An error means that nobody holds it; silence drops the connection, and so asks anew.
                name.known = not name.call.failed or name.call.error.startswith(_BUS)
                name.owner = str(name.call.body[0]) if name.call.body and not name.call.failed else ""
                name.call = None
            if name.call is None:
                for signal in name.changes.taken():
                    if signal.sender == _BUS and len(signal.body) == 3:
                        name.owner = str(signal.body[2])

    def _ask_bus(self, member: str, signature: str, body: tuple[Any, ...]) -> Call:
        call = Call(destination=_BUS, sent_at_s=self._now())
        self._post(call, _BUS_PATH, _BUS, member, signature, body)
        return call

    def _post(
        self,
        call: Call | None,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: tuple[Any, ...],
        destination: str = "",
    ) -> None:
        self._serial += 1
        serial = self._serial
        to = destination if call is None else call.destination
        data = call_bytes(serial, to, path, interface, member, signature, body, answered=call is not None)
        if call is not None:
            self._calls[serial] = call
            self._newest_s = call.sent_at_s
        # Before the greeting is answered, the bus takes nothing else.
        early = self._stage == "auth" or (self._stage == "hello" and member != "Hello")
        if not early:
            self._send(data)
            return
        self._waiting += data
        if len(self._waiting) > MOST_BYTES:
            self._drop(ServerProblem("it does not read what it is asked"))

    def _send(self, data: bytes | bytearray) -> None:
        """Nobody who asks is to hear that the bus is stuck."""
        try:
            if self._socket is not None:
                self._socket.send(data)
        except ServerProblem as problem:
            self._drop(problem)

    def _expire(self) -> None:
        now_s = self._now()
        if self._stage == "auth" and now_s - self._dialled_at_s > GIVE_UP_S:
            raise ServerProblem("it does not answer")
        for serial, call in list(self._calls.items()):
            age_s = now_s - call.sent_at_s
            if call.destination == _BUS and age_s > GIVE_UP_S:
                raise ServerProblem("it does not answer")
            if age_s > GIVE_UP_S:
                call.error, call.text, call.answered_at_s = SILENCE, f"no answer for {age_s:.0f} s", now_s
                del self._calls[serial]
        if self._stage != "ready" and now_s - self._dialled_at_s > PATIENCE_S:
            self.problem = "it does not answer"

    def _drop(self, error: ServerProblem) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._stage = ""
        self.problem, self.refused, self.absent = error.problem, error.refused, error.absent
        for call in self._calls.values():
            call.error, call.text, call.answered_at_s = LOST, error.problem, self._now()
        self._calls.clear()
        self._incoming.clear()
        self._waiting.clear()
        for name in self._names.values():
            name.known, name.owner, name.call = False, "", None
        self._retry_at_s = self._now() + RETRY_S
