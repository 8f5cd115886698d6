"""Fact: what somebody may be watching or listening to without touching anything, on Linux."""

import time
from collections.abc import Callable, Collection

from idle_sense.facts import Media, Reading
from idle_sense.platform.desktops import Desktop, Desktops
from idle_sense.platform.inhibitors import INHIBIT, idle_inhibitors
from idle_sense.platform.programs import Accounts
from idle_sense.platform.sound import Sound, sound_of
from idle_sense.probes.bundle import Polled
from idle_sense.probes.guests import GuestLedger, Processes
from idle_sense.types import Capability


class MediaProbe(Polled):
    every_s = 2.0

    def __init__(
        self,
        sound: Sound,
        desktops: Desktops,
        *,
        is_guest: Callable[[int], bool] = lambda _pid: False,
        inhibit: str = INHIBIT,
        accounts: Accounts | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sound = sound
        self._desktops = desktops
        self._is_guest = is_guest
        self._inhibit = inhibit
        self._accounts = accounts or Accounts()
        self._now = now
        self._told: tuple[str, ...] = ()

    def read(self, now_s: float) -> Reading[Media]:
        sound = self._sound.read(now_s)
        desktops = self._desktops.poll(now_s)
        playing = set(sound.value.playing if sound.value is not None else ())
        inhibitors = {one.who for one in idle_inhibitors(self._inhibit) if not self._is_guest(one.pid)}
        age_s, problem = sound.age_s, ""
        unanswered: Desktop | None = None
        for desktop in desktops:
            playing.update(desktop.playing())
            inhibitors.update(desktop.inhibitors())
            told_at_s = desktop.told_at_s
            problem = problem or desktop.problem
            if told_at_s is None:
                unanswered = unanswered or desktop
            else:
                age_s = max(age_s, self._now() - told_at_s)
        self._told = tuple(f"session bus of {self._accounts.name(one.uid)}" for one in desktops)
        if not playing and not inhibitors:
            if sound.value is None:
                return Reading[Media].missing(sound.source, sound.problem, sound.advice)
            if unanswered is not None:
                user = self._accounts.name(unanswered.uid)
                advice = f"end the program on the session bus of {user} that does not answer, or log in anew"
                said = unanswered.problem or "its first answer has not come yet"
                return Reading[Media].missing(f"session bus of {user}", said, advice)
        source = " and ".join(sorted({sound.source, "logind", *self._told}))
        media = Media(playing=tuple(sorted(playing)), inhibitors=tuple(sorted(inhibitors)))
        return Reading(value=media, source=source, age_s=age_s, problem=problem)

    def filenos(self) -> Collection[int]:
        """Not those of sound: they belong to calls, which must be heard of first; what plays is found at the next look."""
        return self._desktops.filenos()

    def capability(self) -> Capability:
        told, advice = self._sound.capability()
        hidden = ", ".join(self._accounts.name(uid) for uid in self._desktops.hidden)
        unseen = (
            f"players and inhibitors on the session bus of {hidden} cannot be seen: run this program as that user, or as root"
            if hidden
            else ""
        )
        return Capability(
            probe="media",
            back_end=", ".join((*self._told, "inhibitors of logind", told)),
            verified="emulated",
            serves=True,
            advice="; ".join(filter(None, (unseen, advice))),
        )

    def describe(self) -> tuple[str, ...]:
        return ("Players that play, programs that play sound, and programs that keep the screen on.",)

    def close(self) -> None:
        self._sound.close()
        self._desktops.close()


def linux_media(guests: GuestLedger, processes: Processes) -> MediaProbe:
    return MediaProbe(
        sound_of(guests, processes), Desktops(), is_guest=lambda pid: guests.contains(pid, processes)
    )
