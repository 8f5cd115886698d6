"""Windows' battery and mains, and whether a program keeps the screen on (winbase.h, powerbase.h)."""

import ctypes
import sys
from collections.abc import Callable
from typing import ClassVar

from idle_sense.facts import Power, Reading
from idle_sense.platform.windows_events import Events, Topic
from idle_sense.platform.windows_numbers import (
    AC_LINE_ONLINE,
    AC_LINE_UNKNOWN,
    BATTERY_FLAG_NO_BATTERY,
    BATTERY_FLAG_UNKNOWN,
    ES_DISPLAY_REQUIRED,
    SystemExecutionState,
)
from idle_sense.platform.windows_probe import WindowsProbe
from idle_sense.platform.windows_structures import SYSTEM_POWER_STATUS
from idle_sense.types import Verified


def power_of(line: int, flag: int) -> Power:
    """SYSTEM_POWER_STATUS: ACLineStatus and BatteryFlag.

    An unknown battery counts as one unless the machine is on mains for certain: then it does not matter.
    """
    on_mains = None if line == AC_LINE_UNKNOWN else line == AC_LINE_ONLINE
    if flag == BATTERY_FLAG_UNKNOWN:
        return Power(battery=on_mains is not True, on_mains=on_mains)
    return Power(battery=not flag & BATTERY_FLAG_NO_BATTERY, on_mains=on_mains)


class WindowsPower(WindowsProbe[Power]):
    """A ``Probe``. An uninterruptible power supply that is attached by USB counts as a battery, as Windows has it."""

    fact = "power"
    back_end = "GetSystemPowerStatus"
    verified: ClassVar[Verified] = "emulated"
    topic = Topic.POWER
    every_s = 30.0

    def __init__(self, ask: Callable[[], tuple[int, int]], events: Events | None = None) -> None:
        """``ask``: (ACLineStatus, BatteryFlag)."""
        super().__init__(events)
        self._ask = ask

    def look(self, now_s: float) -> Reading[Power]:
        del now_s
        return Reading(value=power_of(*self._ask()), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Whether it runs on battery.",)


def keeps_screen_on(execution_state: int) -> bool:
    """The system's execution state: some program asked to keep the screen on, as players and conferences do."""
    return bool(execution_state & ES_DISPLAY_REQUIRED)


if sys.platform == "win32":
    from idle_sense.platform import windows_libraries as libraries

    def power_status() -> tuple[int, int]:
        """(ACLineStatus, BatteryFlag). Raises OSError."""
        status = SYSTEM_POWER_STATUS()
        libraries.checked(libraries.kernel32().GetSystemPowerStatus(ctypes.byref(status)))
        return status.ACLineStatus, status.BatteryFlag

    def execution_state() -> int | None:
        """Of all programs together; which of them it is, only an administrator may know. None: not told."""
        state = ctypes.c_uint32()
        status = libraries.powrprof().CallNtPowerInformation(
            SystemExecutionState, None, 0, ctypes.byref(state), ctypes.sizeof(state)
        )
        return None if status < 0 else state.value
