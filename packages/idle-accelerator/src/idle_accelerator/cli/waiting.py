"""Waiting for a job: a bar on a terminal, plain lines elsewhere, and why it waits when it does not start."""

import contextlib
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from idle_accelerator.cli.checkpoints import how_far
from idle_accelerator.cli.connect import short
from idle_accelerator.cli.terminal import console, line, say
from idle_accelerator.errors import ResultTimeout, Unavailable
from idle_accelerator.wire.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idle_accelerator.sdk.client import JobHandle
    from idle_accelerator.wire.jobs import JobView

SAY_WHY_AFTER_S = 1.5
OUTAGE_S = 300.0
"""How long a scheduler may be away until waiting for it is given up."""
_LOOK_S = 0.5
_PROGRESS_EVERY_S = 2.0
_PROGRESS_TASKS = 16
"""Of larger jobs nobody is asked how far each task is."""
_LINE_EVERY_S = 10.0
_TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


class _Display(Protocol):
    def show(self, view: "JobView", why: str, far: "Sequence[str]" = ()) -> None:
        """``far``: how far running tasks say they are, one line each."""
        ...

    def close(self) -> None: ...


def wait_for(handle: "JobHandle[Any]") -> "JobView":
    """Returns the job's last view, once it has ended; a scheduler that restarts meanwhile is waited for.

    KeyboardInterrupt passes through: the job goes on.
    """
    display: _Display = _Bar() if sys.stderr.isatty() else _Lines()
    started = heard_at = time.monotonic()
    view: JobView | None = None
    far: Sequence[str] = ()
    looked_at = started
    try:
        while True:
            try:
                view = handle.status
                heard_at = time.monotonic()
            except Unavailable as error:
                if view is None or time.monotonic() - heard_at > OUTAGE_S:
                    raise
                display.show(view, f"{error.message} Going on trying.")
                continue
            if view.state in _TERMINAL:
                return view
            waited_s = time.monotonic() - started
            stalled = view.counts.active == 0 and view.counts.queued > 0
            if time.monotonic() - looked_at >= _PROGRESS_EVERY_S:
                looked_at = time.monotonic()
                far = _how_far(handle, view)
            display.show(view, why_waiting(view) if stalled and waited_s >= SAY_WHY_AFTER_S else "", far)
            with contextlib.suppress(ResultTimeout):
                handle.wait(timeout=_LOOK_S)
    finally:
        display.close()


def _how_far(handle: "JobHandle[Any]", view: "JobView") -> "Sequence[str]":
    """What its running tasks say of themselves."""
    if not view.counts.active or view.counts.total > _PROGRESS_TASKS:
        return ()
    with contextlib.suppress(Unavailable):
        said = [(item, how_far(item.progress)) for item in handle.tasks(limit=_PROGRESS_TASKS).tasks]
        alone = view.counts.total == 1
        return [words if alone else f"task {item.index}: {words}" for item, words in said if words]
    return ()


def why_waiting(view: "JobView") -> str:
    """The nearest reason, in one line; the number of the others."""
    sentences = [line(item.sentence) for item in view.waiting]
    if not sentences:
        return ""
    others = (
        f" (and {len(sentences) - 1} more: idlectl job {short(view.job_id)})" if len(sentences) > 1 else ""
    )
    return f"waits: {sentences[0]}{others}"


def left_running(handle: "JobHandle[Any]") -> None:
    """What to say to somebody who stops waiting."""
    name = short(handle.id)
    say(f"\nNo longer waiting; job {handle.id} goes on.")
    say(f"To wait again: idlectl result {name} --wait   to cancel it: idlectl cancel {name}")


class _Bar:
    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415  # only where a bar is drawn
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._task = self._progress.add_task("", total=None)
        self._live = Live(self._progress, console=console(stderr=True), transient=True, refresh_per_second=4)
        self._live.start()

    def show(self, view: "JobView", why: str, far: "Sequence[str]" = ()) -> None:
        from rich.console import Group  # noqa: PLC0415  # as above
        from rich.text import Text  # noqa: PLC0415  # as above

        counts = view.counts
        done = counts.succeeded + counts.failed + counts.cancelled
        self._progress.update(self._task, total=counts.total, completed=done, description=_in_words(view))
        said = [Text(words, style="dim") for words in far] + ([Text(why, style="yellow")] if why else [])
        self._live.update(Group(self._progress, *said) if said else self._progress)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """A line when a reason changes (ages in it do not count), and one in ten seconds when tasks end or say how far they are."""

    def __init__(self) -> None:
        self._why = ""
        self._done = 0
        self._far: Sequence[str] = ()
        self._said_at_s = -_LINE_EVERY_S
        self._started = time.monotonic()

    def show(self, view: "JobView", why: str, far: "Sequence[str]" = ()) -> None:
        counts = view.counts
        done = counts.succeeded + counts.failed + counts.cancelled
        now = time.monotonic()
        kind = re.sub(r"[\d.]+ (ms|s|min|h|d)\b", "", why)
        if kind != self._why:
            self._why = kind
            if why:
                say(why)
        if now - self._said_at_s < _LINE_EVERY_S:
            return
        if far and far != self._far:
            self._far, self._said_at_s = far, now
            for words in far:
                say(words)
        if done != self._done:
            self._done, self._said_at_s = done, now
            say(
                f"{done} of {counts.total} tasks done after {format_duration(now - self._started)}, {_in_words(view)}"
            )

    def close(self) -> None:
        pass


def _in_words(view: "JobView") -> str:
    counts = view.counts
    parts = [
        f"{number} {word}"
        for number, word in (
            (counts.active, "running"),
            (counts.queued, "waiting"),
            (counts.failed, "failed"),
            (counts.cancelled, "cancelled"),
        )
        if number
    ]
    return ", ".join(parts)
