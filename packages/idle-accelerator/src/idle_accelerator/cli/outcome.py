"""What a job has brought: output on stdout, files into a folder, and why tasks failed on stderr."""

import itertools
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idle_accelerator.cli.connect import short
from idle_accelerator.cli.terminal import OutputWriter, line, safe, say, show, show_json
from idle_accelerator.errors import IdleError
from idle_accelerator.wire.units import format_size

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import Client, JobHandle
    from idle_accelerator.wire.jobs import JobView, TaskResult

OUTPUTS_SHOWN = 100
"""Of larger arrays only the first tasks' output is printed; it takes a request each."""
_FAILURES_SHOWN = 10
_VALUE_LIMIT_BYTES = 16 * 1024 * 1024
_VALUE_WIDTH = 100
_FETCH_S = 60.0


def show_outcome(
    client: "Client", handle: "JobHandle[Any]", view: "JobView", *, to: Path | None, task: int | None = None
) -> int:
    """Prints and fetches what the finished tasks brought. 0 when every task that was asked for has succeeded."""
    results = _finished(handle, view, task)
    headed = view.counts.total > 1 and task is None
    for result in results[:OUTPUTS_SHOWN]:
        if headed:
            show(f"==> task {result.index} <==")
        if view.kind == "function":
            _show_value(client, handle, result)
        else:
            _copy(handle, result, "stdout")
    if len(results) > OUTPUTS_SHOWN:
        say(f"Output of {len(results) - OUTPUTS_SHOWN} more tasks: idlectl logs {short(handle.id)} --task N")
    failed = [result for result in results if result.state != "SUCCEEDED"]
    _say_failures(handle, failed, headed=headed, is_command=view.kind != "function")
    if view.kind != "function" and results and not failed and not headed:
        _copy(handle, results[0], "stderr")
    _say_what_is_missing(results)
    _fetch(handle, results, to, task)
    return 0 if _is_complete(view, results, task) and not failed else 1


def show_outcome_json(handle: "JobHandle[Any]", view: "JobView", *, task: int | None) -> int:
    """The finished tasks' results as the API gives them, by index."""
    from idle_accelerator.wire.jobs import ResultPage  # noqa: PLC0415  # wire models cost 0.2 s

    results = _finished(handle, view, task)
    show_json(
        ResultPage(results=tuple(results), next_after=len(results), job_state=view.state, counts=view.counts)
    )
    failed = any(result.state != "SUCCEEDED" for result in results)
    return 0 if _is_complete(view, results, task) and not failed else 1


def _finished(handle: "JobHandle[Any]", view: "JobView", task: int | None) -> "list[TaskResult]":
    """What has finished by now, by index."""
    if task is not None:
        handle.task(task)  # raises NotFound for a task that the job does not have
    counts = view.counts
    done = counts.succeeded + counts.failed + counts.cancelled
    found = itertools.islice(handle.as_finished(timeout=_FETCH_S), done)
    return sorted((item for item in found if task in (None, item.index)), key=lambda item: item.index)


def _is_complete(view: "JobView", results: "Sequence[TaskResult]", task: int | None) -> bool:
    """Whether all that was asked for has finished; says so if not."""
    wanted = 1 if task is not None else view.counts.total
    if len(results) >= wanted:
        return True
    what = f"task {task} has" if task is not None else f"{wanted - len(results)} of {wanted} tasks have"
    say(f"{what} not finished; to wait: idlectl result {short(view.job_id)} --wait")
    return False


def _copy(handle: "JobHandle[Any]", result: "TaskResult", stream: str) -> None:
    """A task's output, from the attempt that ended it."""
    if result.epoch == 0:  # ended before any attempt
        return
    writer = OutputWriter(stderr=stream == "stderr")
    writer.write(handle.logs(result.index, "stderr" if stream == "stderr" else "stdout"))
    writer.end_line()


def _show_value(client: "Client", handle: "JobHandle[Any]", result: "TaskResult") -> None:
    if result.state != "SUCCEEDED" or result.result is None:
        return
    if result.encoding == "pickle":
        # Opening a pickle runs what is in it; a program that knows whom it trusts may, a listing may not.
        size = format_size(result.result.size_bytes)
        show(f"(a pickle of {size}; to open it: Client(trust=[…]).job({handle.id!r}).results())")
        return
    from idle_accelerator.wire.codec import decode  # noqa: PLC0415  # only functions need it

    if result.result.blob is not None and result.result.size_bytes > _VALUE_LIMIT_BYTES:
        show(f"({format_size(result.result.size_bytes)}; fetch it: Client().job({handle.id!r}).results())")
        return
    raw = result.result.inline
    if raw is None and result.result.blob is not None:
        raw = client.read_blob(result.result.blob, _VALUE_LIMIT_BYTES)
    try:
        show(safe(pprint.pformat(decode(raw or b""), width=_VALUE_WIDTH)))
    except IdleError as error:
        say(f"task {result.index}: its result cannot be read: {safe(error.message)}")


def _say_failures(
    handle: "JobHandle[Any]", failed: "Sequence[TaskResult]", *, headed: bool, is_command: bool
) -> None:
    for result in failed[:_FAILURES_SHOWN]:
        why = line(result.reason.sentence) if result.reason else result.state.lower()
        where = f" on {line(result.node_name)}" if result.node_name else ""
        say(f"task {result.index} {result.state.lower()}{where}: {why}")
        if result.error is not None:
            say(safe(result.error.traceback_text.rstrip()))
        if is_command and result.state == "FAILED":
            if headed:
                say(f"==> stderr of task {result.index} <==")
            _copy(handle, result, "stderr")
    if len(failed) > _FAILURES_SHOWN:
        say(f"… and {len(failed) - _FAILURES_SHOWN} more: idlectl job {short(handle.id)} --tasks")


def _say_what_is_missing(results: "Sequence[TaskResult]") -> None:
    """Tasks that succeeded, but whose outputs were not all as the submitter asked for them."""
    told = [item for item in results if item.reason is not None and item.reason.code == "task.output_refused"]
    for item in told[:_FAILURES_SHOWN]:
        say(f"task {item.index}: {line(item.reason.sentence) if item.reason else ''}")
    if len(told) > _FAILURES_SHOWN:
        say(f"… and {len(told) - _FAILURES_SHOWN} more tasks lack outputs")


def _fetch(
    handle: "JobHandle[Any]", results: "Sequence[TaskResult]", to: Path | None, task: int | None
) -> None:
    artifacts = [artifact for result in results for artifact in result.artifacts]
    if not artifacts:
        if to is not None:
            say("The finished tasks have brought no output files.")
        return
    folder = Path(f"idle-{short(handle.id)}") if to is None else to
    files = handle.download(folder, task=task)
    size = format_size(sum(artifact.size_bytes for artifact in artifacts))
    say(f"{len(files)} output file{'' if len(files) == 1 else 's'} ({size}) in {folder}")
