"""``idlectl jobs``, ``job`` and ``cancel``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from idle_accelerator.cli.checkpoints import how_far
from idle_accelerator.cli.connect import (
    JobArgument,
    JsonFlag,
    KeyFlag,
    SchedulerFlag,
    check_id,
    open_client,
    short,
)
from idle_accelerator.cli.terminal import say, shorten, show, show_fields, show_json, show_table
from idle_accelerator.errors import InvalidInput

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import JobHandle
    from idle_accelerator.wire.jobs import AttemptView, JobDetail, JobView, TaskDetail, TaskPage, TaskView

_SUMMARY_WIDTH = 60
_TASKS_SHOWN = 20
_FAR_WIDTH = 40
_STATES = ("QUEUED", "ACTIVE", "SUCCEEDED", "FAILED", "CANCELLED")


def jobs(
    state: Annotated[
        str | None,
        typer.Option(
            "--state", metavar="STATE", help=f"Only these: {', '.join(_STATES)}.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 50,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", help="Go on where a page ended (next_cursor).", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """List jobs, newest first."""
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # wire models cost 0.2 s; see cli/__init__
    from idle_accelerator.wire.states import JobState  # noqa: PLC0415  # as above

    wanted = None if state is None else JobState(_check_state(state))
    with open_client(scheduler, key) as client:
        page = client.jobs(limit=limit, state=wanted, cursor=cursor)
    if as_json:
        show_json(page)
        return 0
    show_table(
        ("ID", "STATE", "TASKS", "SUBMITTED", "NAME", "WHAT"),
        (
            (
                short(item.job_id),
                item.state,
                progress_of(item),
                ago(item.submitted_at),
                shorten(item.name, 30),
                shorten(item.summary, _SUMMARY_WIDTH),
            )
            for item in page.jobs
        ),
        empty="No jobs." if state is None else f"No job is {wanted}.",
    )
    if page.next_cursor:
        say(f"There are more: --limit {min(500, limit * 2)}, or --cursor {page.next_cursor}")
    return 0


def _check_state(state: str) -> str:
    if state.upper() not in _STATES:
        raise InvalidInput(
            f"{state!r} is no state of a job.", field="--state", hint=f"Use one of: {', '.join(_STATES)}."
        )
    return state.upper()


def progress_of(view: "JobView") -> str:
    """``3/8``, with what went wrong: ``3/8, 1 failed``."""
    counts = view.counts
    parts = [f"{counts.succeeded}/{counts.total}"]
    parts += [f"{counts.failed} failed"] if counts.failed else []
    parts += [f"{counts.cancelled} cancelled"] if counts.cancelled and view.state != "CANCELLED" else []
    return ", ".join(parts)


def job(
    job_id: JobArgument,
    task: Annotated[
        int | None,
        typer.Option("--task", min=0, help="One task with all of its attempts.", show_default=False),
    ] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="List every task.")] = False,
    as_json: JsonFlag = False,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Show a job: where it stands, why it waits, its tasks."""
    check_id(job_id)
    with open_client(scheduler, key) as client:
        handle = client.job(job_id)
        if task is not None:
            one = handle.task(task)
            if as_json:
                show_json(one)
            else:
                _show_task(one)
            return 0
        if tasks and as_json:
            show_json(_all_tasks(handle))
            return 0
        detail = handle.detail()
        if as_json:
            show_json(detail)
            return 0
        _show_job(detail)
        total = detail.view.counts.total
        if total > 1 or tasks:
            page = _all_tasks(handle) if tasks else handle.tasks(limit=_TASKS_SHOWN)
            show("")
            _show_tasks(page.tasks)
            if len(page.tasks) < total:
                say(
                    f"… and {total - len(page.tasks)} more; all of them: idlectl job {short(detail.view.job_id)} --tasks"
                )
        elif detail.view.state != "QUEUED":
            show("")
            _show_task(handle.task(0))
    return 0


def _show_job(detail: "JobDetail") -> None:
    from idle_accelerator.cli.moments import ago, lasted  # noqa: PLC0415  # as above

    view, spec = detail.view, detail.spec
    finished = ""
    if view.finished_at is not None:
        finished = f"{ago(view.finished_at)}, after {lasted(view.submitted_at, view.finished_at)}"
    counts = view.counts
    show_fields(
        (
            ("job", view.job_id),
            ("name", view.name),
            ("state", view.state),
            ("tasks", progress_of(view) + (f", {counts.active} running" if counts.active else "")),
            (view.kind, shorten(view.summary, 400)),
            ("submitted", ago(view.submitted_at)),
            ("finished", finished),
            ("priority", str(view.priority) if view.priority else ""),
            ("needs", needs(detail)),
            (
                "inputs",
                ", ".join(item.path for item in spec.inputs[:10]) + (" …" if len(spec.inputs) > 10 else ""),
            ),
            ("outputs", ", ".join(spec.outputs)),
            ("waits, as", "\n".join(item.sentence for item in view.waiting)),
        )
    )


def needs(detail: "JobDetail") -> str:
    """The requirements in words."""
    from idle_accelerator.wire.units import format_duration, format_size  # noqa: PLC0415  # as above

    wanted = detail.spec.requirements
    parts = [f"{wanted.cpus:g} CPU" if wanted.cpus == 1 else f"{wanted.cpus:g} CPUs"]
    parts += [f"{format_size(wanted.memory_bytes)} memory"] if wanted.memory_bytes else []
    parts += [f"{format_size(wanted.disk_bytes)} disk"] if wanted.disk_bytes else []
    parts += [f"{wanted.gpus} GPU"] if wanted.gpus else []
    parts += [text for text in (wanted.os, wanted.arch) if text]
    parts += [f"Python {wanted.python}"] if wanted.python else []
    parts += ["WebAssembly"] if detail.spec.workload.kind == "wasm" else []
    parts += [f"{name}={value}" for name, value in wanted.labels.items()]
    parts += [f"node {wanted.node}"] if wanted.node else []
    parts += ["an open network"] if wanted.network.open else []
    parts += [f"network to {', '.join(wanted.network.hosts)}"] if wanted.network.hosts else []
    parts += [f"at most {format_duration(detail.spec.timeout_s)}"] if detail.spec.timeout_s else []
    parts += [f"{detail.spec.retries} retries"] if detail.spec.retries else []
    return ", ".join(parts)


