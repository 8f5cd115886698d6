"""Fact: whether what is sent costs money, as NetworkManager has it (Linux).

org.freedesktop.NetworkManager, property ``Metered`` (NMMetered): set by the owner for a connection, else guessed from the kind
of device and from what a phone says of itself. Its documentation advises to take a guessed yes for a yes and all else for
a no. systemd-networkd and others know no such thing: there it is untold.
"""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from idle_sense.facts import Network, Reading
from idle_sense.platform.dbus_address import system_address
from idle_sense.probes.bundle import Polled
from idle_sense.types import Capability, Verified

if TYPE_CHECKING:
    from idle_sense.platform.dbus import Bus
    from idle_sense.platform.dbus_answers import Call

NAME = "org.freedesktop.NetworkManager"
PATH = "/org/freedesktop/NetworkManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
RUNTIME = "/run/NetworkManager"
"""NetworkManager makes this folder when it starts: without it nobody needs to be asked."""
METERED = {1: True, 2: False, 3: True, 4: False}
"""nm-dbus-interface.h, NMMetered: 1 yes, 2 no, 3 and 4 the same guessed. 0: it does not know."""
ASK_EVERY_S = 30.0
UNKNOWN_PROPERTY = ("org.freedesktop.DBus.Error.UnknownProperty", "org.freedesktop.DBus.Error.InvalidArgs")


class NetworkManagerProbe(Polled):
    """Asks every 30 s, and when NetworkManager says that something changed."""

    every_s = 1.0
    verified: Verified = "emulated"

    def __init__(self, *, address: str = "", runtime: str = RUNTIME) -> None:
        """``address``: of the system bus, if not the usual one."""
        self._address = address
        self._runtime = runtime
        self._bus: Bus | None = None
        self._call: Call | None = None
        self._owner = ""
        self._asked_at_s: float | None = None
        self._last: Reading[Network] | None = None
        self._last_at_s = 0.0

    def read(self, now_s: float) -> Reading[Network]:
        if self._bus is None and not os.path.exists(self._runtime):  # noqa: PTH110 - in the loop
            return self._nobody("NetworkManager does not run here")
        bus = self._bus or self._connect()
        bus.poll()
        owner = bus.name(NAME)
        if bus.ready and owner.known and not owner.owner:
            self._call = None
            return self._nobody("NetworkManager is not on the system bus")
        self._take_answer(now_s)
        changed = bool(self._changes.taken()) or owner.owner != self._owner
        due = self._asked_at_s is None or not 0 <= now_s - self._asked_at_s < ASK_EVERY_S
        if bus.ready and self._call is None and (changed or due):
            self._owner = owner.owner
            self._asked_at_s = now_s
            self._call = bus.call(NAME, PATH, PROPERTIES, "Get", "ss", (NAME, "Metered"))
            bus.poll()
            self._take_answer(now_s)
        if self._last is not None:
            return self._last.aged(now_s - self._last_at_s)
        if bus.absent:
            return self._nobody("there is no system bus")
        problem = bus.problem or "its first answer has not come yet"
        return Reading[Network].missing(
            "NetworkManager", problem, "restart NetworkManager, or end what blocks it"
        )

    def capability(self) -> Capability:
        told = self._last is not None and self._last.value is not None
        advice = "" if self._last is None else self._last.problem
        return Capability(
            probe="network",
            back_end="NetworkManager's Metered over D-Bus" if self._bus is not None else "none",
            verified=self.verified,
            serves=told,
            advice=advice or ("" if told else "only NetworkManager tells whether a network is metered"),
        )

    def describe(self) -> tuple[str, ...]:
        if self._last is None or self._last.value is None:
            return ()
        return ("Whether the network is metered, as NetworkManager has it.",)

    def filenos(self) -> Collection[int]:
        return () if self._bus is None else self._bus.filenos()

    def close(self) -> None:
        if self._bus is not None:
            self._bus.close()

    def _connect(self) -> "Bus":
        # jeepney is worth its memory only where there is somebody to ask.
        from idle_sense.platform.dbus import Bus  # noqa: PLC0415

        self._bus = bus = Bus(self._address or system_address(os.environ))
        self._changes = bus.subscribe(
            sender=NAME, path=PATH, interface=PROPERTIES, member="PropertiesChanged"
        )
        return bus

    def _take_answer(self, now_s: float) -> None:
        call = self._call
        if call is None or not call.done:
            return
        self._call = None
        source = "NetworkManager"
        if call.failed:
            if call.error in UNKNOWN_PROPERTY:
                self._last = Reading[Network].untold(
                    source, "this NetworkManager does not know of metered networks"
                )
                self._last_at_s = now_s
            # Else what is known grows old; with nothing known it stays missing.
            return
        value = _number(call.body)
        self._last_at_s = now_s
        if value in METERED:
            self._last = Reading(value=Network(metered=METERED[value]), source=source)
        elif value == 0:
            self._last = Reading[Network].untold(source, "NetworkManager does not know either")
        else:
            self._last = Reading[Network].missing(
                source, f"it answered {call.body!r}", "see idle-sense doctor"
            )

    def _nobody(self, why: str) -> Reading[Network]:
        """Untold, unless it was told before."""
        if self._last is not None and self._last.value is not None:
            return Reading[Network].missing("NetworkManager", why, "start NetworkManager again")
        return Reading[Network].untold("NetworkManager", why)


def _number(body: tuple[object, ...]) -> int | None:
    """Of a variant, which jeepney has as a pair of signature and value."""
    match body:
        case (("u", int(value)),):
            return value
        case _:
            return None
