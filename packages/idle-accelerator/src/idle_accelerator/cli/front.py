"""What ``idlectl up`` shows while it stays in front: the machines, what they lend and why, and the work."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idle_accelerator.cli.terminal import console, line, shorten
from idle_accelerator.errors import IdleError

if TYPE_CHECKING:
    from rich.text import Text

    from idle_accelerator.cli.stopping import StopWish
    from idle_accelerator.settings import Connection

_LOOK_S = 2.0
_NODES_SHOWN = 8
_COUNT_LIMIT = 500
_COLOURS = {"available": "green", "lent": "green", "offline": "red", "in_use": "yellow", "settling": "yellow"}


@dataclass(frozen=True, kw_only=True)
class NodeLine:
    name: str
    lending: str
    running: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The pool at one moment. ``trouble`` says why the rest is missing."""

    nodes: tuple[NodeLine, ...] = ()
    active_jobs: int = 0
    queued_jobs: int = 0
    trouble: str = ""

    def jobs_in_words(self) -> str:
        if not self.active_jobs and not self.queued_jobs:
            return "no job in the pool"
        return f"{_count(self.active_jobs)} running, {_count(self.queued_jobs)} waiting"


def _count(number: int) -> str:
    more = "+" if number >= _COUNT_LIMIT else ""
    return f"{number}{more} job" + ("" if number == 1 else "s")


class PoolWatch:
    """Looks at the pool every two seconds, in a thread of its own, so that a slow answer holds up nobody."""

    def __init__(self, place: "Connection") -> None:
        self._place = place
        self._ended = threading.Event()
        self.picture = Picture(trouble="looking …")

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="pool-watch").start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        from idle_accelerator.sdk.client import Client  # noqa: PLC0415  # imported when needed
        from idle_accelerator.wire.states import JobState  # noqa: PLC0415  # as above

        with Client(self._place.url, self._place.key) as client:
            while not self._ended.is_set():
                try:
                    self.picture = Picture(
                        nodes=tuple(
                            NodeLine(
                                name=item.facts.name,
                                lending=item.lending,
                                running=item.running,
                                sentence="; ".join(reason.sentence for reason in item.reasons),
                            )
                            for item in client.nodes()
                        ),
                        active_jobs=len(client.jobs(limit=_COUNT_LIMIT, state=JobState.ACTIVE).jobs),
                        queued_jobs=len(client.jobs(limit=_COUNT_LIMIT, state=JobState.QUEUED).jobs),
                    )
                except IdleError as error:
                    self.picture = Picture(trouble=error.message)
                self._ended.wait(_LOOK_S)


def stay_in_front(place: "Connection", wish: "StopWish", watch: Callable[[], None]) -> None:
    """Shows the pool until ``wish`` comes (Stopped) or ``watch`` raises."""
    pool = PoolWatch(place)
    pool.start()
    try:
        if sys.stdout.isatty():
            _draw(pool, wish, watch)
        else:
            _write(pool, wish, watch)
    finally:
        pool.stop()


def _draw(pool: PoolWatch, wish: "StopWish", watch: Callable[[], None]) -> None:
    from rich.live import Live  # noqa: PLC0415  # as above

    with Live(console=console(), auto_refresh=False, transient=True) as live:
        while True:
            live.update(drawing(pool.picture), refresh=True)
            wish.pause(1.0, watch)


def drawing(picture: Picture) -> "Text":
    """The picture as a few coloured lines."""
    from rich.text import Text  # noqa: PLC0415  # as above

    if picture.trouble:
        return Text(f"{picture.trouble}\nCtrl-C stops everything.", style="yellow")
    text = Text()
    for node in picture.nodes[:_NODES_SHOWN]:
        text.append(f"{shorten(node.name, 40)}  ")
        text.append(node.lending, style=_COLOURS.get(node.lending, ""))
        text.append(f", runs {node.running}\n" if node.running else "\n")
        text.append(f"  {shorten(node.sentence, 400)}\n", style="dim")
    if len(picture.nodes) > _NODES_SHOWN:
        text.append(f"… and {len(picture.nodes) - _NODES_SHOWN} more: idlectl nodes\n")
    text.append(f"{picture.jobs_in_words()} · Ctrl-C stops everything.")
    return text


def _write(pool: PoolWatch, wish: "StopWish", watch: Callable[[], None]) -> None:
    """One line whenever a machine's state, or the number of jobs, has changed."""
    told: dict[str, str] = {}
    while True:
        picture = pool.picture
        news = {"": picture.trouble or picture.jobs_in_words()}
        news |= {node.name: node.lending for node in picture.nodes}
        for node in picture.nodes:
            if told.get(node.name) != node.lending:
                _tell(f"{node.name}: {node.lending}: {line(node.sentence)}")
        for name in told.keys() - news.keys() if not picture.trouble else ():
            _tell(f"{name}: gone")
        if told.get("") not in (None, news[""]):
            _tell(line(news[""]))
        told = news if not picture.trouble else {**told, **news}
        wish.pause(1.0, watch)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a reader that went away is no reason to stop the pool
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()
