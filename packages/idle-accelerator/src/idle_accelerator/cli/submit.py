"""``idlectl submit``."""

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idle_accelerator.cli.connect import KeyFlag, SchedulerFlag, open_client, pairs, short
from idle_accelerator.cli.input_files import files_named_by, input_files
from idle_accelerator.cli.terminal import line, say, show
from idle_accelerator.errors import InvalidInput, TooLarge
from idle_accelerator.wire.units import parse_duration, parse_size

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import Client, JobHandle

_FILES = "Files"
_NEEDS = "What a task needs"
_AFTER = "Afterwards"
_SYSTEMS = ("linux", "macos", "windows")


def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="The program and its arguments, after `--`. No shell is between. A program that is a .wasm file runs as WebAssembly.",
            show_default=False,
        ),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FILE[=NAME]",
            help="A file, folder or quoted glob that stands in the workspace, under NAME or its own path; often.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="GLOB",
            help="Files of the workspace to keep, such as 'out/*.png'; may be given often.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    command_files: Annotated[
        bool,
        typer.Option(
            "--command-files/--no-command-files",
            help="Send files that the command names, such as plot.py in `python3 plot.py`.",
            rich_help_panel=_FILES,
        ),
    ] = True,
    wasm: Annotated[
        Path | None,
        typer.Option(
            "--wasm",
            metavar="FILE",
            help="Run this WebAssembly module (wasm32-wasip1); COMMAND is then its arguments.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    array: Annotated[
        int, typer.Option("--array", metavar="N", help="N tasks; each finds its number in IDLE_TASK_INDEX.")
    ] = 1,
    name: Annotated[str, typer.Option("--name", help="What listings call it.", show_default=False)] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME[=VALUE]",
            help="Environment variable; without a value, yours. May be given often.",
            show_default=False,
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option("--retries", metavar="N", help="Times a failed task is tried again.")
    ] = 0,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="DURATION", help="Longest running time of a try.", show_default=False
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="Higher goes first; -1000 to 1000.")
    ] = 0,
    cpus: Annotated[float, typer.Option("--cpus", help="Cores.", rich_help_panel=_NEEDS)] = 1.0,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Such as 1G.", rich_help_panel=_NEEDS)
    ] = "0",
    disk: Annotated[
        str, typer.Option("--disk", metavar="SIZE", help="Such as 10G.", rich_help_panel=_NEEDS)
    ] = "0",
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs.", rich_help_panel=_NEEDS)] = 0,
    system: Annotated[
        str | None,
        typer.Option(
            "--os", metavar="|".join(_SYSTEMS), help="Only there.", rich_help_panel=_NEEDS, show_default=False
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch", help="Only there, such as x86_64.", rich_help_panel=_NEEDS, show_default=False
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME=VALUE",
            help="Only on machines with it; may be given often.",
            rich_help_panel=_NEEDS,
            show_default=False,
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node", help="Only on this one, by name or id.", rich_help_panel=_NEEDS, show_default=False
        ),
    ] = None,
    isolation: Annotated[
        list[str] | None,
        typer.Option(
            "--isolation",
            metavar="LINE|TIER",
            help="Only where this holds, such as net or mem, or in this sandbox, such as bubblewrap; may be given often.",
            rich_help_panel=_NEEDS,
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="HOST[:PORT]",
            help="A host that it reaches, such as pypi.org or '*.example.org'; may be given often.",
            rich_help_panel=_NEEDS,
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="open",
            help="All public hosts, where an owner allows that.",
            rich_help_panel=_NEEDS,
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait, then print the output; 0 only if all succeeded.", rich_help_panel=_AFTER
        ),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="With --wait: where output files go.",
            rich_help_panel=_AFTER,
            show_default=False,
        ),
    ] = None,
    scheduler: SchedulerFlag = None,
    key: KeyFlag = None,
) -> int:
    """Send work to the pool."""
    if to is not None and not wait:
        raise InvalidInput(
            "needs --wait.",
            field="--to",
            hint="Add --wait, or fetch the files later: idlectl result JOB --to DIR",
        )
    words = list(command or ())
    if wasm is None:
        wasm, words = module_named_by(words)
        if not words and wasm is None:
            raise MissingCommand("Missing argument 'COMMAND': give a program, or a module with --wasm.")
    reaches = _reaches(network, allow_host or ())
    inputs = input_files(input_ or ())
    if command_files:
        named = files_named_by(words, taken=frozenset(inputs))
        if named:
            say(
                f"Sends {', '.join(map(line, sorted(named)))} too, as the command names it (not with --no-command-files)."
            )
            inputs |= named
    variables = environment(env or ())
    memory_bytes = parse_size(memory, field="--memory")
    disk_bytes = parse_size(disk, field="--disk")
    timeout_s = None if timeout is None else parse_duration(timeout, field="--timeout")
    labels = pairs(label, flag="--label", example="room=12")
    with open_client(scheduler, key) as client:
        with _errors_by_flag():
            handle = client.submit(
                words,
                wasm=wasm,
                name=name,
                array=array,
                env=variables,
                inputs=inputs,
                outputs=tuple(output or ()),
                cpus=cpus,
                memory=memory_bytes,
                disk=disk_bytes,
                gpus=gpus,
                os=system,
                arch=arch,
                labels=labels,
                node=node,
                isolation=tuple(isolation or ()),
                network=reaches,
                retries=retries,
                timeout=timeout_s,
                priority=priority,
            )
        if wait:
            return _wait(client, handle, to)
    show(handle.id)
    _say_next(handle, outputs=bool(output))
    return 0


