"""``idlectl logs``."""

from typing import Annotated

import typer

from idle_accelerator.cli.connect import JobArgument, KeyFlag, SchedulerFlag, check_id, open_client
from idle_accelerator.cli.terminal import OutputWriter


def logs(
    job_id: JobArgument,
    task: Annotated[int, typer.Option("--task", min=0, help="Which task of an array.")] = 0,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="What it wrote to stderr instead of stdout.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends.")] = False,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", min=1, help="An earlier attempt; the newest if left out.", show_default=False
        ),
    ] = None,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Print what a task wrote; its tail, if that was too much to keep."""
    writer = OutputWriter()
    stream = "stderr" if stderr else "stdout"
    check_id(job_id)
    with open_client(scheduler, key) as client:
        handle = client.job(job_id)
        if follow and attempt is None:
            for piece in handle.follow_logs(task, stream):
                writer.write(piece)
        else:
            writer.write(handle.logs(task, stream, epoch=attempt))
    return 0
