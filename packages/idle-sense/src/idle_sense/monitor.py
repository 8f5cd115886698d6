"""The only loop: waits for time and events, samples the probes, asks the policy, tells the listeners."""

import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from idle_sense.clock import Clock, SystemClock
from idle_sense.decision import Memory, decide
from idle_sense.doorbell import doorbell
from idle_sense.policy import Policy
from idle_sense.probes.bundle import FACTS, Probes, native_probes
from idle_sense.probes.guests import GuestLedger
from idle_sense.sampling import Sampler, Turnstile, local_time
from idle_sense.types import Capability, Reason, Severity, Snapshot, State, Verdict

if TYPE_CHECKING:
    from idle_sense.explanation import Explanation
    from idle_sense.forecast import Forecast
    from idle_sense.history import History

REST_S = 1.0
"""Between regular samples."""
ATTENTIVE_S = 0.1
"""Between regular samples while guests run: what the owner waits for when no event tells that they are back."""

_log = logging.getLogger("idle_sense")

Listener = Callable[[Verdict], object]
_Content = tuple[State, tuple[str, ...], bool]


class Monitor:
    """Is this machine truly idle, why, since when, for how long?

    Use ``check()`` for one look, or ``with Monitor() as monitor`` and ``on_change`` for a watch in a thread of its own.
    Load needs two looks and idleness some quiet: the first verdicts are never IDLE. All methods may be called from any thread.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        guests: GuestLedger | None = None,
        *,
        clock: Clock | None = None,
        probes: Probes | None = None,
        history: "History | None" = None,
    ) -> None:
        """``policy``: ``Policy.desktop()`` if not given. ``guests``: whose work is not the owner's. ``probes``: those of this
        system, which this monitor closes; others bring a ledger of their own, so that ``guests`` must not be given.
        ``history``: what learns from the verdicts for ``forecast``; who gives it closes it."""
        if probes is not None and guests is not None and probes.guests is not guests:
            raise ValueError("probes have a ledger of their own: Probes(guests=...)")
        self.policy = policy or Policy.desktop()
        self._clock = clock or SystemClock()
        self._probes = probes or native_probes(guests)
        self._sampler = Sampler(self._probes, self._clock)
        self._memory = Memory()
        self._snapshot: Snapshot | None = None
        self._sampling = threading.Lock()
        self._listeners: list[Listener] = []
        self._unheard: list[Listener] = []
        self._listening = threading.Lock()
        self._news = threading.Condition()
        self._verdict: Verdict | None = None
        self._history = history
        self._own_history: History | None = None
        self._told: _Content | None = None
        self._attentive = False
        self._paused_until_s: float | None = None
        self._bell = doorbell()
        self._look_again = False
        self._woken: set[str] = set()
        self._waited_for: frozenset[int] = frozenset()
        self._closing = False
        self._thread: threading.Thread | None = None

    def guests(self) -> GuestLedger:
        """Whose work is not the owner's: ``add(pid)``, ``add_cgroup(path)``, ``add_job(name)``."""
        return self._probes.guests

    @property
    def attentive(self) -> bool:
        """True: a regular sample each 0.1 s, for while guests run. False: each 1 s."""
        return self._attentive

    @attentive.setter
    def attentive(self, attentive: bool) -> None:
        self._attentive = attentive
        self._look_now()

    def check(self) -> Verdict:
        """One sample now, in the calling thread; bounded, as every probe is."""
        verdict = self._sample(None)
        self._tell_watch(verdict)
        self._learn(verdict)
        return verdict

    @property
    def snapshot(self) -> Snapshot | None:
        """What the last sample saw; None before the first."""
        return self._snapshot

    def pause(self, for_s: float | None = None) -> None:
        """The owner's word: busy from now on, for so long or until ``resume``. Time that the machine sleeps may not count."""
        if for_s is not None and not for_s >= 0:
            raise ValueError(f"{for_s!r} is no time to pause for")
        self._paused_until_s = math.inf if for_s is None else self._clock.monotonic_s() + for_s
        self._look_now()

    def resume(self) -> None:
        """Takes ``pause`` back."""
        self._paused_until_s = None
        self._look_now()

    def start(self) -> None:
        """Starts the watch: a daemon thread that ends with ``close``. Twice is once."""
        with self._listening:
            if self._thread is not None or self._closing:
                return
            for fact, probe in zip(FACTS, self._probes, strict=True):
                probe.listen(lambda fact=fact: self._wake(fact))
            self._thread = threading.Thread(target=self._watch, name="idle-sense", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the watch and lets go of what the probes hold. Must not be called by a listener."""
        self._closing = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        with self._news:
            self._news.notify_all()
        with self._sampling:
            self._sampler.close()
        if self._own_history is not None:
            self._own_history.close()
        if self._thread is None or not self._thread.is_alive():
            self._bell.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` in the watch's thread: once soon, and whenever the state, the codes of the reasons or
        ``memory_short`` change. What it raises is logged and harms nobody. Returns what ends that."""
        with self._listening:
            self._listeners.append(listener)
            self._unheard.append(listener)
        self._look_now()

        def end() -> None:
            with self._listening:
                for listeners in (self._listeners, self._unheard):
                    if listener in listeners:
                        listeners.remove(listener)

        return end

    def wait(self, state: State, timeout_s: float | None = None) -> Verdict | None:
        """Waits until the machine is in that state, and returns the verdict that says so; None when the time is over first, or
        the monitor is closed. Starts the watch if need be. Must not be called by a listener."""
        self.start()

        def there() -> bool:
            return self._closing or (self._verdict is not None and self._verdict.state is state)

        with self._news:
            self._news.wait_for(there, timeout_s)
            verdict = self._verdict
        return verdict if verdict is not None and verdict.state is state and not self._closing else None

    async def changes(self) -> AsyncIterator[Verdict]:
        """The verdict now, and each that ``on_change`` would tell. Starts the watch if need be."""
        import asyncio  # noqa: PLC0415 - 40 ms, for those alone who use it already

        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Verdict] = asyncio.Queue()
        end = self.on_change(lambda verdict: loop.call_soon_threadsafe(heard.put_nowait, verdict))
        self.start()
        try:
            while True:
                yield await heard.get()
        finally:
            end()

    def explain(self) -> "Explanation":
        """All that speaks for and against idleness at a look now, each with value, limit, source and age."""
        from idle_sense.explanation import explain  # noqa: PLC0415 - words are needed seldom

        with self._sampling:
            verdict, snapshot = self._judge(None)
            explanation = explain(snapshot, self.policy, self._memory, verdict)
        self._tell_watch(verdict)
        return explanation

    def forecast(
        self, horizons_s: Sequence[float] | None = None, *, confidences: Sequence[float] = ()
    ) -> "Forecast":
        """How long the machine stays idle from now on, from its own past: for each horizon, how likely it lasts that long; for
        each confidence, for how long one may count on it. Asked of a busy machine: if it became idle now.

        Rests on the history that the monitor was given, else on the user's own one for this policy, which is opened, and fed
        from then on, by the first call. Raises ValueError for horizons or confidences that make no sense.
        """
        from idle_sense.forecast import HORIZONS_S  # noqa: PLC0415 - as above
        from idle_sense.history import History  # noqa: PLC0415

        if self._history is None:
            self._history = self._own_history = History.native(self.policy.name)
            self.check()
        return self._history.forecast(
            self._clock.monotonic_s(),
            local_time(self._clock),
            horizons_s=HORIZONS_S if horizons_s is None else horizons_s,
            confidences=confidences,
        )

    def describe(self) -> tuple[str, ...]:
        """What this machine takes as idleness, in sentences. Looks once, if nothing was looked at yet."""
        if self._snapshot is None:
            self.check()
        from idle_sense.describe import describe  # noqa: PLC0415 - words are needed seldom

        with self._sampling:
            return describe(self.policy, self._probes)

    def capabilities(self) -> tuple[Capability, ...]:
        """What each probe can see here, by event or poll, and at what cost. Looks once, if nothing was looked at yet."""
        if self._snapshot is None:
            self.check()
        with self._sampling:
            return self._sampler.capabilities()

    def _filenos(self) -> dict[int, str]:
        with self._sampling:
            return self._sampler.filenos()

    def _look_now(self) -> None:
        self._look_again = True
        self._bell.ring()

    def _wake(self, fact: str) -> None:
        """Called by probes, from threads of their own."""
        self._woken.add(fact)
        self._bell.ring()

    def _watch(self) -> None:
        turnstile = Turnstile()
        due_s = -math.inf
        readable: dict[int, str] = {}
        while not self._closing:
            self._bell.take()
            woken, self._woken = self._woken, set()
            only = turnstile.let_in(woken.union(readable.values()))
            now_s = self._clock.monotonic_s()
            if self._look_again or now_s >= due_s:
                self._look_again = False
                turnstile.tick()
                self._spread(self._check_or_busy(None))
                due_s = now_s + (ATTENTIVE_S if self._attentive else REST_S)
            elif only:
                self._spread(self._check_or_busy(only))
            if readable:
                turnstile.looked(readable, self._bell.wait(readable, 0.0))
            waited_for = turnstile.open(self._filenos())
            self._waited_for = frozenset(waited_for)
            left_s = due_s - self._clock.monotonic_s()
            if left_s > 0 and not self._closing:
                found = self._clock.wait(self._bell, waited_for, left_s)
                readable = {fileno: waited_for[fileno] for fileno in found}
            else:
                readable = {}

    def _spread(self, verdict: Verdict) -> None:
        with self._news:
            self._verdict = verdict
            self._news.notify_all()
        content = _content(verdict)
        with self._listening:
            listeners = self._unheard if content == self._told else list(self._listeners)
            self._unheard = []
        self._told = content
        for listener in listeners:
            try:
                listener(verdict)
            except Exception:  # noqa: BLE001 - whatever somebody else's code raises
                _log.exception("a listener failed; the watch goes on")
        self._learn(verdict)

    def _tell_watch(self, verdict: Verdict) -> None:
        """What a look in another thread has found, and the descriptors that it may have exchanged, are the watch's affair."""
        if (
            self._thread is not None
            and threading.current_thread() is not self._thread
            and (_content(verdict) != self._told or self._waited_for != frozenset(self._filenos()))
        ):
            self._look_now()

    def _learn(self, verdict: Verdict) -> None:
        snapshot = self._snapshot
        if self._history is not None and snapshot is not None and snapshot.local is not None:
            self._history.observe(verdict, snapshot.now_s, snapshot.local)

    def _sample(self, only: frozenset[str] | None) -> Verdict:
        with self._sampling:
            return self._judge(only)[0]

    def _judge(self, only: frozenset[str] | None) -> tuple[Verdict, Snapshot]:
        snapshot = self._sampler.snapshot(only=only, paused_until_s=self._paused())
        verdict, self._memory = decide(snapshot, self.policy, self._memory)
        self._snapshot = snapshot
        return verdict, snapshot

    def _paused(self) -> float | None:
        until_s = self._paused_until_s
        if until_s is not None and until_s <= self._clock.monotonic_s():
            self._paused_until_s = until_s = None
        return until_s

    def _check_or_busy(self, only: frozenset[str] | None) -> Verdict:
        """Only a defect of this library makes a sample fail; then nothing is known, which counts as busy."""
        try:
            return self._sample(only)
        except Exception as error:  # noqa: BLE001 - as said above
            _log.exception("a sample failed; the next one follows")
            params = {"probe": "everything", "problem": repr(error), "advice": "see the log, and report this"}
            reason = Reason(code="probe.missing", severity=Severity.HARD, params=params, source="idle-sense")
            return Verdict(state=State.BUSY, reasons=(reason,), memory_short=False, since_s=0.0)


def _content(verdict: Verdict) -> _Content:
    """What listeners are told of."""
    return verdict.state, verdict.codes, verdict.memory_short