def _reaches(network: str | None, hosts: Sequence[str]) -> Literal["open"] | Sequence[str]:
    """Raises InvalidInput."""
    if network is None:
        return tuple(hosts)
    if network != "open":
        raise InvalidInput(
            f"{network!r} is no choice.",
            field="--network",
            hint="Say open, or name hosts: --allow-host pypi.org",
        )
    if hosts:
        raise InvalidInput(
            "hosts are named, and an open network is asked for.",
            field="--network",
            hint="Leave one of them out.",
        )
    return "open"


_HINTS = {
    "network": "For example: --allow-host pypi.org --allow-host '*.huggingface.co' --allow-host example.org:8443",
    "command": "Give the program and its arguments after `--`, such as: -- python3 job.py",
    "array": "Give 1 to 1,000,000 tasks.",
    "inputs": "Name it otherwise: --input FILE=NAME; names stay inside the workspace.",
    "outputs": "Globs are relative to the task's workspace, such as 'out/*.png'.",
    "os": f"Use one of: {', '.join(_SYSTEMS)}.",
    "timeout": "Give a duration above zero, such as 90s or 10m.",
    "env": "Names hold letters, digits and '_'; those that begin with IDLE_ are the agent's.",
    "name": "Give one line of at most 200 characters.",
    "labels": "Write --label name=value, in one line.",
    "isolation": "Give a line of a node's isolation, such as net, or a tier, such as bubblewrap.",
}
_OWN_NAMES = frozenset({"cpus", "memory", "disk", "gpus", "arch", "node", "retries", "priority", "wasm"})
_FLAGS = {
    "command": "COMMAND",
    "inputs": "--input",
    "outputs": "--output",
    "labels": "--label",
    "network": "--allow-host",
}


@contextlib.contextmanager
def _errors_by_flag() -> Generator[None]:
    """Refusals name the flag that the user typed, not the SDK's argument."""
    try:
        yield
    except (InvalidInput, TooLarge) as error:
        name, bracket, rest = (error.field or "").partition("[")
        if name in _FLAGS or name in _HINTS or name in _OWN_NAMES:
            place = f"[{rest}" if bracket and name in ("command", "outputs") else ""
            error.field = _FLAGS.get(name, f"--{name}") + place
            error.hint = _HINTS.get(name) or error.hint or "The flags are explained by: idlectl submit --help"
        raise


class MissingCommand(typer.BadParameter):
    """Neither a program nor a module."""

    def format_message(self) -> str:
        return self.message


def module_named_by(words: list[str]) -> tuple[Path | None, list[str]]:
    """The module that a command begins with, and its arguments; or none, and the command as it is."""
    from idle_accelerator.sdk.modules import is_module  # noqa: PLC0415  # commands import what they need when they run

    if words and words[0].endswith(".wasm") and is_module(Path(words[0])):
        return Path(words[0]), words[1:]
    return None, words


def _say_next(handle: "JobHandle[Any]", *, outputs: bool) -> None:
    name = short(handle.id)
    say(f"Where it stands: idlectl job {name}")
    say(f"Its output:      idlectl logs {name} --follow")
    files = f" --to {Path(f'idle-{name}')}" if outputs else ""
    say(f"Its result:      idlectl result {name} --wait{files}")


def _wait(client: "Client", handle: "JobHandle[Any]", to: Path | None) -> int:
    from idle_accelerator.cli.outcome import show_outcome  # noqa: PLC0415  # commands import what they need when they run
    from idle_accelerator.cli.waiting import left_running, wait_for  # noqa: PLC0415  # as above

    say(f"Submitted {handle.id}.")
    try:
        view = wait_for(handle)
    except KeyboardInterrupt:
        left_running(handle)
        return 130
    return show_outcome(client, handle, view, to=to)


def environment(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``, or ``NAME`` for this process's own value. Raises InvalidInput."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name:
            raise InvalidInput(
                f"{text!r} names no variable.", field="--env", hint="For example: --env SEED=7."
            )
        if not sign:
            inherited = os.environ.get(name)
            if inherited is None:
                raise InvalidInput(
                    f"{name} is not set here.", field="--env", hint=f"Give its value: --env {name}=VALUE."
                )
            value = inherited
        found[name] = value
    return found
