"""A real machine's times of use out of an export of ActivityWatch (`aw-server`: Raw Data, Export all buckets)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from idleness.owners import Machine

if TYPE_CHECKING:
    from pathlib import Path


def machine(path: Path) -> Machine:
    """Buckets of type `afkstatus`: an event `not-afk` is a time of use, from its first input to its last. Times of day are those
    of the zone of whoever runs this. Raises ValueError for a file that is no such export."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        used = sorted(
            (began_s, began_s + float(event["duration"]))
            for bucket in document["buckets"].values()
            if bucket["type"] == "afkstatus"
            for event in bucket["events"]
            if event["data"]["status"] == "not-afk"
            for began_s in [datetime.fromisoformat(event["timestamp"]).timestamp()]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no export of ActivityWatch ({error!r})") from error
    if not used:
        raise ValueError(f"{path} holds no time of use")
    ends_s = max(end_s for _, end_s in used)
    return Machine(kind=path.name, starts_s=used[0][0], ends_s=ends_s, used=tuple(used), zone=None)
