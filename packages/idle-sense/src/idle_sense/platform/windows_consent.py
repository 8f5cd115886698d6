"""Who uses microphones and cameras, as Windows' privacy settings note it.

CapabilityAccessManager\\ConsentStore in the registry has a key for each program, with the FILETIMEs LastUsedTimeStart and
LastUsedTimeStop; the latter is 0 while the device is in use. The layout is documented nowhere, and the same since Windows
10 1903 (2019). Two things make it lie: a program or a machine that crashed leaves its 0 behind, so what began before the last start,
or belongs to a program that does not run, is no use; and some builds of late (26220) note no use at all, for which reason
microphones are asked for by ``windows_sound`` as well.
"""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import ClassVar, NamedTuple

from idle_sense.facts import Calls, Reading
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.types import Verified

STORE = r"Software\Microsoft\Windows\CurrentVersion\CapabilityAccessManager\ConsentStore"
MICROPHONE = "microphone"
WEBCAM = "webcam"
NON_PACKAGED = "NonPackaged"
"""Below it, programs by the path of their file, with # for each backslash; beside it, those from the store by their name."""


class Use(NamedTuple):
    """One program's entry."""

    program: str
    """Name of its key."""
    packaged: bool
    started: int
    stopped: int
    """FILETIMEs."""


def name_of(use: Use) -> str:
    return use.program.partition("_")[0] if use.packaged else use.program.rpartition("#")[2]


def in_use(uses: Iterable[Use], booted: int, running: Callable[[], Collection[str]]) -> tuple[str, ...]:
    """Programs that use the device now. ``booted``: FILETIME of the machine's start; ``running``: names of files, in lower
    case, asked only where somebody seems to use it."""
    claimed = [use for use in uses if use.stopped == 0 and use.started > 0 and use.started >= booted]
    if not claimed:
        return ()
    alive = running()
    return tuple(sorted({name_of(use) for use in claimed if use.packaged or name_of(use).lower() in alive}))


class WindowsCalls(WindowsProbe[Calls]):
    fact = "calls"
    back_end = "ConsentStore and recording sessions"
    verified: ClassVar[Verified] = "emulated"
    topic = Topic.REGISTRY
    every_s = 5.0

    def __init__(
        self,
        *,
        uses: Callable[[str], Iterable[Use] | None],
        booted: Callable[[], int],
        running: Callable[[], Collection[str]],
        recording: Callable[[], tuple[str, ...] | None],
        events: Events | None = None,
    ) -> None:
        """``uses``: of a device; None: there is no such store. ``recording``: programs with an active recording session, but
        guests; None: not told. Each may raise OSError."""
        super().__init__(events)
        self._uses = uses
        self._booted = booted
        self._running = running
        self._recording = recording
        self._told = False

    def look(self, now_s: float) -> Reading[Calls]:
        del now_s
        booted = self._booted()
        microphones, cameras = (self._uses(device) for device in (MICROPHONE, WEBCAM))
        recording = self._recording()
        if microphones is None and cameras is None and recording is None:
            problem = "neither ConsentStore nor recording sessions can be read"
            if self._told:
                return Reading[Calls].missing(
                    self.back_end, problem, "see that the service Windows Audio runs"
                )
            return Reading[Calls].untold(self.back_end, problem, "use Windows 10 1903 or newer")
        self._told = True
        heard = in_use(microphones or (), booted, self._running)
        seen = in_use(cameras or (), booted, self._running)
        calls = Calls(microphones=tuple(sorted({*heard, *(recording or ())})), cameras=seen)
        return Reading(value=calls, source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Programs that use a microphone or a camera.",)


if sys.platform == "win32":
    import winreg

    from idle_sense.platform import windows_libraries as libraries

    ROOTS = (winreg.HKEY_CURRENT_USER, winreg.HKEY_LOCAL_MACHINE)
    """Windows notes programs of this user, and services and drivers that record for one."""
    WATCHED = tuple((root, f"{STORE}\\{device}") for root in ROOTS for device in (MICROPHONE, WEBCAM))

    def uses_of(device: str) -> list[Use] | None:
        """None: Windows notes nothing here."""
        found: list[Use] | None = None
        for root in ROOTS:
            with contextlib.suppress(OSError), winreg.OpenKey(root, f"{STORE}\\{device}") as key:
                found = [] if found is None else found
                found += [use for name in _names(key) for use in _entries(key, name)]
        return found

    def _entries(key: winreg.HKEYType, name: str) -> Iterator[Use]:
        with contextlib.suppress(OSError), winreg.OpenKey(key, name) as program:
            if name == NON_PACKAGED:
                for path in _names(program):
                    with contextlib.suppress(OSError), winreg.OpenKey(program, path) as entry:
                        yield Use(
                            path, False, _time(entry, "LastUsedTimeStart"), _time(entry, "LastUsedTimeStop")
                        )
            else:
                yield Use(name, True, _time(program, "LastUsedTimeStart"), _time(program, "LastUsedTimeStop"))

    def _names(key: winreg.HKEYType) -> list[str]:
        return [winreg.EnumKey(key, index) for index in range(winreg.QueryInfoKey(key)[0])]

    def _time(key: winreg.HKEYType, name: str) -> int:
        """-1: there is none."""
        try:
            value, _kind = winreg.QueryValueEx(key, name)
        except OSError:
            return -1
        return value if isinstance(value, int) else -1

    def booted() -> int:
        """FILETIME of the machine's start, a minute early, as the clock may have been set since."""
        import time  # noqa: PLC0415 - of this function alone

        started_s = time.time() - libraries.kernel32().GetTickCount64() / 1000.0 - 60.0
        return int((started_s + EPOCH_S) * 10_000_000)

    EPOCH_S = 11_644_473_600
    """From 1601, where FILETIMEs begin, to 1970."""
