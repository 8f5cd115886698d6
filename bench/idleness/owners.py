"""Made-up owners: when each machine was in use, and when it was off. Behaviour, not rates: nobody here knows any model's form.

Times are seconds since the epoch; people live by the clocks of ``ZONE``, with its DST changes and holidays.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZONE = ZoneInfo("Europe/Berlin")
WEEKS = 20
STARTS = (date(2026, 2, 2), date(2026, 9, 7))
"""Mondays; either span has a DST change and holidays."""
UNUSED_S = 310.0
"""Idle from so long after the last input on: 5 minutes, and 10 s of grace."""

Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Machine:
    kind: str
    starts_s: float
    ends_s: float
    used: tuple[Span, ...]
    off: tuple[Span, ...] = ()
    zone: tzinfo | None = ZONE
    """None: the zone of whoever reads."""

    def local(self, at_s: float) -> datetime:
        """The time of day there."""
        return datetime.fromtimestamp(at_s, self.zone)


@dataclass(frozen=True, kw_only=True)
class IdlePeriod:
    began_s: float
    length_s: float
    returned: bool
    """False: the machine was switched off, or the record ends."""


def periods(machine: Machine) -> list[IdlePeriod]:
    """The idle periods between uses, cut where the machine was off."""
    found: list[IdlePeriod] = []
    events = sorted(
        [(*span, True) for span in _merged(machine.used)] + [(*span, False) for span in _merged(machine.off)]
    )
    free_s = machine.starts_s
    for begins_s, ends_s, used in [*events, (machine.ends_s, machine.ends_s, False)]:
        began_s = free_s + UNUSED_S
        if begins_s > began_s:
            found.append(IdlePeriod(began_s=began_s, length_s=begins_s - began_s, returned=used))
        free_s = max(free_s, ends_s)
    return found


def machines(kind: str, count: int, seed: int) -> list[Machine]:
    found: list[Machine] = []
    for number in range(count):
        chance = random.Random(f"{kind} {seed} {number}")
        first = STARTS[number % len(STARTS)]
        days = [first + timedelta(days=day) for day in range(7 * WEEKS)]
        starts_s, ends_s = _at(first, 0), _at(first + timedelta(weeks=WEEKS), 0)
        used, off = KINDS[kind](chance, days)
        found.append(
            Machine(
                kind=kind,
                starts_s=starts_s,
                ends_s=ends_s,
                used=tuple(span for span in used if starts_s <= span[0] < ends_s),
                off=tuple(span for span in off if starts_s <= span[0] < ends_s),
            )
        )
    return found


def _at(day: date, hour: float) -> float:
    """That hour of that day, by the clocks on the wall."""
    midnight = datetime.combine(day, time(), ZONE)
    return (midnight.replace(tzinfo=None) + timedelta(hours=hour)).replace(tzinfo=ZONE).timestamp()


def _merged(spans: tuple[Span, ...]) -> list[Span]:
    merged: list[Span] = []
    for begin_s, end_s in sorted(spans):
        if merged and begin_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end_s, merged[-1][1]))
        else:
            merged.append((begin_s, end_s))
    return merged


def _lognormal(chance: random.Random, median: float, spread: float) -> float:
    return median * math.exp(chance.gauss(0.0, spread))


def _at_work(
    chance: random.Random, begin_s: float, end_s: float, *, burst_min: float = 15.0, away_min: float = 8.0
) -> Iterator[Span]:
    """At the desk: bursts of input, and pauses with a heavy tail."""
    now_s = begin_s
    while now_s < end_s:
        until_s = now_s + 60 * _lognormal(chance, burst_min, 1.0)
        yield now_s, min(until_s, end_s)
        pause_min = 5.2 + away_min * (chance.paretovariate(1.3) - 1.0) * chance.choice((0.3, 1.0, 1.0, 2.5))
        now_s = until_s + 60 * min(pause_min, 600.0)


def _without(spans: Iterator[Span], absences: list[Span]) -> Iterator[Span]:
    for begin_s, end_s in spans:
        left = [(begin_s, end_s)]
        for away_from_s, away_to_s in absences:
            left = [
                part
                for a_s, b_s in left
                for part in ((a_s, min(b_s, away_from_s)), (max(a_s, away_to_s), b_s))
                if part[1] > part[0]
            ]
        yield from left


def _days_off(chance: random.Random, days: list[date], weeks: int) -> set[date]:
    """Public holidays, holidays of whole weeks, and a few days of illness."""
    free = {date(2026, 4, 3), date(2026, 4, 6), date(2026, 5, 1), date(2026, 5, 14), date(2026, 5, 25)}
    free |= {date(2026, 12, 24) + timedelta(days=day) for day in range(9)}
    for _ in range(weeks):
        monday = chance.choice(days[14::7])
        free |= {monday + timedelta(days=day) for day in range(7)}
    free |= {day for day in days if chance.random() < 0.03}
    return free


def office(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    used: list[Span] = []
    free = _days_off(chance, days, 2)
    comes, goes = chance.uniform(7.5, 9.5), chance.uniform(16.5, 18.5)
    for day in days:
        if day in free or day.weekday() >= 5:
            if day.weekday() >= 5 and chance.random() < 0.07:
                begin_s = _at(day, chance.uniform(9, 18))
                used += _at_work(chance, begin_s, begin_s + 3600 * chance.uniform(0.5, 4))
            continue
        absences = []
        lunch = chance.gauss(12.3, 0.2)
        absences.append((_at(day, lunch), _at(day, lunch + max(0.3, chance.gauss(0.75, 0.2)))))
        for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
            meeting = chance.choice((9.5, 10, 10.5, 11, 13.5, 14, 14.5, 15, 16))
            absences.append((_at(day, meeting), _at(day, meeting + chance.choice((0.5, 0.5, 1, 1, 2)))))
        hours = _at(day, comes + chance.gauss(0, 0.35)), _at(day, goes + chance.gauss(0, 0.6))
        used += _without(_at_work(chance, *hours), absences)
        if chance.random() < 0.1:
            begin_s = _at(day, chance.uniform(20, 22))
            used += _at_work(chance, begin_s, begin_s + 3600 * chance.uniform(0.3, 1.5))
    return used, []


def gamer(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    used: list[Span] = []
    free = _days_off(chance, days, 1)
    evening = chance.uniform(18, 20.5)
    for day in days:
        if day in free or chance.random() < 0.2:
            continue
        long = day.weekday() >= 4
        begin = evening + chance.gauss(0, 0.7) - (chance.uniform(0, 6) if long else 0)
        end = begin + max(0.5, chance.gauss(6 if long else 4, 1.5))
        used += _at_work(chance, _at(day, begin), _at(day, end), burst_min=70, away_min=10)
    return used, []


def lab(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    """Lessons by a timetable, students in between; off at night in half of the rooms."""
    used: list[Span] = []
    off: list[Span] = []
    lessons = {(chance.randrange(5), chance.choice((8.25, 10.25, 12.25, 14.25, 16.25))) for _ in range(9)}
    vacation_from = chance.choice(days[50:90])
    vacation = {vacation_from + timedelta(days=day) for day in range(24)} | _days_off(chance, days, 0)
    switched_off = chance.random() < 0.5
    for day in days:
        if switched_off:
            off.append((_at(day, 21.5), _at(day + timedelta(days=1), 7.25)))
        if day.weekday() >= 5:
            continue
        for weekday, hour in lessons:
            if weekday == day.weekday() and day not in vacation and chance.random() < 0.75:
                begin_s = _at(day, hour) + chance.uniform(0, 900)
                used += _at_work(chance, begin_s, begin_s + 3600 * 1.4, burst_min=20, away_min=5)
        now = 7.5
        while True:
            now += chance.expovariate(0.08 if day in vacation else 0.45 if 9 < now < 18 else 0.2)
            if now > 20.5:
                break
            begin_s = _at(day, now)
            used += _at_work(chance, begin_s, begin_s + 60 * _lognormal(chance, 30, 0.8), away_min=3)
    return used, off


def server(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    """Nobody sits there: backups at night, deployments by day, now and then a long job of its own."""
    used: list[Span] = []
    backup = chance.uniform(0.5, 4)
    for day in days:
        begin_s = _at(day, backup)
        used.append((begin_s, begin_s + 60 * _lognormal(chance, 40, 0.3)))
        if day.weekday() == 6:
            begin_s = _at(day, 5.0)
            used.append((begin_s, begin_s + 3600 * _lognormal(chance, 2, 0.3)))
        for _ in range(chance.choice((0, 1, 2, 4)) if day.weekday() < 5 else chance.choice((0, 0, 1))):
            begin_s = _at(day, chance.gauss(14, 2.5))
            used.append((begin_s, begin_s + 60 * _lognormal(chance, 6, 1.0)))
        if chance.random() < 0.1:
            begin_s = _at(day, chance.uniform(0, 24))
            used.append((begin_s, begin_s + 3600 * _lognormal(chance, 3, 0.8)))
    return used, []


def erratic(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    """No rhythm at all, and a heavy tail."""
    used: list[Span] = []
    now_s, end_s = _at(days[0], 0), _at(days[-1], 24)
    scale_s, shape = 60 * _lognormal(chance, 45, 0.7), chance.uniform(0.4, 0.75)
    while now_s < end_s:
        busy_s = 60 * _lognormal(chance, 20, 1.0)
        used.append((now_s, now_s + busy_s))
        now_s += busy_s + UNUSED_S + chance.weibullvariate(scale_s, shape)
    return used, []


def shifts(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    """An office worker who goes over to night shifts for good, somewhere in the middle."""
    turn = chance.randrange(60, 80)
    by_day, _ = office(chance, days[:turn])
    used = list(by_day)
    for day in days[turn:]:
        if day.weekday() < 5 and chance.random() < 0.95:
            hours = _at(day, 22 + chance.gauss(0, 0.3)), _at(day, 30 + chance.gauss(0, 0.4))
            used += _at_work(chance, *hours)
    return used, []


def laptop(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    """A student's: used at odd hours, shut or asleep when not."""
    used: list[Span] = []
    free = _days_off(chance, days, 1)
    for day in days:
        if day in free:
            continue
        for _ in range(chance.choice((1, 2, 2, 3, 4))):
            begin = chance.choice((chance.gauss(10, 1), chance.gauss(15, 2), chance.gauss(21, 1.5)))
            begin_s = _at(day, begin)
            used += _at_work(chance, begin_s, begin_s + 3600 * _lognormal(chance, 1.3, 0.7))
    merged = _merged(tuple(used))
    off = [
        (before[1] + 1800 + UNUSED_S, after[0] - 30)
        for before, after in itertools.pairwise(merged)
        if after[0] - before[1] > 3600 and chance.random() < 0.7
    ]
    return used, off


def family(chance: random.Random, days: list[date]) -> tuple[list[Span], list[Span]]:
    used: list[Span] = []
    free = _days_off(chance, days, 2)
    for day in days:
        if day in free and chance.random() < 0.7:
            continue
        weekend = day.weekday() >= 5
        visits = [(chance.gauss(9.5, 1), 1.5)] if weekend else [(chance.gauss(7.2, 0.2), 0.3)]
        visits += [(chance.gauss(15.5, 1), 1.0), (chance.gauss(17.5, 1), 0.7), (chance.gauss(20.3, 0.7), 1.6)]
        for begin, hours in visits:
            if chance.random() < 0.7:
                begin_s = _at(day, begin)
                used += _at_work(chance, begin_s, begin_s + 3600 * _lognormal(chance, hours, 0.5))
    return used, []


KINDS: dict[str, Callable[[random.Random, list[date]], tuple[list[Span], list[Span]]]] = {
    "office": office,
    "gamer": gamer,
    "family": family,
    "lab": lab,
    "laptop": laptop,
    "server": server,
    "erratic": erratic,
    "shifts": shifts,
}
