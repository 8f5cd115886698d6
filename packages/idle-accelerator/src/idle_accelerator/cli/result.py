"""``idlectl result``."""

from pathlib import Path
from typing import Annotated

import typer

from idle_accelerator.cli.connect import JobArgument, JsonFlag, KeyFlag, SchedulerFlag, check_id, open_client


def result(
    job_id: JobArgument,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Where output files go; idle-JOB if left out.", show_default=False
        ),
    ] = None,
    task: Annotated[
        int | None, typer.Option("--task", min=0, help="Only this task's.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    as_json: JsonFlag = False,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Print a job's output and fetch its files. The exit status is 0 only if all tasks succeeded."""
    from idle_accelerator.cli.outcome import show_outcome, show_outcome_json  # noqa: PLC0415  # imported when needed
    from idle_accelerator.cli.waiting import left_running, wait_for  # noqa: PLC0415  # as above

    check_id(job_id)
    with open_client(scheduler, key) as client:
        handle = client.job(job_id)
        try:
            view = wait_for(handle) if wait else handle.status
        except KeyboardInterrupt:
            left_running(handle)
            return 130
        if as_json:
            return show_outcome_json(handle, view, task=task)
        return show_outcome(client, handle, view, task=task, to=to)
