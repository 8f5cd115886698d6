"""``idlectl doctor``: what works here, what does not, and what to do about it."""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from idle_accelerator.cli.connect import JsonFlag, KeyFlag, SchedulerFlag
from idle_accelerator.cli.terminal import line, show, show_plain_json
from idle_accelerator.errors import IdleError
from idle_accelerator.wire.units import format_duration, format_size

if TYPE_CHECKING:
    from idle_accelerator.settings import Connection

Level = Literal["ok", "warn", "fail"]
_ASK_S = 5.0
_LITTLE_ROOM_BYTES = 1024**3
_SKEW_S = 30.0
_STALE_STATUS_S = 60.0
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the examination."""

    level: Level
    subject: str
    found: str
    advice: str = ""
    """What to do; empty when nothing is to be done."""


def doctor(as_json: JsonFlag = False, scheduler: SchedulerFlag = None, key: KeyFlag = None) -> int:
    """Examine this machine and its way to the scheduler. The exit status is 1 when something fails."""
    findings = list(examine(scheduler, key))
    if as_json:
        show_plain_json([asdict(item) for item in findings])
    else:
        width = max(len(item.subject) for item in findings)
        for item in findings:
            show(f"{item.level:<4}  {item.subject:<{width}}  {line(item.found)}")
            if item.advice:
                show(f"{'':<6}{'':<{width}}  → {line(item.advice)}")
    return 1 if any(item.level == "fail" for item in findings) else 0


def examine(scheduler: str | None, key: str | None) -> Iterator[Finding]:
    """Every finding, from the machine outward to the pool."""
    yield _python()
    yield Finding(level="ok", subject="platform", found=f"{platform.platform()}, {os.cpu_count()} CPUs")
    yield _sqlite()
    yield from _guarded("isolation", _sandbox)
    yield from _guarded("open network", _network)
    yield from _guarded("guests", _mechanisms)
    yield from _guarded("idleness", _idleness)
    yield from _guarded("data directory", _data_dirs)
    yield from _guarded("agent", _agents)
    yield from _guarded("scheduler", lambda: _pool(scheduler, key))


def _guarded(subject: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What goes wrong while looking is a finding as well."""
    try:
        yield from look()
    except IdleError as error:
        where = f"{error.field}: " if error.field else ""
        yield Finding(level="fail", subject=subject, found=where + error.message, advice=error.hint or "")
    except (OSError, ImportError) as error:
        yield Finding(
            level="fail",
            subject=subject,
            found=f"{type(error).__name__}: {error}",
            advice="Install idle-accelerator anew." if isinstance(error, ImportError) else "",
        )


def _python() -> Finding:
    return Finding(
        level="ok",
        subject="Python",
        found=f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}",
    )


def _sqlite() -> Finding:
    import sqlite3  # noqa: PLC0415  # imported when needed

    version = sqlite3.sqlite_version_info
    first, last = _WAL_RESET_BUG
    note = ""
    if first <= version <= last:
        note = "; may corrupt files that two connections write at once, so the scheduler writes by one alone"
    return Finding(level="ok", subject="SQLite", found=sqlite3.sqlite_version + note)


def _sandbox() -> Iterator[Finding]:
    """What an agent of somebody else's pool would find, tried now: every tier, and line by line the one that it would take."""
    import tempfile  # noqa: PLC0415  # imported when needed

    from idle_accelerator.agent.sandbox import NoSandbox  # noqa: PLC0415  # as above
    from idle_accelerator.agent.sandbox.choice import tried  # noqa: PLC0415  # as above
    from idle_accelerator.agent.sandbox.ways import LINES  # noqa: PLC0415  # as above

    used = False
    with tempfile.TemporaryDirectory() as folder:
        for tier, found in tried(Path(folder)):
            subject = f"isolation {tier.name}" if used or not tier.automatic else "isolation"
            if isinstance(found, NoSandbox):
                whom = "for other people's pools" if tier.automatic else "of this tier"
                yield Finding(
                    level="warn" if tier.automatic else "ok",
                    subject=subject,
                    found=f"none {whom}: {found.failing}: {found.message}",
                    advice=found.hint or "",
                )
                continue
            asks = "" if tier.automatic else f" By your word alone: --sandbox {tier.name}"
            yield Finding(level="ok", subject=subject, found=f"{' '.join(found.sentences)}{asks}")
            if tier.automatic and not used:
                used = True
                for name in LINES:
                    yield Finding(
                        level="ok", subject=f"isolation {name}", found=str(getattr(found.isolation, name))
                    )


def _network() -> Iterator[Finding]:
    """Whether an owner could lend an open network; named hosts take nothing that is not here."""
    if sys.platform == "linux":
        from idle_accelerator.agent.network import consent, open_way  # noqa: PLC0415  # as above

        try:
            open_way.check()
        except IdleError as error:
            yield Finding(
                level="ok",
                subject="open network",
                found=f"could not be lent to a sandbox: {error.message}",
                advice=error.hint or "",
            )
        else:
            yield Finding(
                level="ok", subject="open network", found=f"could be lent to a sandbox, by {consent.OPEN_BY}"
            )


def _mechanisms() -> Iterator[Finding]:
    """How guests of any tier are stopped, killed, weighed and limited."""
    from idle_accelerator.agent.sandbox import mechanisms  # noqa: PLC0415  # as above

    for found in mechanisms():
        yield Finding(
            level="ok" if found.how else "warn",
            subject=f"guests {found.purpose}",
            found=found.how or "no limit",
            advice=found.lacking,
        )


