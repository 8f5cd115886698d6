"""Keeps a machine's habits on disk, fed by verdicts: what ``idle_sense.forecast`` rests on.

To attach it to a monitor's loop::

    history = History.native(policy.name)
    ...
    history.observe(verdict, now_s, local)  # after each sample, when the listeners have been told: microseconds, no I/O
    history.forecast(now_s, local, horizons_s=(1800.0, 7200.0))  # below a millisecond, from any thread
    history.close()

``Monitor.on_change`` alone feeds it as well, by ``lambda verdict: history.observe(verdict, time.monotonic(), datetime.now())``;
then an idle period that still goes on is not yet on disk when the process is killed. Learning and writing happen in a thread of
its own, so that neither a slow disk nor arithmetic keeps anybody waiting.
"""

import dataclasses
import logging
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from idle_sense.errors import InvalidHistory
from idle_sense.forecast import HORIZONS_S, Forecast, Model, fit, forecast, judged
from idle_sense.habits import Habits, faded, watched
from idle_sense.history_file import decode, encode, replace_file, set_aside
from idle_sense.types import Severity, State, Verdict

SAVE_EVERY_S = 600.0
"""While the machine is watched, the file is written so often, and when an idle period ends: what a kill can lose."""
CLOSE_WITHIN_S = 2.0
_BEHIND = 4096
"""Steps that may wait for a stuck disk, weeks of them; the oldest go."""

UNKNOWN_ENDS = frozenset(
    {
        "probe.missing",
        "probe.stale",
        "session.woke",
        "quiet.hours",
        "heat.hot",
        "heat.slowed",
        "network.metered",
    }
)
"""Reasons that end an idle period without the owner having come back: nothing is known of how long it would have lasted."""

_log = logging.getLogger("idle_sense")


@dataclass(frozen=True, kw_only=True)
class _Open:
    """The idle period that goes on now, on the monitor's clock and by the clock on the wall."""

    began_s: float
    began: datetime
    noted_age_s: float = 0.0
    """Up to this age it is on its way into the habits."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What one observation adds."""

    passed_s: float = 0.0
    local: datetime | None = None
    """At ``from_age_s``; None: not idle."""
    from_age_s: float = 0.0
    to_age_s: float = 0.0
    closed: bool = False
    """The idle period is over ..."""
    ended: bool = False
    """... because the owner was back."""
    began: datetime | None = None


