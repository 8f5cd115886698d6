"""Amounts and moments in human units, in both languages."""

from datetime import UTC, datetime

from idle_accelerator.wire.reasons import Language
from idle_accelerator.wire.units import format_duration, format_size

_UNITS = ((86400, "d", "天"), (3600, "h", "小时"), (60, "min", "分钟"), (1, "s", "秒"))


def size(size_bytes: float) -> str:
    return format_size(size_bytes)


def cores(count: float) -> str:
    """At most two decimals, none where there are none."""
    return f"{count:.2f}".rstrip("0").rstrip(".")


def duration(seconds: float, language: Language) -> str:
    """Two units at most."""
    if language == "en":
        return format_duration(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} 毫秒"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} 秒"
    left = round(seconds)
    parts: list[str] = []
    for unit_s, _, unit in _UNITS:
        count, left = divmod(left, unit_s)
        if count:
            parts.append(f"{count} {unit}")
        if parts and (len(parts) == 2 or not count):
            break
    return " ".join(parts)


def ago(moment: datetime | None, language: Language, *, now: datetime | None = None) -> str:
    """How long since, in one unit; "—" for never. Clocks of two machines differ, so the future counts as now."""
    if moment is None:
        return "—"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for unit_s, english, chinese in _UNITS:
        count = int(seconds // unit_s)
        if count > 0:
            return f"{count} {english} ago" if language == "en" else f"{count} {chinese}前"
    return "just now" if language == "en" else "刚刚"


def between(start: datetime | None, end: datetime | None, language: Language) -> str:
    """How long from ``start`` to ``end``, or until now; "—" when it has not begun."""
    if start is None:
        return "—"
    return duration(max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()), language)
