"""Who records and who plays, as one sound server says: PulseAudio, or PipeWire in its place. Bluetooth headsets, which are no
sound cards, are seen only here.

Nothing waits: what is late is taken at a later poll, and what was known grows old meanwhile. The server is asked once, then
when it says that something changed, and now and then to know that it still answers.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from idle_sense.platform import pulse_wire as wire
from idle_sense.platform.local_socket import LocalSocket, ServerGone, ServerProblem

REFRESH_S = 9.0
"""How often it is asked when nothing changes."""
CALM_S = 0.1
"""... and at most, however much changes: moving a volume slider is a change each time."""
GIVE_UP_S = 10.0
"""A connection that owes an answer for so long is dropped, and made anew."""
RETRY_S = 1.0
FIRST_BUDGET_S = 0.05
"""How long the very first poll waits; later ones never do."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a server said."""

    recording: tuple[wire.Stream, ...]
    """From microphones: neither from what is played, nor to measure loudness."""
    playing: tuple[wire.Stream, ...]
    asked_at_s: float


class SoundServer:
    """One connection to one server. Not for several threads at once. No method raises for what a server does."""

    def __init__(
        self,
        path: str,
        *,
        uid: int,
        cookie: Callable[[], bytes] = bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``path``: of its socket. ``uid``: whose server it is. ``cookie``: what PulseAudio wants to see from anybody else."""
        self.path = path
        self.uid = uid
        self.heard: Heard | None = None
        """The latest."""
        self.problem = ""
        """Why there is no newer answer; empty while all is well."""
        self.refused = False
        """It answers, and does not let this user in."""
        self.absent = False
        """Nobody listens at the socket."""
        self._cookie = cookie
        self._now = now
        self._socket: LocalSocket | None = None
        self._incoming = bytearray()
        self._asked: dict[int, int] = {}
        """Commands by the tags of questions that are not answered yet."""
        self._tag = 0
        self._streams: dict[int, tuple[wire.Stream, ...]] = {}
        self._monitors: dict[int, bool] = {}
        """Sources that were asked about, and whether each hears a sink."""
        self._source_asked = wire.NOBODY
        self._round_at_s = self._dialled_at_s = 0.0
        self._changed = False
        self._ready = False
        self._retry_at_s: float | None = None

    @property
    def restless(self) -> bool:
        """It said that something changed, and was not asked about it yet (``CALM_S``)."""
        return self._changed and self._ready

    def filenos(self) -> Collection[int]:
        return () if self._socket is None else (self._socket.fileno(),)

    def poll(self) -> None:
        """Connects, asks and takes what has come."""
        try:
            if self._socket is None:
                if self._retry_at_s is not None and self._now() < self._retry_at_s:
                    return
                first = self._retry_at_s is None
                self._retry_at_s = self._now() + RETRY_S
                self._connect()
                deadline_s = self._now() + (FIRST_BUDGET_S if first else 0.0)
                while self._asked and (left_s := deadline_s - self._now()) > 0:
                    self._take_within(left_s)
            self._take_within(0.0)
            self._expire()
            self._ask_if_due()
        except ServerProblem as ended:
            self._drop(ended)
        except wire.Garbage:
            self._drop(ServerProblem("it speaks another protocol"))
        except OSError as error:
            self._drop(ServerProblem(f"the connection broke: {error.strerror or error}"))

    def close(self) -> None:
        """Twice is once."""
        self._drop(ServerProblem(""))

    def age_s(self, heard: Heard) -> float:
        """How long ago it was true, at the least favourable: since the question was sent."""
        return max(0.0, self._now() - heard.asked_at_s)

    def _connect(self) -> None:
        self._dialled_at_s = self._now()
        self._socket = LocalSocket(self.path)
        cookie = self._cookie()[: wire.COOKIE_BYTES].ljust(wire.COOKIE_BYTES, b"\0")
        self._ask(wire.AUTH, wire.VERSION, cookie)

    def _ask(self, command: int, *values: wire.Sent) -> None:
        if self._socket is None:
            return
        self._tag += 1
        self._asked[self._tag] = command
        data = wire.message(command, self._tag, *values)
        self._socket.send(data)
        self._socket.flush()

    def _take_within(self, wait_s: float) -> None:
        connection = self._socket
        if connection is None:
            raise ServerGone
        connection.flush()
        if wait_s > 0:
            connection.wait(wait_s)
        for piece in connection.pieces():
            self._incoming += piece
            while (message := wire.take_message(self._incoming)) is not None:
                self._take(message)

    def _take(self, message: wire.Message) -> None:
        if message.command == wire.SUBSCRIBE_EVENT:
            self._changed = True
            return
        command = self._asked.pop(message.tag, None)
        if command is None:
            return
        if message.command == wire.ERROR:
            if command in (wire.AUTH, wire.SET_CLIENT_NAME):
                raise ServerProblem("it does not let this user in", refused=True)
            if command == wire.GET_SOURCE_INFO:
                # It is gone, or hidden: whatever it is, it may be a microphone.
                self._monitors[self._source_asked] = False
                self._complete()
                return
            raise ServerProblem(f"it answered with error {message.values[:1]}")
        if message.command != wire.REPLY:
            raise wire.Garbage
        self._take_answer(command, message)

    def _take_answer(self, command: int, message: wire.Message) -> None:
        if command == wire.AUTH:
            self._ask(wire.SET_CLIENT_NAME, {"application.name": "idle-sense"})
        elif command == wire.SET_CLIENT_NAME:
            self._ready = True
            self._ask(wire.SUBSCRIBE, wire.SINK_INPUTS_AND_SOURCE_OUTPUTS)
            self._ask_round()
        elif command == wire.GET_SINK_INPUTS:
            self._streams[command] = wire.sink_inputs(message.values)
            self._complete()
        elif command == wire.GET_SOURCE_OUTPUTS:
            self._streams[command] = wire.source_outputs(message.values)
            self._complete()
        elif command == wire.GET_SOURCE_INFO:
            self._monitors[self._source_asked] = wire.is_monitor(message.values)
            self._complete()

    def _ask_round(self) -> None:
        self._round_at_s = self._now()
        self._changed = False
        self._streams.clear()
        self._ask(wire.GET_SOURCE_OUTPUTS)
        self._ask(wire.GET_SINK_INPUTS)

    def _complete(self) -> None:
        """The round is over when both lists are there, and it is known of every source whether it is a microphone."""
        recording = self._streams.get(wire.GET_SOURCE_OUTPUTS)
        playing = self._streams.get(wire.GET_SINK_INPUTS)
        if recording is None or playing is None or wire.GET_SOURCE_INFO in self._asked.values():
            return
        recording = tuple(stream for stream in recording if not (stream.silent or stream.internal))
        for stream in recording:
            if stream.device not in self._monitors:
                self._source_asked = stream.device
                self._ask(wire.GET_SOURCE_INFO, stream.device, None)
                return
        self.heard = Heard(
            recording=tuple(stream for stream in recording if not self._monitors[stream.device]),
            playing=tuple(stream for stream in playing if not (stream.silent or stream.internal)),
            asked_at_s=self._round_at_s,
        )
        self.problem, self.refused, self.absent = "", False, False

    def _ask_if_due(self) -> None:
        if not self._ready or self._asked:
            return
        passed_s = self._now() - self._round_at_s
        if passed_s >= REFRESH_S or (self._changed and passed_s >= CALM_S):
            self._ask_round()

    def _expire(self) -> None:
        if not self._asked:
            return
        waited_s = self._now() - (self._round_at_s if self._ready else self._dialled_at_s)
        if waited_s > GIVE_UP_S:
            raise ServerProblem("it does not answer")
        if waited_s > FIRST_BUDGET_S:
            self.problem = "it does not answer"

    def _drop(self, ended: ServerProblem) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._incoming.clear()
        self._asked.clear()
        self._streams.clear()
        self._monitors.clear()
        self._ready = self._changed = False
        self.problem, self.refused, self.absent = ended.problem, ended.refused, ended.absent
        if ended.absent:
            # Whoever comes after it begins anew.
            self.heard = None
        self._retry_at_s = self._now() + RETRY_S
