"""``idlectl lend``, ``pause`` and ``resume``: the owner's word to the agents of this machine."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idle_accelerator.cli.connect import KeyFlag, check_id, open_client, short
from idle_accelerator.cli.terminal import line, say, show
from idle_accelerator.errors import IdleError, InvalidInput, NotFound
from idle_accelerator.wire.units import format_duration, parse_duration

if TYPE_CHECKING:
    from idle_accelerator.agent.control import AgentStatus, OwnerWord, RunningAgent

_APPLY_S = 10.0
_WHOLE_ID = re.compile(r"j[a-z2-7]{16}")
DataDirFlag = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Only the agent of this data directory; else every agent of yours on this machine.",
        show_default=False,
    ),
]


def lend(
    for_: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="It ends by itself after so long.")
    ] = "1h",
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job", metavar="JOB", help="To these jobs only; may be given often.", show_default=False
        ),
    ] = None,
    data_dir: DataDirFlag = None,
    key: KeyFlag = None,
) -> int:
    """Lend this machine now, though you are using it."""
    from idle_accelerator.agent.control import OwnerWord  # noqa: PLC0415  # commands import what they need when they run

    for_s = parse_duration(for_, field="--for")
    agents = _agents(data_dir)
    words = [OwnerWord(kind="lend", for_s=for_s, jobs=_whole_ids(job, agent, key)) for agent in agents]
    until = _clock_after(for_s)
    to_whom = "" if not job else f" to {', '.join(short(text) for text in job)} only"
    return _give(agents, words, f"lent{to_whom} by your word for {format_duration(for_s)} (until {until})")


def pause(
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="It ends by itself after so long; else with `idlectl resume`.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDirFlag = None,
) -> int:
    """Stop lending this machine: what runs here is frozen at once."""
    from idle_accelerator.agent.control import OwnerWord  # noqa: PLC0415  # as above

    for_s = None if for_ is None else parse_duration(for_, field="--for")
    agents = _agents(data_dir)
    until = "until you type: idlectl resume" if for_s is None else f"until {_clock_after(for_s)}"
    return _give(agents, [OwnerWord(kind="pause", for_s=for_s)] * len(agents), f"paused {until}")


def resume(data_dir: DataDirFlag = None) -> int:
    """Take back what you said with lend or pause: idleness alone decides again."""
    agents = _agents(data_dir)
    return _give(agents, [None] * len(agents), "resumed: lent while it is idle")


def _agents(data_dir: Path | None) -> "list[RunningAgent]":
    """Raises NotFound when none runs."""
    from idle_accelerator.agent.control import running_agents  # noqa: PLC0415  # as above

    running = running_agents()
    if data_dir is not None:
        wanted = data_dir.resolve()
        # `up` keeps its agent in a folder below the directory that its own flag names.
        running = [item for item in running if item.data_dir.resolve() in (wanted, wanted / "agent")]
    if not running:
        where = "on this machine" if data_dir is None else f"over {data_dir}"
        raise NotFound(
            f"no agent of yours runs {where}.", hint="Start one: idlectl up, or idlectl agent --scheduler URL"
        )
    return running


def _whole_ids(jobs: list[str] | None, agent: "RunningAgent", key: str | None) -> tuple[str, ...] | None:
    if not jobs:
        return None
    checked = [check_id(text, field="--job") for text in jobs]
    if all(_WHOLE_ID.fullmatch(text) for text in checked):
        return tuple(checked)
    with open_client(agent.scheduler_url, key) as client:
        return tuple(client.job(text).id for text in checked)


def _clock_after(seconds: float) -> str:
    from idle_accelerator.cli.moments import clock_time  # noqa: PLC0415  # as above

    try:
        return clock_time(datetime.now(UTC) + timedelta(seconds=seconds))
    except OverflowError as error:
        raise InvalidInput("too long.", field="--for", hint="For example: --for 10m.") from error


def _give(agents: "list[RunningAgent]", words: "Sequence[OwnerWord | None]", said: str) -> int:
    """Gives each agent its word, and says what it makes of it. 1 when one of them does not react."""
    from idle_accelerator.agent.control import give_word, wait_applied  # noqa: PLC0415  # as above

    given = [give_word(agent.data_dir, word) for agent, word in zip(agents, words, strict=True)]
    status = 0
    for agent, word_id in zip(agents, given, strict=True):
        try:
            applied = wait_applied(agent.data_dir, word_id, _APPLY_S)
        except IdleError as error:
            say(f"error: {agent.name}: {error.message}")
            say(f"hint: {error.hint}")
            status = 1
            continue
        show(f"{agent.name}: {said}")
        say(f"  now {applied.lending}{_held(applied)}: {'; '.join(line(text) for text in applied.sentences)}")
    return status


def _held(status: "AgentStatus") -> str:
    if not status.running:
        return ""
    frozen = f", {status.frozen} of them frozen" if status.frozen else ""
    return f", holds {status.running}{frozen}"
