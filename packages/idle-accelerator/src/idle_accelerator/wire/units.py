"""Human units in and out: ``1G`` is 1024³ bytes, ``10m`` is 600 seconds."""

import re

from idle_accelerator.errors import InvalidInput

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(I?B)?\s*$", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_size(text: str, *, field: str) -> int:
    """Bytes out of ``512``, ``64K``, ``1.5G``, ``2GiB``. Powers of 1024. Raises InvalidInput, naming ``field``."""
    match = _SIZE.match(text)
    if match is None:
        raise InvalidInput(
            f"{text!r} is not a size.",
            field=field,
            hint="Write bytes, or a number with K, M, G or T, such as 512M or 1.5G.",
        )
    return int(float(match[1]) * 1024 ** _SIZE_POWERS[match[2].upper()])


def parse_duration(text: str, *, field: str) -> float:
    """Seconds out of ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``. Raises InvalidInput, naming ``field``."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    parts = _DURATION_PART.findall(stripped)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != re.sub(r"\s+", "", stripped):
        raise InvalidInput(
            f"{text!r} is not a duration.",
            field=field,
            hint="Write seconds, or numbers with s, m, h or d, such as 90s or 1h30m.",
        )
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)


def format_size(size_bytes: float) -> str:
    """``1.5 GiB``; whole numbers below 1 KiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def format_duration(seconds: float) -> str:
    """``4 s``, ``2 min 5 s``, ``3 h 10 min``, ``2 d 4 h``; two units at most."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part) or "0 s"
