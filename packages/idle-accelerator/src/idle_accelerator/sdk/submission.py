"""From what a user writes to a JobSpec: everything is checked before anything is sent."""

import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from pydantic import ValidationError

from idle_accelerator.errors import InvalidInput, TooLarge
from idle_accelerator.sdk import modules
from idle_accelerator.wire.ids import MAX_TASKS
from idle_accelerator.wire.jobs import MAX_INPUTS, Function, JobSpec
from idle_accelerator.wire.units import format_size, parse_duration, parse_size

Inputs = Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]
Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all) while input files are uploaded, in the client's own thread."""

SPEC_LIMIT_BYTES = 4 * 1024 * 1024
"""What the scheduler takes as a job's description; files and large arguments do not count."""
_NO_DIGEST = "0" * 64


class JobOptions(TypedDict, total=False):
    """What may be said about a job; each has a plain default. Sizes are bytes or text such as ``512M``."""

    name: str
    env: Mapping[str, str] | None
    """Environment variables of the tasks."""
    inputs: Inputs
    """Files and folders that stand in each task's workspace: paths, or ``{path in the workspace: local path}``."""
    outputs: Sequence[str]
    """Globs inside the workspace; what they match is collected when a task succeeds."""
    cpus: float
    memory: int | str
    disk: int | str
    gpus: int
    os: Literal["linux", "macos", "windows"] | str | None  # noqa: PYI051  # editors offer the three
    arch: str | None
    labels: Mapping[str, str] | None
    network: Literal["open"] | Sequence[str]
    """Hosts that tasks reach, such as ``["pypi.org", "*.huggingface.co"]``; ``"open"`` for all that are public. None by default."""
    node: str | None
    """Name or id of the only node that may run it."""
    isolation: Sequence[str]
    """Only where these hold: lines of a node's isolation, such as ``net`` or ``mem``, and tiers, of which it has one."""
    retries: int
    """How often a failed attempt is tried again. Attempts lost with their nodes do not count."""
    timeout: float | str | None
    """Running time of one attempt: seconds, or text such as ``10m``."""
    priority: int
    """Higher goes first."""
    wasm: str | Path | None
    """A WebAssembly module (``wasm32-wasip1``) that runs instead of a program; the command is then its arguments."""
    results: Literal["data", "pickle"]
    """Of functions: plain data (wire.codec), or any object by pickle, which is opened from trusted nodes only."""
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of this machine and the name under which tasks will find it."""

    path: str
    local: Path
    size_bytes: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checked job whose input files have no digests yet."""

    spec: JobSpec
    files: tuple[LocalFile, ...]

    def with_contents(self, measured: Sequence[tuple[str, int]]) -> JobSpec:
        """The job with digest and size of each file."""
        inputs = tuple(
            item.model_copy(update={"digest": digest, "size_bytes": size})
            for item, (digest, size) in zip(self.spec.inputs, measured, strict=True)
        )
        return self.spec.model_copy(update={"inputs": inputs})


def command_draft(command: Sequence[str], *, array: int, options: JobOptions) -> Draft:
    """Raises InvalidInput naming the argument of ``submit`` that is wrong."""
    if isinstance(command, str):
        raise InvalidInput(
            "a command is a list of words, not one text.",
            field="command",
            hint='Write ["python3", "job.py"], or ["sh", "-c", "…"] for a line of shell.',
        )
    words = _words(command)
    module = options.get("wasm")
    if module is not None:
        return _module_draft(module, words, array, options)
    if not words:
        raise InvalidInput("the command is empty.", field="command", hint=_HINTS["command"])
    return _draft({"kind": "command", "argv": words}, array, options)


def _module_draft(
    module: str | Path, arguments: tuple[object, ...], array: int, options: JobOptions
) -> Draft:
    path = modules.check_module(module)
    files = local_files(options.get("inputs") or ())
    name = modules.name_among([(file.path, file.local) for file in files], path)
    if name is None:
        files = (*files, *local_files([path]))
        name = files[-1].path
    return _draft({"kind": "wasm", "module": name, "arguments": arguments}, array, options, files)


