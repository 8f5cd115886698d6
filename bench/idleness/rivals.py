"""Other ways to foretell how long a machine stays idle, each told the same past. Seconds everywhere."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BaseRate:
    """How often a machine that was idle stayed so for that long: of all earlier questions to which the answer is known."""

    def __init__(self) -> None:
        self._told: dict[float, list[float]] = {}

    def learn(self, horizon_s: float, stayed: bool) -> None:
        counts = self._told.setdefault(horizon_s, [1.0, 2.0])
        counts[0] += stayed
        counts[1] += 1.0

    def foretell(self, horizon_s: float) -> float:
        stayed, asked = self._told.get(horizon_s, (1.0, 2.0))
        return stayed / asked


class HourOfWeek:
    """The same, for each hour of the week, drawn to the base rate by one question's weight."""

    def __init__(self) -> None:
        self._all = BaseRate()
        self._told: dict[tuple[float, int], list[float]] = {}

    def learn(self, horizon_s: float, hour: int, stayed: bool) -> None:
        self._all.learn(horizon_s, stayed)
        counts = self._told.setdefault((horizon_s, hour), [0.0, 0.0])
        counts[0] += stayed
        counts[1] += 1.0

    def foretell(self, horizon_s: float, hour: int) -> float:
        stayed, asked = self._told.get((horizon_s, hour), (0.0, 0.0))
        return (stayed + self._all.foretell(horizon_s)) / (asked + 1.0)


class Lengths:
    """What the two below know: the lengths of closed periods, and of those whose end was not seen."""

    def __init__(self) -> None:
        self.ended_s: list[float] = []
        self.cut_s: list[float] = []
        self._fitted = 0

    def learn(self, length_s: float, returned: bool) -> None:
        (self.ended_s if returned else self.cut_s).append(max(1.0, length_s))

    def due(self) -> bool:
        """Worth fitting again: a twentieth more is known."""
        count = len(self.ended_s) + len(self.cut_s)
        if count < self._fitted * 1.05 + 1:
            return False
        self._fitted = count
        return True


class Weibull(Lengths):
    """A Weibull distribution of the lengths, by maximum likelihood with censoring; residual life given the age."""

    def __init__(self, shape: float, scale_s: float) -> None:
        super().__init__()
        self.shape, self.scale_s = shape, scale_s

    def fit(self) -> None:
        if len(self.ended_s) < 3 or not self.due():
            return
        logs = [math.log(length_s) for length_s in self.ended_s]
        every = logs + [math.log(length_s) for length_s in self.cut_s]
        top = max(every)
        low, high = 0.1, 5.0
        for _ in range(30):
            left, right = low + (high - low) * 0.382, low + (high - low) * 0.618
            if self._likelihood(left, logs, every, top) < self._likelihood(right, logs, every, top):
                low = left
            else:
                high = right
        self.shape = (low + high) / 2
        powers = sum(math.exp(self.shape * (value - top)) for value in every)
        self.scale_s = math.exp(top) * (powers / len(logs)) ** (1 / self.shape)

    @staticmethod
    def _likelihood(shape: float, logs: Sequence[float], every: Sequence[float], top: float) -> float:
        """Of the shape, with the best scale for it; constants are left out."""
        powers = sum([math.exp(shape * (value - top)) for value in every])
        count = len(logs)
        return (
            count * math.log(shape)
            - count * (math.log(powers / count) + shape * top)
            + (shape - 1) * math.fsum(logs)
        )

    def foretell(self, age_s: float, horizon_s: float) -> float:
        before = (age_s / self.scale_s) ** self.shape
        return math.exp(before - ((age_s + horizon_s) / self.scale_s) ** self.shape)


class Ages(Lengths):
    """RIPPP without the time of day: the share of earlier periods that got that old and then lasted that much longer
    (Kaplan-Meier, for those whose end was not seen). Falls back on a Weibull distribution past the longest of them."""

    def __init__(self, fallback: Weibull) -> None:
        super().__init__()
        self._fallback = fallback
        self._at_s: list[float] = []
        self._left: list[float] = []

    def fit(self) -> None:
        if not self.due():
            return
        events = sorted([(value, True) for value in self.ended_s] + [(value, False) for value in self.cut_s])
        self._at_s, self._left = [], []
        left = 1.0
        for position, (length_s, ended) in enumerate(events):
            if ended:
                left *= 1 - 1 / (len(events) - position)
                self._at_s.append(length_s)
                self._left.append(left)

    def _survival(self, length_s: float) -> float:
        position = bisect.bisect_right(self._at_s, length_s)
        return self._left[position - 1] if position else 1.0

    def foretell(self, age_s: float, horizon_s: float) -> float:
        older = self._survival(age_s)
        known = len(self._at_s) - bisect.bisect_right(self._at_s, age_s)
        if older <= 0 or known < 1:
            return self._fallback.foretell(age_s, horizon_s)
        # One period's weight for the fallback: without it, a single one that got so old would be certainty.
        seen = self._survival(age_s + horizon_s) / older
        return (known * seen + self._fallback.foretell(age_s, horizon_s)) / (known + 1)
