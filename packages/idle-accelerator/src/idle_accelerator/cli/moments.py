"""Moments as people say them."""

from datetime import UTC, datetime

from idle_accelerator.wire.units import format_duration


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """``4 min ago``: one unit, rounded down. What lies ahead, as clocks of two machines differ, is ``just now``."""
    if moment is None:
        return "never"
    age_s = ((now or datetime.now(UTC)) - moment).total_seconds()
    if age_s < 1:
        return "just now"
    for size_s, unit, limit in ((1, "s", 60), (60, "min", 60), (3600, "h", 48)):
        if age_s < size_s * limit:
            return f"{int(age_s // size_s)} {unit} ago"
    return f"{int(age_s // 86400)} d ago"


def lasted(start: datetime, end: datetime) -> str:
    """The time between, in words."""
    return format_duration(max(0.0, (end - start).total_seconds()))


def clock_time(moment: datetime) -> str:
    """``14:05``, on this machine's clock; with the date when it is not today's."""
    local = moment.astimezone()
    today = datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M" if local.date() == today else "%Y-%m-%d %H:%M")
