"""``idlectl agent``."""

from pathlib import Path
from typing import Annotated

import typer

from idle_accelerator.cli import daemons, lifeline
from idle_accelerator.cli.connect import KeyFlag, SchedulerFlag, pairs
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.units import parse_duration, parse_size

POLICIES = ("desktop", "server", "lab")
_LENDING = "What it lends"
_OWNER = "When it lends"
PolicyFlag = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="|".join(POLICIES),
        help="desktop: while nobody uses it. server: no owner at the keyboard, load counts. lab: shared desks.",
        rich_help_panel=_OWNER,
    ),
]


def agent(
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="How the pool calls it; the host name if left out.", show_default=False),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Its identity and workspaces.", show_default=False),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option("--cpus", help="Cores; all if left out.", rich_help_panel=_LENDING, show_default=False),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory, such as 8G.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option(
            "--disk", metavar="SIZE", help="Disk, such as 50G.", rich_help_panel=_LENDING, show_default=False
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME=VALUE",
            help="What jobs may ask for; may be given often.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
    environments: Annotated[
        str,
        typer.Option(
            "--environments",
            metavar="SIZE",
            help="Disk for the packages that tasks ask for, kept for the next time; 0 installs none.",
            rich_help_panel=_LENDING,
        ),
    ] = "10G",
    environment_size: Annotated[
        str,
        typer.Option(
            "--environment-size",
            metavar="SIZE",
            help="Most that the packages of one task may take.",
            rich_help_panel=_LENDING,
        ),
    ] = "8G",
    environment_time: Annotated[
        str,
        typer.Option(
            "--environment-time",
            metavar="DURATION",
            help="Longest that installing them may take.",
            rich_help_panel=_LENDING,
        ),
    ] = "15m",
    policy: PolicyFlag = "desktop",
    sandbox: Annotated[
        str,
        typer.Option(
            "--sandbox",
            metavar="auto|bubblewrap|process",
            help="How work is kept apart from you. auto: not at all for a scheduler on this machine, by the strongest way that"
            " holds for any other. process: you trust everybody who has the pool's key.",
            rich_help_panel=_LENDING,
        ),
    ] = "auto",
    lend_for: Annotated[
        str | None,
        typer.Option(
            "--lend-for",
            metavar="DURATION",
            help="Lend from the start, by your word, for so long, even while in use.",
            rich_help_panel=_OWNER,
            show_default=False,
        ),
    ] = None,
    input_idle: Annotated[
        str | None,
        typer.Option(
            "--input-idle",
            metavar="DURATION",
            help="Without keyboard and mouse for so long it counts as idle; the policy says if left out.",
            rich_help_panel=_OWNER,
            show_default=False,
        ),
    ] = None,
    vacate_after: Annotated[
        str,
        typer.Option(
            "--vacate-after",
            metavar="DURATION",
            help="Frozen work leaves when you have been back for so long.",
            rich_help_panel=_OWNER,
        ),
    ] = "10m",
    grace: Annotated[
        str,
        typer.Option(
            "--grace",
            metavar="DURATION",
            help="What work gets to save itself before it is killed; may be 0.",
            rich_help_panel=_OWNER,
        ),
    ] = "5s",
) -> int:
    """Lend this machine to a pool while it is idle; in front, until Ctrl-C."""
    from idle_accelerator import settings  # noqa: PLC0415  # commands import what they need when they run

    pool_pid = lifeline.hold()
    check_policy(policy)
    place = settings.connection(scheduler, key)
    directory = daemons.make_data_dir(data_dir or settings.data_dir() / "agent")

    memory_bytes = None if memory is None else parse_size(memory, field="--memory")
    for flag, amount in (("--cpus", cpus), ("--memory", memory_bytes)):
        if amount is not None and not amount > 0:
            raise InvalidInput("must be more than nothing.", field=flag, hint="Leave it out to lend all.")

    from idle_accelerator.agent.app import AgentConfig, run_agent  # noqa: PLC0415  # 0.5 s of imports
    from idle_accelerator.agent.environments import EnvironmentLimits  # noqa: PLC0415  # as above
    from idle_accelerator.agent.sandbox import choice  # noqa: PLC0415  # as above

    config = AgentConfig(
        scheduler_url=place.url,
        data_dir=directory,
        key=place.key,
        name=name,
        policy=policy,
        cpus=cpus,
        memory_bytes=memory_bytes,
        disk_bytes=None if disk is None else parse_size(disk, field="--disk"),
        labels=pairs(label, flag="--label", example="room=12"),
        sandbox=choice.check(sandbox),
        lend_for_s=_duration(lend_for, flag="--lend-for"),
        vacate_after_s=parse_duration(vacate_after, field="--vacate-after"),
        grace_s=parse_duration(grace, field="--grace"),
        input_idle_s=_duration(input_idle, flag="--input-idle"),
        pool_pid=pool_pid,
        environments=EnvironmentLimits(
            kept_bytes=parse_size(environments, field="--environments"),
            size_bytes=parse_size(environment_size, field="--environment-size"),
            time_s=parse_duration(environment_time, field="--environment-time"),
        ),
    )
    daemons.log_to_stderr()
    daemons.settle_in()
    return run_agent(config)


def check_policy(text: str) -> None:
    """Raises InvalidInput."""
    if text not in POLICIES:
        raise InvalidInput(
            f"{text!r} is no policy.", field="--policy", hint=f"Use one of: {', '.join(POLICIES)}."
        )


def _duration(text: str | None, *, flag: str) -> float | None:
    return None if text is None else parse_duration(text, field=flag)
