"""The file that holds a machine's habits: one JSON object of a few KB, replaced as a whole or not at all.

It tells nothing but how long the machine was idle at which half-hour, and how often that ended: no names, no dates.
"""

import base64
import binascii
import contextlib
import itertools
import json
import math
import os
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from idle_sense.errors import InvalidHistory
from idle_sense.habits import CELLS, RANKS, Habits

FORMAT = "idle-sense history"
VERSION = 1
LARGEST_BYTES = 1 << 20
_NUMBERS = 2 * CELLS + 2 * RANKS
_ABANDONED_S = 3600.0
"""After which a half-written file of a process that was killed is swept away."""
_serial = itertools.count()


def encode(habits: Habits) -> bytes:
    numbers = (*habits.exposure_s, *habits.ends, *habits.young_ranks, *habits.old_ranks)
    packed = zlib.compress(struct.pack(f"<{_NUMBERS}f", *numbers), 9)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "periods": habits.periods,
        "weight": habits.weight,
        "watched_s": habits.watched_s,
        "evidence": list(habits.evidence),
        "rest_days": list(habits.rest_days),
        "crc32": zlib.crc32(packed),
        "table": base64.b64encode(packed).decode("ascii"),
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def decode(content: bytes) -> Habits:
    """Raises InvalidHistory for whatever ``encode`` of this version cannot have written."""
    if len(content) > LARGEST_BYTES:
        raise InvalidHistory(f"it is too large ({len(content)} bytes)")
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidHistory(f"it is no JSON ({error})") from error
    if not isinstance(document, dict) or cast("dict[str, Any]", document).get("format") != FORMAT:
        raise InvalidHistory("it is no history of idle-sense")
    fields = cast("dict[str, Any]", document)
    if fields.get("version") != VERSION:
        raise InvalidHistory(f"it is of version {fields.get('version')!r}; this program knows {VERSION}")
    numbers = _numbers(fields)
    rest_days = _list(fields, "rest_days")
    if not all(type(day) is int and 0 <= day <= 6 for day in rest_days):
        raise InvalidHistory(f"rest_days is {rest_days!r}")
    evidence = _list(fields, "evidence")
    if len(evidence) != 2 or not all(type(nats) in (int, float) and -1e15 < nats < 1e15 for nats in evidence):
        raise InvalidHistory(f"evidence is {evidence!r}")
    periods = _amount(fields, "periods")
    if periods != int(periods):
        raise InvalidHistory(f"periods is {periods!r}")
    return Habits(
        exposure_s=numbers[:CELLS],
        ends=numbers[CELLS : 2 * CELLS],
        young_ranks=numbers[2 * CELLS : 2 * CELLS + RANKS],
        old_ranks=numbers[2 * CELLS + RANKS :],
        evidence=(evidence[0], evidence[1]),
        periods=int(periods),
        weight=_amount(fields, "weight"),
        watched_s=_amount(fields, "watched_s"),
        rest_days=tuple(rest_days),
    )


def _numbers(fields: dict[str, Any]) -> tuple[float, ...]:
    try:
        packed = base64.b64decode(fields["table"], validate=True)
        if zlib.crc32(packed) != fields["crc32"]:
            raise InvalidHistory("its check sum is wrong")
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(packed, 4 * _NUMBERS + 1)
        numbers: Sequence[float] = struct.unpack(f"<{_NUMBERS}f", raw)
    except (KeyError, TypeError, binascii.Error, ValueError, zlib.error, struct.error) as error:
        if isinstance(error, InvalidHistory):
            raise
        raise InvalidHistory(f"its table cannot be read ({error!r})") from error
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise InvalidHistory("its table has numbers that make no sense")
    return tuple(numbers)


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value: Any = fields.get(name)
    if not isinstance(value, list):
        raise InvalidHistory(f"{name} is {value!r}")
    return cast("list[Any]", value)


def _amount(fields: dict[str, Any], name: str) -> float:
    value: Any = fields.get(name)
    if type(value) not in (int, float) or not 0 <= value < 1e15:
        raise InvalidHistory(f"{name} is {value!r}")
    return cast("float", value)


def replace_file(path: Path, content: bytes) -> None:
    """Afterwards the file holds all of ``content``, or what it held before: written beside it, on disk, then renamed.

    Raises OSError, and leaves nothing behind.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}-{next(_serial)}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(path.parent)
    _sweep(path)


def set_aside(path: Path, why: str) -> str:
    """Moves a file that cannot be understood out of the way, in the place of an earlier one; says so in a sentence."""
    aside = path.with_name(path.name + ".aside")
    try:
        path.replace(aside)
    except OSError as error:
        return f"{path} cannot be understood: {why}; nor be moved away ({error.strerror}): delete it"
    return f"{path} cannot be understood: {why}; it is now {aside.name}, and forecasts start anew"


def _sync_folder(folder: Path) -> None:
    """So that the new name survives a power cut as well. Windows has no such call, and some file systems refuse it."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f"{path.name}.*.new"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
