"""Who records and who plays on a Mac (CoreAudio), and which cameras are on (CoreMediaIO).

Devices say whether they run for anybody, which is asked first; only then are the programs asked (audio process objects,
AudioHardware.h, since macOS 14). No permission is needed, and no device is opened.
"""

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from idle_sense.facts import Calls, Media, Reading
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_power import screen_keepers
from idle_sense.platform.macos_structures import PropertyAddress
from idle_sense.platform.macos_values import Plain, Values, text
from idle_sense.probes.asked import Asked


def code(letters: str) -> int:
    """A constant of four letters, as the headers write them."""
    return int.from_bytes(letters.encode("ascii"), "big")


SYSTEM_OBJECT = 1
"""kAudioObjectSystemObject, kCMIOObjectSystemObject."""
GLOBAL_SCOPE, INPUT_SCOPE, OUTPUT_SCOPE = code("glob"), code("inpt"), code("outp")
DEVICES = code("dev#")
"""kAudioHardwarePropertyDevices, kCMIOHardwarePropertyDevices."""
PROCESSES = code("prs#")
"""kAudioHardwarePropertyProcessObjectList."""
RUNNING_SOMEWHERE = code("gone")
"""kAudioDevicePropertyDeviceIsRunningSomewhere, kCMIODevicePropertyDeviceIsRunningSomewhere."""
STREAMS = code("stm#")
"""kAudioDevicePropertyStreams."""
NAME = code("lnam")
"""kAudioObjectPropertyName, kCMIOObjectPropertyName."""
PROCESS_PID = code("ppid")
PROCESS_BUNDLE = code("pbid")
PROCESS_RECORDS = code("piri")
PROCESS_PLAYS = code("piro")
"""kAudioProcessPropertyPID, …BundleID, …IsRunningInput, …IsRunningOutput."""

MOST_OBJECTS = 4096
LISTENERS = frozenset({"com.apple.corespeechd", "corespeechd"})
"""Known to listen without anybody speaking: the daemon that waits for its name to be called. It keeps the built-in microphone
running for as long as that is switched on."""


class AudioDevice(NamedTuple):
    name: str
    records: bool
    """It has inputs."""
    plays: bool
    """It has outputs."""
    running: bool


class AudioProgram(NamedTuple):
    pid: int
    """0: not told."""
    name: str
    records: bool
    plays: bool


