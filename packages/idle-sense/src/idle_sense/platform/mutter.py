"""How long a GNOME session has had no input, as Mutter tells on the session's bus (org.gnome.Mutter.IdleMonitor).

GetIdletime is true also while a program keeps the screen on; AddIdleWatch is not, for it stays silent then, and so is not
used. AddUserActiveWatch fires once, at the next input: set whenever there was some quiet, it makes the first input an event,
and somebody who types on causes none.
"""

import time
from collections.abc import Callable, Collection

from idle_sense.platform.dbus import PATIENCE_S, Bus
from idle_sense.platform.dbus_answers import Call
from idle_sense.platform.display_client import QUIET_S, Answer

NAME = "org.gnome.Mutter.IdleMonitor"
PATH = "/org/gnome/Mutter/IdleMonitor/Core"
EVERY_S = 0.9
"""While the watch stands, the idle time only grows: it is asked for to see that Mutter still answers."""


class MutterIdle:
    """One session. Not for several threads at once."""

    def __init__(self, bus: Bus, *, now: Callable[[], float] = time.monotonic) -> None:
        """``bus``: the session's own, for this alone; it is closed with this."""
        self.answer: Answer | None = None
        self.problem = ""
        """Why there is no newer answer; empty while all is well."""
        self._bus = bus
        self._now = now
        self._name = bus.name(NAME)
        self._fired = bus.subscribe(sender=NAME, path=PATH, interface=NAME, member="WatchFired")
        self._owner = ""
        self._idle: Call | None = None
        self._watch: Call | None = None
        """AddUserActiveWatch, whose watch stands until it fires; None: there is none."""

    @property
    def absent(self) -> bool:
        """No Mutter here: the bus says so, or there is no bus."""
        return self._bus.absent or (self._bus.ready and self._name.known and not self._name.owner)

    @property
    def refused(self) -> bool:
        return self._bus.refused

    def poll(self, budget_s: float) -> None:
        """Asks, if nothing is outstanding, and takes what has come within ``budget_s``. Never raises for what a bus does."""
        deadline_s = self._now() + budget_s
        self._bus.poll(budget_s)
        self._follow_owner()
        if not self._owner:
            self.problem = self._bus.problem or ("" if self.absent else "it does not answer")
            return
        for signal in self._fired.taken():
            if self._watch is not None and signal.body == self._watch.body:
                # Input just now: known at once, however long Mutter takes for the next question.
                self._watch = self._idle = None
                self.answer = Answer(idle_s=0.0, at_s=self._now())
                self.problem = ""
                return
        if self._idle is None and self._due():
            self._idle = self._ask("GetIdletime")
        if self._idle is not None and not self._idle.done:
            self._bus.poll(max(0.0, deadline_s - self._now()))
        self._take_idle()

    def age_s(self, answer: Answer) -> float:
        """How long ago the answer was true, at the least favourable: since its question was sent."""
        return max(0.0, self._now() - answer.at_s)

    def filenos(self) -> Collection[int]:
        return self._bus.filenos()

    def close(self) -> None:
        self._bus.close()
        self._begin("")

    def _follow_owner(self) -> None:
        """Another Mutter than before, or none, knows nothing of our watch."""
        owner = f"{self._bus.generation} {self._name.owner}" if self._name.owner else ""
        if owner != self._owner:
            self._begin(owner)

    def _begin(self, owner: str) -> None:
        self._owner = owner
        self._idle = self._watch = None
        self._fired.taken()
        self.answer = None

    def _due(self) -> bool:
        """At every look, but where the standing watch would have told of input."""
        stands = self._watch is not None and self._watch.done and not self._watch.failed
        return self.answer is None or not stands or not 0 <= self.age_s(self.answer) < EVERY_S

    def _take_idle(self) -> None:
        call = self._idle
        if call is None:
            return
        if not call.done:
            if self._now() - call.sent_at_s > PATIENCE_S / 2:
                self.problem = "Mutter does not answer"
            return
        self._idle = None
        idle_ms = call.body[0] if call.body else None
        if call.failed or not isinstance(idle_ms, int) or idle_ms < 0:
            self.problem = f"Mutter does not tell it ({call.error or 'no number'})"
            return
        self.problem = ""
        self.answer = Answer(idle_s=idle_ms / 1000.0, at_s=call.sent_at_s)
        if self._watch is not None and self._watch.failed:
            self._watch = None
        if self._watch is None and self.answer.idle_s >= QUIET_S:
            self._watch = self._ask("AddUserActiveWatch")

    def _ask(self, member: str) -> Call:
        return self._bus.call(NAME, PATH, NAME, member)