def _all_tasks(handle: "JobHandle[Any]") -> "TaskPage":
    from idle_accelerator.wire.jobs import TaskPage  # noqa: PLC0415  # as above

    found: list[TaskView] = []
    cursor = -1
    while True:
        page = handle.tasks(limit=2000, cursor=cursor)
        found.extend(page.tasks)
        if page.next_cursor is None:
            return TaskPage(tasks=tuple(found))
        cursor = page.next_cursor


def _show_tasks(tasks: "tuple[TaskView, ...]") -> None:
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # as above

    said = [how_far(item.progress) for item in tasks]
    progress = ("PROGRESS",) if any(said) else ()
    show_table(
        ("TASK", "STATE", *progress, "ATTEMPT", "NODE", "EXIT", "FINISHED", "WHY"),
        (
            (
                str(item.index),
                item.state if item.attempt_state is None or item.state != "ACTIVE" else item.attempt_state,
                *(shorten(far, _FAR_WIDTH) for far in (said[place],) if progress),
                str(item.epoch),
                item.node_name or "",
                "" if item.exit_code is None else str(item.exit_code),
                ago(item.finished_at) if item.finished_at else "",
                item.reason.sentence if item.reason else "",
            )
            for place, item in enumerate(tasks)
        ),
        empty="No tasks.",
    )


def _show_task(detail: "TaskDetail") -> None:
    from idle_accelerator.wire.units import format_size  # noqa: PLC0415  # as above

    task = detail.task
    show_fields(
        (
            ("task", f"{task.index} of {detail.job_id}"),
            ("state", task.attempt_state if task.state == "ACTIVE" and task.attempt_state else task.state),
            ("progress", how_far(task.progress)),
            ("saved", _saved(detail)),
            ("why", task.reason.sentence if task.reason else ""),
            (
                "artifacts",
                "\n".join(f"{item.path} ({format_size(item.size_bytes)})" for item in detail.artifacts),
            ),
        )
    )
    if detail.attempts:
        show("")
        resumed = [_resumed(item) for item in detail.attempts]
        show_table(
            (
                "ATTEMPT",
                "STATE",
                "NODE",
                *(("WENT ON FROM",) if any(resumed) else ()),
                "LEASED",
                "USED",
                "WHY",
            ),
            (
                (*row[:3], *((resumed[place],) if any(resumed) else ()), *row[3:])
                for place, row in enumerate(map(_attempt_row, detail.attempts))
            ),
            empty="",
        )


def _saved(detail: "TaskDetail") -> str:
    """Its newest checkpoint, and why a newer one was not taken."""
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # as above
    from idle_accelerator.wire.units import format_size  # noqa: PLC0415  # as above

    said: list[str] = []
    if detail.checkpoints:
        newest = detail.checkpoints[0]
        size = format_size(newest.checkpoint.size_bytes)
        said.append(f"step {newest.checkpoint.step}, {size}, {ago(newest.saved_at)}")
    if detail.checkpoint_refused is not None:
        said.append(f"a newer one was not taken: {detail.checkpoint_refused.sentence}")
    return "\n".join(said)


def _resumed(attempt: "AttemptView") -> str:
    """The checkpoint that it went on from, and why that was not the newest."""
    if attempt.resumed is None:
        return ""
    from_ = "began anew" if attempt.resumed.step is None else f"step {attempt.resumed.step}"
    return f"{from_}: {attempt.resumed.reason.sentence}" if attempt.resumed.reason else from_


def _attempt_row(attempt: "AttemptView") -> tuple[str, ...]:
    from idle_accelerator.cli.moments import ago  # noqa: PLC0415  # as above
    from idle_accelerator.wire.units import format_duration, format_size  # noqa: PLC0415  # as above

    used: list[str] = []
    if attempt.usage is not None:
        used.append(format_duration(attempt.usage.wall_s))
        used += [f"frozen {format_duration(attempt.usage.suspended_s)}"] if attempt.usage.suspended_s else []
        used += [f"CPU {format_duration(attempt.usage.cpu_s)}"] if attempt.usage.cpu_s is not None else []
        used += [format_size(attempt.usage.max_rss_bytes)] if attempt.usage.max_rss_bytes else []
        used += [f"in {attempt.usage.ran_under.tier}"] if attempt.usage.ran_under else []
    return (
        str(attempt.epoch),
        attempt.state,
        attempt.node_name,
        ago(attempt.leased_at),
        ", ".join(used),
        attempt.reason.sentence if attempt.reason else "",
    )


def cancel(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="Ids, or unique beginnings of them.")
    ],
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Cancel what has not finished: queued tasks end at once, running ones are told to leave, then killed."""
    checked = [check_id(text) for text in job_ids]
    with open_client(scheduler, key) as client:
        handles = [client.job(text) for text in checked]
        for handle in handles:
            handle.cancel()
            view = handle.status
            left = view.counts.active
            rest = f"; {left} still leaving" if left else ""
            show(f"{view.job_id} {view.state}: {progress_of(view)}{rest}")
    return 0