def _idleness() -> Iterator[Finding]:
    from idle_sense import Monitor, Policy  # noqa: PLC0415  # as above

    monitor = Monitor(Policy.desktop())
    monitor.check()  # only after a look is it known what serves
    for item in monitor.capabilities():
        tried = "" if item.verified == "native" else f" ({item.verified})"
        yield Finding(
            level="ok" if item.serves or not item.tells else "warn",
            subject=f"senses {item.probe}",
            found=f"by {item.back_end}{tried}" if item.serves else f"not here ({item.back_end})",
            advice=item.advice,
        )


def _data_dirs() -> Iterator[Finding]:
    from idle_accelerator import settings  # noqa: PLC0415  # as above

    yield _directory("data directory", settings.data_dir())
    config = settings.config_file()
    found = "" if config.exists() else " (there is none, which is fine)"
    yield Finding(level="ok", subject="config file", found=f"{config}{found}")


def _directory(subject: str, path: Path) -> Finding:
    """Whether it can be written, tried at its nearest existing ancestor; and its free space."""
    import tempfile  # noqa: PLC0415  # as above

    existing = next(item for item in (path, *path.parents) if item.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(
            level="fail",
            subject=subject,
            found=f"{path} cannot be written: {error.strerror}",
            advice="Name another with --data-dir or IDLE_DATA_DIR.",
        )
    missing = "" if path.exists() else ", not made yet"
    return Finding(
        level="ok" if free_bytes >= _LITTLE_ROOM_BYTES else "warn",
        subject=subject,
        found=f"{path}{missing}, {format_size(free_bytes)} free",
        advice="" if free_bytes >= _LITTLE_ROOM_BYTES else "Make room, or name another with --data-dir.",
    )


def _agents() -> Iterator[Finding]:
    from idle_accelerator.agent.control import read_status, running_agents  # noqa: PLC0415  # as above

    running = running_agents()
    if not running:
        yield Finding(
            level="ok",
            subject="agent",
            found="none of yours runs here",
            advice="To lend this machine: idlectl up, or idlectl agent --scheduler URL",
        )
    for agent in running:
        status = read_status(agent.data_dir)
        if status is None or time.time() - status.updated_at_s > _STALE_STATUS_S:
            yield Finding(
                level="fail",
                subject="agent",
                found=f"{agent.name} (process {agent.pid}) has not said for a while how it is",
                advice="Stop it and start it again.",
            )
            continue
        yield Finding(
            level="ok" if status.connected else "fail",
            subject="agent",
            found=f"{status.name} for {status.scheduler_url}: {status.lending}: {'; '.join(status.sentences)}",
            advice="" if status.connected else "It cannot reach its scheduler; see its log.",
        )


def _pool(scheduler: str | None, key: str | None) -> Iterator[Finding]:
    from idle_accelerator import settings  # noqa: PLC0415  # as above

    place = settings.connection(scheduler, key)
    began = time.monotonic()
    try:
        version, date = _ask_health(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        yield Finding(
            level="warn" if place.origin == "default" else "fail",
            subject="scheduler",
            found=f"{place.url} (from {place.origin}) does not answer: {why}",
            advice="Start one: idlectl up; or name another: --scheduler URL, IDLE_SCHEDULER.",
        )
        return
    took_s = time.monotonic() - began
    yield Finding(
        level="ok",
        subject="scheduler",
        found=f"{place.url} (from {place.origin}), version {version}, answers in {format_duration(took_s)}",
    )
    yield _clock(date, took_s)
    yield _key(place)


def _ask_health(place: "Connection") -> tuple[str, str | None]:
    """The scheduler's version and the Date of its answer. Raises OSError, ValueError."""
    import urllib.request  # noqa: PLC0415  # as above

    with urllib.request.urlopen(f"{place.url}/healthz", timeout=_ASK_S) as answer:  # noqa: S310  # settings lets only http(s) pass
        body = json.load(answer)
        version = cast("dict[str, object]", body).get("version") if isinstance(body, dict) else None
        if version is None:
            raise ValueError("what answers there is no scheduler of ours")
        return str(version), answer.headers.get("Date")


def _clock(date: str | None, took_s: float) -> Finding:
    import email.utils  # noqa: PLC0415  # as above

    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Finding(level="ok", subject="clock", found="the scheduler does not say its time")
    skew_s = abs(time.time() - theirs)
    if skew_s <= _SKEW_S + took_s:
        return Finding(level="ok", subject="clock", found="as the scheduler's")
    return Finding(
        level="warn",
        subject="clock",
        found=f"{format_duration(skew_s)} away from the scheduler's: times in listings are off by as much",
        advice="Set both by NTP. Leases do not depend on it.",
    )


def _key(place: "Connection") -> Finding:
    import urllib.error  # noqa: PLC0415  # as above
    import urllib.request  # noqa: PLC0415  # as above

    headers = {"Authorization": f"Bearer {place.key}"} if place.key else {}
    request = urllib.request.Request(f"{place.url}/v1/jobs?limit=1", headers=headers)  # noqa: S310  # as above
    try:
        with urllib.request.urlopen(request, timeout=_ASK_S):  # noqa: S310  # as above
            return Finding(
                level="ok", subject="key", found="good" if place.key else "none, and none is needed"
            )
    except urllib.error.HTTPError as error:
        return Finding(
            level="fail",
            subject="key",
            found=f"refused ({error.code})" if place.key else f"none, but one is needed ({error.code})",
            advice="It stands in scheduler.key of the scheduler's data directory; give it with --key or IDLE_KEY.",
        )
    except OSError as error:
        return Finding(level="fail", subject="key", found=f"could not be tried: {error}")
