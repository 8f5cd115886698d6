"""``idlectl scheduler``."""

from pathlib import Path
from typing import Annotated

import typer

from idle_accelerator.cli import daemons, lifeline
from idle_accelerator.cli.terminal import say

DataDirFlag = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where it keeps everything.", show_default=False),
]


def scheduler(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Beyond loopback a key is made and needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8000,
    data_dir: DataDirFlag = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="Another name by which it is reached, as behind a proxy.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Run a pool's scheduler, in front, until Ctrl-C."""
    from idle_accelerator import settings  # noqa: PLC0415  # commands import what they need when they run

    lifeline.hold()
    daemons.check_extra("fastapi", extra="scheduler")
    directory = daemons.make_data_dir(data_dir or settings.data_dir() / "scheduler")
    daemons.check_port(host, port, flag="--port", hint=f"Choose another: idlectl scheduler --port {port + 1}")

    from idle_accelerator.scheduler.app import SchedulerConfig, serve  # noqa: PLC0415  # 1 s of imports
    from idle_accelerator.scheduler.auth import is_loopback  # noqa: PLC0415  # as above

    daemons.log_to_stderr()
    config = SchedulerConfig(
        data_dir=directory, host=host, port=port, allowed_hosts=tuple(allowed_host or ())
    )
    say(f"Scheduler on http://{daemons.reachable_host(host)}:{port}, data in {directory}.")
    if not is_loopback(host):
        say(f"Who may use it needs the key in {directory / 'scheduler.key'}.")
    daemons.settle_in()
    serve(config)
    return 0
