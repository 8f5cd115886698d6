"""``idlectl agent``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idle_accelerator.cli import daemons, lifeline
from idle_accelerator.cli.connect import KeyFlag, SchedulerFlag, pairs
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.units import parse_duration, parse_size

if TYPE_CHECKING:
    from idle_accelerator.agent.owner_file import OwnerFile

POLICIES = ("desktop", "server", "lab")
_LENDING = "What it lends"
_OWNER = "When it lends"
PolicyFlag = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="|".join(POLICIES),
        help="desktop: while nobody uses it. server: no owner at the keyboard, load counts. lab: shared desks.",
        rich_help_panel=_OWNER,
        show_default="desktop",
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
        str | None,
        typer.Option(
            "--environments",
            metavar="SIZE",
            help="Disk for the packages that tasks ask for, kept for the next time; 0 installs none.",
            rich_help_panel=_LENDING,
            show_default="10G",
        ),
    ] = None,
    environment_size: Annotated[
        str | None,
        typer.Option(
            "--environment-size",
            metavar="SIZE",
            help="Most that the packages of one task may take.",
            rich_help_panel=_LENDING,
            show_default="8G",
        ),
    ] = None,
    environment_time: Annotated[
        str | None,
        typer.Option(
            "--environment-time",
            metavar="DURATION",
            help="Longest that installing them may take.",
            rich_help_panel=_LENDING,
            show_default="15m",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="off|proxy|open",
            help="What work in a sandbox may reach. proxy: the hosts that you allow. open: every public host.",
            rich_help_panel=_LENDING,
            show_default="off",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="HOST[:PORT]",
            help="With --network proxy: pypi.org, '*.example.org', or '*' for every public one; may be given often.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
    network_rate: Annotated[
        str | None,
        typer.Option(
            "--network-rate",
            metavar="SIZE",
            help="What each may move a second through the proxy, such as 2M.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="all|none|0,2",
            help="Graphics cards. If left out: none to work in a sandbox, else all.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
    policy: PolicyFlag = None,
    sandbox: Annotated[
        str | None,
        typer.Option(
            "--sandbox",
            metavar="TIER",
            help="How work is kept apart from you. auto: not at all for a scheduler on this machine, by the strongest way that"
            " holds for any other. bubblewrap, container, landlock: by that one; landlock is for submitters whom you trust by name."
            " process: you trust everybody who has the pool's key.",
            rich_help_panel=_LENDING,
            show_default="auto",
        ),
    ] = None,
    container_image: Annotated[
        str | None,
        typer.Option(
            "--container-image",
            metavar="IMAGE",
            help="For --sandbox container: work sees this image's programs. It has to be there; none is fetched.",
            rich_help_panel=_LENDING,
            show_default=False,
        ),
    ] = None,
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
    upload_limit: Annotated[
        str | None,
        typer.Option(
            "--upload-limit",
            metavar="SIZE",
            help="Checkpoints of work leave with so much a second at most; 0 is no limit.",
            rich_help_panel=_LENDING,
            show_default="4MiB",
        ),
    ] = None,
    vacate_after: Annotated[
        str | None,
        typer.Option(
            "--vacate-after",
            metavar="DURATION",
            help="Frozen work leaves when you have been back for so long.",
            rich_help_panel=_OWNER,
            show_default="10m",
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            help="What work gets to save itself before it is killed; may be 0.",
            rich_help_panel=_OWNER,
            show_default="5s",
        ),
    ] = None,
    owner_file: Annotated[
        Path | None,
        typer.Option(
            "--owner-file",
            metavar="FILE",
            help="Your terms: shares, hours, and all that flags say, which go before it. owner.toml in its data directory if left out.",
            rich_help_panel=_OWNER,
            show_default=False,
        ),
    ] = None,
) -> int:
    """Lend this machine to a pool while it is idle; in front, until Ctrl-C."""
    from idle_accelerator import settings  # noqa: PLC0415  # commands import what they need when they run

    pool_pid = lifeline.hold()
    directory = daemons.make_data_dir(data_dir or settings.data_dir() / "agent")
    given: dict[str, Any] = {
        "scheduler": None if scheduler is None else settings.check_url(scheduler, "--scheduler"),
        "name": name,
        "policy": None if policy is None else check_policy(policy),
        "share.cpus": cpus,
        "share.memory": _size(memory, flag="--memory"),
        "share.disk": _size(disk, flag="--disk"),
        "share.gpus": gpus,
        "network.lend": network,
        "network.allow": tuple(allow_host) if allow_host else None,
        "network.rate": _rate(network_rate),
        "environments.keep": _size(environments, flag="--environments"),
        "environments.size": _size(environment_size, flag="--environment-size"),
        "environments.time": _duration(environment_time, flag="--environment-time"),
        "labels": pairs(label, flag="--label", example="room=12") or None,
        "sandbox": sandbox,
        "container_image": container_image,
        "lend_for": _duration(lend_for, flag="--lend-for"),
        "upload_limit": _size(upload_limit, flag="--upload-limit"),
        "vacate_after": _duration(vacate_after, flag="--vacate-after"),
        "grace": _duration(grace, flag="--grace"),
        "input_idle": _duration(input_idle, flag="--input-idle"),
    }
    for flag, amount in (("--cpus", cpus), ("--memory", given["share.memory"])):
        if amount is not None and not amount > 0:
            raise InvalidInput("must be more than nothing.", field=flag, hint="Leave it out to lend all.")
    terms = _owner_file(owner_file, directory, given)

    from idle_accelerator.agent.app import run_agent  # noqa: PLC0415  # 0.5 s of imports
    from idle_accelerator.agent.config import AgentConfig  # noqa: PLC0415  # as above
    from idle_accelerator.agent.sandbox import choice  # noqa: PLC0415  # as above

    said: dict[str, Any] = terms.values()
    try:
        said["sandbox"] = choice.check(said.get("sandbox", "auto"))
    except InvalidInput as error:
        raise InvalidInput(error.message, field=terms.origin("sandbox"), hint=error.hint) from error
    written = said.pop("scheduler_url", None)
    place = settings.connection(scheduler or (None if os.environ.get("IDLE_SCHEDULER") else written), key)
    config = AgentConfig(
        scheduler_url=place.url,
        data_dir=directory,
        key=place.key,
        pool_pid=pool_pid,
        owner_file=terms,
        **said,
    )
    daemons.log_to_stderr()
    daemons.settle_in()
    return run_agent(config)


def _owner_file(path: Path | None, directory: Path, given: dict[str, Any]) -> "OwnerFile":
    from idle_accelerator.agent.owner_file import OWNER_FILE, OwnerFile  # noqa: PLC0415  # light, but seldom needed

    return OwnerFile(
        path or directory / OWNER_FILE,
        {key: value for key, value in given.items() if value is not None},
        required=path is not None,
    )


def check_policy(text: str) -> str:
    """Raises InvalidInput."""
    if text not in POLICIES:
        raise InvalidInput(
            f"{text!r} is no policy.", field="--policy", hint=f"Use one of: {', '.join(POLICIES)}."
        )
    return text


def _rate(text: str | None) -> float | None:
    """Raises InvalidInput."""
    rate = None if text is None else float(parse_size(text, field="--network-rate"))
    if rate is not None and not rate > 0:
        raise InvalidInput(
            "must be more than nothing.", field="--network-rate", hint="To lend none: --network off"
        )
    return rate


def _size(text: str | None, *, flag: str) -> int | None:
    return None if text is None else parse_size(text, field=flag)


def _duration(text: str | None, *, flag: str) -> float | None:
    return None if text is None else parse_duration(text, field=flag)