def function_draft(workload: Function, *, tasks: int, options: JobOptions) -> Draft:
    if options.get("wasm") is not None:
        raise InvalidInput(
            "a Python function is no module.", field="wasm", hint="Use submit(arguments, wasm=…)."
        )
    return _draft(workload, tasks, options)


def _draft(
    workload: Function | dict[str, Any],
    tasks: int,
    options: JobOptions,
    files: tuple[LocalFile, ...] | None = None,
) -> Draft:
    _check_names(options)
    if files is None:
        files = local_files(options.get("inputs") or ())
    memory = _size(options.get("memory", 0), "memory")
    disk = _size(options.get("disk", 0), "disk")
    timeout_s = _seconds(options.get("timeout"))
    fields: dict[str, Any] = {
        "workload": workload,
        "name": options.get("name", ""),
        "tasks": tasks,
        "env": _mapping(options.get("env"), "env"),
        "inputs": tuple(
            {
                "path": file.path,
                "digest": _NO_DIGEST,
                "size_bytes": file.size_bytes,
                "executable": file.executable,
            }
            for file in files
        ),
        "outputs": _texts(options.get("outputs") or (), "outputs"),
        "requirements": {
            "cpus": options.get("cpus", 1.0),
            "memory_bytes": memory,
            "disk_bytes": disk,
            "gpus": options.get("gpus", 0),
            "os": options.get("os"),
            "arch": options.get("arch"),
            "labels": _mapping(options.get("labels"), "labels"),
            "node": options.get("node"),
            "isolation": _texts(options.get("isolation") or (), "isolation"),
            "network": _network(options.get("network", ())),
        },
        "retries": options.get("retries", 0),
        "timeout_s": timeout_s,
        "priority": options.get("priority", 0),
    }
    try:
        spec = JobSpec.model_validate(fields)
    except ValidationError as error:
        raise _mistake(error, files) from None
    size = len(spec.model_dump_json())
    if size > SPEC_LIMIT_BYTES:
        raise TooLarge(
            f"the job's description is {format_size(size)}; at most {format_size(SPEC_LIMIT_BYTES)} are taken.",
            field="options" if isinstance(spec.workload, Function) else "command",
            hint="Put long arguments and environment into an input file.",
        )
    return Draft(spec=spec, files=files)


def local_files(inputs: Inputs) -> tuple[LocalFile, ...]:
    """Every file that is meant; folders with all that is in them. Raises InvalidInput naming the first that is missing."""
    if isinstance(inputs, str | bytes | os.PathLike):
        raise InvalidInput("a list of paths is wanted, not one path.", field="inputs", hint="Write [path].")
    found: list[LocalFile] = []
    if isinstance(inputs, Mapping):
        pairs = [(f"inputs[{name!r}]", str(name), Path(local)) for name, local in inputs.items()]
    else:
        locals_ = [Path(local) for local in inputs]
        pairs = [(f"inputs[{place}]", local.absolute().name, local) for place, local in enumerate(locals_)]
    for field, name, local in pairs:
        for file in _files_below(field, name, local):
            found.append(file)
            if len(found) > MAX_INPUTS:
                raise TooLarge(
                    f"more than {MAX_INPUTS} files.",
                    field=field,
                    hint="Pack them into an archive and send that.",
                )
    return tuple(found)


def _files_below(field: str, name: str, local: Path) -> Iterable[LocalFile]:
    try:
        status = local.stat()
    except OSError as error:
        why = (
            "there is no such file"
            if isinstance(error, FileNotFoundError)
            else error.strerror or "cannot be read"
        )
        raise InvalidInput(
            f"{local}: {why}.", field=field, hint="Paths are relative to the folder that you are in."
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"{str(local)!r} is no path.", field=field, hint="Give a file of this machine."
        ) from error
    if stat.S_ISDIR(status.st_mode):
        try:
            inside = sorted(local.iterdir())
        except OSError as error:
            raise InvalidInput(
                f"{local}: {error.strerror}.", field=field, hint="Check its permissions."
            ) from error
        for item in inside:
            yield from _files_below(field, f"{name}/{item.name}", item)
        return
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{local} is no ordinary file.", field=field, hint="Give files or folders.")
    if not os.access(local, os.R_OK):
        raise InvalidInput(f"{local}: may not be read.", field=field, hint="Check its permissions.")
    yield LocalFile(
        path=name, local=local, size_bytes=status.st_size, executable=bool(status.st_mode & stat.S_IXUSR)
    )


