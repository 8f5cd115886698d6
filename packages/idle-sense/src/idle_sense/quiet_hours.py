"""Hours at which a machine is not lent: ``mon-fri 09:00-17:00``. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

from idle_sense.errors import InvalidPolicy

_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT = tuple(name[:3] for name in _NAMES)
_DAY_MINUTES = 24 * 60
_FORM = re.compile(r"(?:(?P<days>[a-z,\s-]+?)\s+)?(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")
_HINT = 'Write it like "22:00-07:00", "mon-fri 09:00-17:00" or "sat,sun 00:00-24:00".'


@dataclass(frozen=True, kw_only=True)
class QuietHours:
    """A span of the day, on some days of the week, in the machine's own time."""

    start_minute: int
    """Of the day."""
    end_minute: int
    """Of the day; not after ``start_minute``: of the day after, so that a span may run over midnight."""
    days: tuple[int, ...] = tuple(range(7))
    """On which it begins: 0 Monday to 6 Sunday."""

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """Raises InvalidPolicy."""
        found = _FORM.fullmatch(text.strip().lower())
        if found is None:
            raise InvalidPolicy(f"{text!r} is no span of hours.", field="quiet_hours", hint=_HINT)
        start, end = _minute(found["start"], text), _minute(found["end"], text)
        if start in (_DAY_MINUTES, end):
            raise InvalidPolicy(f"{text!r} has no length.", field="quiet_hours", hint=_HINT)
        return cls(start_minute=start, end_minute=end, days=_days(found["days"], text))

    def __str__(self) -> str:
        span = f"{_clock(self.start_minute)}-{_clock(self.end_minute)}"
        return span if self.days == tuple(range(7)) else f"{_named(self.days)} {span}"

    def contain(self, local: datetime) -> bool:
        """Whether ``local`` lies in them. What a clock change repeats or leaves out is as the wall clock shows it."""
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.start_minute < self.end_minute:
            return today in self.days and self.start_minute <= minute < self.end_minute
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.start_minute) or (
            yesterday in self.days and minute < self.end_minute
        )


def _minute(text: str, whole: str) -> int:
    hour, _, minute = text.partition(":")
    of_day = int(hour) * 60 + int(minute)
    if int(minute) > 59 or of_day > _DAY_MINUTES:
        raise InvalidPolicy(f"{text} in {whole!r} is no time of day.", field="quiet_hours", hint=_HINT)
    return of_day


def _days(text: str | None, whole: str) -> tuple[int, ...]:
    if text is None:
        return tuple(range(7))
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        try:
            start, end = _day(first), _day(last or first)
        except StopIteration:
            raise InvalidPolicy(
                f"{part!r} in {whole!r} is no day of the week.",
                field="quiet_hours",
                hint=f"Days are {', '.join(_SHORT)}. {_HINT}",
            ) from None
        found |= {(start + step) % 7 for step in range((end - start) % 7 + 1)}
    return tuple(sorted(found))


def _day(text: str) -> int:
    """By its name or the first three letters of it. Raises StopIteration."""
    return next(day for day, name in enumerate(_NAMES) if text in (name, name[:3]))


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _named(days: tuple[int, ...]) -> str:
    """``mon-fri``, ``sat,sun``, ``sat-mon``."""
    runs: list[list[int]] = []
    for day in days:
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    if len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == 6:
        runs[0] = [*runs.pop(), *runs[0]]
    return ",".join(
        f"{_SHORT[run[0]]}-{_SHORT[run[-1]]}" if len(run) > 2 else ",".join(_SHORT[day] for day in run)
        for run in runs
    )