class AudioCalls:
    """CoreAudio's questions; they talk to coreaudiod. Raises OSError where it refuses."""

    def __init__(self, frameworks: Frameworks, values: Values) -> None:
        self._audio = frameworks.core_audio
        self._values = values
        self._kinds: dict[int, tuple[str, bool, bool]] = {}

    def devices(self) -> tuple[AudioDevice, ...]:
        """What a device is does not change while it has its number; whether it runs is asked anew."""
        handles = self._objects(SYSTEM_OBJECT, DEVICES, GLOBAL_SCOPE)
        self._kinds = {handle: self._kinds.get(handle) or self._kind(handle) for handle in handles}
        found: list[AudioDevice] = []
        for handle in handles:
            name, records, plays = self._kinds[handle]
            # One that was unplugged in between does not answer, and runs for nobody.
            running = bool(self._number(handle, RUNNING_SOMEWHERE))
            found.append(AudioDevice(name, records, plays, running))
        return tuple(found)

    def programs(self) -> tuple[AudioProgram, ...] | None:
        """Those that record or play now; None: this macOS does not tell."""
        address = PropertyAddress(PROCESSES, GLOBAL_SCOPE, 0)
        if not self._audio.AudioObjectHasProperty(SYSTEM_OBJECT, ctypes.byref(address)):
            return None
        found: list[AudioProgram] = []
        for handle in self._objects(SYSTEM_OBJECT, PROCESSES, GLOBAL_SCOPE):
            records = bool(self._number(handle, PROCESS_RECORDS))
            plays = bool(self._number(handle, PROCESS_PLAYS))
            if records or plays:
                pid = self._number(handle, PROCESS_PID) or 0
                found.append(AudioProgram(pid, self._text(handle, PROCESS_BUNDLE), records, plays))
        return tuple(found)

    def _kind(self, handle: int) -> tuple[str, bool, bool]:
        name = self._text(handle, NAME) or f"device {handle}"
        records = self._size(handle, STREAMS, INPUT_SCOPE) > 0
        return name, records, self._size(handle, STREAMS, OUTPUT_SCOPE) > 0

    def _size(self, handle: int, selector: int, scope: int) -> int:
        """In bytes; 0 where there is no such property."""
        address, size = PropertyAddress(selector, scope, 0), ctypes.c_uint32()
        status = self._audio.AudioObjectGetPropertyDataSize(
            handle, ctypes.byref(address), 0, None, ctypes.byref(size)
        )
        return size.value if status == 0 else 0

    def _get(self, handle: int, selector: int, scope: int, into: "ctypes.Array[ctypes.c_uint32]") -> int:
        """How many bytes were told; -1: none."""
        address, size = PropertyAddress(selector, scope, 0), ctypes.c_uint32(ctypes.sizeof(into))
        status = self._audio.AudioObjectGetPropertyData(
            handle, ctypes.byref(address), 0, None, ctypes.byref(size), ctypes.byref(into)
        )
        return size.value if status == 0 else -1

    def _objects(self, handle: int, selector: int, scope: int) -> list[int]:
        count = min(self._size(handle, selector, scope) // 4, MOST_OBJECTS)
        if not count:
            return []
        found = (ctypes.c_uint32 * count)()
        size = self._get(handle, selector, scope, found)
        if size < 0:
            raise OSError("CoreAudio does not tell its devices and programs")
        return [item for item in found[: size // 4] if item]

    def _number(self, handle: int, selector: int) -> int | None:
        found = (ctypes.c_uint32 * 1)()
        return found[0] if self._get(handle, selector, GLOBAL_SCOPE, found) == 4 else None

    def _text(self, handle: int, selector: int) -> str:
        """Empty where it is not told."""
        address, size = PropertyAddress(selector, GLOBAL_SCOPE, 0), ctypes.c_uint32(8)
        reference = ctypes.c_void_p()
        status = self._audio.AudioObjectGetPropertyData(
            handle, ctypes.byref(address), 0, None, ctypes.byref(size), ctypes.byref(reference)
        )
        if status != 0:
            return ""
        with self._values.owned(reference.value) as name:
            return text(self._values.plain(name))


class CameraCalls:
    """CoreMediaIO's questions. Raises OSError where it refuses."""

    def __init__(self, frameworks: Frameworks, values: Values) -> None:
        self._media = frameworks.core_media_io
        self._values = values

    def running(self) -> tuple[str, ...]:
        """Names of cameras that run for anybody."""
        address, size = PropertyAddress(DEVICES, GLOBAL_SCOPE, 0), ctypes.c_uint32()
        status = self._media.CMIOObjectGetPropertyDataSize(
            SYSTEM_OBJECT, ctypes.byref(address), 0, None, ctypes.byref(size)
        )
        if status != 0:
            raise OSError(f"CoreMediaIO does not tell its cameras ({status})")
        count = min(size.value // 4, MOST_OBJECTS)
        handles = (ctypes.c_uint32 * count)()
        used = self._get(SYSTEM_OBJECT, DEVICES, handles) if count else 0
        if used is None:
            raise OSError("CoreMediaIO does not tell its cameras")
        found: list[str] = []
        for handle in handles[: used // 4]:
            on = (ctypes.c_uint32 * 1)()
            if self._get(handle, RUNNING_SOMEWHERE, on) == 4 and on[0]:
                found.append(self._name(handle))
        return tuple(found)

    def _get(
        self, handle: int, selector: int, into: "ctypes.Array[ctypes.c_uint32] | ctypes.c_void_p"
    ) -> int | None:
        """How many bytes were told; None: refused."""
        address, used = PropertyAddress(selector, GLOBAL_SCOPE, 0), ctypes.c_uint32()
        room = ctypes.sizeof(into)
        status = self._media.CMIOObjectGetPropertyData(
            handle, ctypes.byref(address), 0, None, room, ctypes.byref(used), ctypes.byref(into)
        )
        return used.value if status == 0 else None

    def _name(self, handle: int) -> str:
        reference = ctypes.c_void_p()
        if self._get(handle, NAME, reference) is None:
            return f"camera {handle}"
        with self._values.owned(reference.value) as name:
            return text(self._values.plain(name)) or f"camera {handle}"


def named(
    devices: Iterable[AudioDevice],
    programs: Callable[[], Iterable[AudioProgram] | None],
    *,
    recording: bool,
    is_guest: Callable[[int], bool],
    name_of: Callable[[int], str],
) -> tuple[str, ...]:
    """Who records, or who plays: programs where macOS tells them, else the devices that run. A device that does both counts
    as both, as it cannot be told apart."""
    running = [
        device.name
        for device in devices
        if device.running and (device.records if recording else device.plays)
    ]
    if not running:
        return ()
    told = programs()
    if told is None:
        return tuple(sorted(set(running)))
    found: set[str] = set()
    for program in told:
        if not (program.records if recording else program.plays):
            continue
        if program.name in LISTENERS or (program.pid and is_guest(program.pid)):
            continue
        own_name = name_of(program.pid) if program.pid else ""
        if own_name not in LISTENERS:
            found.add(own_name or program.name or "an unknown program")
    return tuple(sorted(found))


@dataclass(frozen=True, kw_only=True)
class Audio:
    """Who is asked about sound, and who is who."""

    devices: Callable[[], Iterable[AudioDevice]]
    programs: Callable[[], Iterable[AudioProgram] | None]
    is_guest: Callable[[int], bool]
    name_of: Callable[[int], str]

    def named(self, *, recording: bool) -> tuple[str, ...]:
        """See ``named``."""
        return named(
            self.devices(), self.programs, recording=recording, is_guest=self.is_guest, name_of=self.name_of
        )


class MacCallsProbe(Asked[Calls]):
    fact = "calls"
    back_end = "CoreAudio and CoreMediaIO"
    every_s: float = 1.0

    def __init__(self, audio: Audio, cameras: Callable[[], tuple[str, ...]]) -> None:
        super().__init__()
        self._audio = audio
        self._cameras = cameras

    def look(self, now_s: float) -> Reading[Calls]:
        del now_s
        microphones = self._audio.named(recording=True)
        return Reading(value=Calls(microphones=microphones, cameras=self._cameras()), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Microphones and cameras that are in use by any program.",)


class MacMediaProbe(Asked[Media]):
    fact = "media"
    back_end = "power assertions and CoreAudio"
    every_s: float = 2.0

    def __init__(self, audio: Audio, assertions: Callable[[], Mapping[int, Plain]]) -> None:
        super().__init__()
        self._audio = audio
        self._assertions = assertions

    def look(self, now_s: float) -> Reading[Media]:
        del now_s
        audio = self._audio
        playing = audio.named(recording=False)
        inhibitors = screen_keepers(self._assertions(), is_guest=audio.is_guest, name_of=audio.name_of)
        return Reading(value=Media(playing=playing, inhibitors=inhibitors), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Programs that play sound, and programs that keep the screen on.",)
