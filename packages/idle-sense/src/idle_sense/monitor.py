"""The only loop: samples the probes, asks the policy, tells the listeners."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from idle_sense.clock import Clock, SystemClock
from idle_sense.policy import Memory, decide
from idle_sense.probes.bundle import Probe, Probes, native_probes
from idle_sense.probes.guests import GuestLedger
from idle_sense.types import Capability, Policy, Reading, Reason, Severity, Snapshot, State, Verdict

REST_S = 1.0
"""Between samples."""
ATTENTIVE_S = 0.1
"""Between samples while guests run: what the owner waits for when they come back."""

_log = logging.getLogger("idle_sense")

T = TypeVar("T")
Listener = Callable[[Verdict], None]


class Monitor:
    """Is this machine truly idle, why, since when?

    Use ``check()`` for one look, or ``with Monitor() as monitor`` and ``on_change`` for a watch in a thread of its own.
    Load needs two looks and idleness some quiet: the first verdicts are never IDLE. All methods may be called from any thread.
    """

    def __init__(
        self, policy: Policy | None = None, *, clock: Clock | None = None, probes: Probes | None = None
    ) -> None:
        """``policy``: ``Policy.desktop()`` if not given. ``probes``: those of this system; the monitor closes them."""
        self.policy = policy or Policy.desktop()
        self._clock = clock or SystemClock()
        self._probes = probes or native_probes()
        self._seats = _Held(self._probes.seats, "input")
        self._terminals = _Held(self._probes.terminals, "terminals")
        self._load = _Held(self._probes.load, "load")
        self._memory_use = _Held(self._probes.memory, "memory")
        self._power = _Held(self._probes.power, "power")
        self._memory = Memory()
        self._before: tuple[float, float, float] | None = None
        self._snapshot: Snapshot | None = None
        self._sampling = threading.Lock()
        self._listeners: list[Listener] = []
        self._unheard: list[Listener] = []
        self._listening = threading.Lock()
        self._attentive = False
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def guests(self) -> GuestLedger:
        """Whose processor time is not the owner's."""
        return self._probes.guests

    @property
    def attentive(self) -> bool:
        """True: a sample each 0.1 s, for while guests run. False: each 1 s."""
        return self._attentive

    @attentive.setter
    def attentive(self, attentive: bool) -> None:
        self._attentive = attentive
        self._wake.set()

    def check(self) -> Verdict:
        """One sample now, in the calling thread; bounded, as every probe is."""
        with self._sampling:
            snapshot = self._sample()
            verdict, self._memory = decide(snapshot, self.policy, self._memory)
            self._snapshot = snapshot
            return verdict

    @property
    def snapshot(self) -> Snapshot | None:
        """What the last sample saw; None before the first."""
        return self._snapshot

    def start(self) -> None:
        """Starts the watch: a daemon thread that ends with ``close``. Twice is once."""
        if self._thread is None and not self._closing:
            thread = threading.Thread(target=self._watch, name="idle-sense", daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Ends the watch and lets go of what the probes hold. Must not be called by a listener."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        with self._sampling:
            self._probes.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_change(self, listener: Listener) -> None:
        """Calls ``listener`` in the watch's thread: once soon, and whenever the state, the codes of the reasons or
        ``memory_short`` change. What it raises is logged and harms nobody."""
        with self._listening:
            self._listeners.append(listener)
            self._unheard.append(listener)
        self._wake.set()

    def describe(self) -> tuple[str, ...]:
        """What this machine takes as idleness, in sentences. Looks once, if nothing was looked at yet."""
        if self._snapshot is None:
            self.check()
        from idle_sense.describe import describe  # noqa: PLC0415 - words are needed seldom

        with self._sampling:
            return describe(self.policy, self._probes)

    def capabilities(self) -> tuple[Capability, ...]:
        """What each probe can see here. Looks once, if nothing was looked at yet."""
        if self._snapshot is None:
            self.check()
        with self._sampling:
            return tuple(
                held.probe.capability()
                for held in (self._seats, self._terminals, self._load, self._memory_use, self._power)
            )

    def _watch(self) -> None:
        told: tuple[State, tuple[str, ...], bool] | None = None
        while not self._closing:
            self._wake.clear()
            verdict = self._check_or_busy()
            content = (verdict.state, verdict.codes, verdict.memory_short)
            with self._listening:
                listeners = self._unheard if content == told else list(self._listeners)
                self._unheard = []
            told = content
            for listener in listeners:
                self._tell(listener, verdict)
            if not self._closing:
                self._clock.wait(self._wake, ATTENTIVE_S if self._attentive else REST_S)

    def _check_or_busy(self) -> Verdict:
        """Only a defect of this library makes a sample fail; then nothing is known, which counts as busy."""
        try:
            return self.check()
        except Exception as error:  # noqa: BLE001 - as said above
            _log.exception("a sample failed; the next one follows")
            params = {"probe": "everything", "problem": repr(error), "advice": "see the log, and report this"}
            reason = Reason(code="probe.missing", severity=Severity.HARD, params=params, source="idle-sense")
            return Verdict(state=State.BUSY, reasons=(reason,), memory_short=False, since_s=0.0)

    def _tell(self, listener: Listener, verdict: Verdict) -> None:
        try:
            listener(verdict)
        except Exception:  # noqa: BLE001 - whatever somebody else's code raises
            _log.exception("a listener failed; the watch goes on")

    def _sample(self) -> Snapshot:
        now_s, wall_s, suspended_s = (
            self._clock.monotonic_s(),
            self._clock.wall_s(),
            self._clock.suspended_s(),
        )
        slept_s = jumped_s = 0.0
        if self._before is not None:
            passed_s = now_s - self._before[0]
            slept_s = max(0.0, suspended_s - self._before[2])
            jumped_s = wall_s - self._before[1] - passed_s
            # Monotonic time runs on in sleep on some systems and stops on others.
            if abs(jumped_s - slept_s) < abs(jumped_s):
                jumped_s -= slept_s
        self._before = (now_s, wall_s, suspended_s)
        return Snapshot(
            now_s=now_s,
            seats=self._seats.at(now_s),
            terminals=self._terminals.at(now_s),
            load=self._load.at(now_s),
            memory=self._memory_use.at(now_s),
            power=self._power.at(now_s),
            slept_s=slept_s,
            jumped_s=jumped_s,
        )


class _Held(Generic[T]):
    """The last reading of a probe, which is asked again only when that is worth its cost."""

    def __init__(self, probe: Probe[T], name: str) -> None:
        self.probe = probe
        self._name = name
        self._reading: Reading[T] | None = None
        self._read_at_s = 0.0

    def at(self, now_s: float) -> Reading[T]:
        age_s = now_s - self._read_at_s
        if self._reading is not None and 0 <= age_s < self.probe.every_s - 0.05:
            return self._reading.aged(age_s)
        try:
            self._reading = self.probe.read(now_s)
        except Exception as error:  # noqa: BLE001 - a probe that fails is a fact about the machine, not the watch's end
            self._reading = Reading[T].missing(
                self._name, f"{type(error).__name__}: {error}", "see idle-sense doctor"
            )
        self._read_at_s = now_s
        return self._reading
