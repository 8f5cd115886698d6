"""Who records and who plays on this machine, as far as it can be told: sound cards by ALSA's files, programs by sound servers.

ALSA tells of all users, and sees a sound server where there is one; the server knows for whom it runs, and of Bluetooth.
So a card that runs for a server says nothing where that server answers, and counts where it cannot be asked.
"""

import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from idle_sense.facts import Reading
from idle_sense.platform.alsa import ASOUND, Cards, Stream
from idle_sense.platform.programs import PROC, Accounts, executable, own_uid, program
from idle_sense.platform.pulse import SoundServer
from idle_sense.platform.pulse_wire import Stream as ServerStream
from idle_sense.probes.aside import Aside
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Capability

LOOK_AROUND_S = 5.0
"""How often sound servers are looked for anew."""
CARDS_EVERY_S = 2.0
"""How often ALSA's files are read; they tell of no change by themselves."""
SERVERS = frozenset(
    {"pipewire", "pipewire-media-", "pipewire-pulse", "pulseaudio", "jackd", "jackdbus", "wireplumber"}
)
"""Programs that hold sound cards for others, by /proc/PID/comm."""


class Places(NamedTuple):
    """Where to look; tests look elsewhere."""

    asound: str = ASOUND
    runtimes: str = "/run/user"
    system_server: str = "/run/pulse/native"
    proc: str = PROC
    accounts: str = "/etc/passwd"


class Noise(NamedTuple):
    recording: tuple[str, ...]
    """Programs; where these cannot be named, devices."""
    playing: tuple[str, ...]


