"""Fact: what listens to a microphone or looks through a camera, on Linux."""

from collections.abc import Callable, Collection

from idle_sense.facts import Calls, Reading
from idle_sense.platform.cameras import EVERY_S as CAMERAS_EVERY_S
from idle_sense.platform.cameras import Cameras
from idle_sense.platform.sound import Sound, sound_of
from idle_sense.probes.aside import Aside
from idle_sense.probes.bundle import Polled, Probe
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Capability

EVERY_S = 2.0
"""Sound servers and cameras tell of changes; the files of sound cards do not."""
SOON_S = 0.1
"""After a change that came too soon after the one before to be asked about at once."""


class CallsProbe(Polled):
    every_s = EVERY_S

    def __init__(self, sound: Sound, cameras: Probe[tuple[str, ...]]) -> None:
        self._sound = sound
        self._cameras = cameras

    def read(self, now_s: float) -> Reading[Calls]:
        """Who is known to listen or look is told also when the other cannot be read: it is busy either way."""
        heard, seen = self._sound.read(now_s), self._cameras.read(now_s)
        self.every_s = SOON_S if self._sound.restless else EVERY_S
        microphones = heard.value.recording if heard.value is not None else ()
        cameras = seen.value or ()
        if not microphones and not cameras:
            for part in (heard, seen):
                if part.value is None and part.tells:
                    return Reading[Calls].missing(part.source, part.problem, part.advice)
        return Reading(
            value=Calls(microphones=microphones, cameras=cameras),
            source=f"{heard.source} and {seen.source}",
            age_s=max(heard.age_s, seen.age_s),
        )

    def listen(self, wake: Callable[[], None]) -> None:
        self._cameras.listen(wake)

    def filenos(self) -> Collection[int]:
        return (*self._sound.filenos(), *self._cameras.filenos())

    def capability(self) -> Capability:
        told, advice = self._sound.capability()
        cameras = self._cameras.capability()
        return Capability(
            probe="calls",
            back_end=f"{told}; {cameras.back_end}",
            verified="emulated",
            serves=True,
            advice="; ".join(filter(None, (advice, cameras.advice))),
        )

    def describe(self) -> tuple[str, ...]:
        return ("Programs that listen to a microphone or look through a camera.",)

    def close(self) -> None:
        self._sound.close()
        self._cameras.close()


def linux_calls(guests: GuestLedger, processes: Processes) -> CallsProbe:
    cameras = Cameras(is_guest=lambda pid: guests.contains(pid, processes))
    return CallsProbe(sound_of(guests, processes), Aside(cameras, every_s=CAMERAS_EVERY_S))