def _check_names(options: JobOptions) -> None:
    unknown = sorted(set(options) - set(JobOptions.__annotations__))
    if unknown:
        from difflib import get_close_matches  # noqa: PLC0415  # only for the hint

        near = get_close_matches(unknown[0], list(JobOptions.__annotations__), n=1)
        hint = (
            f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(JobOptions.__annotations__)}."
        )
        raise InvalidInput("there is no such option.", field=unknown[0], hint=hint)


def _words(command: Iterable[object]) -> tuple[object, ...]:
    return tuple(str(word) if isinstance(word, Path) else word for word in command)


def _texts(given: Sequence[str], field: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise InvalidInput("a list is wanted, not one text.", field=field, hint=f"Write [{given!r}].")
    return tuple(given)


def _mapping(given: Any, field: str) -> dict[Any, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInput(
            "a mapping of names to texts is wanted.", field=field, hint=f'Write {field}={{"NAME": "value"}}.'
        )
    return dict(cast("Mapping[Any, Any]", given))


def _network(given: Any) -> dict[str, object]:
    if given == "open":
        return {"open": True}
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidInput(
            f"{given!r} names no hosts.",
            field="network",
            hint=f'Write ["{given}"], or "open" for an open network.',
        )
    return {"hosts": tuple(cast("Sequence[object]", given))}


def _size(given: Any, field: str) -> int:
    if isinstance(given, str):
        return parse_size(given, field=field)
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise InvalidInput(
            f"{given!r} is not a size.", field=field, hint="Give bytes, or text such as '512M' or '1.5G'."
        )
    return given


def _seconds(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, str):
        return parse_duration(given, field="timeout")
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise InvalidInput(
            f"{given!r} is not a duration.", field="timeout", hint="Give seconds, or text such as '10m'."
        )
    return float(given)


_FIELDS = {
    "argv": "command",
    "arguments": "command",
    "module": "wasm",
    "tasks": "array",
    "timeout_s": "timeout",
    "memory_bytes": "memory",
    "disk_bytes": "disk",
}
_HINTS = {
    "command": 'Give the program and its arguments, such as ["python3", "job.py"].',
    "array": f"Give 1 to {MAX_TASKS:,} tasks.",
    "outputs": "Globs are relative to the task's workspace, such as out/*.png.",
    "inputs": "Name it yourself: inputs={'name in the workspace': 'local path'}.",
    "cpus": "Give a number of cores, such as 1 or 0.5.",
    "timeout": "Give seconds above zero, or text such as '10m'.",
    "env": "Names hold letters, digits and '_', values are texts.",
    "os": "Use one of: linux, macos, windows.",
    "name": "Give one line of at most 200 characters.",
    "labels": "Names and values are single lines of text.",
    "isolation": "Give lines of a node's isolation, such as 'net', and tiers, such as 'bubblewrap'.",
    "network": "Hosts are written as pypi.org, *.huggingface.co or example.org:8443.",
}


def _mistake(error: ValidationError, files: Sequence[LocalFile]) -> InvalidInput:
    first = error.errors(include_url=False, include_context=False)[0]
    parts = [
        part
        for part in first["loc"]
        if part not in ("workload", "command", "function", "wasm", "requirements")
    ]
    name = str(parts[0]) if parts else ("inputs" if files and not first["loc"] else "command")
    field = _FIELDS.get(name, name)
    place = next((part for part in parts[1:] if isinstance(part, int)), None)
    shown = repr(first["input"])
    if name == "inputs" and place is not None:
        shown = repr(files[place].path)
    what = first["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    prefix = f"{shown}: " if len(shown) <= 100 and isinstance(first["input"], str | int | float) else ""
    at = f"[{place}]" if place is not None else ""
    return InvalidInput(f"{prefix}{what}.", field=f"{field}{at}", hint=_HINTS.get(field))
