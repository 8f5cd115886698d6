"""``idlectl checkpoints``."""

import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idle_accelerator.cli.connect import (
    JobArgument,
    JsonFlag,
    KeyFlag,
    SchedulerFlag,
    check_id,
    open_client,
    short,
)
from idle_accelerator.cli.terminal import console, line, say, show, show_plain_json, show_table
from idle_accelerator.errors import InvalidInput

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import JobHandle
    from idle_accelerator.wire.checkpoints import Checkpoint, CheckpointView, Progress


def checkpoints(
    job_id: JobArgument,
    task: Annotated[
        int | None,
        typer.Argument(metavar="[TASK]", min=0, help="Which task of an array, from 0.", show_default=False),
    ] = None,
    download: Annotated[
        Path | None,
        typer.Option(
            "--download",
            metavar="DIR",
            help="Fetch the newest into the new folder DIR/step-N.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option("--step", min=0, help="With --download: that of this step.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """List the checkpoints that are kept of a running task, or fetch one."""
    check_id(job_id)
    if step is not None and download is None:
        raise InvalidInput(
            "it says which checkpoint to fetch.",
            field="--step",
            hint=f"Add --download DIR: idlectl checkpoints {job_id} --step {step} --download saved",
        )
    with open_client(scheduler, key) as client:
        handle = client.job(job_id)
        index = _task_of(handle, job_id, task)
        found = handle.checkpoints(index)
        if download is not None:
            return _download(handle, index, found, download, step)
        if as_json:
            show_plain_json([item.model_dump(mode="json") for item in found])
            return 0
        _show(handle, job_id, index, found)
    return 0


def how_far(progress: "Progress | None") -> str:
    """``40 %, epoch 40 of 100``; empty where a task has not said anything."""
    if progress is None:
        return ""
    ratio = "" if progress.done_ratio is None else f"{_percent(progress.done_ratio)} %"
    return ", ".join(part for part in (ratio, line(progress.note)) if part)


def _percent(ratio: float) -> int:
    """Rounded down: 100 is said when it is done, and not before."""
    return int(ratio * 100 + 1e-9)


def _task_of(handle: "JobHandle[object]", job_id: str, task: int | None) -> int:
    if task is not None:
        return task
    total = handle.status.counts.total
    if total > 1:
        raise InvalidInput(
            f"the job has {total} tasks.", field="TASK", hint=f"Say which: idlectl checkpoints {job_id} 0"
        )
    return 0


def _show(handle: "JobHandle[object]", job_id: str, index: int, found: "tuple[CheckpointView, ...]") -> None:
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # wire models cost 0.2 s; see cli/__init__
    from idle_accelerator.wire.units import format_size  # noqa: PLC0415  # as above

    show_table(
        ("STEP", "SIZE", "FILES", "SAVED", "NODE", "ATTEMPT", "GONE ON FROM BY"),
        (
            (
                str(item.checkpoint.step),
                format_size(item.checkpoint.size_bytes),
                str(item.checkpoint.files),
                ago(item.saved_at),
                item.node_name,
                str(item.epoch),
                ", ".join(f"attempt {epoch}" for epoch in item.resumed_by),
            )
            for item in found
        ),
        empty=f"Task {index} has no checkpoint; those of a task that has ended are not kept.",
    )
    detail = handle.task(index)
    if detail.checkpoint_refused is not None:
        say(f"Its newest was not taken: {line(detail.checkpoint_refused.sentence)}")
    if found:
        say(f"To fetch the newest: idlectl checkpoints {short(job_id)} {index} --download DIR")


def _download(
    handle: "JobHandle[object]",
    index: int,
    found: "tuple[CheckpointView, ...]",
    to: Path,
    step: int | None,
) -> int:
    from idle_accelerator.sdk.checkpoints import chosen  # noqa: PLC0415  # as above

    wanted = chosen(found, step, what=f"task {index}")
    with _bar(wanted) as received:
        folder = handle.download_checkpoint(to, index, wanted.step, received=received)
    show(str(folder))
    return 0


@contextlib.contextmanager
def _bar(wanted: "Checkpoint") -> "Generator[Callable[[int], None] | None]":
    """On a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (  # noqa: PLC0415  # only where a bar is drawn
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as drawn:
        bar = drawn.add_task("", total=wanted.size_bytes)
        yield lambda size_bytes: drawn.update(bar, advance=size_bytes)