class History:
    """One machine's habits under one policy: ``path`` holds them. All methods may be called from any thread. Several processes
    may keep the same file: the last writer wins, and what it knows is as good.

    A file that cannot be understood is set aside with a warning in the log, and in ``problem``; one that cannot be read or
    written is left alone, the warning stays in ``problem``, and forecasts rest on what this process saw.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""
        """What is wrong with the file now, and what to do; empty where nothing is."""
        self._readable = True
        self._habits = self._load()
        self._model: Model = fit(self._habits)
        self._open: _Open | None = None
        self._seen_s: float | None = None
        self._unsaved_s = 0.0
        self._steps: deque[_Step] = deque(maxlen=_BEHIND)
        self._feeding = threading.Lock()
        self._state = threading.Condition()
        self._wanted = 0
        self._saved = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def native(cls, policy_name: str) -> "History":
        """In the user's state folder. Each policy has habits of its own, as each means something else by idle."""
        return cls(history_path(policy_name))

    @property
    def path(self) -> Path:
        return self._path

    @property
    def habits(self) -> Habits:
        """What has been learned so far."""
        return self._habits

    def observe(self, verdict: Verdict, now_s: float, local: datetime) -> None:
        """``now_s``: the monitor's monotonic clock. ``local``: the time of day where the machine stands; a clock on the wall
        that is set or changes to summer time moves what follows, and nothing else. Garbage in either is passed over."""
        with self._feeding:
            if math.isfinite(now_s) and not self._closing:
                self._observe(verdict, now_s, local)

    def _observe(self, verdict: Verdict, now_s: float, local: datetime) -> None:
        if self._seen_s is None or now_s < self._seen_s:
            self._seen_s, self._open = now_s, None
        passed_s, seen_s = now_s - self._seen_s, self._seen_s
        self._seen_s = now_s
        self._unsaved_s += passed_s
        since_s = verdict.since_s if math.isfinite(verdict.since_s) and verdict.since_s > 0 else 0.0
        if self._open is not None and (
            verdict.state is not State.IDLE or now_s - since_s > self._open.began_s + 1.0
        ):
            self._close_period(verdict, seen_s, now_s - since_s)
        if verdict.state is State.IDLE and self._open is None:
            began = _earlier(local, since_s)
            self._open = _Open(began_s=now_s - since_s, began=began)
        if self._unsaved_s >= SAVE_EVERY_S:
            self._note_open(now_s)
            self._want_saved()

    def forecast(
        self,
        now_s: float,
        local: datetime,
        *,
        horizons_s: Sequence[float] = HORIZONS_S,
        confidences: Sequence[float] = (),
    ) -> Forecast:
        """How long the machine stays idle from now on; if it is not idle, how long it would if it became so now.

        For a scheduler that ranks machines: ``forecast(..., confidences=(0.8,)).lasts_s(0.8)`` are the seconds that it may count
        on four times in five. Raises ValueError for horizons or confidences that make no sense.
        """
        going_on = self._open
        age_s = 0.0 if going_on is None else max(0.0, now_s - going_on.began_s)
        return forecast(
            self._model,
            local=local,
            age_s=age_s,
            horizons_s=horizons_s,
            confidences=confidences,
            idle=going_on is not None,
        )

    def flush(self, within_s: float = CLOSE_WITHIN_S) -> bool:
        """Writes what was observed. False: it could not be written, or not within that time."""
        with self._feeding:
            if self._seen_s is not None:
                self._note_open(self._seen_s)
            self._want_saved()
        with self._state:
            wanted = self._wanted
            done = self._state.wait_for(lambda: self._saved >= wanted, timeout=within_s)
        return done and not self.problem

    def close(self, within_s: float = CLOSE_WITHIN_S) -> bool:
        """As ``flush``; then nothing more is learned. Twice is once."""
        if self._closing:
            return not self.problem
        written = self.flush(within_s)
        with self._state:
            self._closing = True
            self._state.notify_all()
        return written

    def _close_period(self, verdict: Verdict, seen_s: float, changed_s: float) -> None:
        """The idle period is over: at the change, or, where its end is not known, when it was last seen."""
        going_on, self._open = self._open, None
        if going_on is None:
            return
        codes = {reason.code for reason in verdict.reasons if reason.severity is not Severity.INFO}
        ended = verdict.state is State.BUSY and not codes <= UNKNOWN_ENDS
        until_s = changed_s if ended else min(seen_s, changed_s)
        to_age_s = max(going_on.noted_age_s, until_s - going_on.began_s)
        self._steps.append(
            _Step(
                local=_earlier(going_on.began, -going_on.noted_age_s),
                from_age_s=going_on.noted_age_s,
                to_age_s=to_age_s,
                closed=True,
                ended=ended,
                began=going_on.began,
            )
        )
        self._want_saved()

    def _note_open(self, now_s: float) -> None:
        going_on = self._open
        if going_on is None:
            return
        age_s = now_s - going_on.began_s
        if age_s <= going_on.noted_age_s:
            return
        self._steps.append(
            _Step(
                local=_earlier(going_on.began, -going_on.noted_age_s),
                from_age_s=going_on.noted_age_s,
                to_age_s=age_s,
            )
        )
        self._open = dataclasses.replace(going_on, noted_age_s=age_s)

    def _want_saved(self) -> None:
        self._steps.append(_Step(passed_s=self._unsaved_s))
        self._unsaved_s = 0.0
        with self._state:
            self._wanted += 1
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="idle-sense history", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._wanted > self._saved or self._closing)
                wanted = self._wanted
                if wanted <= self._saved:
                    return
            self._learn()
            self._save()
            with self._state:
                self._saved = wanted
                self._state.notify_all()

    def _learn(self) -> None:
        habits = self._habits
        passed_s = 0.0
        while self._steps:
            step = self._steps.popleft()
            passed_s += step.passed_s
            if step.local is None:
                continue
            if step.closed and step.began is not None:
                habits = judged(
                    habits, self._model, began=step.began, length_s=step.to_age_s, ended=step.ended
                )
            habits = watched(
                habits,
                local=step.local,
                from_age_s=step.from_age_s,
                to_age_s=step.to_age_s,
                ended=step.ended,
            )
        self._habits = faded(habits, passed_s)
        self._model = fit(self._habits)

    def _load(self) -> Habits:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Habits()
        except OSError as error:
            self._readable = False
            self._say(f"{self._path} cannot be read ({error.strerror}); forecasts start anew until it can")
            return Habits()
        try:
            return decode(content)
        except InvalidHistory as error:
            self._say(set_aside(self._path, str(error)))
            return Habits()

    def _save(self) -> None:
        if not self._readable:
            return
        try:
            replace_file(self._path, encode(self._habits))
        except OSError as error:
            self._say(
                f"{self._path} cannot be written ({error.strerror or error}); "
                "what was learned since is lost when this process ends"
            )
        else:
            self.problem = ""

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem


def read_habits(path: Path) -> Habits:
    """What is on disk, for a look: nothing is set aside or written. ``Habits()`` where there is no file.

    Raises InvalidHistory for a file that cannot be understood, OSError for one that cannot be read.
    """
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return Habits()


def history_path(policy_name: str) -> Path:
    """Where ``History.native`` keeps a policy's habits."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in policy_name)[:64]
    return state_folder(sys.platform, os.environ, Path.home()) / f"history-{safe or 'policy'}.json"


def state_folder(system: str, environ: Mapping[str, str], home: Path) -> Path:
    """A user's place for what programs remember: XDG_STATE_HOME (XDG Base Directory Specification 0.8; an absolute path or
    none), Application Support on macOS, LOCALAPPDATA on Windows."""
    if system == "win32":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "idle-sense"
    if system == "darwin":
        return home / "Library" / "Application Support" / "idle-sense"
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else home / ".local" / "state") / "idle-sense"


def _earlier(local: datetime, seconds: float) -> datetime:
    """By the clock on the wall; where the calendar ends, the same moment."""
    try:
        return local - timedelta(seconds=seconds)
    except OverflowError:
        return local
