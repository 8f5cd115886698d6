"""What ``idlectl submit`` finds out about the packages that a command needs."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from idle_accelerator.cli.terminal import line, say
from idle_accelerator.errors import InvalidInput

OWN_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class EnvironmentOptions(TypedDict, total=False):
    """Options of the client."""

    requirements: list[str]
    lock: Path
    python: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    command: list[str]
    options: EnvironmentOptions


def wanted_environment(
    command: list[str],
    inputs: Mapping[str, str],
    *,
    requirements: Path | None,
    lock: Path | None,
    python: str | None,
) -> Wanted:
    """By the flags, else by what the first Python file that the command names says of itself (PEP 723), which is said aloud.

    Raises InvalidInput.
    """
    if requirements is not None and lock is not None:
        raise InvalidInput(
            "does not go with --requirements.", field="--lock", hint="Give one: a lock names everything."
        )
    options: EnvironmentOptions = {}
    if python is not None:
        options["python"] = python
    if requirements is not None:
        from idle_accelerator.sdk.environments import read_requirements  # noqa: PLC0415  # for those who use it

        options["requirements"] = read_requirements(requirements, field="--requirements")
    if lock is not None:
        options["lock"] = lock
    script = next(
        (word for word in command if word.endswith(".py") and Path(word).as_posix() in inputs), None
    )
    if script is None:
        return Wanted(command=command, options=options)
    if requirements is None and lock is None:
        options = {**_needs_of(Path(inputs[Path(script).as_posix()])), **options}
    if script == command[0] and len(options) > 0 and "/" not in script:
        command = ["python", *command]
    return Wanted(command=command, options=options)


def _needs_of(script: Path) -> EnvironmentOptions:
    from idle_accelerator.sdk.environments import script_needs  # noqa: PLC0415  # for those who use it

    needs = script_needs(script, own_python=OWN_PYTHON)
    if needs is None:
        return {}
    listed = ", ".join(map(line, needs.requirements))
    by = f" by Python {needs.python}" if needs.python is not None else ""
    say(f"Runs it{by} with {listed}, as {line(script.name)} says it needs (PEP 723).")
    options: EnvironmentOptions = {"requirements": list(needs.requirements)}
    if needs.python is not None:
        options["python"] = needs.python
    return options