class Sound:
    """Shared by the probes for calls and for media: looks at the same moment are one. Closed, it opens again when it is read."""

    def __init__(
        self,
        *,
        is_guest: Callable[[int], bool] = lambda _pid: False,
        environ: Mapping[str, str] | None = None,
        places: Places | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_guest = is_guest
        self._environ = os.environ if environ is None else environ
        self._places = places or Places()
        self._now = now
        self._lock = threading.RLock()
        self._accounts = Accounts(self._places.accounts)
        cards = Cards(self._places.asound)
        self._has_cards = lambda: cards.here
        self._cards_here = False
        self._cards = Aside(CardsProbe(cards), every_s=CARDS_EVERY_S, now=now)
        self._servers: dict[str, SoundServer] = {}
        self._hidden: tuple[str, ...] = ()
        self._looked_at_s: float | None = None
        self._reading: tuple[float, Reading[Noise]] | None = None

    def read(self, now_s: float) -> Reading[Noise]:
        with self._lock:
            return self._read(now_s)

    def _read(self, now_s: float) -> Reading[Noise]:
        if self._reading is not None and self._reading[0] == now_s:
            return self._reading[1]
        if self._looked_at_s is None or not 0 <= now_s - self._looked_at_s < LOOK_AROUND_S:
            self._look_around()
            self._looked_at_s = now_s
        for server in self._servers.values():
            server.poll()
        cards = (
            self._cards.read(now_s)
            if self._cards_here
            else Reading[tuple[Stream, ...]](value=(), source="no sound card")
        )
        reading = self._combined(cards)
        self._reading = (now_s, reading)
        return reading

    @property
    def restless(self) -> bool:
        """Something changed that was not asked about yet: look again soon."""
        return any(server.restless for server in self._servers.values())

    def filenos(self) -> Collection[int]:
        return [number for server in self._servers.values() for number in server.filenos()]

    def capability(self) -> tuple[str, str]:
        """What is asked, and what would tell more."""
        asked = [f"sound server of {self._accounts.name(server.uid)}" for server in self._answering()]
        told = [self._cards.capability().back_end if self._cards_here else "no sound card", *asked]
        advice: list[str] = []
        if self._hidden:
            advice.append(
                f"sound of {', '.join(self._hidden)} is seen by sound card alone, not on Bluetooth headsets: "
                "run this program as that user, or as root"
            )
        advice += [
            f"{server.path}: {server.problem}"
            for server in self._servers.values()
            if server.problem and not server.absent
        ]
        return ", ".join(told), "; ".join(advice)

    def close(self) -> None:
        """Twice is once."""
        with self._lock:
            for server in self._servers.values():
                server.close()
            self._servers.clear()
            self._looked_at_s = self._reading = None

    def _combined(self, cards: Reading[tuple[Stream, ...]]) -> Reading[Noise]:
        recording: set[str] = set()
        playing: set[str] = set()
        age_s, source = cards.age_s, [cards.source]
        silent: list[SoundServer] = []
        for server in self._servers.values():
            if server.absent or server.refused:
                continue
            if server.heard is None:
                silent.append(server)
                continue
            age_s = max(age_s, server.age_s(server.heard))
            source.append("sound server")
            recording.update(self._names(server.heard.recording))
            playing.update(self._names(server.heard.playing))
        for stream in cards.value or ():
            name = self._holder(stream)
            if name is not None:
                (recording if stream.capture else playing).add(name)
        noise = Noise(tuple(sorted(recording)), tuple(sorted(playing)))
        if silent and not recording:
            problem = silent[0].problem or "its first answer has not come yet"
            advice = f"restart the sound server of {self._accounts.name(silent[0].uid)} (systemctl --user restart pipewire-pulse)"
            return Reading[Noise].missing(f"sound server {silent[0].path}", problem, advice)
        if cards.value is None and not recording:
            return Reading[Noise].missing(cards.source, cards.problem, cards.advice)
        return Reading(value=noise, source=" and ".join(sorted(set(source))), age_s=age_s)

    def _names(self, streams: tuple[ServerStream, ...]) -> Iterator[str]:
        for stream in streams:
            if not self._is_guests(stream):
                yield stream.program

    def _is_guests(self, stream: ServerStream) -> bool:
        """A program says its own process id, in a container's numbers if it is in one: its name must fit as well."""
        if not stream.pid or not self._is_guest(stream.pid):
            return False
        found = program(stream.pid, self._places.proc)
        names = {executable(stream.pid, self._places.proc), "" if found is None else found.name}
        return stream.binary != "" and (stream.binary in names or stream.binary[:15] in names)

    def _holder(self, stream: Stream) -> str | None:
        """For whom a sound card runs; None: for a guest, or for a server that was asked."""
        found = program(stream.pid, self._places.proc)
        if found is None:
            return stream.device
        if self._is_guest(found.pid):
            return None
        if found.name in SERVERS and any(server.uid == found.uid for server in self._answering()):
            return None
        return found.name

    def _answering(self) -> Iterator[SoundServer]:
        return (
            server
            for server in self._servers.values()
            if server.heard is not None and not server.absent and not server.refused
        )

    def _look_around(self) -> None:
        self._cards_here = self._has_cards()
        wanted = dict(self._running_servers())
        for path in self._servers.keys() - wanted.keys():
            self._servers.pop(path).close()
        for path in sorted(wanted.keys() - self._servers.keys()):
            uid = wanted[path]
            self._servers[path] = SoundServer(
                path, uid=uid, cookie=lambda uid=uid: self._cookie(uid), now=self._now
            )

    def _running_servers(self) -> Iterator[tuple[str, int]]:
        """Sockets of servers that run: by their ``pid`` file, as dialling one that systemd listens for would start it."""
        folders: dict[str, int] = {}
        hidden: list[str] = []
        try:
            users = os.listdir(self._places.runtimes)  # noqa: PTH208 - plain strings
        except OSError:
            users = []
        for user in users:
            if not re.fullmatch(r"\d+", user):
                continue
            folder = f"{self._places.runtimes}/{user}"
            if os.access(folder, os.X_OK):
                folders[f"{folder}/pulse"] = int(user)
            else:
                hidden.append(self._accounts.name(int(user)))
        for folder in self._own_folders():
            folders.setdefault(folder, own_uid())
        self._hidden = tuple(sorted(hidden))
        for folder, uid in folders.items():
            if os.path.exists(f"{folder}/pid") and os.path.exists(f"{folder}/native"):  # noqa: PTH110
                yield f"{folder}/native", uid
        if os.path.exists(self._places.system_server):  # noqa: PTH110
            yield self._places.system_server, 0

    def _own_folders(self) -> Iterator[str]:
        """Where this user's own server may be: as PulseAudio is told, with systemd, and without."""
        environ = self._environ
        if environ.get("PULSE_RUNTIME_PATH"):
            yield environ["PULSE_RUNTIME_PATH"]
        if environ.get("XDG_RUNTIME_DIR"):
            yield f"{environ['XDG_RUNTIME_DIR']}/pulse"
        folder = f"{environ.get('HOME', '')}/.config/pulse"
        try:
            names = os.listdir(folder)  # noqa: PTH208 - plain strings
        except OSError:
            return
        yield from (f"{folder}/{name}" for name in names if name.endswith("-runtime"))

    def _cookie(self, uid: int) -> bytes:
        """pulse-client.conf(5): in the user's configuration, or where it was of old."""
        home = self._environ.get("HOME", "") if uid == own_uid() else self._accounts.home(uid)
        named = self._environ.get("PULSE_COOKIE", "") if uid == own_uid() else ""
        for path in filter(None, (named, f"{home}/.config/pulse/cookie", f"{home}/.pulse-cookie")):
            try:
                with open(path, "rb") as file:  # noqa: PTH123
                    return file.read(256)
            except OSError:
                continue
        return b""


_SHARED: "weakref.WeakValueDictionary[int, Sound]" = weakref.WeakValueDictionary()


def sound_of(guests: GuestLedger, processes: Processes) -> Sound:
    """The one that all probes with this ledger share; it keeps the ledger alive, so that its id names it."""
    sound = _SHARED.get(id(guests))
    if sound is None:
        sound = _SHARED[id(guests)] = Sound(is_guest=lambda pid: guests.contains(pid, processes))
    return sound


class CardsProbe(Polled):
    """A driver that hangs makes these files hang: read them through ``Aside``."""

    def __init__(self, cards: Cards) -> None:
        self._cards = cards
        self._looks = 0

    def read(self, now_s: float) -> Reading[tuple[Stream, ...]]:
        del now_s
        try:
            if self._looks % 5 == 0:
                self._cards.look_around()
            self._looks += 1
            return Reading(value=self._cards.running(), source="alsa")
        except PermissionError as error:
            self._looks = 0
            advice = f"let this user read {error.filename or ASOUND}"
            return Reading[tuple[Stream, ...]].missing("alsa", str(error), advice)

    def capability(self) -> Capability:
        number = self._cards.number
        told = f"{number} streams of sound cards (alsa)" if number else "no sound card"
        return Capability(probe="sound", back_end=told, verified="emulated", serves=True)
