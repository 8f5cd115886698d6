"""Which programs of this session play or record, by the audio sessions of all devices (mmdeviceapi.h, audiopolicy.h)."""

import sys
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

from idle_sense.facts import Media, Reading
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.types import Verified

ENGINE = "audiodg.exe"
"""The audio engine itself, in lower case."""
PAUSE_S = 20.0
"""Silence up to this long belongs to what is played."""


class SoundSession(NamedTuple):
    """An audio session that is active: its program has a stream that runs."""

    pid: int
    system: bool
    """The system's own sounds."""
    loudest: float | None
    """Peak of what it gives out now, 0 to 1; None: not told."""


def programs(
    sessions: Iterable[SoundSession], *, is_guest: Callable[[int], bool], name_of: Callable[[int], str]
) -> tuple[str, ...]:
    """Names of those whose sessions they are."""
    found: set[str] = set()
    for session in sessions:
        if session.system or (session.pid and is_guest(session.pid)):
            continue
        name = name_of(session.pid) if session.pid else "several programs"
        if name.lower() != ENGINE:
            found.add(name or f"process {session.pid}")
    return tuple(sorted(found))


class Loud:
    """Which active sessions play something: streams that give out nothing for a while are left open by many programs.

    A stream that has a device for itself (exclusive mode) has no meter, and reads as silent; films in it keep the screen on.
    """

    def __init__(self) -> None:
        self._heard_at_s: dict[int, float] = {}

    def among(self, sessions: Iterable[SoundSession], now_s: float) -> list[SoundSession]:
        told = list(sessions)
        for session in told:
            if session.loudest is None or session.loudest > 0.0:
                self._heard_at_s[session.pid] = now_s
        alive = {session.pid for session in told}
        self._heard_at_s = {pid: at_s for pid, at_s in self._heard_at_s.items() if pid in alive}
        return [one for one in told if now_s - self._heard_at_s.get(one.pid, -PAUSE_S) < PAUSE_S]


class WindowsMedia(WindowsProbe[Media]):
    fact = "media"
    back_end = "audio sessions and execution state"
    verified: ClassVar[Verified] = "signature-only"
    every_s = 5.0

    def __init__(
        self,
        *,
        playing: Callable[[float], tuple[str, ...] | None],
        screen_kept_on: Callable[[], bool | None],
    ) -> None:
        """Programs that play at that time, but guests; None: not told. Each may raise OSError."""
        super().__init__()
        self._playing = playing
        self._screen_kept_on = screen_kept_on
        self._told = False

    def look(self, now_s: float) -> Reading[Media]:
        playing, kept_on = self._playing(now_s), self._screen_kept_on()
        if playing is None and kept_on is None:
            problem = "neither audio sessions nor the execution state can be read"
            if self._told:
                return Reading[Media].missing(
                    self.back_end, problem, "see that the service Windows Audio runs"
                )
            return Reading[Media].untold(self.back_end, problem)
        self._told = True
        inhibitors = ("a program that keeps the screen on",) if kept_on else ()
        return Reading(value=Media(playing=playing or (), inhibitors=inhibitors), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Programs that play sound, and whether any program keeps the screen on.",)


if sys.platform == "win32":
    import ctypes

    from idle_sense.platform import windows_com as com
    from idle_sense.platform.windows_numbers import (
        CLSCTX_ALL,
        DEVICE_STATE_ACTIVE,
        AudioSessionStateActive,
        eCapture,
        eRender,
    )

    def active_sessions(*, playing: bool) -> list[SoundSession] | None:
        """Of all devices. None: there is no audio service, or it lists no sessions. Raises OSError."""
        with com.apartment():
            try:
                enumerator = com.create("MMDeviceEnumerator", "IMMDeviceEnumerator")
            except com.ComError:
                return None
            with enumerator:
                flow = eRender if playing else eCapture
                devices = enumerator.get("IMMDeviceEnumerator.EnumAudioEndpoints", flow, DEVICE_STATE_ACTIVE)
            found: list[SoundSession] = []
            with devices:
                for index in range(devices.number("IMMDeviceCollection.GetCount")):
                    with devices.get("IMMDeviceCollection.Item", index) as device:
                        sessions = _of_device(device, playing=playing)
                    if sessions is None:
                        return None
                    found += sessions
            return found

    def _of_device(device: com.Interface, *, playing: bool) -> list[SoundSession] | None:
        try:
            manager = device.get(
                "IMMDevice.Activate", com.identity("IAudioSessionManager2"), CLSCTX_ALL, None
            )
        except com.ComError:
            # It was unplugged meanwhile.
            return []
        with manager:
            try:
                sessions = manager.get("IAudioSessionManager2.GetSessionEnumerator")
            except com.ComError as error:
                if error.result == com.NOT_IMPLEMENTED:
                    return None
                raise
        found: list[SoundSession] = []
        with sessions:
            for index in range(sessions.number("IAudioSessionEnumerator.GetCount")):
                with (
                    sessions.get("IAudioSessionEnumerator.GetSession", index) as first,
                    first.ask("IAudioSessionControl2") as session,
                ):
                    if session.number("IAudioSessionControl2.GetState") != AudioSessionStateActive:
                        continue
                    pid = ctypes.c_uint32()
                    # A session of several programs tells none of them, which is no failure.
                    session.raw("IAudioSessionControl2.GetProcessId", ctypes.byref(pid))
                    system = session.raw("IAudioSessionControl2.IsSystemSoundsSession") == 0
                    found.append(SoundSession(pid.value, system, _loudest(session) if playing else None))
        return found

    def _loudest(session: com.Interface) -> float | None:
        try:
            meter = session.ask("IAudioMeterInformation")
        except com.ComError:
            return None
        with meter:
            peak = ctypes.c_float()
            return (
                peak.value
                if meter.raw("IAudioMeterInformation.GetPeakValue", ctypes.byref(peak)) >= 0
                else None
            )
